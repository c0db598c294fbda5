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
* A reference list without a record was never acknowledged, and is of no use: it is removed. So is
  what a removed point left behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from typing import Final

import attrs
import sqlalchemy as sa

from cloudconnect.content.atrest import RepositoryDescription
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import NotFound, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.leases import Leases
from cloudconnect.repository.marking import GONE, REMOVED, Marker
from cloudconnect.repository.packs import read_entries
from cloudconnect.repository.points import PUBLISHING, Points, insert_point, record_name
from cloudconnect.repository.rebuild import found_point, unchanged_entries
from cloudconnect.repository.references import read_references, references_name
from cloudconnect.repository.tables import orphans_table, packs_table, points_table

_PACKS: Final = "packs/"
_POINTS: Final = "points/"
_ID_DIGITS: Final = 32
_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
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
            except (NotFound, StoredDataDamaged, OSError) as error:
                self.notes.append(f"a pack that is not in the catalogue cannot be used: {error}")
                continue
            with self.catalogue.writing() as connection:
                self.catalogue.add_pack(connection, name, size, sound, now)
                connection.execute(sa.delete(orphans_table).where(o.name == name))
            self.packs += 1

    def settle_points(self, marker: Marker) -> None:
        """Give points without a row one, mark what they need where that is not all there.

        :raises StoredDataDamaged: a record without a row cannot be used, so that it cannot be told
            what it needs
        """
        unknown = []
        for digits, names in self._groups():
            point = bytes.fromhex(digits)
            if self._state(digits) is None:
                unknown.append(point)
            else:  # it was removed
                both = (record_name(point), references_name(point))
                self._remove([name for name in both if name in names])
        for point in unknown:
            with self.store.exclusive(PUBLISHING, wait=True):
                if self._state(point.hex()) is None:
                    self._settle(point, marker)

    def _settle(self, point: bytes, marker: Marker) -> None:
        name = record_name(point)
        if not self._stored(name):
            self._remove([references_name(point)])
            return
        problems: list[str] = []
        values = next(found_point(self.store, name, self.description, problems), None)
        if values is None:
            raise StoredDataDamaged(
                "nothing is collected, as there is a restore point that is not in the catalogue "
                f"and cannot be used: {problems[0]}"
            )
        record = PointRecord.decode(values["record"])

        def references() -> Iterator[list[bytes]]:
            count, digest = values["reference_count"], values["reference_digest"]
            return read_references(self.store, record.point, count, digest)

        gone = values["state"] in GONE
        missing = None if gone else self.points.missing(record, references())
        if missing is None:
            with self.catalogue.writing() as connection:
                insert_point(connection, values)
            self.found += 1
            return
        marker.mark_manifest(record, live=True)
        marker.mark_references(references(), live=True)
        self.notes.append(
            f"{name} is not in the catalogue, and needs {missing.hex()}, which is not stored"
        )

    def _remove(self, names: Iterable[str]) -> None:
        for name in filter(self._stored, names):
            with self.catalogue.reading() as connection:
                self.catalogue.refuse_frozen(connection)
            self.store.remove(name)
            self.removed += 1

    def _unknown_packs(self) -> Iterator[str]:
        p = packs_table.c
        for batch in _batches(self.store.names(_PACKS)):
            with self.catalogue.reading() as connection:
                query = sa.select(p.name).where(p.name.in_(batch))
                known = set(connection.execute(query).scalars())
            yield from (name for name in batch if name not in known)

    def _groups(self) -> Iterator[tuple[str, set[str]]]:
        """Names of blobs below ``points/`` by the point that they belong to: those to look at."""
        t = points_table.c
        each = groupby(self.store.names(_POINTS), lambda name: name[len(_POINTS) :][:_ID_DIGITS])
        groups = ((digits, set(names)) for digits, names in each if _ID.fullmatch(digits))
        while batch := dict(islice(groups, _BATCH)):
            self.check()
            with self.catalogue.reading() as connection:
                query = sa.select(t.point).where(t.point.in_(batch), t.state != REMOVED)
                here = set(connection.execute(query).scalars())
            yield from ((digits, names) for digits, names in batch.items() if digits not in here)

    def _stored(self, name: str) -> bool:
        try:
            return self.store.size(name) >= 0
        except NotFound:
            return False

    def _state(self, digits: str) -> str | None:
        """The state of a point's row, if it has one."""
        t = points_table.c
        with self.catalogue.reading() as connection:
            return connection.execute(sa.select(t.state).where(t.point == digits)).scalar()


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    each = iter(names)
    while batch := list(islice(each, _BATCH)):
        yield batch
