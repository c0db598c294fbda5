"""Layer 3: many blobs read in few reads, and returned in the order in which they were asked for.

Bounded memory: a window of the ids is located, its neighbours in a pack are read together, and its
blobs are handed out before the next window is read.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from typing import Final

from cloudconnect.errors import NoSpace, NotFound, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.packs import PACK_SIZE, Entry
from cloudconnect.wire.frames import StoredBlob

#: Stored bytes that are held at once, save that one blob always is.
WINDOW_BYTES: Final = 16 << 20
#: Blobs of one pack are read together when fewer bytes than this lie between them.
GAP_BYTES: Final = 64 << 10

#: What the system says of a place on a disk that it cannot read.
_UNREADABLE: Final = frozenset((errno.EIO, errno.EBADMSG, errno.EUCLEAN))

_Place = tuple[str, Entry]


def read_blobs(
    store: IBlobStore, catalogue: Catalogue, ids: Sequence[bytes]
) -> Iterator[StoredBlob | StoredDataDamaged]:
    """Each of ``ids`` in order: its blob, or why there is none.

    The stored bytes have their digest. What does not is marked in the catalogue, so that the next
    backup that has it sends it again. What the system cannot read costs only itself, and is not
    marked: it may be read another time. What has moved to another pack since it was looked up (a
    reader without a lease may see that, :mod:`cloudconnect.repository.leases`) is read there.
    """
    places = catalogue.locate(set(ids))
    at = 0
    while at < len(ids):
        end, size = at, 0
        while end < len(ids) and (end == at or size < WINDOW_BYTES):
            place = places.get(ids[end])
            size += place[1].stored_length if place else 0
            end += 1
        yield from _window(store, catalogue, ids[at:end], places)
        at = end


def _window(
    store: IBlobStore, catalogue: Catalogue, ids: Sequence[bytes], places: dict[bytes, _Place]
) -> Iterator[StoredBlob | StoredDataDamaged]:
    wanted = {name: places[name] for name in ids if name in places}
    found = _read(store, wanted)
    damaged = {name for name, got in found.items() if isinstance(got, StoredDataDamaged)}
    if damaged:
        now = catalogue.locate(damaged)
        moved = {name: place for name, place in now.items() if place != wanted[name]}
        found.update(_read(store, moved))
        places.update(moved)
        _mark(catalogue, places, {name for name in damaged if name in now}, found)
    for name in ids:
        yield found.get(name) or StoredDataDamaged(f"{name.hex()} is in no pack of the repository")


def _read(
    store: IBlobStore, wanted: dict[bytes, _Place]
) -> dict[bytes, StoredBlob | StoredDataDamaged]:
    found: dict[bytes, StoredBlob | StoredDataDamaged] = {}
    for pack, entries in _ranges(wanted):
        found.update(_read_range(store, pack, entries))
    return found


def _mark(
    catalogue: Catalogue,
    places: dict[bytes, _Place],
    names: set[bytes],
    found: dict[bytes, StoredBlob | StoredDataDamaged],
) -> None:
    """Note which of ``names`` are damaged, each in the pack in which it was seen to be."""
    if catalogue.read_only:
        return
    packs: dict[str, list[bytes]] = {}
    for name in sorted(names):
        got = found[name]
        if isinstance(got, StoredDataDamaged) and not isinstance(got.__cause__, OSError):
            packs.setdefault(places[name][0], []).append(name)
    with contextlib.suppress(NoSpace):  # a full disk must not end a restore
        for pack, damaged in packs.items():
            catalogue.mark_damaged(damaged, pack)


def _ranges(wanted: dict[bytes, _Place]) -> Iterator[tuple[str, list[Entry]]]:
    """Pack by pack, entries that are close to each other."""
    gathered: list[Entry] = []
    last = ""
    for pack, entry in sorted(wanted.values(), key=lambda place: (place[0], place[1].offset)):
        end = gathered[-1].offset + gathered[-1].stored_length if gathered else 0
        if gathered and (pack != last or entry.offset - end > GAP_BYTES):
            yield last, gathered
            gathered = []
        gathered.append(entry)
        last = pack
    if gathered:
        yield last, gathered


def _read_range(
    store: IBlobStore, pack: str, entries: list[Entry]
) -> Iterator[tuple[bytes, StoredBlob | StoredDataDamaged]]:
    """The blobs of ``entries``, which stand in this order in ``pack``."""
    start = entries[0].offset
    length = entries[-1].offset + entries[-1].stored_length - start
    try:
        if start < 0 or not 0 < length <= 2 * PACK_SIZE:
            raise ValueError("the catalogue says that it stands where nothing can stand")
        octets = memoryview(store.read(pack, start, length))
    except (NotFound, StoredDataDamaged, OSError, TypeError, ValueError) as error:
        # The two last: the row is not what was written, nor its pack's name one that is given.
        if isinstance(error, OSError) and error.errno not in _UNREADABLE:
            raise
        if len(entries) > 1:
            # Only its end may be missing, or one place of it be bad.
            for entry in entries:
                yield from _read_range(store, pack, [entry])
        else:
            yield entries[0].id, _lost(entries[0].id, pack, error)
        return
    for entry in entries:
        data = octets[entry.offset - start :][: entry.stored_length]
        try:
            yield entry.id, entry.blob(data, pack)
        except StoredDataDamaged as error:
            yield entry.id, error


def _lost(name: bytes, pack: str, error: Exception) -> StoredDataDamaged:
    why = str(error)
    if isinstance(error, OSError):
        why = f"the system cannot read it in {pack}: {error.strerror}"
    lost = StoredDataDamaged(f"{name.hex()} is lost: {why}")
    lost.__cause__ = error
    return lost
