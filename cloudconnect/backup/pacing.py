"""Layer 3: a byte pipe that keeps to a rate in each direction.

For ``--limit-upload`` and ``--limit-download``: the worker thread waits before it hands over, or
after it has taken, more than its share; the flow control of the pipe below does the rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from zope.interface import implementer

from cloudconnect.interfaces import IBytePipe

#: Bytes are handed over in pieces of so much of a second's share, so that the line stays even.
PIECE_SECONDS: Final = 0.05
#: Never smaller pieces than this, in bytes.
PIECE_MIN: Final = 4096


class Pace:
    """When the next bytes are due at a rate.

    :param rate: bytes a second, or 0 for no limit
    :param now: a monotonic clock, in seconds
    """

    def __init__(self, rate: int, now: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._now = now
        self._due = now()

    @property
    def piece(self) -> int:
        """Bytes to move at a time."""
        return max(PIECE_MIN, int(self.rate * PIECE_SECONDS))

    def moved(self, count: int) -> float:
        """Note that ``count`` bytes move now; returns the seconds to wait before the next.

        A time in which nothing moved is not made up for later.
        """
        if not self.rate:
            return 0.0
        now = self._now()
        self._due = max(self._due, now - PIECE_SECONDS) + count / self.rate
        return max(0.0, self._due - now)


@implementer(IBytePipe)
class PacedPipe:
    """``pipe``, at no more than a rate in each direction.

    :param upload: bytes a second to write, or 0 for no limit
    :param download: bytes a second to read, or 0 for no limit
    """

    def __init__(
        self,
        pipe: IBytePipe,
        upload: int,
        download: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pipe = pipe
        self._up = Pace(upload, now)
        self._down = Pace(download, now)
        self._ended = threading.Event()

    def write(self, *parts: bytes | bytearray | memoryview) -> bool:
        """As the pipe below, in pieces."""
        if not self._up.rate:
            full: bool = self._pipe.write(*parts)
            return full
        size, waited = self._up.piece, False
        for part in parts:
            view = memoryview(part)
            for at in range(0, len(view), size):
                piece = view[at : at + size]
                self._pipe.write(piece)
                due = self._up.moved(len(piece))
                waited = waited or due > 0
                self._ended.wait(due)
        return waited

    def read(self) -> bytes:
        """As the pipe below, and then wait for the bytes' share of time."""
        data: bytes = self._pipe.read()
        self._ended.wait(self._down.moved(len(data)))
        return data

    def finish(self) -> None:
        """As the pipe below."""
        self._pipe.finish()

    def abort(self, reason: Exception) -> None:
        """As the pipe below; nobody waits any longer."""
        self._ended.set()
        self._pipe.abort(reason)
