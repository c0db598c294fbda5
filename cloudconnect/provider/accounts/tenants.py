"""Layer 4: the accounts: what the provider agreed with each tenant."""

from __future__ import annotations

import datetime
import json
import re
import secrets
import time
from typing import Any

import attrs
import sqlalchemy as sa

from cloudconnect.errors import LeaseEnded, NotFound, UsageError
from cloudconnect.provider.accounts.credentials import add_credential
from cloudconnect.provider.accounts.database import Database
from cloudconnect.provider.accounts.tables import (
    MAX_TASKS_DEFAULT,
    events_table,
    tenants_table,
)
from cloudconnect.wire.login import Verifier

#: A tenant's name: what SCRAM, SQL, file names and labels can all carry.
TENANT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")


@attrs.frozen(kw_only=True)
class Tenant:
    """What the provider agreed with one tenant.

    :ivar group: opaque 16 bytes that a gateway may share bandwidth by
    :ivar lease_end: last day of the lease, ``YYYY-MM-DD``, or None
    :ivar quota: bytes that may be stored, or None
    :ivar modes: at-rest modes that the tenant may choose from
    :ivar repository: its repository's 16 bytes, or None until it connects
    :ivar mode: the repository's encryption mode
    :ivar rules: what the provider demands and allows of how points are kept, as a map
        (:class:`cloudconnect.repository.rules.Rules`); empty: the defaults
    :ivar frozen: whether nothing may be deleted, expire or be collected
    :ivar soft_quota: with more bytes stored than this it is warned, or None
    :ivar bandwidth: bytes a second over all its sessions, or None
    :ivar expect_every: seconds in which a backup is due, or None
    :ivar pool: which gateways it uses
    :ivar removed: when it was put into the bin, in seconds since 1970, or None
    :ivar removal_left: seconds that it stays there, of those in which a provider ran
    """

    name: str
    group: bytes
    disabled: bool
    lease_end: str | None
    quota: int | None
    max_tasks: int
    modes: tuple[str, ...]
    repository: bytes | None
    mode: str = "tenant"
    rules: dict[str, Any] = attrs.field(factory=dict)
    frozen: bool = False
    soft_quota: int | None = None
    bandwidth: int | None = None
    expect_every: int | None = None
    pool: str = "default"
    removed: float | None = None
    removal_left: float | None = None

    @property
    def repository_rules(self) -> dict[str, Any]:
        """The rules as the repository gets them: where its admin set no size, the bin holds as much
        as the quota allows. Without any, who deletes, backs up and takes back in turn would make a
        provider store more and more beside the quota.
        """
        if self.rules.get("bin_bytes") is None and self.quota:
            return {**self.rules, "bin_bytes": self.quota}
        return self.rules

    def check_enabled(self) -> None:
        """Whether the tenant may do anything at all.

        :raises LeaseEnded: its provider has disabled it
        """
        if self.disabled:
            raise LeaseEnded(f"the provider has disabled tenant {self.name}; ask the provider")

    def check_grace(self, today: datetime.date, days: int) -> None:
        """Whether what is stored may still be listed and restored.

        :param days: of grace after the last day of the lease
        :raises LeaseEnded: they are over too
        """
        if self.lease_end is None:
            return
        last = datetime.date.fromisoformat(self.lease_end)
        if (today - last).days > days:
            raise LeaseEnded(
                f"the lease of tenant {self.name} ended on {self.lease_end}, and the {days} days "
                "of grace for restores are over too; ask the provider"
            )

    def check_active(
        self,
        today: datetime.date,
        forbidden: str = "no new backups, restores go on for a grace time",
    ) -> None:
        """Whether new backups may start, and points be deleted.

        :param forbidden: what an ended lease does not allow, for the text
        :raises LeaseEnded: the lease has ended, or the tenant is disabled
        """
        self.check_enabled()
        if self.lease_end is not None and today > datetime.date.fromisoformat(self.lease_end):
            raise LeaseEnded(
                f"the lease of tenant {self.name} ended on {self.lease_end}: {forbidden}; ask the "
                "provider"
            )


