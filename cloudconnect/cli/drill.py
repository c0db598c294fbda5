"""Layer 6: ``provider drill``: an attack on one's own provider, and whether it was seen.

It makes a tenant for itself, backs up a file through a relay on loopback that changes nothing, then
another through the same relay (:mod:`cloudconnect.cli.flipping`) that changes one bit of it, looks
at both ends for the warning, and takes the tenant away again. Whoever watches the provider's
events must see the alarm: that is what the drill is for. See ``docs/howto/drill.rst``.
"""

from __future__ import annotations

import ipaddress
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import attrs
import click

from cloudconnect.backup.options import BackupOptions, Labels
from cloudconnect.backup.upload import BackupRun
from cloudconnect.cli.administering import Acts, at_running, rows
from cloudconnect.cli.console import Console, printable
from cloudconnect.cli.directories import debug_option, directory_option, json_option
from cloudconnect.cli.flipping import Flipper
from cloudconnect.commands.admin import AddTenant, SwitchTenant
from cloudconnect.commands.control import SessionKind
from cloudconnect.config.provider import ProviderSettings, load
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys, describe
from cloudconnect.content.slots import Argon2Costs, make_slot
from cloudconnect.errors import CloudConnectError, ExitCode, UsageError, WarningKind
from cloudconnect.events import SecurityWarning
from cloudconnect.keys import MasterKey, Password
from cloudconnect.provider.admin.tenant_acts import REMOVED
from cloudconnect.settings import PUBLIC_PORT
from cloudconnect.tenant.jobmanager import JobManager, new_job_id
from cloudconnect.transports.hosts import is_address, split_host_port
from cloudconnect.transports.trust import TrustPolicy

#: How the tenants of drills are named.
PREFIX: Final = "drill-"
#: Bytes that such a tenant may store: a drill stores two small files.
_QUOTA: Final = 64 << 20
_HOST, _JOB = "drill", "drill"
#: What a change of a record is called.
_CHANGED: Final = WarningKind.TAMPERED


@attrs.frozen
class Finding:
    """One thing that a drill looked at.

    :ivar name: stable word for machines
    :ivar good: whether it was as it must be
    :ivar text: one sentence for a person
    """

    name: str
    good: bool
    text: str


@click.command()
@directory_option
@click.option("--connect", metavar="HOST:PORT", help="Where tenants connect, if not as configured.")
@json_option
@debug_option
def drill(directory: Path, connect: str | None, as_json: bool, debug: bool) -> int:
    """Attack this running provider, and show that it is seen.

    A tenant is made for it, and removed again. One bit is changed on the way of a small backup: the
    tenant must end with status 20, a security warning must be among provider events, and there must
    be no restore point. Look whether it reached you, too. Exit status 1 says that something was not
    as it must be.
    """
    settings = load(directory)
    place = split_host_port(connect) if connect else where_tenants_connect(settings)
    found: list[Finding] = []

    async def work(acts: Acts, reactor: Any) -> None:
        await Drill(reactor, acts, settings, place, found).run()

    console = Console(as_json)
    try:
        at_running(settings, work, debug)
    finally:
        for one in found:
            mark = "ok    " if one.good else "FAILED"
            console.record("finding", attrs.asdict(one), f"{mark}  {printable(one.text)}")
    good = bool(found) and all(one.good for one in found)
    told = alarm_text(settings) if good else _BAD
    places = alarm_places(settings)
    console.record("summary", {"good": good, "findings": len(found), "alarms_to": places}, told)
    return int(ExitCode.DONE if good else ExitCode.FAILED)


_BAD: Final = (
    "Something was NOT as it must be: do not rely on this provider before it is found out what."
)


def alarm_places(settings: ProviderSettings) -> list[str]:
    """Where the provider sends alarms by itself."""
    return [place for place in (settings.alarm_webhook, *settings.alarm_mail_to) if place]


def alarm_text(settings: ProviderSettings) -> str:
    """What is left for a person to look at, behind a drill in which all was well."""
    places = alarm_places(settings)
    if not places:
        return (
            "The attack was seen at both ends. No alarm is set in provider.toml (alarm_webhook, "
            "alarm_mail_to): only who reads the events, or the log, knows of it."
        )
    where = printable(", ".join(places))
    return (
        f"The attack was seen at both ends. Its alarm is on the way to {where}: see that it comes. "
        "(One like it within the last hour holds it back.)"
    )


def where_tenants_connect(settings: ProviderSettings) -> tuple[str, int]:
    """Host and port of the provider's own front, as its settings say.

    :raises UsageError: they say it in a way that has no port
    """
    if settings.advertise:
        return split_host_port(settings.advertise[0])
    kind, _, rest = settings.listen.partition(":")
    parts = rest.replace("\\:", "\0").split(":")
    host = next((p[10:].replace("\0", ":") for p in parts if p.startswith("interface=")), "")
    port = parts[0].removeprefix("port=")
    if kind not in ("tcp", "tcp6") or not port.isdigit() or port == "0":
        raise UsageError(
            f"the provider listens on {settings.listen!r}, from which its port cannot be told: "
            f"name it with --connect HOST:PORT (usually {PUBLIC_PORT})"
        )
    if not host or (is_address(host) and ipaddress.ip_address(host).is_unspecified):
        host = "::1" if kind == "tcp6" else "127.0.0.1"
    return host, int(port)


