"""Layer 3: the expiry clock: how much time has surely passed for this repository.

The time of day can jump: a battery dies, somebody sets the wrong year. What is kept until a date
must not be lost by that, so every deadline is two: one by the time of day, which people see, and
one by this clock, and is over when both are. This clock counts the seconds between one look and the
next, at most :data:`STEP_MAX` of them, never backwards, and none while the repository is frozen. A
provider that was switched off for a week keeps things for longer: that is the safe direction.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.repository.tables import repository_table

#: Most seconds that one look adds: a day and some, as the clock is looked at every hour, and a
#: provider that was down for a night shall not keep anything longer for it.
STEP_MAX: Final = 26 * 3600.0

_clocks: Final = sa.select(
    repository_table.c.frozen, repository_table.c.clock_seen, repository_table.c.clock_passed
)


@attrs.frozen
class Moment:
    """One look at both clocks.

    :ivar now: the time of day, in seconds since 1970
    :ivar passed: seconds on the expiry clock
    :ivar frozen: whether the repository is frozen
    """

    now: float
    passed: float
    frozen: bool

    def is_over(self, until: float | None, clock: float | None) -> bool:
        """Whether a deadline is over by both clocks; also where there is none."""
        if until is None:
            return True
        return clock is not None and until <= self.now and clock <= self.passed

    def over(self, until: sa.ColumnElement[Any], clock: sa.ColumnElement[Any]) -> Any:
        """The condition that the deadline in two columns is there, and over by both clocks."""
        return sa.and_(until <= self.now, clock <= self.passed)


def look(connection: sa.Connection, now: float) -> Moment:
    """What :func:`observe` would find; nothing is written.

    :param now: seconds since 1970
    """
    return _moment(connection.execute(_clocks).one(), now)


def observe(connection: sa.Connection, now: float) -> Moment:
    """Look at the clocks, in a transaction that writes.

    From here to the end of the transaction no other one observes: acts that begin so are one
    behind the other, with any data base.

    :param now: seconds since 1970
    """
    moment = _moment(connection.execute(_clocks.with_for_update()).one(), now)
    values = {"clock_seen": now, "clock_passed": moment.passed}
    connection.execute(sa.update(repository_table).values(**values))
    return moment


def _moment(row: Any, now: float) -> Moment:
    passed = float(row.clock_passed)
    if row.clock_seen and not row.frozen:
        passed += min(max(now - row.clock_seen, 0.0), STEP_MAX)
    return Moment(now, passed, bool(row.frozen))
