"""Layer 4: what an admin may do, and the socket to do it through while the provider runs.

:class:`Administration` does the acts, blocking; :class:`AdminFactory` serves them on a UNIX socket
of mode 0600 in the provider's directory. Where no provider runs, the command line uses
:class:`Administration` directly.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.protocols import amp
from twisted.python.failure import Failure

from cloudconnect.commands.admin import (
    AddCredential,
    AddTenant,
    Collect,
    Freeze,
    Invite,
    List,
    Reload,
    RevokeCredential,
    Scrub,
    Seed,
    SetTenant,
    ShowTenant,
    SwitchTenant,
)
from cloudconnect.commands.paging import fit_page
from cloudconnect.errors import NotFound, ProtocolViolation, Refused, UsageError
from cloudconnect.keys import Password
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.acts import RepositoryActs
from cloudconnect.provider.auditing import act_name, without_secrets
from cloudconnect.provider.followers import follower_rows, read_known
from cloudconnect.provider.maintenance import scrub_warnings
from cloudconnect.provider.node_acts import NodeAdministration, points_at_mover
from cloudconnect.provider.reserve import Reserve
from cloudconnect.provider.service import CloudConnectService
from cloudconnect.provider.tenant_acts import (
    ENABLED,
    REMOVED_DAYS,
    Invitation,
    TenantActs,
    verifier_of,
)
from cloudconnect.provider.usage import read_months, usage_rows
from cloudconnect.repository.rules import Rules
from cloudconnect.settings import PAGE_ROWS_MAX
from cloudconnect.wire.scram import DEFAULT_LABEL, make_token

#: What :meth:`Administration.page` can list.
LISTINGS = ("tenant", "credential", "point", "event", "session", "usage", "follower")
#: Settings that a tenant may be given.
TENANT_SETTINGS = (
    "quota",
    "soft_quota",
    "lease_end",
    "max_tasks",
    "modes",
    "bandwidth",
    "expect_every",
    "pool",
)


class Administration:
    """The acts of a provider's admin; every method blocks.

    :ivar accounts: the accounts data base
    :param repositories: the folder of the repositories
    :param removed_days: days that a removed tenant stays in the bin
    :ivar acts: what can be done to these
    :ivar tenants: what can be done about who logs in
    """

    def __init__(
        self,
        accounts: Accounts,
        repositories: Path,
        reserve: Reserve | None = None,
        removed_days: int = REMOVED_DAYS,
    ) -> None:
        self._accounts = self.accounts = accounts
        self.tenants = TenantActs(accounts, removed_days)
        self.acts = RepositoryActs(repositories, reserve)

    def add_tenant(
        self, name: str, password: Password | None, settings: dict[str, Any]
    ) -> Password | None:
        """Make a tenant; returns the token that was made where no password was given.

        :raises UsageError: a name, password or setting that cannot be used
        """
        agreed = _agreed(settings)
        token = make_token() if password is None else None
        secret = password if password is not None else token
        assert secret is not None
        self._accounts.add_tenant(name, verifier_of(secret), **agreed)
        return token

    def invite(
        self,
        name: str,
        label: str | None,
        capabilities: list[str],
        seconds: float,
        settings: dict[str, Any],
    ) -> Invitation:
        """Invite a machine of a tenant; see :meth:`.tenant_acts.TenantActs.invite`.

        :param settings: of a new tenant, as for :meth:`add_tenant`; empty for one that is there
        """
        agreed = _agreed(settings) if settings else None
        return self.tenants.invite(name, label, capabilities, seconds, agreed)

    def set_tenant(
        self, name: str, password: Password | None, new_token: bool, settings: dict[str, Any]
    ) -> Password | None:
        """Change what is agreed with a tenant; returns the token that was made, if one was.

        A repository hears of new rules with :meth:`tell_rules`, or from the service.

        :param settings: what changes; ``rules`` holds the rules that change
        :raises NotFound: there is no such tenant
        :raises UsageError: a password or setting that cannot be used
        """
        _check_settings({key: value for key, value in settings.items() if key != "rules"})
        tenant = self._accounts.tenant(name)
        values = dict(settings)
        if "rules" in values:
            values["rules"] = _changed_rules(tenant.rules, values["rules"])
        self._accounts.change_tenant(name, values)
        token = make_token() if new_token and password is None else None
        secret = password if password is not None else token
        if secret is not None:
            self._accounts.change_verifier(name, verifier_of(secret))
        return token

    def tell_rules(self, name: str) -> bool:
        """Put what is agreed with a tenant into force in its repository, where no provider runs.

        :return: whether it could be written down there
        """
        tenant = self._accounts.tenant(name)
        if tenant.repository is None:
            return True
        return self.acts.set_rules(tenant.repository, tenant.repository_rules, tenant.frozen)

    def freeze(self, name: str, frozen: bool) -> bool:
        """Freeze a tenant or thaw it, where no provider runs; whether it could be written down."""
        self._accounts.change_tenant(name, {"frozen": frozen})
        return self.tell_rules(name)

    def repository(self, name: str) -> bytes:
        """A tenant's repository.

        :raises NotFound: there is none
        """
        tenant = self._accounts.tenant(name)
        if tenant.repository is None:
            raise NotFound(f"tenant {name} has no repository yet")
        return tenant.repository

    def describe(self, name: str) -> dict[str, Any]:
        """What is agreed with a tenant, its rules whole, as a map."""
        tenant = self._accounts.tenant(name)
        fields = attrs.asdict(tenant)
        del fields["group"]
        return {
            **fields,
            "modes": list(tenant.modes),
            "repository": None if tenant.repository is None else tenant.repository.hex(),
            "rules": Rules.from_map(tenant.repository_rules).as_map(),
        }

    def keep_findings(self, name: str, result: dict[str, Any]) -> None:
        """Keep what a scrub found, where no provider runs."""
        for warning in scrub_warnings(name, result):
            self._accounts.keep_warning(warning, warning.role)

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
        elif what == "credential":
            name = self._accounts.tenant(filters.get("tenant", "")).name
            rows = self._accounts.credentials(name, after, limit + 1)
        elif what == "point":
            rows = self._points(filters, after, limit + 1)
        elif what == "usage":
            found = enumerate(self._usage(filters.get("month", "")), 1)
            rows = [{**row, "cursor": number} for number, row in found if number > after]
        elif what == "follower":
            found = enumerate(self._followers(filters.get("pin", "")), 1)
            rows = [{**row, "cursor": number} for number, row in found if number > after]
        elif what == "event":
            rows = self._accounts.events(filters, after, limit + 1)
        else:
            rows = self._accounts.sessions(filters.get("tenant", ""), after, limit + 1)
        return fit_page(rows, limit)

    def _followers(self, pin: str) -> list[dict[str, Any]]:
        accounts = self._accounts
        known, tenants = read_known(accounts), accounts.tenants()
        return follower_rows(known, tenants, self._sessions(), [pin], time.time())

    def _usage(self, month: str) -> list[dict[str, Any]]:
        return usage_rows(read_months(self._accounts, month), self._sessions(), month)

    def _sessions(self) -> list[dict[str, Any]]:
        sessions: list[dict[str, Any]] = []
        while True:
            after = sessions[-1]["cursor"] if sessions else 0
            page = self._accounts.sessions("", after, PAGE_ROWS_MAX)
            sessions += [{k: row[k] for k in _OF_SESSIONS} for row in page]
            if len(page) < PAGE_ROWS_MAX:
                return sessions

    def _points(self, filters: dict[str, str], after: int, limit: int) -> list[dict[str, Any]]:
        """One tenant's points; a listing over tenants asks for each in turn."""
        name = filters.get("tenant", "")
        if not name:
            raise UsageError("name the tenant whose points to list")
        tenant = self._accounts.tenant(name)
        if tenant.repository is None:
            raise NotFound(f"tenant {name} has no repository yet")
        query = {name: filters.get(name, "") for name in ("host", "job", "tag")}
        states = [filters["state"]] if filters.get("state") else None
        rows, _ = self.acts.points(
            tenant.repository, {**query, "after": after, "limit": limit, "states": states}
        )
        return [{"tenant": name, **row, "cursor": row["arrival"]} for row in rows]


