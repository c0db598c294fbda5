"""Layer 4: the accounts: what happened, and which warnings a tenant was told of."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from cloudconnect.errors import WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.accounts.database import Database
from cloudconnect.provider.accounts.tables import events_table, sessions_table, tenants_table


class EventAccounts(Database):
    """The events in the accounts data base."""

    def keep_event(self, event: SessionEvent, tenant: str, reported_by: str) -> None:
        """Keep one step of a session; the identifier of its Key B with the session itself."""
        if event.name == "key_b_received":
            t = sessions_table
            with self._writing() as connection:
                connection.execute(
                    t.update()
                    .where(t.c.session == event.session)
                    .values(key_b=str(event.fields.get("key", ""))[:16])
                )
        values = {
            "time": event.time,
            "type": "event",
            "name": event.name,
            "session": event.session,
            "text": event.text,
            "fields": json.dumps(event.fields),
        }
        self._keep(tenant, reported_by, values)

    def keep_warning(self, warning: SecurityWarning, reported_by: str) -> None:
        """Keep a security warning."""
        values = {
            "time": warning.time,
            "type": "warning",
            "name": warning.kind.value,
            "session": warning.session,
            "text": warning.text,
            "fields": json.dumps(warning.as_dict()),
        }
        self._keep(warning.tenant, reported_by, values)

    def _keep(self, tenant: str, reported_by: str, values: dict[str, Any]) -> None:
        with self._writing() as connection:
            connection.execute(
                events_table.insert().values(tenant=tenant, reported_by=reported_by, **values)
            )

    def events(self, filters: dict[str, str], after: int, limit: int) -> list[dict[str, Any]]:
        """Events and warnings as they came, from the one after ``after``.

        :param filters: ``tenant``, ``session``, ``type``, ``name``: equal to, where given
        """
        t = events_table
        query = sa.select(t).where(t.c.seq > after).order_by(t.c.seq).limit(limit)
        for name in ("tenant", "session", "type", "name"):
            if filters.get(name):
                query = query.where(t.c[name] == filters[name])
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings()
            return [
                {**row, "cursor": row["seq"], "fields": json.loads(row["fields"])} for row in rows
            ]

    def count_events(self, names: Iterable[str], since: float) -> list[dict[str, Any]]:
        """How often each of some events or warnings came: ``type``, ``name``, ``count``, the time
        of the ``last``, and of how many ``tenants``; without those that did not.

        :param since: in seconds since 1970
        """
        c = events_table.c
        query = (
            sa.select(
                c.type,
                c.name,
                sa.func.count().label("count"),
                sa.func.max(c.time).label("last"),
                sa.func.count(sa.distinct(c.tenant)).label("tenants"),
            )
            .where(c.name.in_(list(names)), c.time > since)
            .group_by(c.type, c.name)
            .order_by(c.type, c.name)
        )
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def untold(self, tenant: str, limit: int) -> list[tuple[int, SecurityWarning]]:
        """The first warnings of what was found in a tenant's repository that it was not told yet.

        :return: each with the number to give to :meth:`tell`
        """
        e, t = events_table.c, tenants_table.c
        query = (
            sa.select(e.seq, e.fields)
            .join(tenants_table, t.name == e.tenant)
            .where(e.tenant == tenant, e.type == "warning", e.session == "", e.seq > t.told)
            .where(e.name == WarningKind.STORED_DATA_DAMAGED.value)
            .order_by(e.seq)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [(row.seq, SecurityWarning.from_dict(json.loads(row.fields))) for row in rows]

    def tell(self, tenant: str, number: int) -> None:
        """Note that a tenant has been told of everything up to this number."""
        t = tenants_table
        with self._writing() as connection:
            connection.execute(
                t.update().where(t.c.name == tenant, t.c.told < number).values(told=number)
            )
