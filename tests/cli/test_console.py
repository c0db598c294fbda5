"""Tests of :mod:`cloudconnect.cli.console`."""

from __future__ import annotations

import io
import json
import re
import sys
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudconnect.cli import console as console_module
from cloudconnect.cli.console import (
    PLAIN_STATUS_SECONDS,
    STATUS_SECONDS,
    Console,
    counted,
    fitting,
    json_path,
    local_time,
    printable,
    report_error,
    shown_path,
    size,
)
from cloudconnect.errors import ExitCode, WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from tests.cli.commands import CommandCase

EVENT = SessionEvent(time=1.0, name="a_step", session="ab", text="a step", fields={"n": 1})
WARNING = SecurityWarning(
    time=1.0,
    kind=WarningKind.TAMPERED,
    role="target-mover\x1b]0;x\x07",
    hop="a>b\r\n",
    text="evil\x1b[2J\nfake line",
)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class TextTests(CommandCase):
    """How things are shown."""

    def test_sizes(self) -> None:
        """Sizes are in decimal units, of one decimal from a thousand on."""
        for count, text in (
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_234_567, "1.2 MB"),
            (5e9, "5.0 GB"),
            (7e12, "7.0 TB"),
            (7e15, "7000.0 TB"),
        ):
            self.assertEqual(text, size(count))

    def test_time(self) -> None:
        """A moment is shown with its zone."""
        self.assertRegex(local_time(0), r"^19(69|70)-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}$")

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=40))
    def test_paths(self, path: bytes) -> None:
        """Whatever a file is called, a person sees printable characters, and a program gets the
        name back."""
        self.assertTrue(shown_path(path).isprintable())
        self.assertEqual(path, json_path(path).encode("utf-8", "surrogateescape"))
        self.assertEqual(json_path(path), json.loads(json.dumps(json_path(path))))

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=40))
    def test_printable(self, text: str) -> None:
        """Text of others cannot move a terminal's cursor, and keeps its length."""
        shown = printable(text)
        self.assertEqual(len(text), len(shown))
        self.assertTrue(shown.isprintable())

    def test_counted(self) -> None:
        """One of a thing is not several."""
        shown = [counted(number, "file") for number in (0, 1, 2)]
        self.assertEqual(["0 files", "1 file", "2 files"], shown)

    def test_fitting(self) -> None:
        """What is cut fits, also where a letter takes two columns; what fits is not cut."""
        self.assertEqual("abc", fitting("abc", 3))
        self.assertEqual("ab", fitting("abc", 2))
        self.assertEqual("\u65e5", fitting("\u65e5\u672c", 3))
        self.assertEqual("", fitting("\u65e5", 1))

    def test_words_stay(self) -> None:
        """What is printable stays as it is."""
        self.assertEqual("Größe 5 \u65e5\u672c", printable("Größe 5 \u65e5\u672c"))


class OutputTests(CommandCase):
    """For people, for programs, or nothing."""

    def said(self, **options: bool) -> tuple[str, str]:
        """What each kind of output says of everything."""
        self.fresh_output()
        console = Console(**options)
        console.say("a sentence")
        console.note("a note")
        console.happened(EVENT)
        console.warned(WARNING)
        console.record("thing", {"a": 1}, "the thing")
        return self.out.text(), self.err.text()

    def test_people(self) -> None:
        """A person reads sentences, answers on standard output and the rest on standard error."""
        out, err = self.said()
        self.assertEqual(["a sentence", "the thing"], out.splitlines())
        self.assertEqual("a note", err.splitlines()[0])
        self.assertIn("SECURITY WARNING tampered", err)

    def test_verbose(self) -> None:
        """With every step where that was asked."""
        self.assertIn("  a step", self.said(verbose=True)[0].splitlines())

    def test_quiet(self) -> None:
        """With --quiet only the answer; but never without a security warning."""
        out, err = self.said(quiet=True)
        self.assertEqual(["the thing"], out.splitlines())
        self.assertIn("SECURITY WARNING", err)

    def test_programs(self) -> None:
        """A program gets one object a line on standard output, and nothing else anywhere."""
        out, err = self.said(as_json=True)
        step, warning, thing = map(json.loads, out.splitlines())
        self.assertEqual("", err)
        self.assertEqual(
            ("event", "a_step", {"n": 1}), (step["message_type"], step["name"], step["fields"])
        )
        self.assertEqual(("event", "security_warning"), (warning["message_type"], warning["name"]))
        self.assertEqual(WARNING.text, warning["text"])
        self.assertEqual({"message_type": "thing", "a": 1}, thing)

    def test_quiet_programs(self) -> None:
        """A program that wants no more than the answer gets no steps, but every warning."""
        lines = [json.loads(line) for line in self.said(as_json=True, quiet=True)[0].splitlines()]
        self.assertEqual(["event", "thing"], [line["message_type"] for line in lines])
        self.assertEqual("security_warning", lines[0]["name"])

    def test_terminal_is_safe(self) -> None:
        """Nothing that the provider says of a warning can move the cursor or fake a line."""
        _, err = self.said()
        self.assertIsNone(CONTROL.search(err.replace("\n", "")))
        self.assertEqual(2, len(err.splitlines()))

    def test_errors(self) -> None:
        """The reason for an end is one line on standard error, for either reader."""
        report_error("bad\x1b[2J\nline", "not_found", ExitCode.NOT_FOUND, False)
        self.assertEqual("cloudconnect: bad [2J line\n", self.err.text())
        self.fresh_output()
        report_error("bad\nline", "not_found", ExitCode.NOT_FOUND, True)
        fields = json.loads(self.err.text())
        self.assertEqual(
            {
                "message_type": "exit_error",
                "code": 10,
                "reason": "not_found",
                "message": "bad\nline",
            },
            fields,
        )
        self.assertEqual("", self.out.text())


