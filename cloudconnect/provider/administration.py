"""Layer 4: what an admin may do, and the socket to do it through while the provider runs.

:class:`Administration` does the acts, blocking; :class:`AdminFactory` serves them on a UNIX socket
of mode 0600 in the provider's directory. Where no provider runs, the command line uses
:class:`Administration` directly.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from cloudconnect.commands.admin import AddTenant, List
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.paging import fit_page
from cloudconnect.errors import NotFound, UsageError
from cloudconnect.keys import Password
from cloudconnect.provider.accounts import MAX_TASKS_DEFAULT, Accounts
from cloudconnect.repository.store import Repository
from cloudconnect.settings import PAGE_ROWS_MAX, TOKEN_ITERATIONS_MIN
from cloudconnect.wire.scram import is_token, make_token, make_verifier

#: What :meth:`Administration.page` can list.
LISTINGS = ("tenant", "point", "event", "session")
#: Settings that a tenant may be given.
TENANT_SETTINGS = ("quota", "lease_end", "max_tasks", "modes")


class Administration:
    """The acts of a provider's admin; every method blocks.

    :param accounts: the accounts data base
    :param repositories: the folder of the repositories
    """

    def __init__(self, accounts: Accounts, repositories: Path) -> None:
        self._accounts = accounts
        self._repositories = repositories

    def add_tenant(
        self, name: str, password: Password | None, settings: dict[str, Any]
    ) -> Password | None:
        """Make a tenant; returns the token that was made where no password was given.

        :raises UsageError: a name, password or setting that cannot be used
        """
        unknown = set(settings) - set(TENANT_SETTINGS)
        if unknown:
            raise UsageError(f"a tenant has no setting {', '.join(sorted(unknown))}")
        modes = tuple(settings.get("modes") or ("tenant",))
        if not set(modes) <= {"tenant", "provider", "none"}:
            raise UsageError("encryption modes are tenant, provider and none")
        token = make_token() if password is None else None
        secret = password if password is not None else token
        assert secret is not None
        verifier = (
            make_verifier(secret, TOKEN_ITERATIONS_MIN)
            if is_token(secret)
            else make_verifier(secret)
        )
        self._accounts.add_tenant(
            name,
            verifier,
            quota=settings.get("quota"),
            lease_end=settings.get("lease_end"),
            max_tasks=settings.get("max_tasks") or MAX_TASKS_DEFAULT,
            modes=modes,
        )
        return token

    def page(
        self, what: str, filters: dict[str, str], after: int, limit: int
    ) -> tuple[list[dict[str, Any]], bool]:
        """One page of a listing, each row with its ``cursor``, and whether there is more.

        :param what: one of :data:`LISTINGS`
        :param limit: 1 to :data:`~cloudconnect.settings.PAGE_ROWS_MAX`
        :raises UsageError: no such listing
        """
        if what not in LISTINGS or not 0 < limit <= PAGE_ROWS_MAX:
            raise UsageError(f"listings are {', '.join(LISTINGS)}, pages of 1 to {PAGE_ROWS_MAX}")
        if what == "tenant":
            found = enumerate(self._accounts.tenants(), 1)
            rows = [{**row, "cursor": number} for number, row in found if number > after]
        elif what == "point":
            rows = self._points(filters, after, limit + 1)
        elif what == "event":
            rows = self._accounts.events(filters, after, limit + 1)
        else:
            rows = self._accounts.sessions(filters.get("tenant", ""), after, limit + 1)
        return fit_page(rows, limit)

    def _points(self, filters: dict[str, str], after: int, limit: int) -> list[dict[str, Any]]:
        """One tenant's points; a listing over tenants asks for each in turn."""
        name = filters.get("tenant", "")
        if not name:
            raise UsageError("name the tenant whose points to list")
        tenant = self._accounts.tenant(name)
        if tenant.repository is None:
            raise NotFound(f"tenant {name} has no repository yet")
        repository = Repository.open(self._repositories / tenant.repository.hex())
        try:
            rows = repository.points(
                host=filters.get("host") or None,
                job=filters.get("job") or None,
                tag=filters.get("tag") or None,
                after=after,
                limit=limit,
            )
        finally:
            repository.close()
        return [{"tenant": name, **row.as_map(), "cursor": row.arrival} for row in rows]


class AdminProtocol(BoundedAMP):
    """One connection to the admin socket."""

    def __init__(
        self,
        reactor: Any,
        administration: Administration,
        in_accounts_thread: Callable[..., Deferred[Any]],
    ) -> None:
        super().__init__(reactor)
        self._administration = administration
        self._run = in_accounts_thread

    @AddTenant.responder
    def add_tenant(
        self, name: str, password: Password | None, settings: Any
    ) -> Deferred[dict[str, Any]]:
        """Make a tenant."""
        if not isinstance(settings, dict):
            raise UsageError("settings is a map")
        done = self._run(self._administration.add_tenant, name, password, settings)
        return done.addCallback(lambda token: {"token": token})

    @List.responder
    def page(self, what: str, filters: Any, after: int, limit: int) -> Deferred[dict[str, Any]]:
        """One page of a listing."""
        if not isinstance(filters, dict):
            raise UsageError("filters is a map")
        done = self._run(self._administration.page, what, filters, after, limit)
        return done.addCallback(lambda found: {"rows": found[0], "more": found[1]})


class AdminFactory(Factory):
    """Serves the admin socket."""

    noisy = False

    def __init__(
        self,
        reactor: Any,
        administration: Administration,
        in_accounts_thread: Callable[..., Deferred[Any]],
    ) -> None:
        self._make = lambda: AdminProtocol(reactor, administration, in_accounts_thread)

    def buildProtocol(self, addr: IAddress | None) -> AdminProtocol:
        """One for this connection."""
        return self._make()  # type: ignore[no-untyped-call]
