"""Layer 3: whether what lies in a restore's target is what a restore point says.

A chunk's name is a keyed hash of its bytes, so bytes at hand can be compared with it. That takes
the whole chunk: one run's piece of a large file, or the pieces of several small files in a row that
share a chunk.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from cloudconnect.backup.metadata import through_proc
from cloudconnect.content.runs import Run

#: Bytes of a hole that are compared with zeros at a time.
_ZEROS: Final = bytes(1 << 16)
_NAMED: Final = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK) | os.O_NOFOLLOW | os.O_CLOEXEC


def open_regular(parent: int, name: bytes, flags: int) -> int | None:
    """Open a regular file; None where there is none, or it may not be opened.

    Links are not followed, and nothing else than a regular file is opened, also not for a moment: a
    device may do something when it is opened, and a FIFO would wait.

    :param parent: descriptor of the folder
    :param flags: how to open it
    """
    try:
        named = os.open(name, _NAMED, dir_fd=parent)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(named).st_mode):
            return None
        return os.open(through_proc(named), flags | os.O_CLOEXEC)
    except OSError:
        return None
    finally:
        os.close(named)


def read_at(descriptor: int, position: int, length: int) -> bytes:
    """So many bytes of a file, or fewer where it ends.

    :raises OSError: it cannot be read
    """
    data = os.pread(descriptor, length, position)
    while 0 < len(data) < length:
        more = os.pread(descriptor, length - len(data), position + len(data))
        if not more:
            break
        data += more
    return data


def is_hole(descriptor: int, position: int, length: int) -> bool:
    """Whether a part of a file, as far as the file goes, has nothing but zeros.

    :raises OSError: it cannot be read
    """
    end = position + length
    while position < end:
        try:
            position = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True  # nothing but a hole from here on
            # Else the file system does not know holes: the bytes tell.
        part = read_at(descriptor, position, min(len(_ZEROS), max(end - position, 0)))
        if part != _ZEROS[: len(part)]:
            return False
        if not part:
            return True
        position += len(part)
    return True


class Piece:
    """Bytes at hand for one run.

    :ivar data: these bytes; empty where there are none
    :ivar good: whether they are what the run means; None while that is not known
    """

    __slots__ = ("data", "good")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.good: bool | None = None


class Matcher:
    """Compares pieces, offered in the order of the runs, with the names of their chunks.

    :param is_chunk: whether some bytes are the chunk of a name
    """

    def __init__(self, is_chunk: Callable[[bytes, bytes], bool]) -> None:
        self._is_chunk = is_chunk
        self._name = b""  # of the chunk that the open pieces belong to
        self._end = 0  # bytes of it that they are
        self._open: list[Piece] = []

    def offer(self, run: Run, data: bytes) -> Piece:
        """``data`` may be what ``run`` means.

        What it comes to is known at once for a whole chunk, and else when a run of another chunk
        was offered, or after :meth:`flush`.

        :param run: not a hole
        """
        assert run.id is not None
        piece = Piece(data)
        whole = len(data) == run.length
        if whole and self._open and (run.id, run.offset) == (self._name, self._end):
            self._open.append(piece)
            self._end += run.length
            return piece
        self.flush()
        if not whole or run.offset:
            piece.good = False
        elif self._is_chunk(run.id, data):
            piece.good = True
        else:
            self._name, self._end, self._open = run.id, run.length, [piece]
        return piece

    def flush(self) -> None:
        """Nothing more belongs to the chunk that was offered last."""
        if self._open:
            pieces, self._open = self._open, []
            joined = b"".join(piece.data for piece in pieces)
            good = len(pieces) > 1 and self._is_chunk(self._name, joined)
            for piece in pieces:
                piece.good = good
