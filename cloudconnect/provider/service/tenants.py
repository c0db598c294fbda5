"""Layer 4: the tenants as the service knows them: what is agreed with each, and what it is told."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudconnect.commands.notice import Notice
from cloudconnect.commands.paging import fit_page
from cloudconnect.errors import NoSpace
from cloudconnect.provider.accounts import Accounts, Tenant
from cloudconnect.provider.service.access import GRACE_DAYS
from cloudconnect.provider.service.followers import keep_known
from cloudconnect.provider.service.reports import Reports

#: Findings in its repository that a tenant is told at one log-in.
UNTOLD_MAX = 5


class Tenants:
    """What the accounts data base has of tenants.

    :param accounts: the accounts data base; used only in the accounts thread
    :param in_accounts_thread: runs a blocking call there and fires with its result
    :param reports: keeps what happened
    :param today: the current date, for leases
    :param grace_days: days after the end of a lease in which its tenant may list and restore
    :ivar notice: what tenants are told that will hold from some day on
    """

    _log = Logger()

    def __init__(
        self,
        accounts: Accounts,
        in_accounts_thread: Callable[..., Deferred[Any]],
        reports: Reports,
        *,
        today: Callable[[], datetime.date] = datetime.date.today,
        grace_days: int = GRACE_DAYS,
    ) -> None:
        self._accounts = accounts
        self._run = in_accounts_thread
        self._reports = reports
        self.today = today
        self.grace_days = grace_days
        self.notice = Notice()
        self._unwritten: dict[str, bool] = {}  # who is frozen, or not, while nothing can be written

    async def record(self, name: str) -> Tenant:
        """What is agreed with a tenant, and what could not be written down of it.

        :raises NotFound: there is none of this name
        """
        record: Tenant = await self._run(self._accounts.tenant, name)
        frozen = self._unwritten.get(name)
        return record if frozen is None else attrs.evolve(record, frozen=frozen)

    async def owner(self, repository: bytes) -> dict[str, Any]:
        """Whose a repository is, as AskOwner answers it."""
        found: Tenant | None = await self._run(self._accounts.owner, repository)
        if found is None:
            return {"tenant": "", "rules": {}, "frozen": False}
        if found.name in self._unwritten:
            await self.write_frozen(found.name, self._unwritten[found.name])
        record = await self.record(found.name)
        return {
            "tenant": record.name,
            "rules": record.repository_rules,
            "frozen": record.frozen,
        }

    async def write_frozen(self, tenant: str, frozen: bool) -> bool:
        """Write down that a tenant is frozen, or is not; whether that could be done.

        Where it could not, because the disk is full or read-only, it holds for as long as the
        service runs, and is written down when it can be.
        """
        try:
            await self._run(self._accounts.change_tenant, tenant, {"frozen": frozen})
        except NoSpace as error:
            self._unwritten[tenant] = frozen
            self._log.warn("freezing {tenant} is not written down: {e}", tenant=tenant, e=error)
            return False
        self._unwritten.pop(tenant, None)
        return True

    def set_repository(self, tenant: str, repository: bytes, mode: str) -> Deferred[Any]:
        """Write down that a tenant's repository was made.

        :param mode: its encryption mode's word
        """
        return self._run(self._accounts.set_repository, tenant, repository, mode)

    def soft_quota_passed(self, tenant: str, over: bool) -> Deferred[Any]:
        """Note whether a tenant is over its soft quota; fires with whether that is news."""
        return self._run(self._accounts.warn_soft, tenant, over)

    # --- what it is told -------------------------------------------------------------------------

    async def history(
        self, tenant: str, what: str, session: str, after: int, limit: int
    ) -> dict[str, Any]:
        """One page of what is kept of a tenant's sessions; of nobody else's.

        :param what: ``event`` or ``session``
        :param session: only this one, or ""
        """
        if what == "session":
            rows = await self._run(self._accounts.sessions, tenant, after, limit + 1, session)
        else:
            filters = {"tenant": tenant, "session": session}
            rows = await self._run(self._accounts.events, filters, after, limit + 1)
        fitting, more = fit_page(rows, limit)
        return {"rows": fitting, "more": more}

    async def notice_taken(self, tenant: str, machine: str, pins: tuple[str, ...]) -> None:
        """A machine of a tenant knows the next pins; which ones are not ours is left out."""
        ours = [pin for pin in pins if pin in self.notice.pins]
        if ours and await self._run(keep_known, self._accounts, tenant, machine, ours):
            text = f"{machine} of tenant {tenant} has noted the next key's pin"
            await self._reports.note(
                "notice_taken", "", text, tenant=tenant, machine=machine, pins=ours
            )

    def untold(self, tenant: str) -> Deferred[Any]:
        """Fires with the first warnings that a tenant was not told yet, each with its number."""
        return self._run(self._accounts.untold, tenant, UNTOLD_MAX)

    def told(self, tenant: str, number: int) -> Deferred[Any]:
        """A tenant was told of everything up to this number."""
        return self._reports.keep(self._accounts.tell, tenant, number)
