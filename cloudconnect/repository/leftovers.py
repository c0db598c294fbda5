"""Layer 3: what lies in the blob store and stands in no row.

Somebody was killed between two steps; or the catalogue is older than the store, because somebody
put a copy of it back. The two look alike, and in the second case what has no row was acknowledged.
So nothing that may be a restore point, and no pack, is removed here: it gets a row, and from
then on the same rules hold for it as for everything else. What nobody needs of it goes with the
next collections.

* A *pack* without a row may be one that a session is about to index. It is noted with the number
  of the next fence, and indexed when every session that was open then has ended.
* A *point* is published under a lock, from before its first blob until its row: whoever has that
  lock and finds a record without a row finds one whose publisher is gone. Where all that it
  needs is stored it becomes a point; otherwise what it needs is kept.
* A reference list without a record was never acknowledged, and is of no use: it is removed.

What a removed point left behind, :mod:`~cloudconnect.repository.bin` removes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.content.atrest import RepositoryDescription
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import HeadMoved, NotFound, Refused, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.clock import observe
from cloudconnect.repository.heads import check_point, head_in, insert_heads, read_chain
from cloudconnect.repository.leases import PUBLISHING, Leases
from cloudconnect.repository.marking import GONE, Marker, read_point
from cloudconnect.repository.packs import read_entries
from cloudconnect.repository.points import Points, insert_point, record_name
from cloudconnect.repository.rebuild import found_rows, unchanged_entries
from cloudconnect.repository.references import read_joined, read_references, references_name
from cloudconnect.repository.states import States, point_names
from cloudconnect.repository.tables import orphans_table, packs_table, points_table

_PACKS: Final = "packs/"
_BATCH: Final = 500


@attrs.define
class Leftovers:
    """Finds what has no row.

    :ivar check: is called now and then, and raises to stop
    :ivar packs: packs that were indexed
    :ivar found: restore points that got a row
    :ivar removed: blobs that were removed
    :ivar notes: one sentence for each thing that stays as it is, because it cannot be used
    """

    store: IBlobStore
    catalogue: Catalogue
    description: RepositoryDescription
    points: Points
    leases: Leases
    check: Callable[[], None]
    packs: int = 0
    found: int = 0
    removed: int = 0
    notes: list[str] = attrs.field(factory=list)

    def note_packs(self) -> None:
        """Note which packs have no row; a fence follows, and then :meth:`index_packs`."""
        unknown = set(self._unknown_packs())
        o = orphans_table.c
        with self.catalogue.reading() as connection:
            noted = set(connection.execute(sa.select(o.name)).scalars())
        if noted == unknown:
            return
        with self.catalogue.writing() as connection:
            for batch in _batches(sorted(noted - unknown)):
                connection.execute(sa.delete(orphans_table).where(o.name.in_(batch)))
            epoch = self.catalogue.epoch(connection) + 1
            new = [{"name": name, "epoch": epoch} for name in sorted(unknown - noted)]
            if new:
                connection.execute(sa.insert(orphans_table), new)

    def index_packs(self, now: float) -> None:
        """Give those a row that no session will index any more.

        :param now: seconds since 1970
        """
        o = orphans_table.c
        query = sa.select(o.name).where(o.epoch <= self.leases.oldest()).order_by(o.name)
        with self.catalogue.reading() as connection:
            names = list(connection.execute(query).scalars())
        for name in names:
            self.check()
            try:
                size = self.store.size(name)
                entries = read_entries(self.store, name, self.description.repository)
                sound = list(unchanged_entries(self.store, name, entries, self.notes))
                if not sound:
                    raise StoredDataDamaged(f"{name} holds nothing that is whole")
            except (NotFound, StoredDataDamaged, OSError) as error:
                self.notes.append(f"a pack that is not in the catalogue cannot be used: {error}")
                continue
            with self.catalogue.writing() as connection:
                self.catalogue.add_pack(connection, name, size, sound, now)
                connection.execute(sa.delete(orphans_table).where(o.name == name))
            self.packs += 1

    def settle_points(self, marker: Marker, now: float) -> None:
        """Give points without a row one, mark what they need where that is not all there.

        :param now: seconds since 1970
        :raises StoredDataDamaged: a record without a row cannot be used, so that it cannot be told
            what it needs
        """
        unknown = [point for point, _ in self._unknown_points()]
        if not unknown:
            return
        with self.store.exclusive(PUBLISHING, wait=True):
            found: list[dict[str, Any]] = []
            with self.catalogue.writing() as connection:
                moment = observe(connection, now)
                states = States(self.store, self.catalogue, connection, moment, self.notes)
                for point, names in list(self._unknown_points()):
                    found += self._found(states, point, names)
            for values in sorted(found, key=lambda values: float(values["arrival_time"])):
                self._settle(values, marker)

    def _found(self, states: States, point: bytes, names: list[str]) -> list[dict[str, Any]]:
        known = len(self.notes)
        rows = list(found_rows(states, point, names, self.description))
        if record_name(point) in names and not rows:
            raise StoredDataDamaged(
                "nothing is collected, as there is a restore point that is not in the catalogue "
                f"and cannot be used: {self.notes[known]}"
            )
        if not rows and references_name(point) in names:
            self.catalogue.refuse_frozen(states.connection)
            self.store.remove(references_name(point))
            self.removed += 1
        return rows

    def _settle(self, values: dict[str, Any], marker: Marker) -> None:
        missing = None
        if values["state"] not in GONE:
            record = PointRecord.decode(values["record"])
            point, count = record.point, values["reference_count"]
            digest = values["reference_digest"]
            missing = self.points.missing(record, read_references(self.store, point, count, digest))
            if missing is not None:
                marker.mark_manifest(record, live=True)
                marker.mark_references(read_joined(self.store, point, count, digest), live=True)
                self.notes.append(
                    f"the restore point {point.hex()} is not in the catalogue, and needs "
                    f"{missing.hex()}, which is not stored"
                )
                return
        with self.catalogue.writing() as connection:
            self._insert(connection, values)
        self.found += 1

    def _insert(self, connection: sa.Connection, values: dict[str, Any]) -> None:
        """Insert a row, and the point's head where the chain goes on with it."""
        point = bytes.fromhex(values["point"])
        insert_point(connection, values)
        if values["state"] in GONE:
            return
        with contextlib.suppress(HeadMoved, Refused):
            head = head_in(read_point(self.store, record_name(point)))
            if head is not None:
                chain = read_chain(connection, self.description)
                check_point(chain, head, point, values["record"])
                insert_heads(connection, [head])

    def _unknown_packs(self) -> Iterator[str]:
        p = packs_table.c
        for batch in _batches(self.store.names(_PACKS)):
            with self.catalogue.reading() as connection:
                query = sa.select(p.name).where(p.name.in_(batch))
                known = set(connection.execute(query).scalars())
            yield from (name for name in batch if name not in known)

    def _unknown_points(self) -> Iterator[tuple[bytes, list[str]]]:
        """Points that have no row, and the names of their blobs."""
        t = points_table.c
        each = point_names(self.store)
        while batch := dict(islice(each, _BATCH)):
            self.check()
            with self.catalogue.reading() as connection:
                query = sa.select(t.point).where(t.point.in_([point.hex() for point in batch]))
                here = set(connection.execute(query).scalars())
            yield from ((point, names) for point, names in batch.items() if point.hex() not in here)


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    each = iter(names)
    while batch := list(islice(each, _BATCH)):
        yield batch