class _Writes(io.StringIO):
    """Remembers what each write was."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


class LineTests(CommandCase):
    """Lines of JSON while several threads have something to say."""

    def test_whole(self) -> None:
        """A line goes out with its end at once, so that nothing of another thread comes between."""
        out, err = _Writes(), _Writes()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        console = Console(as_json=True)
        console.happened(EVENT)
        console.warned(WARNING)
        console.record("row", {"n": 1}, "")
        report_error("why", "failed", ExitCode.FAILED, True)
        self.assertEqual((3, 1), (len(out.writes), len(err.writes)))
        for text in (*out.writes, *err.writes):
            self.assertEqual("\n", text[-1])
            self.assertIsInstance(json.loads(text), dict)


class ProgressTests(CommandCase):
    """How far it is."""

    terminal = True

    def setUp(self) -> None:
        super().setUp()
        self.now = 1000.0
        self.patch(console_module.time, "monotonic", lambda: self.now)

    def shown(self, console: Console, seconds: float, **parts: Any) -> tuple[str, str]:
        self.fresh_output()
        self.now += seconds
        values = {"files": 3, "done": 500, "moved": 200, "path": b"/a\x1b[2Jb", **parts}
        console.progress(**values)
        return self.out.text(), self.err.text()

    def test_bar(self) -> None:
        """On a terminal a bar is drawn over itself, with a safe file name, and removed before
        anything else is said."""
        console = Console()
        out, err = self.shown(console, 1, total=1000)
        self.assertEqual("", out)
        self.assertIn("[##########..........]", err)
        self.assertIn("50%", err)
        self.assertTrue(err.startswith("\r\x1b[K"))
        self.assertIsNone(CONTROL.search(err.removeprefix("\r\x1b[K")))
        self.fresh_output()
        console.say("done")
        self.assertEqual("\r\x1b[K", self.err.text())

    def test_narrow(self) -> None:
        """The bar stays in one row, where it is drawn over: a longer one would fill the screen."""
        for columns in (10, 80):
            self.patch(console_module, "_columns", lambda columns=columns: columns)
            _, err = self.shown(Console(), 1, total=1000, path=b"/long" * 50)
            self.assertEqual(columns - 1, len(err.removeprefix("\r\x1b[K")))

    def test_not_too_often(self) -> None:
        """Not more often than eyes need it."""
        console = Console()
        self.assertEqual("", self.shown(console, 0.1)[1])
        self.assertNotEqual("", self.shown(console, 0.2)[1])
        self.assertEqual("", self.shown(console, 0.1)[1])

    def test_programs(self) -> None:
        """A program gets a line now and then, with the numbers."""
        console = Console(as_json=True)
        self.assertEqual(("", ""), self.shown(console, STATUS_SECONDS / 2))
        out, err = self.shown(console, STATUS_SECONDS)
        fields = json.loads(out)
        self.assertEqual(
            ("status", 500, 200, ""),
            (fields["message_type"], fields["bytes_done"], fields["bytes_moved"], err),
        )

    def test_quiet(self) -> None:
        """Nothing with --quiet."""
        self.assertEqual(("", ""), self.shown(Console(quiet=True), 100))


class PlainProgressTests(ProgressTests):
    """The same where there is no terminal."""

    terminal = False

    def test_bar(self) -> None:
        """A log gets a plain line, seldom."""
        console = Console()
        self.assertEqual("", self.shown(console, PLAIN_STATUS_SECONDS / 2)[1])
        _, err = self.shown(console, PLAIN_STATUS_SECONDS, total=1000)
        self.assertIn("50%", err)
        self.assertIsNone(CONTROL.search(err.replace("\n", "")))

    def test_narrow(self) -> None:
        """A log has no width."""
        _, err = self.shown(Console(), PLAIN_STATUS_SECONDS, files=123456, total=1000)
        self.assertTrue(err.endswith("on the line\n"), err)

    def test_not_too_often(self) -> None:
        """And no line before that."""
        self.assertEqual("", self.shown(Console(), PLAIN_STATUS_SECONDS - 1)[1])
