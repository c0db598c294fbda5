"""Layer 4: the accounts: tenants that are disabled, or in the bin, from which they can come back.

The time in the bin is that in which a provider runs: a clock that jumps takes nobody's away.
"""

from __future__ import annotations

import time
from typing import Any, Final

import sqlalchemy as sa

from cloudconnect.errors import NotFound, UsageError
from cloudconnect.provider.accounts.tables import (
    credentials_table,
    tenants_table,
    untold_table,
)
from cloudconnect.provider.accounts.tenants import Tenant, TenantAccounts, tenant_of

#: In the place of when a tenant's time was last counted: what it stored is being deleted.
GOING: Final = -1.0


class RemovalAccounts(TenantAccounts):
    """Who is disabled or removed, in the accounts data base."""

    def enable(self, name: str) -> bool:
        """Let a tenant in again, and take it out of the bin; whether anything changed.

        :raises NotFound: there is no such tenant
        :raises UsageError: what it stored is being deleted
        """
        back = {"disabled": False, "removed": None, "removal_left": None, "removal_seen": None}
        return self._switch(name, back)

    def disable(self, name: str) -> bool:
        """Let a tenant do nothing any more; whether anything changed.

        :raises NotFound: there is no such tenant
        """
        return self._switch(name, {"disabled": True})

    def remove(self, name: str, seconds: float) -> bool:
        """Put a tenant into the bin: it can do nothing any more; whether it was not there yet.

        :param seconds: how long it stays there, of those in which a provider runs
        :raises NotFound: there is no such tenant
        """
        if self.tenant(name).removed is not None:
            return False
        now = time.time()
        binned = {"removed": now, "removal_left": seconds, "removal_seen": now}
        return self._switch(name, {"disabled": True, **binned})

    def _switch(self, name: str, values: dict[str, Any]) -> bool:
        t = tenants_table
        with self._writing() as connection:
            query = sa.select(*(t.c[column] for column in values)).where(t.c.name == name)
            row = connection.execute(query).mappings().first()
            if row is None:
                raise NotFound(f"there is no tenant {name}")
            if dict(row) == values:
                return False
            if row.get("removal_seen") == GOING and not values.get("disabled"):
                raise UsageError(f"what tenant {name} stored is being deleted: it is too late")
            connection.execute(t.update().where(t.c.name == name).values(values))
            return True

    def count_removals(self, most: float) -> list[Tenant]:
        """Let the time pass of those that are in the bin; those whose time is over.

        A clock that jumps forward takes no more from anybody than one round does, and one that
        jumps back gives nothing.

        :param most: seconds that pass at one call at most
        """
        t = tenants_table
        now = time.time()
        with self._writing() as connection:
            query = sa.select(t).where(t.c.removed.is_not(None), t.c.removal_seen != GOING)
            rows = connection.execute(query).mappings().all()
            for row in rows:
                passed = min(max(now - row["removal_seen"], 0.0), most)
                connection.execute(
                    t.update()
                    .where(t.c.name == row["name"])
                    .values(removal_left=row["removal_left"] - passed, removal_seen=now)
                )
            over = sa.select(t).where(t.c.removed.is_not(None), t.c.removal_left <= 0)
            return [tenant_of(row) for row in connection.execute(over).mappings()]

    def begin_drop(self, name: str) -> bool:
        """A tenant whose time is over goes now, and cannot be taken back; whether it is so."""
        t = tenants_table
        due = (t.c.name == name, t.c.removed.is_not(None), t.c.removal_left <= 0)
        with self._writing() as connection:
            change = t.update().where(*due).values(removal_seen=GOING)
            return connection.execute(change).rowcount == 1

    def give_up_drop(self, name: str) -> None:
        """It cannot go yet: it stays in the bin, and can be taken back."""
        t = tenants_table
        with self._writing() as connection:
            going = t.update().where(t.c.name == name, t.c.removal_seen == GOING)
            connection.execute(going.values(removal_seen=time.time()))

    def drop_tenant(self, name: str) -> None:
        """Forget a tenant whose repository is gone; its events and sessions stay.

        Nothing happens to one that is not in the bin, or whose time there is not over.
        """
        t, c, u = tenants_table, credentials_table, untold_table
        with self._writing() as connection:
            over = sa.select(t.c.name).where(
                t.c.name == name, t.c.removed.is_not(None), t.c.removal_left <= 0
            )
            if connection.execute(over).first() is not None:
                connection.execute(c.delete().where(c.c.tenant == name))
                connection.execute(u.delete().where(u.c.tenant == name))
                connection.execute(t.delete().where(t.c.name == name))
