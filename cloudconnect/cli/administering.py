"""Layer 6: the acts of a provider's admin: at the running provider, or on its directory.

While the provider runs they go through its admin socket and take effect at once; where none runs
they are done on the directory itself, under its lock.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError

from cloudconnect.cli.running import Interrupt, run, run_at_once
from cloudconnect.commands.admin import (
    AddCredential,
    AddTenant,
    ChangeNode,
    Collect,
    Freeze,
    Invite,
    InviteNode,
    List,
    ListNodes,
    NoteNode,
    Reload,
    RevokeCredential,
    Scrub,
    Seed,
    SetTenant,
    ShowTenant,
    SwitchTenant,
)
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.config.provider import ProviderSettings, load, running
from cloudconnect.errors import Busy, CloudConnectError, NotReachable, Refused
from cloudconnect.keys import EnrollmentToken, Password
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.administration import Administration
from cloudconnect.provider.audit import AuditLog
from cloudconnect.provider.auditing import admin_entry, append_now
from cloudconnect.provider.node_acts import change_node
from cloudconnect.provider.reserve import Reserve
from cloudconnect.settings import PAGE_ROWS_MAX

_T = TypeVar("_T")


class Acts(Protocol):
    """What an admin can do; see :class:`cloudconnect.provider.administration.Administration`."""

    async def add_tenant(
        self, name: str, password: Password | None, settings: dict[str, Any]
    ) -> Password | None:
        """Make a tenant; the token, if one was made."""

    async def set_tenant(
        self, name: str, password: Password | None, new_token: bool, settings: dict[str, Any]
    ) -> Password | None:
        """Change what is agreed with a tenant; the token, if one was made."""

    async def show_tenant(self, name: str) -> dict[str, Any]:
        """What is agreed with a tenant, and what its repository holds."""

    async def freeze(self, name: str, frozen: bool) -> bool:
        """Freeze a tenant, or thaw it; whether it could be written down."""

    async def reload(self) -> bool:
        """Have certificates and settings read again; whether a provider runs that has done so."""

    async def invite(
        self,
        name: str,
        label: str,
        capabilities: list[str],
        seconds: int,
        settings: dict[str, Any],
    ) -> dict[str, Any]:
        """Invite a machine of a tenant: ``label``, ``token``, ``expires``, ``made``."""

    async def add_credential(
        self,
        name: str,
        label: str,
        password: Password | None,
        capabilities: list[str],
    ) -> dict[str, Any]:
        """Give a tenant another credential: its ``label``, and the ``token`` if one was made."""

    async def revoke_credential(self, name: str, label: str) -> None:
        """End a credential."""

    async def switch_tenant(self, name: str, state: str) -> bool:
        """Enable, disable or remove a tenant; whether anything changed."""

    async def collect(self, name: str) -> dict[str, Any]:
        """Collect a tenant's garbage; the counts."""

    async def scrub(self, name: str, limit: int) -> dict[str, Any]:
        """Scrub a tenant's repository; counts and findings."""

    async def seed(self, name: str, host: str, job: str, limit: int) -> dict[str, Any]:
        """Seed the WAN cache from a tenant's repository; the counts."""

    async def page(
        self, what: str, filters: dict[str, str], after: int
    ) -> tuple[list[dict[str, Any]], bool]:
        """One page of a listing, and whether there is more."""

    async def invite_node(
        self, role: str, name: str, seconds: int
    ) -> tuple[bytes, EnrollmentToken]:
        """Make a token for a node; what names it, and what proves it."""

    async def note_node(self, role: str, name: str, spki: str) -> None:
        """A node got its certificate by hand."""

    async def nodes(self) -> list[dict[str, Any]]:
        """Every node, where the provider runs with what it does now."""

    async def change_node(self, role: str, name: str, act: str) -> int:
        """Drain a node, undrain or remove it; in how many sessions it takes part."""