#: What reports need of a session.
_OF_SESSIONS = ("cursor", "started", "kind", "tenant", "host", "summary")


def _agreed(settings: dict[str, Any]) -> dict[str, Any]:
    """What ``Accounts.add_tenant`` takes.

    :raises UsageError: a setting that cannot be used
    """
    _check_settings(settings)
    given = {name: value for name, value in settings.items() if value is not None}
    if "modes" in given:
        given["modes"] = tuple(given["modes"])
    return given


def _check_settings(settings: dict[str, Any]) -> None:
    unknown = set(settings) - set(TENANT_SETTINGS)
    if unknown:
        raise UsageError(f"a tenant has no setting {', '.join(sorted(unknown))}")
    modes = settings.get("modes")
    if modes is not None and (not modes or not set(modes) <= {"tenant", "provider", "none"}):
        raise UsageError("encryption modes are tenant, provider and none")


def _changed_rules(rules: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    try:
        return Rules.from_map({**Rules.from_map(rules).as_map(), **changes}).as_map()
    except (ProtocolViolation, TypeError) as error:
        raise UsageError(str(error)) from None


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UsageError("capabilities is a list of words")
    return values


class AdminProtocol(NodeAdministration):
    """One connection to the admin socket.

    :param service: reaches the mover, for acts on repositories
    """

    def __init__(
        self,
        reactor: Any,
        administration: Administration,
        in_accounts_thread: Callable[..., Deferred[Any]],
        service: CloudConnectService | None = None,
    ) -> None:
        super().__init__(reactor)
        self._administration = administration
        self._run = in_accounts_thread
        self._service = service

    def _look_on(
        self, command: type[amp.Command], arguments: dict[str, Any], answer: Deferred[Any]
    ) -> None:
        """Tell the service's watchers of every act; what only looks is none."""
        name = command.__name__
        if self._service is None or name.startswith(("List", "Show", "Get")):
            return
        watchers, act, fields = self._service.watchers, act_name(name), without_secrets(arguments)

        def over(result: Any) -> Any:
            outcome = "done"
            if isinstance(result, Failure):
                outcome = getattr(result.value, "reason", "failed")
            watchers.tell(lambda watcher: watcher.administered(act, fields, outcome))
            return result

        answer.addBoth(over)

    @property
    def _repositories(self) -> CloudConnectService:
        if self._service is None:
            raise Refused("nothing can be done to repositories here")
        return self._service

    @property
    def _accounts(self) -> Accounts:
        return self._administration.accounts

    @property
    def _cloud(self) -> CloudConnectService:
        return self._repositories

    @AddTenant.responder
    def add_tenant(
        self, name: str, password: Password | None, settings: Any
    ) -> Deferred[dict[str, Any]]:
        """Make a tenant."""
        if not isinstance(settings, dict):
            raise UsageError("settings is a map")
        done = self._run(self._administration.add_tenant, name, password, settings)
        return done.addCallback(lambda token: {"token": token})

    # --- who logs in -----------------------------------------------------------------------------

    @Invite.responder
    def invite(
        self, name: str, label: str, capabilities: Any, seconds: int, settings: Any
    ) -> Deferred[dict[str, Any]]:
        """Invite a machine of a tenant."""
        if not isinstance(settings, dict):
            raise UsageError("settings is a map")
        return Deferred.fromCoroutine(
            self._invite(name, label, _texts(capabilities), seconds, settings)
        )

    async def _invite(
        self, name: str, label: str, capabilities: list[str], seconds: int, settings: dict[str, Any]
    ) -> dict[str, Any]:
        invite = self._administration.invite
        made = await self._run(invite, name, label or None, capabilities, seconds, settings)
        text = f"tenant {name}: credential {made.label} invited"
        await self._note("tenant_invited", text, name, credential=made.label)
        return {
            "token": made.token,
            "label": made.label,
            "expires": int(made.expires),
            "made": made.made,
        }

    @AddCredential.responder
    def add_credential(
        self,
        name: str,
        label: str,
        password: Password | None,
        capabilities: Any,
    ) -> Deferred[dict[str, Any]]:
        """Give a tenant another credential."""
        return Deferred.fromCoroutine(
            self._add_credential(name, label, password, _texts(capabilities))
        )

    async def _add_credential(
        self,
        name: str,
        label: str,
        password: Password | None,
        capabilities: list[str],
    ) -> dict[str, Any]:
        add = self._administration.tenants.add_credential
        made, token = await self._run(add, name, label or None, password, capabilities)
        text = f"tenant {name}: credential {made} added"
        await self._note("credential_added", text, name, credential=made)
        return {"label": made, "token": token}

    @RevokeCredential.responder
    def revoke_credential(self, name: str, label: str) -> Deferred[dict[str, Any]]:
        """End a credential, and what runs with it."""
        return Deferred.fromCoroutine(self._revoke_credential(name, label))

    async def _revoke_credential(self, name: str, label: str) -> dict[str, Any]:
        await self._run(self._administration.tenants.revoke_credential, name, label)
        if self._service is not None:
            await self._service.cut(name, label)
        text = f"tenant {name}: credential {label} revoked"
        await self._note("credential_revoked", text, name, credential=label)
        return {}

    @SwitchTenant.responder
    def switch_tenant(self, name: str, state: str) -> Deferred[dict[str, Any]]:
        """Enable, disable or remove a tenant."""
        return Deferred.fromCoroutine(self._switch_tenant(name, state))

    async def _switch_tenant(self, name: str, state: str) -> dict[str, Any]:
        changed = await self._run(self._administration.tenants.switch, name, state)
        if self._service is not None and state != ENABLED:
            await self._service.cut(name)
        if changed:
            await self._note(f"tenant_{state}", f"tenant {name} is {state}", name)
        return {"changed": changed}

    async def _note(self, event: str, text: str, tenant: str, **fields: Any) -> None:
        if self._service is not None:
            await self._service.note(event, "", text, tenant=tenant, **fields)

    @List.responder
    def page(self, what: str, filters: Any, after: int, limit: int) -> Deferred[dict[str, Any]]:
        """One page of a listing."""
        if not isinstance(filters, dict):
            raise UsageError("filters is a map")
        done = self._run(self._administration.page, what, filters, after, limit)
        if what == "point" and self._service is not None:
            done.addErrback(self._elsewhere, self._service, filters, after, limit)
        return done.addCallback(lambda found: {"rows": found[0], "more": found[1]})

    def _elsewhere(
        self,
        failure: Failure,
        service: CloudConnectService,
        filters: dict[str, str],
        after: int,
        limit: int,
    ) -> Deferred[Any]:
        """The repository does not lie in this process's directory: ask the mover that has it."""
        failure.trap(NotFound)
        return Deferred.fromCoroutine(points_at_mover(service, filters, after, limit))

    # --- what is agreed with a tenant, and how points are kept -----------------------------------

    @SetTenant.responder
    def set_tenant(
        self, name: str, password: Password | None, new_token: bool, settings: Any
    ) -> Deferred[dict[str, Any]]:
        """Change what is agreed with a tenant."""
        if not isinstance(settings, dict) or not isinstance(settings.get("rules", {}), dict):
            raise UsageError("settings and rules are maps")
        return Deferred.fromCoroutine(self._set_tenant(name, password, new_token, settings))

    async def _set_tenant(
        self, name: str, password: Password | None, new_token: bool, settings: dict[str, Any]
    ) -> dict[str, Any]:
        token = await self._run(
            self._administration.set_tenant, name, password, new_token, settings
        )
        if self._service is not None and (password is not None or token is not None):
            await self._service.cut(name, DEFAULT_LABEL)  # the old password has ended
        if "rules" in settings or "quota" in settings:  # the bin is as large as the quota
            await self._repositories.keeping.rules_changed(name)
        return {"token": token}

    @ShowTenant.responder
    def show_tenant(self, name: str) -> Deferred[dict[str, Any]]:
        """What is agreed with a tenant, and what its repository holds."""
        return Deferred.fromCoroutine(self._show_tenant(name))

    async def _show_tenant(self, name: str) -> dict[str, Any]:
        fields = await self._run(self._administration.describe, name)
        if fields["repository"] is not None:
            fields |= await self._repositories.keeping.measure(name)
        return {"tenant": fields}

    @Freeze.responder
    def freeze(self, name: str, frozen: bool) -> Deferred[dict[str, Any]]:
        """Freeze a tenant, or thaw it."""
        done = Deferred.fromCoroutine(self._repositories.freeze(name, frozen))
        return done.addCallback(lambda kept: {"kept": kept})

    @Reload.responder
    def reload(self) -> dict[str, Any]:
        """Read certificates and settings again."""
        reload = self._repositories.reload
        if reload is not None:
            reload()
        return {"done": reload is not None}

    @Collect.responder
    def collect(self, name: str) -> Deferred[dict[str, Any]]:
        """Collect garbage."""
        done = Deferred.fromCoroutine(self._repositories.keeping.collect(name))
        return done.addCallback(lambda result: {"result": result})

    @Scrub.responder
    def scrub(self, name: str, limit: int) -> Deferred[dict[str, Any]]:
        """Compare stored bytes with their digests."""
        done = Deferred.fromCoroutine(self._repositories.keeping.scrub(name, limit))
        return done.addCallback(lambda result: {"result": result})

    @Seed.responder
    def seed(self, name: str, host: str, job: str, limit: int) -> Deferred[dict[str, Any]]:
        """Seed the WAN cache from a repository."""
        done = Deferred.fromCoroutine(
            self._repositories.keeping.seed(name, host, job, max(0, limit))
        )
        return done.addCallback(lambda result: {"result": result})


class AdminFactory(Factory):
    """Serves the admin socket."""

    noisy = False

    def __init__(
        self,
        reactor: Any,
        administration: Administration,
        in_accounts_thread: Callable[..., Deferred[Any]],
        service: CloudConnectService | None = None,
    ) -> None:
        self._make = lambda: AdminProtocol(reactor, administration, in_accounts_thread, service)

    def buildProtocol(self, addr: IAddress | None) -> AdminProtocol:
        """One for this connection."""
        return self._make()  # type: ignore[no-untyped-call]
