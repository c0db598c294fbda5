"""Layer 4: what tenants and admins do to restore points through the service.

Each act is done by the mover that has the repository; before it the mover is told the newest rules.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudconnect.commands.box import BoundedCommand
from cloudconnect.commands.keeping import (
    CollectGarbage,
    DeleteRepositoryPoints,
    GetRepositoryRetention,
    LockRepositoryPoints,
    PreviewRepositoryRetention,
    ScrubRepository,
    SetRepositoryRetention,
    SetRules,
    UndeleteRepositoryPoints,
)
from cloudconnect.commands.repositories import MeasureRepository, SeedCache
from cloudconnect.errors import CloudConnectError, NotFound, Refused
from cloudconnect.provider.accounts import Tenant
from cloudconnect.provider.nodes.known import Nodes
from cloudconnect.provider.service.reports import Reports
from cloudconnect.provider.service.tenants import Tenants
from cloudconnect.shown import size_text


class PointKeeper:
    """Says to the mover what becomes of restore points.

    :param tenants: whose points they are
    :param nodes: has the movers
    :param reports: keeps what was done
    """

    _log = Logger()

    def __init__(self, tenants: Tenants, nodes: Nodes, reports: Reports) -> None:
        self._tenants = tenants
        self._nodes = nodes
        self._reports = reports

    async def delete_points(self, tenant: str, points: Any) -> dict[str, Any]:
        """Put restore points into the bin.

        :raises LeaseEnded: the tenant is not active
        :raises Refused: it is frozen, or a point is locked
        """
        record, repository = await self._acting(tenant, "nothing can be deleted")
        if record.frozen:
            raise Refused(
                f"the provider has frozen tenant {tenant}: for now nothing is deleted, expires or "
                "is removed; ask the provider"
            )
        answer = await self._nodes.movers.call(
            DeleteRepositoryPoints, repository=repository, points=points, by="tenant"
        )
        await self._note_points("points_deleted", "put into the bin", tenant, answer["points"])
        return answer

    async def undelete_points(self, tenant: str, points: Any) -> dict[str, Any]:
        """Take restore points out of the bin; also after the end of the lease."""
        _, repository = await self._acting(tenant, None)
        answer = await self._nodes.movers.call(
            UndeleteRepositoryPoints, repository=repository, points=points
        )
        await self._note_points("points_undeleted", "taken from the bin", tenant, answer["points"])
        return answer

    async def lock_points(self, tenant: str, points: Any, until: int) -> dict[str, Any]:
        """Lock restore points."""
        _, repository = await self._acting(tenant, "nothing can be locked")
        answer = await self._nodes.movers.call(
            LockRepositoryPoints, repository=repository, points=points, until=until
        )
        await self._note_points("points_locked", "locked", tenant, answer["points"])
        return answer

    async def retention(self, tenant: str, after: int, limit: int) -> dict[str, Any]:
        """One page of the retention policies."""
        _, repository = await self._acting(tenant, None)
        return await self._nodes.movers.call(
            GetRepositoryRetention, repository=repository, after=after, limit=limit
        )

    async def set_retention(self, tenant: str, host: str, job: str, policy: Any) -> dict[str, Any]:
        """Set what is kept of a host and a job."""
        _, repository = await self._acting(tenant, "retention cannot be changed")
        answer = await self._nodes.movers.call(
            SetRepositoryRetention, repository=repository, host=host, job=job, policy=policy
        )
        await self._reports.note(
            "retention_set",
            "",
            f"tenant {tenant} set what is kept of {host or 'every host'}, {job or 'every job'}",
            tenant=tenant,
            **answer["policy"],
        )
        return answer

    async def preview_retention(self, tenant: str, **query: Any) -> dict[str, Any]:
        """One page of what retention would do."""
        _, repository = await self._acting(tenant, None)
        return await self._nodes.movers.call(
            PreviewRepositoryRetention, repository=repository, **query
        )

    async def rules_changed(self, tenant: str) -> None:
        """An admin has changed what is agreed with a tenant, in the accounts: the mover hears it.

        :raises Refused: there is no mover; it hears it before the next act
        """
        record = await self._tenants.record(tenant)
        if record.repository is not None:
            await self.tell_rules(record, record.repository)

    async def freeze(self, tenant: str, frozen: bool) -> bool:
        """Freeze a tenant, or thaw it; whether it could be written down.

        Where it could not, because the disk is full or read-only, it holds for as long as service
        and mover run, and is written down when it can be.
        """
        record = await self._tenants.record(tenant)
        kept = await self._tenants.write_frozen(tenant, frozen)
        if record.repository is not None:
            kept = (
                await self.tell_rules(await self._tenants.record(tenant), record.repository)
                and kept
            )
        word = "frozen" if frozen else "thawed"
        await self._reports.note(f"tenant_{word}", "", f"tenant {tenant} is {word}", tenant=tenant)
        return kept

    async def measure(self, tenant: str) -> dict[str, Any]:
        """What the tenant's repository holds, as numbers, for its admin."""
        answer = await self._at_mover(tenant, MeasureRepository)
        measured: dict[str, Any] = answer["measured"]
        return measured

    async def agreement(self, tenant: str) -> dict[str, Any]:
        """What is agreed with a tenant and how much of it is used, as ShowAgreement answers it."""
        record = await self._tenants.record(tenant)
        counted: int | None = 0
        if record.repository is not None:
            try:
                counted = (await self.measure(tenant))["bytes_counted"]
            except CloudConnectError as error:
                self._log.warn("what {tenant} stores: {why}", tenant=tenant, why=str(error))
                counted = None
        return {
            "quota": record.quota,
            "soft_quota": record.soft_quota,
            "lease_end": record.lease_end,
            "max_tasks": record.max_tasks,
            "bytes_counted": counted,
        }

    async def quota_notes(self, tenant: str) -> list[str]:
        """What a tenant is told after a backup: that it is over its soft quota.

        The provider gets an event when that begins. That nothing could be found out is only logged:
        the backup is done.
        """
        try:
            record = await self._tenants.record(tenant)
            if record.soft_quota is None:
                return []
            counted = (await self.measure(tenant))["bytes_counted"]
            over = counted > record.soft_quota
            news = await self._tenants.soft_quota_passed(tenant, over)
        except CloudConnectError as error:
            self._log.warn("soft quota of {tenant}: {why}", tenant=tenant, why=str(error))
            return []
        if not over:
            return []
        limit = ""
        if record.quota is not None:
            limit = f"; backups are refused over {size_text(record.quota)}"
        agreed = size_text(record.soft_quota)
        text = f"{size_text(counted)} are stored, more than the {agreed} agreed{limit}"
        if news:
            await self._reports.note(
                "soft_quota_passed", "", f"tenant {tenant}: {text}", tenant=tenant, bytes=counted
            )
        return [f"{text}: delete restore points, or ask the provider for more"]

    async def collect(self, tenant: str) -> dict[str, Any]:
        """Collect the garbage of a tenant's repository, for its admin; the counts.

        :raises Refused: the tenant is frozen, also where its repository could not be told
        """
        if (await self._tenants.record(tenant)).frozen:
            raise Refused(f"tenant {tenant} is frozen: nothing is removed until it is thawed")
        answer = await self._at_mover(tenant, CollectGarbage, tenant=tenant)
        result: dict[str, Any] = answer["result"]
        return result

    async def scrub(self, tenant: str, limit: int) -> dict[str, Any]:
        """Scrub a tenant's repository, for its admin; counts and findings.

        :param limit: bytes to read, 0 for all
        """
        answer = await self._at_mover(tenant, ScrubRepository, tenant=tenant, limit=limit)
        result: dict[str, Any] = answer["result"]
        return result

    async def seed(self, tenant: str, host: str, job: str, limit: int) -> dict[str, Any]:
        """Seed the WAN cache in the mover's process from a tenant's repository; the counts.

        :param host: only points of this host, where it is not empty; ``job`` likewise
        :param limit: bytes, 0 for what suits the cache
        """
        answer = await self._at_mover(
            tenant, SeedCache, tenant=tenant, host=host, job=job, limit=limit
        )
        result: dict[str, Any] = answer["result"]
        return result

    async def _at_mover(
        self, name: str, command: type[BoundedCommand], **values: Any
    ) -> dict[str, Any]:
        """What the mover answers after however long it takes."""
        record = await self._tenants.record(name)
        if record.repository is None:
            raise NotFound(f"tenant {name} has no repository yet")
        await self.tell_rules(record, record.repository)
        return await self._nodes.movers.call(
            command, timeout=None, repository=record.repository, **values
        )

    async def _acting(self, tenant: str, forbidden: str | None) -> tuple[Tenant, bytes]:
        """The tenant and its repository, once the mover has the newest rules.

        :param forbidden: what an ended lease does not allow; None: a lease that has ended allows it
        """
        record = await self._tenants.record(tenant)
        if record.repository is None:
            raise NotFound(f"tenant {tenant} has no repository yet: run cloudconnect connect")
        if forbidden is not None or record.disabled:
            record.check_active(self._tenants.today(), forbidden or "")
        await self.tell_rules(record, record.repository)
        return record, record.repository

    async def tell_rules(self, record: Tenant, repository: bytes) -> bool:
        """Tell the mover what holds for a tenant's repository; whether it is written down there."""
        rules = record.repository_rules
        answer = await self._nodes.movers.call(
            SetRules, repository=repository, rules=rules, frozen=record.frozen
        )
        kept: bool = answer["kept"]
        return kept

    def _note_points(
        self, name: str, done: str, tenant: str, points: list[dict[str, Any]]
    ) -> Deferred[None]:
        text = f"tenant {tenant}: {len(points)} restore point(s) {done}"
        ids = [row["point"] for row in points]
        return self._reports.note(name, "", text, tenant=tenant, points=ids)
