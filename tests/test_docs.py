"""What the README and the pages say of commands, options and numbers is so."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli.backup import backup
from cloudconnect.cli.main import cloudconnect
from cloudconnect.errors import ExitCode, WarningKind

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.rst", ROOT / "CONTRIBUTING.rst", *sorted(ROOT.glob("docs/**/*.rst"))]


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of each command of ours in the literal blocks and the inline literals of a page."""
    text = text.replace("\\\n", " ")
    found = re.findall(r"``((?:cloudconnect|twistd?) [^`]+)``", text)
    found += re.findall(
        r"^ +(?:[^`\n]*[ |])?((?:cloudconnect|twistd?) [^`\n]+)$", text, re.MULTILINE
    )
    for line in found:
        yield shlex.split(re.split(r" [|>#] ", line)[0].rstrip(".:"))


def unknown_options(words: list[str], known: set[str]) -> list[str]:
    """Options among ``words`` that are not ``known``; what follows ``--`` is another's business."""
    ours = words[: words.index("--")] if "--" in words else words
    return [word for word in ours if word.startswith("-") and word.partition("=")[0] not in known]


def objections(words: list[str]) -> list[str]:
    """What in this command line our commands would not know."""
    line = " ".join(words)
    name, *rest = words
    if name != "cloudconnect":
        makers = {maker.tapname: maker for maker in getPlugins(IServiceMaker)}
        maker = makers.get(next((word for word in rest if not word.startswith("-")), ""))
        if maker is None:
            return [] if rest == ["--help"] else [f"{line}: no such service"]
        options: usage.Options = maker.options()
        known = {f"--{option.rstrip('=')}" for option in options.longOpt}
        return [f"{line}: {word}" for word in unknown_options(rest, known)]
    command: click.Command = cloudconnect
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(click.Context(command), rest[0])
        if found is None:
            return [f"{line}: no command {rest[0]}"]
        command, rest = found, rest[1:]
    known = {"--help", "-h"}
    parameters = list(command.params)
    if command.context_settings.get("ignore_unknown_options"):  # a job has those of backup
        parameters += backup.params
    for parameter in parameters:
        known.update(parameter.opts, parameter.secondary_opts)
    return [f"{line}: {word}" for word in unknown_options(rest, known)]


class PageTests(SynchronousTestCase):
    """The pages against the code."""

    def test_commands(self) -> None:
        """Every command and option that a page shows exists."""
        found = [words for page in PAGES for words in command_lines(page.read_text("utf-8"))]
        self.assertIn(["cloudconnect", "provider", "serve"], found)
        self.assertEqual([], [sentence for words in found for sentence in objections(words)])

    def test_exit_codes(self) -> None:
        """The page of exit codes names every exit status, in order, and no other."""
        text = (ROOT / "docs/howto/exit-codes.rst").read_text("utf-8")
        codes = [int(code) for code in re.findall(r"^   \* - (\d+)$", text, re.MULTILINE)]
        self.assertEqual([code.value for code in ExitCode], codes)

    def test_warnings(self) -> None:
        """The protocol names every kind of security warning."""
        text = (ROOT / "docs/protocol.rst").read_text("utf-8")
        self.assertEqual([], [kind.value for kind in WarningKind if kind.value not in text])

    def test_ascii(self) -> None:
        """Pages are plain ASCII, readable in any terminal."""
        self.assertEqual([], [page.name for page in PAGES if not page.read_text("utf-8").isascii()])

    def test_example(self) -> None:
        """The program on the page about transports runs, and ends cleanly."""
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, ROOT / "docs/howto/echo.py", f"{folder}/socket"],
                capture_output=True,
                text=True,
                timeout=60,
            )
        self.assertEqual("b'hello, records' ConnectionDone\n", done.stdout, done.stderr)


class CheckerTests(SynchronousTestCase):
    """The check of commands finds what it is for."""

    def test_found(self) -> None:
        """Commands are found in literal blocks, behind a pipe or a variable, and inline."""
        text = (
            "Type ``cloudconnect points``.\n\n    make it | cloudconnect backup --stdin x  # so\n"
            "    A=1 cloudconnect ls latest > file\n    twist cloudconnect-provider -d x\n"
        )
        lines = [" ".join(words) for words in command_lines(text)]
        expected = [
            "cloudconnect points",
            "cloudconnect backup --stdin x",
            "cloudconnect ls latest",
        ]
        self.assertEqual([*expected, "twist cloudconnect-provider -d x"], lines)

    def test_objections(self) -> None:
        """A command, a service or an option that does not exist is found."""
        for line in (
            "cloudconnect fly",
            "cloudconnect provider fly",
            "cloudconnect backup --fly=1 x",
            "twist cloudconnect-plane",
            "twist cloudconnect-gateway --fly",
        ):
            self.assertEqual(1, len(objections(line.split())), line)
        for line in (
            "cloudconnect provider --help",
            "cloudconnect backup --stdin-from-command x -- run --fly",
            "twist --help",
            "twist cloudconnect-gateway --directory x",
        ):
            self.assertEqual([], objections(line.split()), line)