class _Here:
    """The acts on a directory on which no provider runs."""

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    async def add_tenant(
        self, name: str, password: Password | None, settings: dict[str, Any]
    ) -> Password | None:
        return self._administration.add_tenant(name, password, settings)

    async def set_tenant(
        self, name: str, password: Password | None, new_token: bool, settings: dict[str, Any]
    ) -> Password | None:
        token = self._administration.set_tenant(name, password, new_token, settings)
        if "rules" in settings:
            self._administration.tell_rules(name)
        return token

    async def show_tenant(self, name: str) -> dict[str, Any]:
        fields = self._administration.describe(name)
        if fields["repository"] is not None:
            repository = self._administration.repository(name)
            fields |= self._administration.acts.measure(repository)
        return fields

    async def freeze(self, name: str, frozen: bool) -> bool:
        return self._administration.freeze(name, frozen)

    async def reload(self) -> bool:
        return False

    async def invite(
        self,
        name: str,
        label: str,
        capabilities: list[str],
        seconds: int,
        settings: dict[str, Any],
    ) -> dict[str, Any]:
        made = self._administration.invite(name, label or None, capabilities, seconds, settings)
        return {
            "token": made.token,
            "label": made.label,
            "expires": int(made.expires),
            "made": made.made,
        }

    async def add_credential(
        self,
        name: str,
        label: str,
        password: Password | None,
        capabilities: list[str],
    ) -> dict[str, Any]:
        made, token = self._administration.tenants.add_credential(
            name, label or None, password, capabilities
        )
        return {"label": made, "token": token}

    async def revoke_credential(self, name: str, label: str) -> None:
        self._administration.tenants.revoke_credential(name, label)

    async def switch_tenant(self, name: str, state: str) -> bool:
        return self._administration.tenants.switch(name, state)

    async def collect(self, name: str) -> dict[str, Any]:
        frozen = self._administration.describe(name)["frozen"]
        if not self._administration.tell_rules(name) and frozen:
            raise Refused(f"tenant {name} is frozen: nothing is removed until it is thawed")
        return self._administration.acts.collect(self._administration.repository(name))

    async def scrub(self, name: str, limit: int) -> dict[str, Any]:
        repository = self._administration.repository(name)
        result: dict[str, Any] = self._administration.acts.scrub(repository, limit or None)
        self._administration.keep_findings(name, result)
        return result

    async def seed(self, name: str, host: str, job: str, limit: int) -> dict[str, Any]:
        raise Refused("no provider runs here: start it, and its WAN cache can be seeded")

    async def page(
        self, what: str, filters: dict[str, str], after: int
    ) -> tuple[list[dict[str, Any]], bool]:
        return self._administration.page(what, filters, after, PAGE_ROWS_MAX)

    async def invite_node(
        self, role: str, name: str, seconds: int
    ) -> tuple[bytes, EnrollmentToken]:
        token = self._administration.accounts.invite_node(role, name, seconds)
        return token.identifier, token.secret

    async def note_node(self, role: str, name: str, spki: str) -> None:
        self._administration.accounts.note_node(role, name, spki)

    async def nodes(self) -> list[dict[str, Any]]:
        return self._administration.accounts.nodes()

    async def change_node(self, role: str, name: str, act: str) -> int:
        change_node(self._administration.accounts, role, name, act)
        return 0


class Audited:
    """Passes acts on, and writes down in the audit log what was done; what only looks is not.

    :param acts: who does them
    """

    def __init__(self, acts: Acts, log: AuditLog) -> None:
        self._acts = acts
        self._log = log

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._acts, name)
        if name.startswith(("page", "show", "get", "nodes", "reload")):
            return act
        signature = inspect.signature(act)

        async def audited(*arguments: Any, **named: Any) -> Any:
            fields = signature.bind(*arguments, **named).arguments
            outcome = "failed"
            try:
                result = await act(*arguments, **named)
                outcome = "done"
            except CloudConnectError as error:
                outcome = error.reason
                raise
            finally:
                append_now(self._log, [admin_entry(name, fields, outcome)])
            return result

        return audited


