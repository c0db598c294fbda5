"""Layer 4: removed tenants whose time in the bin is over: what they stored is deleted, then they.

Each hour. The mover refuses where something is locked or frozen; then the tenant stays in the bin,
and it is tried again. The tenant is *going* before the mover is asked, and cannot be taken back
from then on: nobody is let in to a repository that is half gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from cloudconnect.commands.repositories import RemoveRepository
from cloudconnect.errors import CloudConnectError
from cloudconnect.provider.accounts import Accounts, Tenant
from cloudconnect.provider.service.service import CloudConnectService

#: Seconds from one round to the next.
ROUND_SECONDS: Final = 3600.0
#: ... and from the start to the first.
FIRST_SECONDS: Final = 600.0


class Departures(Service):
    """Lets removed tenants go.

    :param reactor: clock
    :param service: reaches the mover, and keeps what happened
    :param accounts: the accounts data base
    :param in_accounts_thread: runs a blocking call there
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        service: CloudConnectService,
        accounts: Accounts,
        in_accounts_thread: Callable[..., Deferred[Any]],
    ) -> None:
        self._reactor = reactor
        self._service = service
        self._accounts = accounts
        self._run = in_accounts_thread
        self._next: IDelayedCall | None = None
        self._round: Deferred[Any] | None = None
        self._held: dict[str, str] = {}  # why, as it was told last

    def startService(self) -> None:
        """Begin; the first round comes a little later."""
        super().startService()  # type: ignore[no-untyped-call]
        self._next = self._reactor.callLater(FIRST_SECONDS, self._begin)

    def stopService(self) -> Deferred[Any]:
        """No further round; one that is going on is waited for."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._next is not None and self._next.active():
            self._next.cancel()
        ended: Deferred[None] = Deferred()
        if self._round is None:
            return succeed(None)
        self._round.addBoth(lambda _: ended.callback(None))
        return ended

    def _begin(self) -> None:
        self._next = self._reactor.callLater(ROUND_SECONDS, self._begin)
        if self._round is not None:
            return

        def over(_: Any) -> None:
            self._round = None

        self._round = Deferred.fromCoroutine(self.round())
        self._round.addErrback(lambda f: self._log.failure("removed tenants could not go", f))
        self._round.addBoth(over)

    async def round(self) -> None:
        """Count the time, and let those go whose time is over."""
        for tenant in await self._run(self._accounts.count_removals, 2 * ROUND_SECONDS):
            if not self.running:
                return
            await self._go(tenant)

    async def _go(self, tenant: Tenant) -> None:
        name = tenant.name
        if tenant.frozen:
            await self._hold(name, "it is frozen")
            return
        if not await self._run(self._accounts.begin_drop, name):
            return  # it was taken back just now
        if tenant.repository is not None:
            try:
                await self._service.nodes.movers.call(
                    RemoveRepository, timeout=None, repository=tenant.repository
                )
            except CloudConnectError as error:
                await self._run(self._accounts.give_up_drop, name)
                await self._hold(name, str(error) or error.reason)
                return
        await self._run(self._accounts.drop_tenant, name)
        self._held.pop(name, None)
        await self._service.reports.note(
            "tenant_gone", "", f"tenant {name} and all that it stored are deleted", tenant=name
        )

    async def _hold(self, name: str, why: str) -> None:
        """Something holds a tenant: it is tried again; told when it is news."""
        if self._held.get(name) == why:
            return
        self._held[name] = why
        text = f"tenant {name} was removed, but what it stored cannot be deleted yet: {why}"
        await self._service.reports.note("tenant_held", "", text, tenant=name)
