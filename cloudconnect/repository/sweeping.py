"""Layer 3: blobs that nobody needs: condemned first, and deleted once nobody counts on them.

A condemned blob is still there and can be read, but nobody is told of it any more: the next session
that has it sends it again, which rescues it, and so does a point that is published with it. The row
of a condemned blob is deleted when every session has ended that may have been told of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.leases import PUBLISHING, Leases
from cloudconnect.repository.marking import IN_BIN, LIVE, UNNEEDED, Marker
from cloudconnect.repository.packs import ENTRY_SIZE
from cloudconnect.repository.tables import blobs_table, packs_table, points_table

#: Rows that are looked at, or changed by one transaction: far below a second, so that sessions
#: which store at the same time hardly wait.
BATCH: Final = 8192

_b = blobs_table.c
_page = (
    sa.select(_b.id, _b.pack, _b.stored_length, _b.condemned)
    .where(_b.id > sa.bindparam("after"))
    .order_by(_b.id)
    .limit(BATCH)
)
_condemn = (
    sa.update(blobs_table)
    .where(_b.id == sa.bindparam("name"), _b.pack == sa.bindparam("where"), _b.condemned == 0)
    .values(condemned=sa.bindparam("fence"))
)
_rescue = sa.update(blobs_table).where(_b.id == sa.bindparam("name")).values(condemned=0)
_delete = sa.delete(blobs_table).where(
    _b.id == sa.bindparam("name"), _b.condemned > 0, _b.condemned <= sa.bindparam("oldest")
)
_deletable = sa.delete(blobs_table).where(
    _b.id.in_(
        sa.select(_b.id)
        # As the index says it, or it is not used.
        .where(_b.condemned > sa.literal_column("0"), _b.condemned <= sa.bindparam("oldest"))
        .limit(BATCH)
    )
)


@attrs.define
class Sweeper:
    """One walk over all blobs.

    :ivar check: is called now and then, and raises to stop
    :ivar live: bytes of blobs that published points need
    :ivar bin: bytes of blobs that only points in the bin need
    """

    store: IBlobStore
    catalogue: Catalogue
    leases: Leases
    marker: Marker
    check: Callable[[], None]
    progress: Callable[[int], None]
    blobs: int = 0
    live: int = 0
    bin: int = 0
    condemned: int = 0
    rescued: int = 0
    deleted: int = 0
    _released: list[int] = attrs.field(factory=list)  # packs of refused jobs, when the walk began

    def walk(self, before: int, until: float) -> None:
        """Condemn what is not needed, and delete what has been condemned long enough.

        :param before: only blobs of packs that were indexed behind an earlier fence than this ...
        :param until: ... and arrived at this time at the latest; or of packs of refused jobs
        """
        old = self._old_packs(before, until)
        oldest = self.leases.oldest()
        to_condemn: list[tuple[bytes, int]] = []
        to_delete: list[bytes] = []
        after = b""
        while True:
            self.check()
            with self.catalogue.reading() as connection:
                page = connection.execute(_page, {"after": after}).all()
            if not page:
                break
            after = page[-1].id
            states = self.marker.marks.look_up(b"".join([row.id for row in page]))
            needed: list[bytes] = []
            sizes = [0, 0, 0]
            for (name, pack, length, condemned), state in zip(page, states, strict=True):
                sizes[state] += length + ENTRY_SIZE
                if state != UNNEEDED:
                    if condemned:
                        needed.append(name)
                elif condemned:
                    if condemned <= oldest:
                        to_delete.append(name)
                elif pack < len(old) and old[pack]:
                    to_condemn.append((name, pack))
            self.bin += sizes[IN_BIN]
            self.live += sizes[LIVE]
            self.blobs += len(page)
            self._keep(needed)
            if len(to_delete) >= BATCH:
                self._drop(to_delete, oldest)
                to_delete = []
            if len(to_condemn) >= BATCH:
                self._condemn(to_condemn)
                to_condemn = []
            self.progress(self.blobs)
        self._drop(to_delete, oldest)
        self._condemn(to_condemn)

    def sweep(self) -> None:
        """Delete what nobody counts on any more of all that was condemned before the last fence."""
        oldest = self.leases.oldest()
        gone = -1
        while gone:
            self.check()
            with self.catalogue.writing() as connection:
                self.catalogue.refuse_frozen(connection)
                gone = connection.execute(_deletable, {"oldest": oldest}).rowcount
            self.deleted += gone

    def settle_released(self) -> None:
        """A pack of a refused job is one like others when nothing in it is condemned any more; one
        in which nothing is left at all is not, until it is gone.

        Nor is one of a job that was refused after the walk had begun: nobody has looked at it yet.
        """
        for at in range(0, len(self._released), BATCH):
            self._settle(self._released[at : at + BATCH])

    def _settle(self, numbers: list[int]) -> None:
        p = packs_table.c
        released = sa.select(p.number).where(p.released, p.number.in_(numbers))
        mine = _b.pack.in_(released)
        condemned = sa.select(_b.pack).where(mine, _b.condemned > sa.literal_column("0"))
        needed = sa.select(_b.pack).where(mine)
        kept = sa.and_(
            p.released,
            p.number.in_(numbers),
            p.number.in_(needed),
            p.number.not_in(condemned),
        )
        with self.catalogue.writing() as connection:
            connection.execute(sa.update(packs_table).where(kept).values(released=False))

    def _old_packs(self, before: int, until: float) -> bytearray:
        """For each pack's number, whether blobs in it may be condemned; others are newer."""
        p = packs_table.c
        aged = sa.and_(p.epoch < before, p.arrival_time <= until)
        query = sa.select(p.number).where(sa.or_(p.released, aged))
        with self.catalogue.reading() as connection:
            released = sa.select(p.number).where(p.released)
            self._released = list(connection.execute(released).scalars())
            highest = connection.execute(sa.select(sa.func.max(p.number))).scalar() or 0
            old = bytearray(highest + 1)
            for number in connection.execute(query).scalars():
                old[number] = 1
        return old

    def _keep(self, names: list[bytes]) -> None:
        if names:
            with self.catalogue.writing() as connection:
                connection.execute(_rescue, [{"name": name} for name in names])
            self.rescued += len(names)

    def _drop(self, names: list[bytes], oldest: int) -> None:
        if names:
            with self.catalogue.writing() as connection:
                self.catalogue.refuse_frozen(connection)
                values = [{"name": name, "oldest": oldest} for name in names]
                self.deleted += _execute(connection, _delete, values)

    def _condemn(self, blobs: list[tuple[bytes, int]]) -> None:
        """Condemn those of ``blobs`` that are still where they were and not needed.

        Nobody publishes meanwhile; what was published since the marking is marked first.
        """
        while True:
            states = self.marker.marks.look_up(b"".join([name for name, _ in blobs]))
            blobs = [blob for blob, state in zip(blobs, states, strict=True) if state == UNNEEDED]
            if not blobs:
                return
            with (
                self.store.exclusive(PUBLISHING, wait=True),
                self.catalogue.writing() as connection,
            ):
                self.catalogue.refuse_frozen(connection)
                newest = sa.select(sa.func.max(points_table.c.arrival))
                if (connection.execute(newest).scalar() or 0) <= self.marker.newest:
                    fence = self.catalogue.epoch(connection) + 1
                    values = [{"name": name, "where": pack, "fence": fence} for name, pack in blobs]
                    self.condemned += _execute(connection, _condemn, values)
                    return
            self.marker.mark_new()


def _execute(
    connection: sa.Connection, statement: sa.Update | sa.Delete, values: list[dict[str, Any]]
) -> int:
    """Execute ``statement`` with each of ``values``; how many rows that has changed.

    Without what SQLAlchemy does to each of them, which costs more than the row itself: they are
    plain numbers and octets.
    """
    compiled = statement.compile(dialect=connection.dialect)
    fixed = {name: value for name, value in compiled.params.items() if value is not None}
    if not compiled.positional:
        return connection.exec_driver_sql(str(compiled), [fixed | each for each in values]).rowcount
    names = compiled.positiontup or ()
    rows = [
        tuple([each[name] if name in each else fixed[name] for name in names]) for each in values
    ]
    return connection.exec_driver_sql(str(compiled), rows).rowcount
