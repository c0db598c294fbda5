"""Layer 4: tells when a backup did not come that was expected.

A tenant's admin says nothing when a machine's schedule has stopped working; the provider notices.
What a tenant's backups are expected by (``provider tenant set --expect-every``) holds for each host
and job that has made a restore point, and for the first one of all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from cloudconnect.errors import CloudConnectError
from cloudconnect.provider.service.service import CloudConnectService
from cloudconnect.provider.values import Values
from cloudconnect.provider.watching import SessionEnd, Watcher

#: It is looked again after so many seconds at the latest: settings change.
LOOK_SECONDS: Final = 3600.0
#: ... and after so many at the latest when a backup has ended.
SOON_SECONDS: Final = 60.0
#: A host and job that has made no point for so many seconds was given up: 90 days.
FORGOTTEN_SECONDS: Final = 90 * 86400.0
_TOLD: Final = "backups-missed"


@attrs.frozen
class Expected:
    """One backup that is due.

    :ivar host: "" where the tenant has never made one
    :ivar last: when the last good one ended, in seconds since 1970; or when the tenant was made
    :ivar due: when the next one is to have ended
    """

    tenant: str
    host: str
    job: str
    last: float
    due: float

    @property
    def name(self) -> str:
        """What makes two of them the same backup."""
        return json.dumps([self.tenant, self.host, self.job])


def expected(
    tenants: Iterable[Mapping[str, Any]], last: Iterable[Mapping[str, Any]], now: float
) -> list[Expected]:
    """The backups that are due some time, or should have been there already.

    :param tenants: as the accounts list them
    :param last: the last good backup of each tenant, host and job: ``tenant``, ``host``, ``job``,
        ``ended``
    """
    made: dict[str, list[Mapping[str, Any]]] = {}
    for row in last:
        made.setdefault(row["tenant"], []).append(row)
    found = []
    for tenant in tenants:
        name, every = tenant["name"], tenant.get("expect_every")
        if not every or tenant["disabled"]:
            continue
        if name not in made:
            found.append(Expected(name, "", "", tenant["created"], tenant["created"] + every))
        for row in made.get(name, ()):
            if row["ended"] > now - FORGOTTEN_SECONDS:
                due = row["ended"] + every
                found.append(Expected(name, row["host"], row["job"], row["ended"], due))
    return found


class ExpectedBackups(Service, Watcher):
    """Keeps an event ``backup_missed`` for each backup that did not come, and one when it comes.

    :param reactor: clock
    :param service: keeps the events
    :param read: fires with the tenants, the last good backups, and what was told before
    :param keep: keeps what was told
    :param now: seconds since 1970
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        service: CloudConnectService,
        read: Callable[[], Deferred[Any]],
        keep: Callable[[bytes], Deferred[Any]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._service = service
        self._read = read
        self._keep = keep
        self._now = now
        self._next: IDelayedCall | None = None
        self._looking = False
        self._again = False

    def startService(self) -> None:
        """Look now, and whenever something may be due."""
        super().startService()  # type: ignore[no-untyped-call]
        self.look()

    def stopService(self) -> Any:
        """Look no more."""
        if self._next is not None and self._next.active():
            self._next.cancel()
        return maybeDeferred(super().stopService)

    def session_ended(self, end: SessionEnd) -> None:
        """A backup may be the one that was missed."""
        if end.kind == "backup":
            self._soon()

    def administered(self, act: str, fields: dict[str, Any], outcome: str) -> None:
        """What is expected may have changed."""
        if "tenant" in act:
            self.look()

    def _soon(self) -> None:
        """Look within :data:`SOON_SECONDS`: one look for all backups that end meanwhile."""
        latest = self._reactor.seconds() + SOON_SECONDS
        if self._next is not None and self._next.active() and self._next.getTime() > latest:
            self._next.reset(SOON_SECONDS)

    def look(self) -> None:
        """Look at what is due; called when it may be something else than before."""
        if self._looking:
            self._again = True
        elif self.running:
            self._looking = True
            Deferred.fromCoroutine(self._look()).addBoth(self._looked)

    def _looked(self, seconds: Any) -> None:
        self._looking = False
        again, self._again = self._again, False
        if again:
            self.look()
        elif self.running:
            if self._next is not None and self._next.active():
                self._next.cancel()
            wait = seconds if isinstance(seconds, float) else LOOK_SECONDS
            self._next = self._reactor.callLater(wait, self.look)

    async def _look(self) -> float:
        """Tell what is due; the seconds until something may be again."""
        try:
            tenants, last, told_before = await self._read()
            now = self._now()
            backups = expected(tenants, last, now)
            told: dict[str, float] = json.loads(told_before or b"{}")
            after: dict[str, float] = {}
            for backup in backups:
                known = told.get(backup.name)
                if backup.due <= now:
                    after[backup.name] = backup.last
                    if known != backup.last:
                        await self._missed(backup, now)
                elif known is not None:
                    await self._came(backup)
            if after != told:
                await self._keep(json.dumps(after).encode())
            waits = [backup.due - now for backup in backups if backup.due > now]
            return max(1.0, min([*waits, LOOK_SECONDS]))
        except CloudConnectError as error:
            self._log.warn("expected backups cannot be looked at: {why}", why=str(error))
        except Exception:
            self._log.failure("expected backups cannot be looked at")
        return LOOK_SECONDS

    async def _missed(self, backup: Expected, now: float) -> None:
        if backup.host:
            what = f"the backup {backup.host}/{backup.job} of tenant {backup.tenant}"
            since = f"the last one ended {(now - backup.last) / 3600:.1f} h ago"
        else:
            what, since = (
                f"a backup of tenant {backup.tenant}",
                "there was none yet, or none for long",
            )
        await self._note("backup_missed", f"{what} did not come: {since}", backup)

    async def _came(self, backup: Expected) -> None:
        text = f"the backup {backup.host}/{backup.job} of tenant {backup.tenant} has come again"
        await self._note("backup_recovered", text, backup)

    async def _note(self, name: str, text: str, backup: Expected) -> None:
        self._log.warn("{text}", text=text)
        fields = {"tenant": backup.tenant, "host": backup.host, "job": backup.job}
        await self._service.reports.note(name, "", text, **fields, last=backup.last)


def missed_backups(values: Values) -> list[dict[str, Any]]:
    """The backups that did not come yet, as was told: ``tenant``, ``host``, ``job``, ``last``."""
    told: dict[str, float] = json.loads(values.value(_TOLD) or b"{}")
    return [
        {**dict(zip(("tenant", "host", "job"), json.loads(name), strict=True)), "last": last}
        for name, last in sorted(told.items())
    ]


def told_name() -> str:
    """The name of the provider's value that says what was told."""
    return _TOLD
