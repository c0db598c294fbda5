"""Layer 3: a catalogue made again from what lies in the blob store, and from nothing else.

For the day on which the catalogue is lost or believed to be wrong. Packs say themselves what they
hold, and a restore point's record lies beside its references. No key is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.content.atrest import RepositoryDescription, verify
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import NotFound, PeerError, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.leases import COLLECTING
from cloudconnect.repository.packs import Entry, read_entries
from cloudconnect.repository.points import WITHDRAWN, insert_point, point_values, withdrawn
from cloudconnect.repository.references import references_name
from cloudconnect.repository.tables import (
    blobs_table,
    orphans_table,
    packs_table,
    points_table,
    repository_table,
)
from cloudconnect.settings import FRAME_BODY_MAX
from cloudconnect.wire import canonical
from cloudconnect.wire.frames import ID_SIZE

_FIELDS: Final = {"record", "signature", "reference_count", "reference_digest", "arrival_time"}
_POINTS: Final = "points/"
#: Length of the name of a point's record, and of nothing else below ``points/``.
_RECORD_NAME_SIZE: Final = len(_POINTS) + 32


@attrs.frozen
class RebuildResult:
    """What was found.

    :ivar packs: packs that were indexed
    :ivar blobs: blobs in them
    :ivar points: restore points that the catalogue had lost
    :ivar damaged: one sentence for each pack, blob or point that could not be used
    """

    packs: int
    blobs: int
    points: int
    damaged: tuple[str, ...]


def rebuild_index(
    store: IBlobStore,
    catalogue: Catalogue,
    description: RepositoryDescription,
    now: float,
    read_data: bool = True,
) -> RebuildResult:
    """Make the index again, and the rows of those points that have none.

    One transaction: sessions that write wait for its end, and fail if it takes long.

    :param now: seconds since 1970
    :param read_data: compare every blob's stored bytes with their digest, and leave out those that
        were changed; otherwise only the packs' directories are read
    :raises Busy: a collection is running
    """
    damaged: list[str] = []
    packs = blobs = 0
    with store.exclusive(COLLECTING), catalogue.writing() as connection:
        # A lease of before a lost catalogue's end must not look like one of today.
        epoch = max(catalogue.epoch(connection), *store.leases(), 0) + 1
        connection.execute(sa.update(repository_table).values(epoch=epoch))
        for table in (blobs_table, packs_table, orphans_table):
            connection.execute(sa.delete(table))
        for name in store.names("packs/"):
            try:
                entries = read_entries(store, name, description.repository)
            except (StoredDataDamaged, NotFound) as error:
                damaged.append(str(error))
                continue
            if read_data:
                entries = list(unchanged_entries(store, name, entries, damaged))
            catalogue.add_pack(connection, name, store.size(name), entries, now)
            packs += 1
            blobs += len(entries)
        known = set(connection.execute(sa.select(points_table.c.point)).scalars())
        found = [
            values
            for name in store.names(_POINTS)
            if len(name) == _RECORD_NAME_SIZE and name[len(_POINTS) :] not in known
            for values in found_point(store, name, description, damaged)
        ]
        for values in sorted(found, key=lambda row: row["arrival_time"]):
            insert_point(connection, values)
        catalogue.count_removal(connection)
    return RebuildResult(packs, blobs, len(found), tuple(damaged))


def unchanged_entries(
    store: IBlobStore, name: str, entries: list[Entry], damaged: list[str]
) -> Iterator[Entry]:
    """Those of ``entries`` whose stored bytes have their digest; a sentence for each other."""
    for entry in entries:
        try:
            entry.blob(store.read(name, entry.offset, entry.stored_length), name)
        except StoredDataDamaged as error:
            damaged.append(str(error))
        else:
            yield entry


def found_point(
    store: IBlobStore, name: str, description: RepositoryDescription, damaged: list[str]
) -> Iterator[dict[str, Any]]:
    """The row of a point, from the blob of its record; nothing where that cannot be used.

    :param damaged: gets a sentence that says why
    """
    try:
        size = min(store.size(name), 2 * FRAME_BODY_MAX)
        fields = canonical.decode_map(store.read(name, 0, size))
        if set(fields) != _FIELDS:
            raise StoredDataDamaged(f"{name} has other fields than a point's")
        verify(description.public_key, fields["signature"], fields["record"])
        record = PointRecord.decode(fields["record"])
        count = fields["reference_count"]
        if name != f"{_POINTS}{record.point.hex()}" or (
            store.size(references_name(record.point)) != count * ID_SIZE
        ):
            raise StoredDataDamaged(f"{name} does not match its references")
    except (PeerError, TypeError) as error:
        damaged.append(f"{name}: {error}")
        return
    values = point_values(
        record,
        fields["record"],
        fields["signature"],
        count,
        fields["reference_digest"],
        float(fields["arrival_time"]),
    )
    if withdrawn(store, record.point):
        values["state"] = WITHDRAWN
    yield values
