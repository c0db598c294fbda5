"""Layer 2, transports: the pipes through which bytes pass from socket to socket inside the kernel.

A large pipe makes a large difference: CPU seconds for each 10^9 bytes are 0.17 with 1 MiB, 0.25
with 256 KiB and 1.9 with 8 KiB. But an unprivileged user gets no more than 64 MiB of pipe buffers
(``pipe-user-pages-soft``), and a pipe opened beyond that has 8 KiB. So pipes are few, in sizes that
fall with their number, are lent only while bytes are in them, and what the kernel really granted is
read back.

Source: pipe(7) and fcntl(2) of Linux.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Final

import attrs

#: How many pipes there may be of which size in bytes: 62 MiB in all, under the usual 64 MiB.
TIERS: Final = ((1 << 20, 36), (256 << 10, 64), (64 << 10, 160))
#: A pipe that is smaller than this costs more than copying does.
SIZE_MIN: Final = 64 << 10
#: After the kernel has granted too little, another pipe is asked for only after so many requests.
REFUSED_REQUESTS: Final = 256


@attrs.define(eq=False)
class Pipe:
    """A pipe that does not block.

    :ivar reader: descriptor to read from
    :ivar writer: descriptor to write to
    :ivar size: bytes that it takes
    """

    reader: int
    writer: int
    size: int

    def close(self) -> None:
        """Close both ends; what is in it is gone."""
        for descriptor in (self.reader, self.writer):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def open_pipe(size: int) -> Pipe | None:
    """A pipe of ``size`` bytes, or of what the kernel grants of it.

    :return: None where that is less than :data:`SIZE_MIN`, or no descriptor is left
    """
    try:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    granted = 0
    with contextlib.suppress(OSError):  # more than this user may have now
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size)
    with contextlib.suppress(OSError):
        granted = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    pipe = Pipe(reader, writer, granted)
    if granted >= SIZE_MIN:
        return pipe
    pipe.close()
    return None


class PipePool:
    """Lends pipes.

    :param tiers: how many there may be of which size, largest first
    """

    def __init__(self, tiers: tuple[tuple[int, int], ...] = TIERS) -> None:
        self._tiers = tiers
        self._free: list[Pipe] = []
        self._opened = 0
        self._wait = 0

    @property
    def opened(self) -> int:
        """How many pipes there are, lent or not."""
        return self._opened

    def take(self) -> Pipe | None:
        """An empty pipe, the largest that is free; None where there is none to be had now."""
        if self._free:
            return self._free.pop()
        size = self._next_size()
        if not size:
            return None
        if self._wait:
            self._wait -= 1
            return None
        pipe = open_pipe(size)
        if pipe is None:
            self._wait = REFUSED_REQUESTS
        else:
            self._opened += 1
        return pipe

    def _next_size(self) -> int:
        before = self._opened
        for size, count in self._tiers:
            if before < count:
                return size
            before -= count
        return 0

    def give(self, pipe: Pipe) -> None:
        """Take an empty ``pipe`` back."""
        at = len(self._free)
        while at and self._free[at - 1].size > pipe.size:
            at -= 1
        self._free.insert(at, pipe)

    def drop(self, pipe: Pipe) -> None:
        """Take ``pipe`` back, with bytes in it that nobody wants any more: it is closed."""
        pipe.close()
        self._opened -= 1

    def close(self) -> None:
        """Close what is not lent."""
        free, self._free = self._free, []
        for pipe in free:
            self.drop(pipe)
