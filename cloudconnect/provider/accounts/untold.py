"""Layer 4: the accounts: warnings of a job's sessions that its tenant was not told yet.

They are on the disk from the moment at which a role raises them, until the tenant has them: a
service that is killed in between loses none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

import sqlalchemy as sa

from cloudconnect.errors import WarningKind
from cloudconnect.events import SecurityWarning
from cloudconnect.provider.accounts.clock import passed_until_now
from cloudconnect.provider.accounts.database import Database
from cloudconnect.provider.accounts.tables import untold_table

#: Warnings that are kept of one job: the first ones. One that says that a line was only cut makes
#: room for one that says that something was changed: whoever can do the one can do the other.
OF_JOB_MAX: Final = 16
#: Warnings that are kept of one tenant, so that it can push out nobody else's: the newest, before
#: those that say that a line was only cut.
OF_TENANT_MAX: Final = 256
#: Seconds after which nobody goes on with a job any more, by the provider's own clock.
MEMORY_SECONDS: Final = 30 * 86400.0

_u = untold_table.c
_CUT: Final = WarningKind.TRUNCATED


class UntoldAccounts(Database):
    """What tenants were not told yet."""

    def keep_untold(self, tenant: str, job: str, warnings: Iterable[SecurityWarning]) -> None:
        """Keep warnings of a job until they are told; the same one once.

        :param job: 32 hexadecimal digits that stand for it
        """
        with self._writing() as connection:
            now = passed_until_now(connection)
            mine = sa.select(_u.warning).where(_u.tenant == tenant, _u.job == job)
            known = [_read(text) for text in connection.execute(mine).scalars()]
            for warning in warnings:
                if not warning.add_to(known):
                    continue
                if len(known) > OF_JOB_MAX and (
                    warning.kind is _CUT or not _make_room(connection, tenant, job)
                ):
                    known.pop()
                    continue
                connection.execute(
                    untold_table.insert().values(
                        tenant=tenant,
                        job=job,
                        session=warning.session,
                        kind=warning.kind.value,
                        kept=now,
                        warning=_written(warning),
                    )
                )
            newest = (
                sa.select(_u.id)
                .where(_u.tenant == tenant)
                .order_by(_u.kind == _CUT.value, _u.id.desc())
                .limit(OF_TENANT_MAX)
            )
            old = sa.and_(_u.tenant == tenant, _u.id.not_in(newest.scalar_subquery()))
            connection.execute(untold_table.delete().where(old))

    def untold_of(self, tenant: str, job: str) -> list[SecurityWarning]:
        """What a tenant was not told yet of a job's sessions."""
        query = sa.select(_u.warning).where(_u.tenant == tenant, _u.job == job).order_by(_u.id)
        with self._engine.connect() as connection:
            return [_read(text) for text in connection.execute(query).scalars()]

    def spend_untold(self, tenant: str, job: str, warning: SecurityWarning) -> None:
        """A tenant was told this warning.

        Not by its number: that may be another one's by the time at which the tenant answers.
        """
        told = (_u.tenant == tenant, _u.job == job, _u.warning == _written(warning))
        with self._writing() as connection:
            connection.execute(untold_table.delete().where(*told))

    def spend_of_session(
        self, tenant: str, session: str, warning: SecurityWarning | None = None
    ) -> None:
        """A tenant was told how a session ended: what was only cut off is not told again.

        :param session: as hexadecimal digits
        :param warning: only this one, of whatever kind: the tenant has said that it has it
        """
        mine = [_u.tenant == tenant, _u.session == session]
        if warning is None:
            mine.append(_u.kind == _CUT.value)
        with self._writing() as connection:
            rows = connection.execute(sa.select(_u.id, _u.warning).where(*mine)).all()
            numbers = [
                row.id
                for row in rows
                if warning is None or _read(row.warning).subject == warning.subject
            ]
            connection.execute(untold_table.delete().where(_u.id.in_(numbers)))


def _make_room(connection: sa.Connection, tenant: str, job: str) -> bool:
    """Forget one that says that a line was only cut; whether there was one."""
    cut = sa.select(sa.func.min(_u.id)).where(
        _u.tenant == tenant, _u.job == job, _u.kind == _CUT.value
    )
    gone = untold_table.delete().where(_u.id == cut.scalar_subquery())
    return connection.execute(gone).rowcount == 1


def _written(warning: SecurityWarning) -> str:
    return json.dumps(warning.as_dict())


def _read(text: str) -> SecurityWarning:
    return SecurityWarning.from_dict(json.loads(text))
