"""Layer 4: the accounts: how much time has surely passed for this provider.

The time of day can jump: somebody sets the wrong year, or means to. What is kept for so many days
must not be lost by that, so those days are counted by a clock of the provider's own. It counts the
seconds between one look and the next, at most :data:`STEP_MAX` of them, never backwards, and none
while no provider runs.
"""

from __future__ import annotations

import json
from typing import Final

import sqlalchemy as sa

from cloudconnect.provider.accounts.database import Database
from cloudconnect.provider.accounts.tables import settings_table, untold_table

#: Most seconds that one look adds; it is looked every hour.
STEP_MAX: Final = 2 * 3600.0
#: What the clock is called among the provider's values: seconds passed, and when it was looked at.
_CLOCK: Final = "clock"


class ClockAccounts(Database):
    """The provider's own clock in the accounts data base."""

    def pass_time(self, now: float) -> float:
        """Look at the clock; the seconds that have passed on it since it was looked at first.

        :param now: seconds since 1970
        """
        t, u = settings_table, untold_table
        with self._writing() as connection:
            passed, seen = _read(connection)
            if seen is not None:
                passed += min(max(now - seen, 0.0), STEP_MAX)
            value = json.dumps([passed, now]).encode()
            change = t.update().where(t.c.name == _CLOCK).values(value=value)
            if connection.execute(change).rowcount == 0:
                connection.execute(t.insert().values(name=_CLOCK, value=value))
            # An older release has written the time of day: its days begin now.
            connection.execute(u.update().where(u.c.kept > passed).values(kept=passed))
        return passed


def passed_until_now(connection: sa.Connection) -> float:
    """The seconds that had passed when the clock was looked at last."""
    return _read(connection)[0]


def _read(connection: sa.Connection) -> tuple[float, float | None]:
    t = settings_table
    value = connection.execute(sa.select(t.c.value).where(t.c.name == _CLOCK)).scalar()
    if value is None:
        return 0.0, None
    passed, seen = json.loads(value)
    return float(passed), float(seen)
