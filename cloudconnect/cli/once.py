"""Layer 6: what a command can do once only, over all sessions of its job.

A dialogue that begins anew after an interruption shows nothing a second time, and cannot read
standard input a second time.
"""

from __future__ import annotations

from typing import BinaryIO


class Shown:
    """Counts what a dialogue shows, in an order that is the same in each session."""

    def __init__(self) -> None:
        self._shown = 0
        self._here = 0

    def begin(self) -> None:
        """A session begins: its dialogue comes to everything once more."""
        self._here = 0

    def new(self, count: int = 1) -> int:
        """How many of the next ``count`` things, or bytes, no session has shown yet: its last ones.

        They count as shown from now on.
        """
        self._here += count
        fresh = max(0, min(count, self._here - self._shown))
        self._shown = max(self._shown, self._here)
        return fresh


class ReadOnce:
    """A stream of which it is known whether anything was read.

    :ivar touched: it was
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.touched = False

    def read(self, size: int = -1) -> bytes:
        """As the stream's own."""
        self.touched = True
        return self._stream.read(size)
