"""What the README and the pages promise about names, numbers and commands is so."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import ExitCode, WarningKind

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.rst", ROOT / "CONTRIBUTING.rst", *sorted(ROOT.glob("docs/**/*.rst"))]


def command_lines(text: str) -> Iterator[str]:
    """Every ``cloudconnect`` command line in the literal blocks of a page."""
    for line in text.replace("\\\n", " ").split("\n"):
        found = re.match(r" +(?:.* \| |.*\* \* \*  .*=\S+ )?(cloudconnect [^|#>]*)", line)
        if found:
            yield found[1].strip()


class PageTests(SynchronousTestCase):
    """The pages against the code."""

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
