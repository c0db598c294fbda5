"""Layer 3: reading the manifests of restore points, chunk by chunk, some of them asked for ahead.

Who reads many restore points may leave out what they have in common: the manifest of one is mostly
made of the chunks of the one before (:class:`ReadParts`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from cloudconnect.backup.drafts import FLAG_ON_THE_WAY
from cloudconnect.backup.fetching import Fetcher, Slot
from cloudconnect.backup.temporary import temporary_file
from cloudconnect.content.entries import Entry
from cloudconnect.content.manifest import EntryDecoder
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import StoredDataDamaged

#: Chunks in one GET; twice as many are asked for ahead.
CHUNKS: Final = 8
#: Chunks that are remembered: 4 GiB of manifests, some 25 million files.
PARTS_MAX: Final = 1 << 16
#: Of an entry that goes on in the next chunk, so many bytes are remembered, and not of more.
PENDING_MAX: Final = 1 << 12
#: ... and so many of all of these: a usual chunk has two hundred of them.
PENDING_IN_ALL: Final = 32 << 20


class ManifestGap(StoredDataDamaged):
    """A part of what a restore point contains cannot be read."""


class _Part(NamedTuple):
    """A chunk that was read.

    :ivar before: bytes of an entry that it goes on with
    :ivar after: bytes of an entry that goes on behind it
    :ivar length: of the chunk
    :ivar entries: that ended in it
    :ivar counted: those of them that a record counts
    """

    before: bytes
    after: bytes
    length: int
    entries: int
    counted: int


class ReadParts:
    """Chunks of manifests whose entries were given out, so that they need not be read again.

    What a chunk says depends on nothing but itself and the bytes that the entry before has left
    over. Where both are the same, so are the entries.

    :ivar left_out: entries that were not given out because of that
    """

    def __init__(self) -> None:
        self._parts: dict[bytes, _Part] = {}
        self._room = PENDING_IN_ALL
        self.left_out = 0

    def __contains__(self, name: object) -> bool:
        """Whether a chunk was read."""
        return name in self._parts

    def find(self, name: bytes, before: bytes | None) -> _Part | None:
        """What came of a chunk, if it was read behind the same bytes."""
        part = self._parts.get(name)
        return part if part is not None and part.before == before else None

    def add(self, name: bytes, part: _Part) -> None:
        """A chunk was read, and its entries were given out."""
        before, after = len(part.before), len(part.after)
        if max(before, after) > PENDING_MAX or before + after > self._room:
            return
        if len(self._parts) < PARTS_MAX:
            self._parts[name] = part
            self._room -= before + after


def entries_of(
    fetcher: Fetcher, record: PointRecord, parts: ReadParts | None = None
) -> Iterator[Entry]:
    """The entries of a restore point, in walk order.

    :param parts: what was read already is left out, and what is read now is added
    :raises ManifestGap: (from the iterator) a chunk of its manifest is damaged or missing; the
        entries that came are good
    :raises StoredDataDamaged: (from the iterator) it is not a manifest as it should be
    """
    decoder, length, count = EntryDecoder(temporary_file), 0, 0
    for name, slot in _slots(fetcher, record.manifest, parts):
        before = decoder.pending
        part = None if parts is None else parts.find(name, before)
        if part is not None and parts is not None:
            decoder.go_on(part.after)
            parts.left_out += part.entries
            length, count = length + part.length, count + part.counted
            continue
        plain = _wait(fetcher, slot or fetcher.get((name,), "manifest")[0])
        entries = counted = 0
        for entry in decoder.feed(plain):
            entries += 1
            counted += not entry.flags & FLAG_ON_THE_WAY
            yield entry
        length, count, after = length + len(plain), count + counted, decoder.pending
        if parts is not None and before is not None and after is not None:
            parts.add(name, _Part(before, after, len(plain), entries, counted))
    decoder.finish()
    if length != record.manifest_length:
        raise StoredDataDamaged("a restore point's manifest does not have its length")
    if count != record.entries:
        raise StoredDataDamaged(
            f"a restore point's manifest has {count} files, folders and so on, its record "
            f"counts {record.entries}"
        )


def damaged_chunks(fetcher: Fetcher, record: PointRecord) -> int:
    """How many chunks of a restore point's manifest are damaged or missing.

    All of them are fetched, so the repository notices, too, and the next backup that has them
    sends them again.
    """
    count = 0
    for name, slot in _slots(fetcher, record.manifest, None):
        assert slot is not None, f"{name.hex()} was asked for"
        try:
            _wait(fetcher, slot)
        except ManifestGap:
            count += 1
    return count


def _wait(fetcher: Fetcher, slot: Slot) -> bytes:
    """A chunk's content.

    :raises ManifestGap: it is damaged or missing, and others may still be got
    """
    try:
        return fetcher.wait(slot)
    except StoredDataDamaged as error:
        if fetcher.failure is not None:
            raise
        raise ManifestGap(str(error)) from error


def _slots(
    fetcher: Fetcher, ids: Sequence[bytes], parts: ReadParts | None
) -> Iterator[tuple[bytes, Slot | None]]:
    """The chunks of a manifest and their slots, some of them asked for ahead; None for those that
    were read already, which are not asked for."""
    ahead: deque[tuple[bytes, Slot | None]] = deque()
    for at in range(0, len(ids), CHUNKS):
        names = ids[at : at + CHUNKS]
        asked = [name for name in names if parts is None or name not in parts]
        slots = iter(fetcher.get(asked, "manifest") if asked else ())
        ahead.extend((name, next(slots) if name in asked else None) for name in names)
        while len(ahead) > CHUNKS:
            yield ahead.popleft()
    yield from ahead
