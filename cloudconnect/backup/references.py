"""Layer 3: the list of all chunks that a restore point needs, in little memory.

The provider counts, keeps and checks chunks by this list without any key. Ids come many times and
in any order; they go out once each and sorted, which is also the order in which an index is quick.
"""

from __future__ import annotations

import hashlib
import heapq
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, Final

#: Bytes of an id.
ID_SIZE: Final = 32
#: So many ids are held in memory (about 25 MB); further ones go to a temporary file.
IN_MEMORY: Final = 1 << 18
#: Bytes that are read at a time from each sorted run in that file.
_BLOCK: Final = 1 << 17
#: Ids that are taken before it is looked whether there are too many.
_PART: Final = 1 << 13


class ReferenceList:
    """Collects ids, then gives them out.

    :param in_memory: how many distinct ids are held in memory
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._ids: set[bytes] = set()
        self._file: IO[bytes] | None = None
        self._runs: list[tuple[int, int]] = []  # (start, end) in the file
        self.count = 0
        self._digest = hashlib.sha256()

    def add(self, ids: Iterable[bytes]) -> None:
        """More ids, of 32 bytes each."""
        further = iter(ids)
        while part := tuple(islice(further, _PART)):
            self._ids.update(part)
            if len(self._ids) >= self._in_memory:
                self._spill()

    def parts(self, size: int) -> Iterator[bytes]:
        """The distinct ids in order, joined, at most ``size`` of them at a time.

        :attr:`count` and :attr:`digest` are complete once this is exhausted; called once.
        """
        part: list[bytes] = []
        for name in self._distinct():
            part.append(name)
            if len(part) == size:
                yield self._counted(part)
                part = []
        if part:
            yield self._counted(part)

    @property
    def digest(self) -> bytes:
        """SHA-256 over all ids that :meth:`parts` has given out."""
        return self._digest.digest()

    def close(self) -> None:
        """Drop the temporary file."""
        if self._file is not None:
            self._file.close()

    def _counted(self, part: list[bytes]) -> bytes:
        joined = b"".join(part)
        self.count += len(part)
        self._digest.update(joined)
        return joined

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="cloudconnect-")  # noqa: SIM115 - close()
        start = self._file.seek(0, 2)
        self._file.write(b"".join(sorted(self._ids)))
        self._runs.append((start, self._file.tell()))
        self._ids.clear()

    def _distinct(self) -> Iterator[bytes]:
        if not self._runs:
            yield from sorted(self._ids)
            return
        last = b""
        runs = [self._run(start, end) for start, end in self._runs]
        for name in heapq.merge(*runs, sorted(self._ids)):
            if name != last:
                yield name
                last = name

    def _run(self, start: int, end: int) -> Iterator[bytes]:
        assert self._file is not None
        while start < end:
            self._file.seek(start)
            block = self._file.read(min(_BLOCK, end - start))
            start += len(block)
            for at in range(0, len(block), ID_SIZE):
                yield block[at : at + ID_SIZE]
