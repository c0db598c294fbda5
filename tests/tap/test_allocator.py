"""Memory that commands free, and take again."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import cloudconnect
from cloudconnect.tap import allocator

_ROUNDS = 30
#: Chunks come and go; then it says how many pages the system has given it meanwhile.
_PROGRAM = f"""
import resource
from cloudconnect.tap.allocator import keep_freed_memory
keep_freed_memory()
chunks = [bytes(100_000) for _ in range(200)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({_ROUNDS}):
    del chunks
    chunks = [bytes(100_000) for _ in range(200)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


class KeepTests(SynchronousTestCase):
    """Keeping it."""

    def test_kept(self) -> None:
        """What was freed is used again, and not asked for again."""
        if not hasattr(ctypes.CDLL(None), "mallopt"):
            self.skipTest("this C library decides by itself")
        ran = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            cwd=Path(cloudconnect.__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        pages = _ROUNDS * 200 * 100_000 // 4096
        self.assertLess(int(ran.stdout), pages // 10)

    def test_other_libraries(self) -> None:
        """Where the C library knows of no such thing nothing happens."""

        class Library:
            """One without it."""

        self.patch(ctypes, "CDLL", lambda name: Library())
        allocator.keep_freed_memory()
        allocator.few_arenas()