class TenantAccounts(Database):
    """The tenants in the accounts data base."""

    def add_tenant(
        self,
        name: str,
        verifier: Verifier | None,
        *,
        quota: int | None = None,
        lease_end: str | None = None,
        max_tasks: int = MAX_TASKS_DEFAULT,
        modes: tuple[str, ...] = ("tenant",),
        soft_quota: int | None = None,
        bandwidth: int | None = None,
        expect_every: int | None = None,
        pool: str = "default",
    ) -> None:
        """Make a tenant with one credential that may do everything.

        :param verifier: proves its password; None: it gets its first credential later
        :raises UsageError: a name that cannot be used, or that is taken; a date that is none
        """
        if not TENANT_NAME.match(name):
            raise UsageError(
                f"tenant name {name!r}: 1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit"
            )
        limits = {
            "lease_end": lease_end,
            "max_tasks": max_tasks,
            "quota": quota,
            "soft_quota": soft_quota,
            "bandwidth": bandwidth,
            "expect_every": expect_every,
            "pool": pool,
        }
        _check_limits(limits)
        with self._writing() as connection:
            taken = sa.select(tenants_table.c.name).where(tenants_table.c.name == name)
            if connection.execute(taken).scalar() is not None:
                raise UsageError(f"there is a tenant {name} already")
            newest = sa.func.coalesce(sa.func.max(events_table.c.seq), 0)
            connection.execute(
                tenants_table.insert().values(
                    name=name,
                    group_id=secrets.token_bytes(16),
                    created=time.time(),
                    disabled=False,
                    **limits,
                    modes=",".join(modes),
                    # What was found in the repository of another one of this name is not its.
                    told=sa.select(newest).scalar_subquery(),
                )
            )
            if verifier is not None:
                add_credential(connection, name, verifier)

    def change_tenant(self, name: str, values: dict[str, Any]) -> None:
        """Change what is agreed with a tenant.

        :param values: of ``quota``, ``soft_quota``, ``lease_end``, ``max_tasks``, ``modes``,
            ``bandwidth``, ``expect_every``, ``pool``, ``rules``, ``frozen``
        :raises NotFound: there is no such tenant
        :raises UsageError: a value that cannot be used
        """
        _check_limits(values)
        columns = dict(values)
        if {"quota", "soft_quota"} & set(columns):
            columns["soft_warned"] = False
        if "modes" in columns:
            columns["modes"] = ",".join(columns["modes"])
        if "rules" in columns:
            columns["rules"] = json.dumps(columns["rules"], sort_keys=True)
        t = tenants_table
        with self._writing() as connection:
            change = t.update().where(t.c.name == name).values(columns or {"name": name})
            if connection.execute(change).rowcount != 1:
                raise NotFound(f"there is no tenant {name}")

    def warn_soft(self, name: str, over: bool) -> bool:
        """Note whether a tenant is over its soft quota; whether that is news."""
        t = tenants_table
        change = t.update().where(t.c.name == name, t.c.soft_warned != over)
        with self._writing() as connection:
            return connection.execute(change.values(soft_warned=over)).rowcount == 1

    def owner(self, repository: bytes) -> Tenant | None:
        """The tenant whose repository this is."""
        query = sa.select(tenants_table).where(tenants_table.c.repository == repository)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else tenant_of(row)

    def tenant(self, name: str) -> Tenant:
        """The tenant of this name.

        :raises NotFound: there is none
        """
        query = sa.select(tenants_table).where(tenants_table.c.name == name)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFound(f"there is no tenant {name}")
        return tenant_of(row)

    def tenants(self) -> list[dict[str, Any]]:
        """Every tenant as a map for listings; no verifier in it."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(tenants_table).order_by(tenants_table.c.name))
            return [
                {
                    "name": row["name"],
                    "created": row["created"],
                    "disabled": bool(row["disabled"]),
                    "lease_end": row["lease_end"],
                    "quota": row["quota"],
                    "soft_quota": row["soft_quota"],
                    "bandwidth": row["bandwidth"],
                    "expect_every": row["expect_every"],
                    "pool": row["pool"],
                    "max_tasks": row["max_tasks"],
                    "modes": row["modes"].split(","),
                    "repository": row["repository"].hex() if row["repository"] else None,
                    "encryption": row["mode"] if row["repository"] else None,
                    "frozen": bool(row["frozen"]),
                    "removed": row["removed"],
                    "removal_left": row["removal_left"],
                }
                for row in rows.mappings()
            ]

    def set_repository(self, tenant: str, repository: bytes, mode: str = "tenant") -> None:
        """Note that ``repository`` is the tenant's.

        :param mode: its encryption mode
        :raises UsageError: the tenant has another one already, or it is another tenant's
        """
        t = tenants_table
        with self._writing() as connection:
            owner = sa.select(t.c.name).where(t.c.repository == repository)
            if connection.execute(owner).first() is not None:
                raise UsageError("that repository belongs to a tenant already")
            done = connection.execute(
                t.update()
                .where(t.c.name == tenant, t.c.repository.is_(None))
                .values(repository=repository, mode=mode)
            )
            if done.rowcount != 1:
                raise UsageError(f"tenant {tenant} has a repository already")


def tenant_of(row: sa.RowMapping) -> Tenant:
    """The tenant of a row."""
    return Tenant(
        name=row["name"],
        group=bytes(row["group_id"]),
        disabled=bool(row["disabled"]),
        lease_end=row["lease_end"],
        quota=row["quota"],
        max_tasks=row["max_tasks"],
        modes=tuple(row["modes"].split(",")),
        repository=None if row["repository"] is None else bytes(row["repository"]),
        mode=row["mode"],
        rules=json.loads(row["rules"]),
        frozen=bool(row["frozen"]),
        soft_quota=row["soft_quota"],
        bandwidth=row["bandwidth"],
        expect_every=row["expect_every"],
        pool=row["pool"],
        removed=row["removed"],
        removal_left=row["removal_left"],
    )


def _check_limits(values: dict[str, Any]) -> None:
    lease_end = values.get("lease_end")
    if lease_end is not None:
        try:
            datetime.date.fromisoformat(lease_end)
        except (TypeError, ValueError):
            raise UsageError(f"lease end {lease_end!r}: want YYYY-MM-DD") from None
    quotas = [values.get("quota"), values.get("soft_quota")]
    if values.get("max_tasks", 1) < 1 or any(quota is not None and quota < 0 for quota in quotas):
        raise UsageError("a tenant has at least 1 task and a quota of at least 0 bytes")
    if any(
        values.get(name) is not None and values[name] < 1 for name in ("bandwidth", "expect_every")
    ):
        raise UsageError("a bandwidth is at least 1 byte a second, and a backup due in 1 second")
    if not TENANT_NAME.match(values.get("pool", "default")):
        raise UsageError(
            "the name of a pool has 1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit"
        )
