"""The programs on the how-to pages do what the pages say."""

# mypy: allow-untyped-calls
# (trial's methods have no types)

from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.examples import HOWTO, load

load("sealed")
_example: Any = load("test_sealed")


# The page's own test cases, under names by which each of trial's processes finds them.


class SealedOverMemoryTests(_example.SealedOverMemoryTests):  # type: ignore[misc]
    """The example over the in-memory transport."""


class SealedOverTCPTests(_example.SealedOverTCPTests):  # type: ignore[misc]
    """The example over TCP."""


class SealedOverUNIXTests(_example.SealedOverUNIXTests):  # type: ignore[misc]
    """The example over a UNIX socket."""


class CarriersTests(SynchronousTestCase):
    """``carriers.py``: one echo in three places."""

    def test_output(self) -> None:
        """It prints what its page shows, word for word."""
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, HOWTO / "carriers.py", folder],
                capture_output=True,
                text=True,
                timeout=60,
            )
        page = (HOWTO / "carriers.rst").read_text("utf-8")
        shown = page.partition("It prints::\n\n")[2].partition("\n\n")[0]
        lines = [line.strip() for line in shown.splitlines()]
        self.assertEqual(3, len(lines))
        self.assertEqual(lines, done.stdout.splitlines(), done.stderr)