class _There:
    """The acts at a running provider, through its admin socket."""

    def __init__(self, link: BoundedAMP) -> None:
        self._link = link

    async def add_tenant(
        self, name: str, password: Password | None, settings: dict[str, Any]
    ) -> Password | None:
        answer = await self._link.call(AddTenant, name=name, password=password, settings=settings)
        token: Password | None = answer["token"]
        return token

    async def set_tenant(
        self, name: str, password: Password | None, new_token: bool, settings: dict[str, Any]
    ) -> Password | None:
        answer = await self._link.call(
            SetTenant, name=name, password=password, new_token=new_token, settings=settings
        )
        token: Password | None = answer["token"]
        return token

    async def show_tenant(self, name: str) -> dict[str, Any]:
        answer = await self._link.call(ShowTenant, name=name)
        fields: dict[str, Any] = answer["tenant"]
        return fields

    async def freeze(self, name: str, frozen: bool) -> bool:
        answer = await self._link.call(Freeze, name=name, frozen=frozen)
        kept: bool = answer["kept"]
        return kept

    async def reload(self) -> bool:
        done: bool = (await self._link.call(Reload))["done"]
        return done

    async def invite(
        self,
        name: str,
        label: str,
        capabilities: list[str],
        seconds: int,
        settings: dict[str, Any],
    ) -> dict[str, Any]:
        return await self._link.call(
            Invite,
            name=name,
            label=label,
            capabilities=capabilities,
            seconds=seconds,
            settings=settings,
        )

    async def add_credential(
        self,
        name: str,
        label: str,
        password: Password | None,
        capabilities: list[str],
    ) -> dict[str, Any]:
        return await self._link.call(
            AddCredential,
            name=name,
            label=label,
            password=password,
            capabilities=capabilities,
        )

    async def revoke_credential(self, name: str, label: str) -> None:
        await self._link.call(RevokeCredential, name=name, label=label)

    async def switch_tenant(self, name: str, state: str) -> bool:
        answer = await self._link.call(SwitchTenant, name=name, state=state)
        changed: bool = answer["changed"]
        return changed

    async def collect(self, name: str) -> dict[str, Any]:
        answer = await self._link.call(Collect, timeout=None, name=name)
        result: dict[str, Any] = answer["result"]
        return result

    async def scrub(self, name: str, limit: int) -> dict[str, Any]:
        answer = await self._link.call(Scrub, timeout=None, name=name, limit=limit)
        result: dict[str, Any] = answer["result"]
        return result

    async def seed(self, name: str, host: str, job: str, limit: int) -> dict[str, Any]:
        answer = await self._link.call(
            Seed, timeout=None, name=name, host=host, job=job, limit=limit
        )
        result: dict[str, Any] = answer["result"]
        return result

    async def page(
        self, what: str, filters: dict[str, str], after: int
    ) -> tuple[list[dict[str, Any]], bool]:
        answer = await self._link.call(
            List, what=what, filters=filters, after=after, limit=PAGE_ROWS_MAX
        )
        return answer["rows"], answer["more"]

    async def invite_node(
        self, role: str, name: str, seconds: int
    ) -> tuple[bytes, EnrollmentToken]:
        answer = await self._link.call(InviteNode, role=role, name=name, seconds=seconds)
        return answer["identifier"], answer["secret"]

    async def note_node(self, role: str, name: str, spki: str) -> None:
        await self._link.call(NoteNode, role=role, name=name, spki=spki)

    async def nodes(self) -> list[dict[str, Any]]:
        answer = await self._link.call(ListNodes)
        rows: list[dict[str, Any]] = answer["rows"]
        return rows

    async def change_node(self, role: str, name: str, act: str) -> int:
        answer = await self._link.call(ChangeNode, role=role, name=name, act=act)
        count: int = answer["sessions"]
        return count


async def rows(acts: Acts, what: str, filters: dict[str, str]) -> list[dict[str, Any]]:
    """All pages of a listing."""
    found: list[dict[str, Any]] = []
    more = True
    while more:
        page, more = await acts.page(what, filters, found[-1]["cursor"] if found else 0)
        found.extend(page)
        more = more and bool(page)
    return found


def administrate(
    directory: Path, work: Callable[[Acts], Coroutine[Any, Any, _T]], debug: bool = False
) -> _T:
    """Do ``work`` at the running provider, or on its directory where none runs.

    :raises NotReachable: one runs, and does not answer
    """
    settings = load(directory)
    with ExitStack() as held:
        if not settings.read_only:  # else nobody has a socket, and nothing can be changed
            try:
                held.enter_context(running(settings))
            except Busy:
                return at_running(settings, lambda acts, _: work(acts), debug)
        accounts = Accounts(settings.accounts_url)
        held.callback(accounts.close)
        reserve = Reserve(settings.reserve)
        administration = Administration(
            accounts, settings.repositories, reserve, settings.removed_days
        )
        here: Acts = _Here(administration)
        if not settings.read_only:
            here = cast(Acts, Audited(here, AuditLog(settings.audit, accounts)))
        return run_at_once(work(here))


def at_running(
    settings: ProviderSettings,
    work: Callable[[Acts, Any], Coroutine[Any, Any, _T]],
    debug: bool = False,
) -> _T:
    """Do ``work(acts, reactor)`` at the provider that runs.

    :raises NotReachable: none runs there, or it does not answer
    """

    async def remotely(reactor: Any, interrupt: Interrupt) -> _T:
        endpoint = UNIXClientEndpoint(reactor, str(settings.admin_socket), timeout=5)
        link: BoundedAMP = await connectProtocol(endpoint, BoundedAMP(reactor))
        try:
            return await work(_There(link), reactor)
        finally:
            if link.transport is not None:
                link.transport.loseConnection()

    try:
        return run(remotely, debug)
    except ConnectError as error:
        raise NotReachable(
            f"no provider runs on {settings.directory}, or it does not answer: {error}"
        ) from None


def listed(
    directory: Path, what: str, filters: dict[str, str], debug: bool
) -> list[dict[str, Any]]:
    """All rows of a listing."""
    return administrate(directory, lambda acts: rows(acts, what, filters), debug)
