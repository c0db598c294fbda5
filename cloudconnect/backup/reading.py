"""Layer 3: looking into a restore point: listing what is in it, and reading single files."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self

from cloudconnect.backup.dialogue import Remembers
from cloudconnect.backup.fetching import Fetcher, Slot
from cloudconnect.backup.manifests import entries_of
from cloudconnect.content.atrest import RepositoryKeys
from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.points import PointRecord
from cloudconnect.content.runs import Run
from cloudconnect.errors import LocalError, NotFound, StoredDataDamaged, UsageError
from cloudconnect.wire.channel import FrameChannel

#: Chunks in one GET; three times as many are asked for ahead.
CHUNKS: Final = 32
#: Zeros that are given out at a time where a file has a hole, in bytes.
ZEROS: Final = bytes(1 << 20)


class PointReader:
    """Reads one restore point over one dialogue; used by one thread.

    A context manager: it ends the dialogue properly, or aborts it after an error.

    :param channel: to the repository
    :param keys: of the repository
    :param description: of the repository
    :param purpose: ``read``, ``restore`` or ``check``, as the session was started
    :param heads: what is known of the repository's past
    """

    def __init__(
        self,
        channel: FrameChannel,
        keys: RepositoryKeys,
        description: RepositoryDescription,
        purpose: str = "read",
        heads: Remembers | None = None,
    ) -> None:
        self._fetcher = Fetcher(channel, keys, description, heads)
        self._purpose = purpose
        self._record: PointRecord | None = None

    def open(self, point: bytes) -> PointRecord:
        """Open the restore point; called first, and once.

        :param point: its 16 bytes
        :raises NotFound: there is none
        :raises StoredDataDamaged: its signature does not hold
        :raises CloudConnectError: the dialogue has failed
        """
        self._record = self._fetcher.open(point, self._purpose)
        return self._record

    def entries(self) -> Iterator[Entry]:
        """Everything in it, in walk order; may be called again.

        :raises StoredDataDamaged: (from the iterator) its manifest is damaged
        """
        if self._record is None:
            raise LocalError("no restore point has been opened")
        return entries_of(self._fetcher, self._record)

    def find(self, path: bytes) -> Entry:
        """The entry of ``path``; of the first name, where it is a hard link.

        :raises NotFound: there is none
        :raises StoredDataDamaged: it is a hard link to a hard link, which no backup makes
        """
        return self._first_name(self._named(path))

    def read(self, entry: Entry) -> Iterator[bytes]:
        """The content of a file, in pieces of any size.

        :raises UsageError: it is no file
        :raises StoredDataDamaged: (from the iterator) a chunk is damaged or missing
        """
        if entry.type is not EntryType.FILE:
            shown = entry.path.decode("utf-8", "backslashreplace")
            raise UsageError(f"{shown} is not a file, and only files have content")
        first = self._first_name(entry)
        if first.type is not EntryType.FILE:
            raise StoredDataDamaged("a hard link of a file does not lead to a file")
        return self._content(first.runs)

    def contents(self, entries: Iterable[Entry]) -> Iterator[Entry | bytes]:
        """Each entry, and behind a file that is no further name its content, in pieces of any size.

        Chunks are asked for ahead over the ends of files, so that many small ones do not each wait
        for a way there and back.

        :param entries: of this point
        :raises StoredDataDamaged: (from the iterator) a chunk is damaged or missing
        """
        ahead: deque[Entry | tuple[Run, Slot | None]] = deque()
        for entry in entries:
            ahead.append(entry)
            for run in entry.runs:
                ahead.append(self._wanted(run))
                while len(ahead) > 3 * CHUNKS:
                    yield from self._next(ahead.popleft())
            while len(ahead) > 3 * CHUNKS:
                yield from self._next(ahead.popleft())
        while ahead:
            yield from self._next(ahead.popleft())

    def _wanted(self, run: Run) -> tuple[Run, Slot | None]:
        slot = None if run.id is None else self._fetcher.want(run.id)
        if self._fetcher.unasked >= CHUNKS:
            self._fetcher.ask()
        return run, slot

    def _next(self, item: Entry | tuple[Run, Slot | None]) -> Iterator[Entry | bytes]:
        if isinstance(item, Entry):
            yield item
        else:
            yield from self._piece(*item)

    def _named(self, path: bytes) -> Entry:
        for entry in self.entries():
            if entry.path == path:
                return entry
        raise NotFound(f"{path.decode('utf-8', 'backslashreplace')} is not in this restore point")

    def _first_name(self, entry: Entry) -> Entry:
        """The entry that has the content."""
        if entry.link is None:
            return entry
        first = self._named(entry.link)
        if first.link is not None:
            raise StoredDataDamaged("a hard link leads to another one")
        return first

    def _content(self, runs: Iterable[Run]) -> Iterator[bytes]:
        ahead: deque[tuple[Run, Slot | None]] = deque()
        for run in runs:
            ahead.append(self._wanted(run))
            while len(ahead) > 3 * CHUNKS:
                yield from self._piece(*ahead.popleft())
        while ahead:
            yield from self._piece(*ahead.popleft())

    def _piece(self, run: Run, slot: Slot | None) -> Iterator[bytes]:
        if slot is None:
            for at in range(0, run.length, len(ZEROS)):
                yield ZEROS[: run.length - at]
        else:
            yield piece_of(self._fetcher.wait(slot), run)

    def close(self) -> None:
        """End the dialogue properly.

        :raises CloudConnectError: it cannot be ended so
        """
        self._fetcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self._fetcher.abort(error)


def piece_of(plain: bytes, run: Run) -> bytes:
    """The part of a chunk that ``run`` means.

    :raises StoredDataDamaged: the chunk is shorter than that
    """
    piece = plain[run.offset : run.offset + run.length]
    if len(piece) != run.length:
        raise StoredDataDamaged("a file needs more of a chunk than there is")
    return piece
