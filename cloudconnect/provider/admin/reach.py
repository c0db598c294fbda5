"""Layer 4: what an admin's acts reach beside the accounts: the running provider, or its directory.

Where the provider runs, what changes takes effect at once: in the service, at the mover and on the
lines of those whom it cuts. Where none runs, it is done to the repositories in the directory.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from cloudconnect.commands.paging import fit_page
from cloudconnect.errors import Refused
from cloudconnect.provider.admin.administration import Administration
from cloudconnect.provider.admin.health import resting
from cloudconnect.provider.service.service import CloudConnectService


class Reach(Protocol):
    """What acts on tenants, their repositories and the nodes need."""

    async def cut(self, tenant: str, label: str | None = None, number: int | None = None) -> None:
        """End what a tenant has running, or what was begun with one of its credentials.

        :param label: what the credential is called
        :param number: of the credential, where several are called so
        """

    async def note(self, event: str, text: str, tenant: str, **fields: Any) -> None:
        """Keep what was done."""

    async def rules_changed(self, tenant: str) -> None:
        """Put what is agreed with a tenant into force in its repository."""

    async def freeze(self, tenant: str, frozen: bool) -> bool:
        """Freeze a tenant or thaw it; whether it could be written down."""

    async def measure(self, tenant: str) -> dict[str, Any]:
        """What a tenant's repository holds, as numbers."""

    async def collect(self, tenant: str) -> dict[str, Any]:
        """Collect a tenant's garbage; the counts."""

    async def scrub(self, tenant: str, limit: int) -> dict[str, Any]:
        """Scrub a tenant's repository; counts and findings.

        :param limit: bytes to read, 0 for all
        """

    async def seed(self, tenant: str, host: str, job: str, limit: int) -> dict[str, Any]:
        """Seed the WAN cache from a tenant's repository; the counts."""

    async def points(
        self, filters: dict[str, str], after: int, limit: int
    ) -> tuple[list[dict[str, Any]], bool] | None:
        """One page of a tenant's restore points that do not lie in the provider's directory; None
        where there is no other place.

        :param filters: ``tenant``, ``host``, ``job``, ``tag``, ``state``
        :raises NotFound: there is no such tenant, or it has no repository
        """

    def node_fields(self, role: str, name: str) -> dict[str, Any]:
        """What a node does now."""

    async def status(self, seconds: float) -> dict[str, Any]:
        """How the provider is; without certificates where none runs.

        :param seconds: warnings and trouble of so long
        """

    def node_changed(self, role: str, name: str, act: str) -> int:
        """A node was drained, undrained or removed; in how many sessions it takes part."""

    def reload(self) -> bool:
        """Read certificates and settings again; whether that was done."""


class RunningProvider:
    """The provider that runs.

    :param service: its service
    """

    def __init__(self, service: CloudConnectService) -> None:
        self._service = service
        keeping = service.keeping
        self.cut = service.cut
        self.rules_changed = keeping.rules_changed
        self.freeze = keeping.freeze
        self.measure = keeping.measure
        self.collect = keeping.collect
        self.scrub = keeping.scrub
        self.seed = keeping.seed

    async def note(self, event: str, text: str, tenant: str, **fields: Any) -> None:
        """Keep it as an event."""
        await self._service.reports.note(event, "", text, tenant=tenant, **fields)

    async def points(
        self, filters: dict[str, str], after: int, limit: int
    ) -> tuple[list[dict[str, Any]], bool]:
        """From the mover that has the repository."""
        name = filters.get("tenant", "")
        query: dict[str, Any] = {key: filters.get(key, "") for key in ("host", "job", "tag")}
        states = [filters["state"]] if filters.get("state") else None
        answer = await self._service.repositories.points(
            name, **query, after=after, limit=limit, states=states
        )
        rows = [{"tenant": name, **row, "cursor": row["arrival"]} for row in answer["points"]]
        page, left = fit_page(rows, limit)
        return page, left or answer["more"]

    def node_fields(self, role: str, name: str) -> dict[str, Any]:
        """Whether it is there, in how many sessions, and a gateway's load."""
        return self._service.node_fields(role, name)

    async def status(self, seconds: float) -> dict[str, Any]:
        """As the whole process knows it."""
        if self._service.health is None:
            raise Refused("this process does not know how it is")
        return await self._service.health(seconds)

    def node_changed(self, role: str, name: str, act: str) -> int:
        """Its sessions are asked to move on; a removed one is cut off."""
        sessions = self._service.leave(role, name, act != "undrain")
        if act == "remove":
            self._service.expel(role, name)
        return sessions

    def reload(self) -> bool:
        """Where this process can."""
        if self._service.reload is None:
            return False
        self._service.reload()
        return True


class RestingProvider:
    """The directory of a provider that does not run; every method blocks.

    :param administration: does the acts
    """

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    async def cut(self, tenant: str, label: str | None = None, number: int | None = None) -> None:
        """Nothing runs."""

    async def note(self, event: str, text: str, tenant: str, **fields: Any) -> None:
        """The audit log has it."""

    async def rules_changed(self, tenant: str) -> None:
        """Into the repository's own catalogue."""
        self._administration.tell_rules(tenant)

    async def freeze(self, tenant: str, frozen: bool) -> bool:
        """In the accounts and in the repository."""
        return self._administration.freeze(tenant, frozen)

    async def measure(self, tenant: str) -> dict[str, Any]:
        """From the repository's catalogue."""
        return self._administration.acts.report(self._administration.repository(tenant))

    async def collect(self, tenant: str) -> dict[str, Any]:
        """Here and now."""
        frozen = self._administration.describe(tenant)["frozen"]
        if not self._administration.tell_rules(tenant) and frozen:
            raise Refused(f"tenant {tenant} is frozen: nothing is removed until it is thawed")
        return self._administration.acts.collect(self._administration.repository(tenant))

    async def scrub(self, tenant: str, limit: int) -> dict[str, Any]:
        """Here and now; findings are kept for the tenant."""
        repository = self._administration.repository(tenant)
        result: dict[str, Any] = self._administration.acts.scrub(repository, limit or None)
        self._administration.keep_findings(tenant, result)
        return result

    async def seed(self, tenant: str, host: str, job: str, limit: int) -> dict[str, Any]:
        """The WAN cache is that of a running process."""
        raise Refused("no provider runs here: start it, and its WAN cache can be seeded")

    async def points(self, filters: dict[str, str], after: int, limit: int) -> None:
        """There is no other place."""

    def node_fields(self, role: str, name: str) -> dict[str, Any]:
        """Nothing is there."""
        return {}

    async def status(self, seconds: float) -> dict[str, Any]:
        """From the accounts alone."""
        administration = self._administration
        since = time.time() - seconds
        return resting(administration.accounts, administration.acts.directory, since)

    def node_changed(self, role: str, name: str, act: str) -> int:
        """Nothing is there."""
        return 0

    def reload(self) -> bool:
        """Nothing runs."""
        return False
