"""Layer 3: the bin: what is deleted stays restorable for a while; and locks, which keep it out.

A point is ``published``, ``deleted`` (in the bin), and at last ``removed``: a tombstone. One
transaction for each act, which looks at the clocks first and then checks everything. What is
durable when, so that a process may be killed between any two steps:

- *delete*: the row, then the marker. A marker therefore never stands beside a point that is not in
  the bin: a lost catalogue cannot put anything there that the tenant has not seen there.
- *undelete*: the markers go, then the row changes.
- *lock*: the marker, then the row.
- *removal*: the tombstone, then the row, then record, references and the other markers go. A row
  that still has its record says that the last step is to be done again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import attrs
import sqlalchemy as sa

from cloudconnect.content.retention import SECONDS_MAX
from cloudconnect.errors import NotFound, Refused
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.accounting import read_measured, write_measured
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.clock import Moment, observe
from cloudconnect.repository.markers import (
    deleted_name,
    encode_deleted,
    encode_lock,
    encode_removed,
    lock_name,
    put_once,
    removed_name,
)
from cloudconnect.repository.points import (
    DELETED,
    PUBLISHED,
    REMOVED,
    PointRow,
    known_columns,
    point_row,
    record_name,
)
from cloudconnect.repository.references import references_name
from cloudconnect.repository.rules import read_rules
from cloudconnect.repository.tables import points_table
from cloudconnect.repository.taking import Taking, bin_bytes, bin_full, update_point

#: Who puts a point into the bin.
ACTORS: Final = ("tenant", "retention", "provider")
#: Points for which blobs are written or removed in one transaction: other sessions wait meanwhile.
BATCH: Final = 32
#: Ids in one statement.
_IDS: Final = 500
_T = TypeVar("_T")


@attrs.frozen
class Bin:
    """The bin and the locks of one repository.

    :ivar clock: seconds since 1970
    """

    store: IBlobStore
    catalogue: Catalogue
    clock: Callable[[], float]

    def delete(self, points: Iterable[bytes], by: str) -> list[PointRow]:
        """See :meth:`cloudconnect.repository.store.Repository.delete`."""
        if by not in ACTORS:
            raise ValueError(f"a point is deleted by one of {ACTORS}")
        wanted = list(dict.fromkeys(points))
        self.check_disk()
        with self.catalogue.writing() as connection:
            moment = observe(connection, self.clock())
            rows = _rows(connection, wanted)
            taking = Taking.begin(connection, moment, by)
            for row in (row for row in rows if row.state != DELETED):
                if obstacle := taking.admit(row):
                    raise taking.refusal(row, obstacle)
                taking.take(row.arrival)
        self.mark(wanted)
        return self._listed(wanted)

    def mark(self, points: Sequence[bytes]) -> None:
        """Put the markers of points whose rows say that they are in the bin."""
        for part in _parts(points, BATCH):
            with self.catalogue.writing() as connection:
                moment = observe(connection, self.clock())
                for row in _rows(connection, part, missing=True):
                    if row.state == DELETED:
                        name = deleted_name(bytes.fromhex(row.point))
                        put_once(self.store, name, encode_deleted(row, moment))

    def undelete(self, points: Iterable[bytes]) -> list[PointRow]:
        """See :meth:`cloudconnect.repository.store.Repository.undelete`."""
        wanted = list(dict.fromkeys(points))
        with self.catalogue.reading() as connection:
            _rows(connection, wanted)
        for part in _parts(wanted, BATCH):
            with self.catalogue.writing() as connection:
                observe(connection, self.clock())
                deleted = [row for row in _rows(connection, part) if row.state == DELETED]
                if deleted:
                    measured = read_measured(connection)
                    undeleted = measured.undeleted + 1
                    write_measured(connection, attrs.evolve(measured, undeleted=undeleted))
                for row in deleted:
                    point = bytes.fromhex(row.point)
                    # A tombstone, where a removal was killed before it came to the row.
                    self.store.remove(removed_name(point))
                    self.store.remove(deleted_name(point))
                    update_point(
                        connection,
                        row.arrival,
                        state=PUBLISHED,
                        deleted_time=None,
                        deleted_by=None,
                        bin_until=None,
                        bin_clock=None,
                    )
        return self._listed(wanted)

    def lock(self, points: Iterable[bytes], until: float) -> list[PointRow]:
        """See :meth:`cloudconnect.repository.store.Repository.lock`."""
        wanted = list(dict.fromkeys(points))
        now = self.clock()
        if not now < until <= now + SECONDS_MAX:  # nor is it anything for NaN
            raise Refused("a lock ends in the future, within 100 years")
        end = float(math.ceil(until))
        with self.catalogue.reading() as connection:
            _check_lockable(_rows(connection, wanted))
        for part in _parts(wanted, BATCH):
            with self.catalogue.writing() as connection:
                moment = observe(connection, self.clock())
                rows = _rows(connection, part)
                _check_lockable(rows)
                longer = [row for row in rows if row.locked_until is None or row.locked_until < end]
                for row in longer:
                    self._lock(connection, row, end, moment)
            for row in longer:
                if row.locked_until is not None:
                    self.store.remove(lock_name(bytes.fromhex(row.point), row.locked_until))
        return self._listed(wanted)

    def expire(self) -> list[PointRow]:
        """Remove the points whose time in the bin is over by both clocks; none while frozen."""
        removed: list[PointRow] = []
        t = points_table.c
        while True:
            with self.catalogue.writing() as connection:
                moment = observe(connection, self.clock())
                if moment.frozen:
                    return removed
                free = sa.or_(t.locked_until.is_(None), moment.over(t.locked_until, t.locked_clock))
                due = sa.select(*known_columns).where(
                    t.state == DELETED, moment.over(t.bin_until, t.bin_clock), free
                )
                rows = connection.execute(due.order_by(t.arrival).limit(BATCH)).all()
                removed += [self._remove(connection, row, moment) for row in rows]
            self._clear()
            if len(rows) < BATCH:
                return removed

    def usage(self) -> tuple[int, int | None]:
        """At most so many bytes are in the bin, and how many it may hold, or None."""
        with self.catalogue.reading() as connection:
            return bin_bytes(connection), read_rules(connection).bin_bytes

    def check_room(self) -> None:
        """That the bin is not full.

        :raises NoSpace: it is: nothing more is deleted or backed up until something leaves it
        """
        with self.catalogue.reading() as connection:
            cap = read_rules(connection).bin_bytes
            if cap is not None and (used := bin_bytes(connection)) >= cap:
                raise bin_full(used, cap)

    def check_disk(self) -> None:
        """That a marker can be stored, before any row changes.

        :raises NoSpace: the disk is full
        """
        self.store.begin().discard()

    def _lock(
        self, connection: sa.Connection, row: sa.Row[Any], until: float, moment: Moment
    ) -> None:
        point = bytes.fromhex(row.point)
        clock = max(moment.passed + (until - moment.now), row.locked_clock or 0.0)
        put_once(self.store, lock_name(point, until), encode_lock(until, clock, moment))
        update_point(connection, row.arrival, locked_until=until, locked_clock=clock)

    def _remove(self, connection: sa.Connection, row: sa.Row[Any], moment: Moment) -> PointRow:
        point = bytes.fromhex(row.point)
        update_point(connection, row.arrival, state=REMOVED, removed_time=moment.now)
        (now,) = _rows(connection, [point], removed=True)
        put_once(self.store, removed_name(point), encode_removed(connection, now))
        return point_row(now)

    def _clear(self) -> None:
        """Remove what removed points have left in the store."""
        t = points_table.c
        left = sa.select(*known_columns).where(t.state == REMOVED, sa.func.length(t.record) > 0)
        with self.catalogue.reading() as connection:
            rows = connection.execute(left).all()
        for part in _parts(rows, BATCH):
            for row in part:
                point = bytes.fromhex(row.point)
                names = [record_name(point), references_name(point), deleted_name(point)]
                if row.locked_until is not None:
                    names.append(lock_name(point, row.locked_until))
                for name in names:
                    self.store.remove(name)
            with self.catalogue.writing() as connection:
                for row in part:
                    update_point(connection, row.arrival, record=b"", signature=b"")

    def _listed(self, points: Sequence[bytes]) -> list[PointRow]:
        with self.catalogue.reading() as connection:
            return [point_row(row) for row in _rows(connection, points, missing=True)]


def _rows(
    connection: sa.Connection,
    points: Sequence[bytes],
    missing: bool = False,
    removed: bool = False,
) -> list[sa.Row[Any]]:
    """The rows of these points, in their order: published ones and those in the bin.

    :param missing: whether others are left out
    :param removed: whether those that were removed belong to them
    :raises NotFound: there is no such point
    """
    t = points_table.c
    found: dict[str, sa.Row[Any]] = {}
    for part in _parts(points, _IDS):
        query = sa.select(*known_columns).where(t.point.in_([point.hex() for point in part]))
        found |= {row.point: row for row in connection.execute(query)}
    rows = []
    for point in points:
        row = found.get(point.hex())
        if row is not None and row.state in (PUBLISHED, DELETED, *[REMOVED] * removed):
            rows.append(row)
        elif not missing:
            gone = "was removed" if row is not None and row.state == REMOVED else "is not there"
            raise NotFound(f"the restore point {point.hex()} {gone}")
    return rows


def _check_lockable(rows: Iterable[sa.Row[Any]]) -> None:
    for row in rows:
        if row.state == DELETED:
            raise Refused(f"the restore point {row.point} is in the bin: undelete it first")


def _parts(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]
