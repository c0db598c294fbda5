"""Layer 1: what a file's content is made of, also where that is millions of pieces.

A file of a terabyte has some sixteen million runs, of which each takes about 200 bytes as an
object. A :class:`RunList` packs them into 40 bytes each, and keeps those in a file that it is given
once they are many.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Final, NamedTuple, overload

from cloudconnect.settings import CHUNK_MAX
from cloudconnect.wire.frames import ID_SIZE

#: Packed bytes that a list holds in memory; what is more goes to its file.
IN_MEMORY: Final = 256 << 10

# Id, offset, length; for a hole: its length in the first 8 bytes, and a mark for the offset.
_CHUNK: Final = struct.Struct(">32sII")
_HOLE: Final = struct.Struct(">Q24xII")
_MARK: Final = 0xFFFFFFFF
_BLOCK: Final = 1024
_I63: Final = 1 << 63


class Run(NamedTuple):
    """A piece of a file's content; the file is its runs one behind the other.

    :ivar id: the chunk that holds it, 32 bytes, or None for a hole (zeros that take no space)
    :ivar offset: where in the chunk's plain bytes it begins; 0 for a hole
    :ivar length: its bytes, at least 1
    """

    id: bytes | None
    offset: int
    length: int


class RunList(Sequence[Run]):
    """Runs in little memory: appended one after the other, then read.

    Used by one thread at a time.

    :param spill: makes the file that holds them once they are many; it is read and written without
        a buffer of its own, and closed with the list; None: they stay in memory
    :ivar total: bytes of all of them
    """

    def __init__(self, spill: Callable[[], IO[bytes]] | None = None) -> None:
        self._spill = spill
        self._file: IO[bytes] | None = None
        self._written = 0  # bytes in the file
        self._packed = bytearray()  # what follows them
        self._count = 0
        self.total = 0

    def append(self, run: Run) -> None:
        """One more.

        :raises ValueError: it is out of bounds
        :raises OSError: the file cannot be made or written
        """
        name, length = run.id, run.length
        if not check_run(run):
            raise ValueError("a run is out of bounds")
        if name is None:
            self._packed += _HOLE.pack(length, _MARK, 0)
        else:
            self._packed += _CHUNK.pack(name, run.offset, length)
        self._count += 1
        self.total += length
        if len(self._packed) >= IN_MEMORY and self._spill is not None:
            self._write(self._spill)

    def extend(self, runs: Iterable[Run]) -> None:
        """More of them; raises as :meth:`append`."""
        for run in runs:
            self.append(run)

    def close(self) -> None:
        """Drop them, and the file; nothing else may be called then."""
        self._packed, self._count = bytearray(), 0
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Run, ...]: ...
    def __getitem__(self, index: int | slice) -> Run | tuple[Run, ...]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._count)
            if step != 1:
                return tuple(self[at] for at in range(start, stop, step))
            return tuple(self._unpacked(start, stop))
        at = index + self._count if index < 0 else index
        if not 0 <= at < self._count:
            raise IndexError("there is no such run")
        return next(self._unpacked(at, at + 1))

    def __iter__(self) -> Iterator[Run]:
        for start in range(0, self._count, _BLOCK):
            yield from self._unpacked(start, min(start + _BLOCK, self._count))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(
            one == another for one, another in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self._count} runs>"

    def _write(self, spill: Callable[[], IO[bytes]]) -> None:
        if self._file is None:
            self._file = spill()
        self._file.seek(self._written)
        view = memoryview(self._packed)
        while len(view):
            view = view[self._file.write(view) :]
        self._written += len(self._packed)
        self._packed = bytearray()

    def _unpacked(self, start: int, stop: int) -> Iterator[Run]:
        for name, offset, length in _CHUNK.iter_unpack(
            self._read(start * _CHUNK.size, stop * _CHUNK.size)
        ):
            if offset == _MARK:
                yield Run(None, 0, int.from_bytes(name[:8], "big"))
            else:
                yield Run(name, offset, length)

    def _read(self, start: int, end: int) -> bytes:
        """Packed bytes; those in the file come first."""
        octets = b""
        if self._file is not None and start < self._written:
            self._file.seek(start)
            want = min(end, self._written) - start
            while len(octets) < want:
                more = self._file.read(want - len(octets))
                if not more:
                    raise OSError("a temporary file has become shorter")
                octets += more
            start = self._written
        if start < end:
            octets += self._packed[start - self._written : end - self._written]
        return octets


def check_run(run: Run) -> bool:
    """Whether its numbers are within bounds."""
    name, offset, length = run
    if length < 1:
        return False
    if name is None:
        return offset == 0 and length < _I63
    return len(name) == ID_SIZE and 0 <= offset <= CHUNK_MAX - length


def ids_of(runs: Iterable[Run]) -> Iterator[bytes]:
    """The chunks that ``runs`` need; of neighbours that need the same, one."""
    last = None
    for run in runs:
        if run.id is not None and run.id != last:
            yield run.id
            last = run.id
