"""Layer 3: a catalogue made again from what lies in the blob store, and from nothing else.

For the day on which the catalogue is lost or believed to be wrong. Packs say themselves what they
hold, and a restore point's record lies beside its references, with what became of it
(:mod:`cloudconnect.repository.states`). No key is needed. Rules and retention policies are not in
the blob store: without them everything is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.content.atrest import RepositoryDescription
from cloudconnect.content.points import PointRecord
from cloudconnect.content.subkeys import verify_any
from cloudconnect.errors import NotFound, PeerError, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.chain_files import rebuild_heads
from cloudconnect.repository.clock import observe
from cloudconnect.repository.freezing import FROZEN
from cloudconnect.repository.heads import head_in
from cloudconnect.repository.leases import COLLECTING, PUBLISHING
from cloudconnect.repository.packs import Entry, read_pack
from cloudconnect.repository.points import insert_point, point_values, record_name
from cloudconnect.repository.references import references_name
from cloudconnect.repository.states import States, point_names
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
    # Not while somebody publishes: what has no row yet is no point, and is taken back if it fails.
    with (
        store.exclusive(COLLECTING),
        store.exclusive(PUBLISHING, wait=True),
        catalogue.writing() as connection,
    ):
        # A lease of before a lost catalogue's end must not look like one of today.
        epoch = max(catalogue.epoch(connection), *store.leases(), 0) + 1
        connection.execute(sa.update(repository_table).values(epoch=epoch))
        for table in (blobs_table, packs_table, orphans_table):
            connection.execute(sa.delete(table))
        for name in store.names("packs/"):
            try:
                contents = read_pack(store, name, description.repository)
            except (StoredDataDamaged, NotFound) as error:
                damaged.append(str(error))
                continue
            except OSError as error:
                damaged.append(f"{name}: the system cannot read it: {error.strerror}")
                continue
            entries = contents.entries
            if contents.problem:
                damaged.append(f"{name}: {contents.problem}")
            if read_data:
                entries = list(unchanged_entries(store, name, entries, damaged))
            catalogue.add_pack(connection, name, store.size(name), entries, now)
            packs += 1
            blobs += len(entries)
        if next(store.names(FROZEN), None) == FROZEN:
            connection.execute(sa.update(repository_table).values(frozen=True))
        states = States(store, catalogue, connection, observe(connection, now), damaged)
        known = set(connection.execute(sa.select(points_table.c.point)).scalars())
        found: list[dict[str, Any]] = []
        for point, names in point_names(store):
            if point.hex() in known:
                states.raise_lock(point, names)
            else:
                found += found_rows(states, point, names, description)
        for values in sorted(found, key=lambda row: row["arrival_time"]):
            insert_point(connection, values)
        rebuild_heads(store, connection, description, damaged)
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
        except OSError as error:
            why = f"the system cannot read it: {error.strerror}"
            damaged.append(f"{entry.id.hex()} in {name}: {why}")
        else:
            yield entry


def found_rows(
    states: States, point: bytes, names: list[str], description: RepositoryDescription
) -> Iterator[dict[str, Any]]:
    """The row of a point that the catalogue does not know; nothing where there is no point."""
    if record_name(point) in names:
        for values in found_point(states.store, record_name(point), description, states.damaged):
            yield states.settled(values, names)
            return
    tombstone = states.tombstone(point, names)
    if tombstone is not None:
        yield tombstone


def found_point(
    store: IBlobStore, name: str, description: RepositoryDescription, damaged: list[str]
) -> Iterator[dict[str, Any]]:
    """The row of a point, as it was published, from the blob of its record; nothing where that
    cannot be used.
    """
    try:
        size = min(store.size(name), 2 * FRAME_BODY_MAX)
        fields = canonical.decode_map(store.read(name, 0, size))
        head_in(fields)
        stored = fields.pop("bytes_stored", 0)  # releases before the bin do not say it
        if set(fields) != _FIELDS or type(stored) is not int or not 0 <= stored < 1 << 63:
            raise StoredDataDamaged(f"{name} has other fields than a point's")
        verify_any(description.public_keys, fields["signature"], fields["record"])
        record = PointRecord.decode(fields["record"])
        count = fields["reference_count"]
        if name != record_name(record.point) or (
            store.size(references_name(record.point)) != count * ID_SIZE
        ):
            raise StoredDataDamaged(f"{name} does not match its references")
    except (PeerError, TypeError, OSError) as error:
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
    yield values | {"bytes_stored": stored}
