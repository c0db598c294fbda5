"""Tests of :mod:`cloudconnect.cli.backup`: its options, without a provider."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from cloudconnect.cli import backup as backup_module
from cloudconnect.cli.backup import _for_the_provider, _level, _output, _start
from cloudconnect.errors import SourceCommandFailed, UsageError
from tests.cli.commands import CommandCase, Done


class OptionTests(CommandCase):
    """What a backup is asked for."""

    def setUp(self) -> None:
        super().setUp()
        self.top = self.home / "source"
        self.top.mkdir()
        for name, size in (("small.txt", 10), ("large.bin", 5000), ("note.log", 20)):
            (self.top / name).write_bytes(b"x" * size)
        (self.top / "cache").mkdir()
        (self.top / "cache" / "CACHEDIR.TAG").write_bytes(
            b"Signature: 8a477f597d28d172789f06886806bc55"
        )
        (self.top / "cache" / "cached").write_bytes(b"x" * 7)

    def dry(self, *words: str) -> Done:
        return self.call("backup", "--dry-run", "--json", *words)

    def counted(self, *words: str) -> tuple[int, int]:
        """Files and bytes of a dry run."""
        done = self.dry(*words)
        self.assertEqual(0, done.status, done.err)
        summary = done.lines()[-1]
        self.assertEqual("summary", summary["message_type"])
        return summary["files"], summary["bytes_source"]

    def test_dry_run(self) -> None:
        """A dry run counts, and needs neither provider nor keys."""
        self.assertEqual((5, 5037 + 43), self.counted(str(self.top)))

    def test_excludes(self) -> None:
        """What each option leaves out; the mark of a left-out folder itself stays."""
        patterns = self.file(b"# a comment\n\n*.log\n*.bin  \n", "patterns")
        top = str(self.top)
        for options, files in (
            (("--exclude", "*.log"), 4),
            (("--exclude", "*.log", "--exclude", "*.bin"), 3),
            (("--exclude-file", patterns), 3),
            (("--exclude-larger-than", "1kB"), 4),
            (("--exclude-caches",), 4),
            (("--exclude-if-present", "cached"), 4),
        ):
            found = self.counted(top, *options)[0]
            self.assertEqual(files, found, options)

    def test_files_from(self) -> None:
        """Paths may come from a file, and from standard input."""
        names = "\n".join(str(self.top / name) for name in ("small.txt", "note.log"))
        listed = self.file(names.encode(), "list")
        self.assertEqual((2, 30), self.counted("--files-from", listed))
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(names.encode())))
        self.assertEqual((2, 30), self.counted("--files-from", "-"))
        self.assertEqual((3, 5030), self.counted("--files-from", listed, f"{self.top}/large.bin"))

    def test_unreadable(self) -> None:
        """A source that is not there is counted, and the status tells; the rest is done."""
        done = self.dry(str(self.top / "small.txt"), str(self.top / "missing"))
        summary = done.lines()[-1]
        self.assertEqual((3, 1, 1), (done.status, summary["files"], summary["unreadable"]))

    def test_wrong_use(self) -> None:
        """Options that do not fit together, or mean nothing, are refused before anything is
        done."""
        top = str(self.top)
        for words in (
            (),
            ("--stdin", "name", top),
            ("--stdin-from-command", "name"),
            ("--stdin-from-command", "name", "--stdin", "other", "true"),
            (top, "--compression", "20"),
            (top, "--compression", "fast"),
            (top, "--exclude-larger-than", "big"),
            (top, "--limit-upload", "fast"),
            (top, "--limit-download", "0"),
            (top, "--wan", "maybe"),
            (top, "--exclude-file", "/nonexistent"),
            ("--files-from", "/nonexistent"),
        ):
            done = self.dry(*words)
            self.assertEqual((2, ""), (done.status, done.out), words)

    def test_labels(self) -> None:
        """What no restore point can be called is refused before the provider is asked."""
        top = str(self.top)
        for words in (("--job", ""), ("--job", "a" * 256), ("--job", "a\nb"), ("--host", "a\x1b")):
            done = self.call("backup", top, *words)
            self.assertEqual(2, done.status, words)
            self.assertIn(f"{words[0]} has 1 to 255 printable", done.err)

    def test_nothing_known(self) -> None:
        """Without a provider a backup says what to do."""
        done = self.call("backup", str(self.top))
        self.assertEqual(2, done.status)
        self.assertIn("connect", done.err)

    def test_people(self) -> None:
        """A person reads how much it would be; with --quiet nothing."""
        done = self.call("backup", "-n", str(self.top))
        self.assertIn("Would back up 5 files", done.out)
        self.assertEqual("", self.call("backup", "-n", "-q", str(self.top)).out)

    def test_list(self) -> None:
        """With --verbose a dry run shows what the patterns leave, before they are believed."""
        top = str(self.top)
        lines = self.dry("-v", top, "--exclude", "*.log", "--exclude", "cache").lines()
        paths = [line["path"] for line in lines if line["message_type"] == "entry"]
        self.assertEqual([top, f"{top}/large.bin", f"{top}/small.txt"], paths)
        sizes = [line["size"] for line in lines if line["message_type"] == "entry"]
        self.assertEqual([0, 5000, 10], sizes)
        shown = self.call("backup", "-n", "-v", top).out.splitlines()
        self.assertTrue(any(line.endswith(f"5000 {top}/large.bin") for line in shown), shown)
        self.assertNotIn("large.bin", self.call("backup", "-n", top).out)

    def test_one(self) -> None:
        """One file is not several, and of a dry run nothing is stored."""
        done = self.call("backup", "-n", str(self.top / "small.txt"), str(self.top / "missing"))
        self.assertIn("Would back up 1 file, 10 B;", done.out)
        self.assertIn("1 source could not be read", done.out)
        self.assertNotIn("is stored", done.out)

    def test_levels(self) -> None:
        """Compression is auto, which follows the line, or a level of zstd."""
        self.assertEqual((None, 0, 19), (_level("auto"), _level("0"), _level("19")))
        for wrong in ("", "-1", "20", "x", "1.5"):
            self.assertRaises(UsageError, _level, wrong)


class CommandTests(CommandCase):
    """The output of a command as what is backed up."""

    def source(self, *words: str) -> Any:
        process = _start(words)
        self.addCleanup(process.wait)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        return _output(process, "name", words)

    def test_output(self) -> None:
        """What it prints is the content; a good end is one."""
        source = self.source("printf", "content")
        self.assertEqual((b"name", b"content"), (source.name, source.stream.read()))
        source.check()

    def test_failure(self) -> None:
        """A command that fails is told by its name and status, and makes no point."""
        source = self.source("sh", "-c", "printf half; exit 3")
        self.assertEqual(b"half", source.stream.read())
        error = self.assertRaises(SourceCommandFailed, source.check)
        self.assertIn("sh failed with status 3", str(error))

    def test_no_such_command(self) -> None:
        """One that is not there is named."""
        error = self.assertRaises(UsageError, _start, ("/nonexistent/command",))
        self.assertIn("/nonexistent/command", str(error))


class SummaryTests(CommandCase):
    """What the provider is told of a backup."""

    def test_no_names(self) -> None:
        """Counts, and not a name of a file."""
        path = os.fsencode(self.file(b"content", "secret-name"))
        results: list[Any] = []
        real = backup_module._report
        self.patch(
            backup_module, "_report", lambda *parts: (results.append(parts[1]), real(*parts))
        )
        self.assertEqual(0, self.call("backup", "-n", os.fsdecode(path)).status)
        told = _for_the_provider(results[0])
        self.assertTrue(all(type(value) is int for value in told.values()))
        self.assertEqual(1, told["files"])
