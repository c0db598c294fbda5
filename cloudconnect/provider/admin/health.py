"""Layer 4: how a provider is, at a glance: what ``provider status`` shows.

Everything is what the service knows already, or the accounts data base; lists are bounded, with the
number of all beside them. What of it somebody has to see to is judged in
:mod:`cloudconnect.provider.admin.needs`.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred

from cloudconnect.errors import WarningKind
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.alarms.alarms import QUIET
from cloudconnect.provider.alarms.delivery import Delivery
from cloudconnect.provider.alarms.expected import missed_backups
from cloudconnect.provider.alarms.expiry import Ending, due
from cloudconnect.provider.data_mover.maintenance import Intervals
from cloudconnect.provider.service.service import CloudConnectService
from cloudconnect.provider.usage import UsageRecorder

#: Rows of each list at most.
ROWS_MAX: Final = 50
#: So many repositories are measured when somebody looks; more are as they were a few hours ago.
MEASURED_MAX: Final = 20
#: Warnings that are counted, and events that say that something went wrong.
WARNINGS: Final = tuple(kind.value for kind in WarningKind if kind not in QUIET)
TROUBLE: Final = ("maintenance_failed", "new_bytes_jumped")
#: Events that say when garbage was last collected, and when an admin had something scrubbed.
TENDED: Final = ("garbage_collected", "scrubbed")
_COUNTED: Final = ("name", "count", "last", "tenants")


def look_at_accounts(accounts: Accounts, since: float) -> dict[str, Any]:
    """What the accounts data base says; blocks.

    :param since: warnings and events after that, in seconds since 1970
    """
    tenants = accounts.tenants()
    missed = missed_backups(accounts)
    nodes = [row for row in accounts.nodes() if row["revoked"] is None]
    today = time.strftime("%Y-%m-%d")
    counted = accounts.count_events((*WARNINGS, *TROUBLE), since)
    return {
        "nodes": nodes[:ROWS_MAX],
        "node_count": len(nodes),
        "tenants": {
            "all": len(tenants),
            "disabled": sum(row["disabled"] for row in tenants),
            "frozen": sum(row["frozen"] for row in tenants),
            "removed": sum(row["removed"] is not None for row in tenants),
            "lease_ended": sum((row["lease_end"] or today) < today for row in tenants),
            "repositories": sum(row["repository"] is not None for row in tenants),
        },
        "warnings": [_of(row) for row in counted if row["type"] == "warning"],
        "trouble": [_of(row) for row in counted if row["type"] != "warning"],
        "tended": {row["name"]: row["last"] for row in accounts.count_events(TENDED, 0.0)},
        "missed": missed[:ROWS_MAX],
        "missed_count": len(missed),
    }


def _of(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _COUNTED}


def certificate_rows(endings: Iterable[Ending], now: float) -> list[dict[str, Any]]:
    """Certificates, the first to end first; ``due``: the days before its end that were reached."""
    found = sorted(endings, key=lambda ending: ending.ends)
    return [
        {"name": one.name, "ends": one.ends, "due": due(one.ends, now)} for one in found[:ROWS_MAX]
    ]


def disk_of(repositories: Path) -> dict[str, int]:
    """The disk that repositories lie on, in bytes; empty where there are none."""
    try:
        disk = os.statvfs(repositories)
    except OSError:
        return {}
    size = disk.f_frsize
    return {"disk_bytes": disk.f_blocks * size, "free_bytes": disk.f_bavail * size}


def resting(accounts: Accounts, repositories: Path, since: float) -> dict[str, Any]:
    """The status of a provider that does not run, without certificates; blocks."""
    return {
        **look_at_accounts(accounts, since),
        "running": False,
        "ready": {},
        "roles": [],
        "listening": [],
        "certificates": [],
        "sessions": {},
        "connections": 0,
        "alarms": [],
        "storage": disk_of(repositories),
        "scrub_days": Intervals().scrub_days,
    }


class Health:
    """How the provider that runs is.

    :param accounts: used only in the accounts thread
    :param in_accounts_thread: runs a blocking call there
    :param usage: knows what is stored
    :param readiness: looks at what must work for a backup
    :param listening: what listens, and where
    :param repositories: folder of the repositories of this process
    :param roles: of this process
    :param scrub_days: days in which all that is stored is to be read once
    :ivar endings: the certificates as they are now; set by who knows where they lie
    :ivar deliveries: the ways of alarms, likewise
    """

    def __init__(
        self,
        service: CloudConnectService,
        accounts: Accounts,
        in_accounts_thread: Callable[..., Deferred[Any]],
        usage: UsageRecorder,
        readiness: Callable[[], Deferred[Any]],
        listening: Callable[[], dict[str, str]],
        repositories: Path,
        roles: Iterable[str],
        scrub_days: int,
    ) -> None:
        self._service = service
        self._accounts = accounts
        self._run = in_accounts_thread
        self._usage = usage
        self._readiness = readiness
        self._listening = listening
        self._repositories = repositories
        self._roles = list(roles)
        self.scrub_days = scrub_days
        self.endings: Callable[[], Iterable[Ending]] = tuple
        self.deliveries: Callable[[], Iterable[Delivery]] = tuple

    async def look(self, seconds: float) -> dict[str, Any]:
        """The status.

        :param seconds: warnings and trouble of so long
        """
        now, service = time.time(), self._service
        found = await self._run(look_at_accounts, self._accounts, now - seconds)
        found["nodes"] = [
            {**row, **service.node_fields(row["role"], row["name"])} for row in found["nodes"]
        ]
        return {
            **found,
            "running": True,
            "ready": dict(await self._readiness()),
            "roles": self._roles,
            "listening": [
                {"name": name, "where": where} for name, where in self._listening().items()
            ],
            "certificates": certificate_rows(self.endings(), now),
            "sessions": dict(Counter(live.kind.value for live in service.sessions)),
            "connections": len(service.connections),
            "alarms": [
                {
                    "way": delivery.way,
                    "waiting": delivery.waiting,
                    "failing": delivery.failing,
                    "given_up": delivery.dropped,
                }
                for delivery in self.deliveries()
            ],
            "storage": await self._storage(found["tenants"]["repositories"]),
            "scrub_days": self.scrub_days,
        }

    async def _storage(self, repositories: int) -> dict[str, Any]:
        """What is stored, and the disk of this process."""
        usage = self._usage
        if any(self._service.nodes.movers) and (
            repositories <= MEASURED_MAX or not usage.measured_at
        ):
            await usage.measure()
        measured = list(usage.measured.values())
        looked_at = [row["read_since"] for row in measured if row.get("read_since")]
        return {
            **disk_of(self._repositories),
            "bytes_stored": sum(row["bytes_stored"] for row in measured),
            "bytes_counted": sum(row["bytes_counted"] for row in measured),
            "measured": len(measured),
            "measured_at": usage.measured_at,
            "read_since": min(looked_at, default=0),
        }
