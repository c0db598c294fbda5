"""Layer 4: the accounts: which sessions there were, and how they ended."""

from __future__ import annotations

import json
import time
from typing import Any

import sqlalchemy as sa

from cloudconnect.provider.accounts.database import Database
from cloudconnect.provider.accounts.tables import sessions_table


class SessionAccounts(Database):
    """The sessions in the accounts data base."""

    def session_started(self, **values: Any) -> None:
        """Keep a new session: the columns of the table ``sessions`` by name."""
        with self._writing() as connection:
            connection.execute(sessions_table.insert().values(state="started", **values))

    def session_ended(self, session: str, state: str, summary: dict[str, Any]) -> None:
        """Keep how a session ended; the first word stands."""
        t = sessions_table
        with self._writing() as connection:
            connection.execute(
                t.update()
                .where(t.c.session == session, t.c.ended.is_(None))
                .values(ended=time.time(), state=state, summary=json.dumps(summary))
            )

    def session_amended(self, session: str, state: str) -> None:
        """A session was said to have ended well, and did not."""
        t = sessions_table
        with self._writing() as connection:
            connection.execute(t.update().where(t.c.session == session).values(state=state))

    def abandon_sessions(self) -> None:
        """After a restart: no session of the last process is still running."""
        t = sessions_table
        with self._writing() as connection:
            connection.execute(
                t.update().where(t.c.ended.is_(None)).values(ended=time.time(), state="interrupted")
            )

    def sessions(
        self, tenant: str, after: int, limit: int, session: str = ""
    ) -> list[dict[str, Any]]:
        """Sessions in the order they started, from the one after ``after``.

        :param session: only this one, where it is given
        """
        t = sessions_table
        query = sa.select(t).where(t.c.seq > after).order_by(t.c.seq).limit(limit)
        if tenant:
            query = query.where(t.c.tenant == tenant)
        if session:
            query = query.where(t.c.session == session)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings()
            return [
                {**row, "cursor": row["seq"], "summary": json.loads(row["summary"])} for row in rows
            ]

    def last_backups(self, since: float = 0.0) -> list[dict[str, Any]]:
        """When the last backup of each tenant, host and job that left a point ended.

        :param since: only of sessions that began after that, in seconds since 1970
        """
        c = sessions_table.c
        query = (
            sa.select(c.tenant, c.host, c.job, sa.func.max(c.ended).label("ended"))
            .where(c.kind == "backup", c.state.in_(("done", "incomplete")), c.started > since)
            .group_by(c.tenant, c.host, c.job)
        )
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]
