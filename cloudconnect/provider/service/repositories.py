"""Layer 4: a tenant's one repository: made, described and listed by the mover that has it."""

from __future__ import annotations

from typing import Any

from cloudconnect.commands.repositories import (
    DescribeRepository,
    ListRepositoryPoints,
    MakeRepository,
    ReplaceRepositoryDescription,
)
from cloudconnect.content.atrest import RepositoryDescription
from cloudconnect.errors import Busy, NotFound, Refused
from cloudconnect.provider.accounts import Tenant
from cloudconnect.provider.nodes.known import Nodes
from cloudconnect.provider.service.keeping import PointKeeper
from cloudconnect.provider.service.live import LiveSessions
from cloudconnect.provider.service.reports import Reports
from cloudconnect.provider.service.tenants import Tenants


class TenantRepositories:
    """The repositories of tenants, at the movers.

    :param tenants: whose they are
    :param nodes: the other roles
    :param sessions: those that run
    :param keeping: tells movers the rules
    :param reports: keeps what happened
    """

    def __init__(
        self,
        tenants: Tenants,
        nodes: Nodes,
        sessions: LiveSessions,
        keeping: PointKeeper,
        reports: Reports,
    ) -> None:
        self._tenants = tenants
        self._nodes = nodes
        self._sessions = sessions
        self._keeping = keeping
        self._reports = reports
        self._creating: set[str] = set()

    async def account(self, tenant: str) -> tuple[Tenant, bytes]:
        """The tenant's record, and its encoded repository description or ``b""``."""
        record = await self._tenants.record(tenant)
        if record.repository is None:
            return record, b""
        answer = await self._nodes.movers.call(DescribeRepository, repository=record.repository)
        return record, answer["description"]

    async def create(self, tenant: str, encoded: bytes) -> None:
        """Make the tenant's one repository.

        :param encoded: its description
        :raises Refused: it has one, or the mode is not allowed
        """
        record = await self._tenants.record(tenant)
        record.check_active(self._tenants.today())
        if record.repository is not None:
            raise Refused(
                f"tenant {tenant} has a repository already; connect again with its passphrase"
            )
        description = RepositoryDescription.decode(encoded)
        if description.mode.value not in record.modes:
            raise Refused(
                f"the provider does not allow encryption mode {description.mode.value} for "
                f"tenant {tenant}, only {', '.join(record.modes)}"
            )
        if tenant in self._creating:
            raise Busy(f"the repository of tenant {tenant} is being made")
        self._creating.add(tenant)
        try:
            movers = self._nodes.movers
            mover = movers.some(self._sessions.busy())
            await mover.call(MakeRepository, description=encoded)
            if mover in movers:
                movers.remember(description.repository, movers.place(mover).storage)
            await self._keeping.tell_rules(record, description.repository)
            await self._tenants.set_repository(
                tenant, description.repository, description.mode.value
            )
        finally:
            self._creating.discard(tenant)
        await self._reports.note(
            "repository_made",
            "",
            f"tenant {tenant} made its repository, encryption {description.mode.value}",
            tenant=tenant,
            mode=description.mode.value,
        )

    async def replace_description(
        self, tenant: str, description: bytes, head: bytes, head_signature: bytes
    ) -> None:
        """Take a new description of the tenant's repository; the mover judges who has signed it.

        Also after the end of the lease: who must lock somebody out must not wait for that.
        """
        record = await self._tenants.record(tenant)
        if record.disabled:
            record.check_active(self._tenants.today())
        if record.repository is None:
            raise NotFound(f"tenant {tenant} has no repository yet: run cloudconnect connect")
        await self._nodes.movers.call(
            ReplaceRepositoryDescription,
            repository=record.repository,
            description=description,
            head=head,
            head_signature=head_signature,
        )
        await self._reports.note(
            "description_replaced", "", f"tenant {tenant} changed its keys", tenant=tenant
        )

    async def points(self, tenant: str, **query: Any) -> dict[str, Any]:
        """One page of the tenant's restore points."""
        record = await self._tenants.record(tenant)
        if record.repository is None:
            raise NotFound(f"tenant {tenant} has no repository yet: run cloudconnect connect")
        return await self._nodes.movers.call(
            ListRepositoryPoints, repository=record.repository, **query
        )