class Drill:
    """One drill.

    :param acts: at the running provider
    :param place: host and port that a tenant connects to
    :param found: what was looked at is added to it, step by step
    """

    def __init__(
        self,
        reactor: Any,
        acts: Acts,
        settings: ProviderSettings,
        place: tuple[str, int],
        found: list[Finding],
    ) -> None:
        self._reactor = reactor
        self._acts = acts
        self._settings = settings
        self._place = place
        self._found = found
        self._name = PREFIX + os.urandom(4).hex()
        self._flipper = Flipper(reactor)
        self._warnings: list[SecurityWarning] = []

    def _say(self, name: str, good: bool, text: str) -> None:
        self._found.append(Finding(name, good, text))

    async def run(self) -> None:
        """Do it all, and clean up whatever came of it.

        :raises CloudConnectError: the drill itself could not be done
        """
        settings = {"quota": _QUOTA, "modes": ["tenant"], "max_tasks": 1}
        made = await self._acts.call(AddTenant, name=self._name, password=None, settings=settings)
        token: Password | None = made["token"]
        assert token is not None
        try:
            await self._attack(token)
        finally:
            await self._flipper.close()
            await self._take_away()

    async def _attack(self, token: Password) -> None:
        settings = self._settings
        trust = TrustPolicy(settings.hosts[0], fingerprints=settings.identity.fingerprints()[:1])
        manager = JobManager(
            self._reactor,
            *self._place,
            trust,
            warned=self._warnings.append,
            dial=self._flipper.endpoint,
        )
        try:
            await manager.log_in(self._name, token)
            master, repository = MasterKey.generate(), os.urandom(16)
            costs = Argon2Costs(iterations=1, lanes=1, memory_kib=64)  # nothing is worth more here
            slot = make_slot(master, repository, Password(os.urandom(32)), costs=costs)
            description = describe(master, repository, EncryptionMode.TENANT, (slot,))
            await manager.create_repository(description.encode())
            keys = RepositoryKeys(master, repository)
            await self._honest(manager, description, keys)
            await self._changed(manager, description, keys)
        finally:
            await manager.close()

    async def _back_up(self, manager: JobManager, description: Any, keys: Any) -> None:
        job_id = new_job_id()
        with tempfile.TemporaryDirectory(prefix="cloudconnect-drill-") as folder:
            Path(folder, "file").write_bytes(os.urandom(4096))

            def dialogue(channel: Any, session: bytes) -> Any:
                labels = Labels(host=_HOST, job=_JOB, job_id=job_id)
                options = BackupOptions(paths=(os.fsencode(folder),))
                return BackupRun(channel, keys, description, options, labels, session).run()

            await manager.session(
                SessionKind.BACKUP, description.repository, job_id, _HOST, _JOB, dialogue
            )

    async def _honest(self, manager: JobManager, description: Any, keys: Any) -> None:
        await self._back_up(manager, description, keys)
        count = await self._points()
        good = count == 1 and not self._warnings
        self._say("unchanged", good, f"a backup on which nothing is changed: {count} restore point")

    async def _changed(self, manager: JobManager, description: Any, keys: Any) -> None:
        before = await self._points()
        self._flipper.armed = True
        error: CloudConnectError | None = None
        try:
            await self._back_up(manager, description, keys)
        except CloudConnectError as failure:
            error = failure
        self._say("struck", self._flipper.struck == 1, "one bit was changed in the Key B stream")
        code = 0 if error is None else int(error.exit_code)
        good = code == ExitCode.SECURITY_WARNING
        self._say("tenant_status", good, f"the tenant's backup ended with status {code}")
        kinds = sorted({warning.kind.value for warning in self._warnings})
        self._say(
            "tenant_warning", _CHANGED.value in kinds, f"the tenant was warned: {_listed(kinds)}"
        )
        told = await self._provider_warnings()
        self._say(
            "provider_warning",
            _CHANGED.value in told,
            f"the provider's events have the warning: {_listed(told)}",
        )
        more = await self._points() - before
        self._say("no_point", more == 0, f"the attacked session left {more} restore points")

    async def _points(self) -> int:
        return len(await rows(self._acts, "point", {"tenant": self._name}))

    async def _provider_warnings(self) -> list[str]:
        listed = await rows(self._acts, "event", {"tenant": self._name, "type": "warning"})
        return sorted({row["name"] for row in listed})

    async def _take_away(self) -> None:
        """Remove the tenant; what is told of that is part of the report."""
        try:
            await self._acts.call(SwitchTenant, name=self._name, state=REMOVED)
        except CloudConnectError as error:
            self._say("removed", False, f"tenant {self._name} could not be removed: {error}")
        else:
            self._say(
                "removed",
                True,
                f"tenant {self._name} is removed; its two small files leave with the bin",
            )


def _listed(kinds: list[str]) -> str:
    return ", ".join(kinds) or "nothing"
