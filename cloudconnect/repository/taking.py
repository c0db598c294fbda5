"""Layer 3: points on their way into the bin: what keeps them out, and how their rows change.

Who deletes is asked the same questions: a person by :mod:`cloudconnect.repository.bin`, a policy by
:mod:`cloudconnect.repository.retention`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import sqlalchemy as sa

from cloudconnect.errors import CloudConnectError, NoSpace, Refused
from cloudconnect.repository.clock import Moment
from cloudconnect.repository.points import DELETED
from cloudconnect.repository.rules import DAY, Rules, read_rules
from cloudconnect.repository.tables import points_table, repository_table
from cloudconnect.wire.frames import ID_SIZE

#: What keeps a point out of the bin.
FROZEN, LOCKED, FULL = OBSTACLES = ("frozen", "locked", "bin full")


@attrs.define
class Taking:
    """Points that go into the bin in one transaction."""

    connection: sa.Connection
    moment: Moment
    by: str
    rules: Rules
    used: int

    @classmethod
    def begin(cls, connection: sa.Connection, moment: Moment, by: str) -> Taking:
        """Begin, in a transaction that has observed the clocks."""
        rules = read_rules(connection)
        used = 0 if rules.bin_bytes is None else bin_bytes(connection)
        return cls(connection, moment, by, rules, used)

    def admit(self, row: sa.Row[Any]) -> str:
        """Find room for a published point; or what keeps it out of the bin.

        :return: ``frozen``, ``locked``, ``bin full``, or empty: it may be taken
        """
        if self.moment.frozen:
            return FROZEN
        if not self.moment.is_over(row.locked_until, row.locked_clock):
            return LOCKED
        if self.rules.bin_bytes is None:
            return ""
        if self.used >= self.rules.bin_bytes:
            return FULL
        t = points_table.c
        record = sa.select(sa.func.length(t.record)).where(t.arrival == row.arrival)
        length = self.connection.execute(record).scalar_one()
        self.used += row.bytes_stored + row.reference_count * ID_SIZE + 2 * length
        return ""

    def refusal(self, row: sa.Row[Any], obstacle: str) -> CloudConnectError:
        """The error that says what :meth:`admit` found."""
        if obstacle == FROZEN:
            return Refused("this repository is frozen: nothing is deleted until it is thawed")
        if obstacle == LOCKED:
            left = (row.locked_clock or 0.0) - self.moment.passed
            until = max(row.locked_until, self.moment.now + left)
            return Refused(f"the restore point {row.point} is locked until {_date(until)}")
        return bin_full(self.used, self.rules.bin_bytes or 0)

    def take(self, arrival: int) -> None:
        """Put a point that was admitted into the bin; its marker comes after the transaction."""
        kept = self.rules.bin_days * DAY
        update_point(
            self.connection,
            arrival,
            state=DELETED,
            deleted_time=self.moment.now,
            deleted_by=self.by,
            bin_until=self.moment.now + kept,
            bin_clock=self.moment.passed + kept,
        )


def bin_bytes(connection: sa.Connection) -> int:
    """At most so many bytes are in the bin.

    Those that were counted last (``measured``), and all that the sessions of the points stored
    which were deleted since: some of that other points may need too. And the points' own lists and
    records.
    """
    measured = connection.execute(sa.select(repository_table.c.measured)).scalar_one()
    t = points_table.c
    since = sa.select(sa.func.coalesce(sa.func.sum(t.bytes_stored), 0)).where(t.state == DELETED)
    if "time" in measured:
        since = since.where(t.deleted_time >= measured["time"])
    each = t.reference_count * ID_SIZE + 2 * sa.func.length(t.record)
    lists = sa.select(sa.func.coalesce(sa.func.sum(each), 0))
    lists = lists.where(t.state == DELETED)
    return int(measured.get("bin", 0)) + sum(
        int(connection.execute(query).scalar_one()) for query in (since, lists)
    )


def update_point(connection: sa.Connection, arrival: int, **values: Any) -> None:
    """Change columns of a point's row."""
    where = points_table.c.arrival == arrival
    connection.execute(sa.update(points_table).where(where).values(**values))


def bin_full(used: int, cap: int) -> NoSpace:
    """The error that says so; both in bytes."""
    return NoSpace(
        f"the bin is full ({used} of {cap} bytes): nothing is deleted or backed up until points "
        f"leave it"
    )


def _date(time: float) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return f"{time:.0f} seconds after 1970"
