"""A provider and its tenant in this process, over real loopback TCP, with an attacker between them.

Everything is what runs in production but the processes: the gateway's port, TLS, tunnel, stream,
worker threads, repository. So an attack costs a tenth of a second and not two.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater
from zope.interface import directlyProvides, providedBy

from cloudconnect.accelerator.source import SourceAccelerator
from cloudconnect.backup.options import (
    BackupOptions,
    BackupResult,
    Labels,
    RestoreOptions,
    RestoreResult,
)
from cloudconnect.backup.restore import RestoreRun
from cloudconnect.backup.upload import BackupRun
from cloudconnect.commands.control import SessionKind
from cloudconnect.commands.links import link_in_process
from cloudconnect.config.provider import ProviderSettings, initialize
from cloudconnect.content.atrest import (
    Argon2Costs,
    EncryptionMode,
    RepositoryKeys,
    describe,
    make_slot,
)
from cloudconnect.errors import WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.keys import MasterKey, Password
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.admin.administration import Administration
from cloudconnect.provider.assembly import EmbeddedProvider
from cloudconnect.provider.places import Places
from cloudconnect.tap.accelerators import accelerator_of, caches_in
from cloudconnect.tenant.accelerated import OwnAccelerator
from cloudconnect.tenant.jobmanager import JobManager, new_job_id
from cloudconnect.transports.memory import MemoryEndpoint
from cloudconnect.transports.trust import TrustPolicy
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import Frame, FrameKind, StoredBlob
from tests.attacks.proxy import LOOPBACK, Proxy

_T = TypeVar("_T")

TENANT = "acme"
HOST, JOB = "attacked-host", "attacked-job"
#: Turns of the reactor after which links in memory have said what they had to say at the end.
TURNS = 5
#: Connections between the accelerators, where there are some.
STREAMS = 3

#: What a warning of a change is called; ``truncated`` only says that bytes stopped.
CHANGES = {kind.value for kind in WarningKind} - {"truncated", "authentication_failed"}


class HurriedReactor:
    """The reactor, on whose clock time passes faster.

    For attacks that a time limit ends: the limits keep their proportions.

    :param times: how many seconds of its clock pass in one real second
    """

    def __init__(self, reactor: Any, times: float) -> None:
        self._reactor = reactor
        self._times = times
        directlyProvides(self, providedBy(reactor))

    def seconds(self) -> float:
        passed: float = self._reactor.seconds() * self._times
        return passed

    def callLater(self, delay: float, call: Callable[..., object], *a: Any, **k: Any) -> Any:
        return self._reactor.callLater(delay / self._times, call, *a, **k)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@attrs.frozen
class Passed:
    """A frame that was sent in a session.

    :ivar start: offset of its first byte in the payload of its direction's stream
    """

    kind: FrameKind
    start: int
    size: int


class TappedChannel:
    """A channel that notes where each frame stands; for one sender at a time."""

    def __init__(self, channel: FrameChannel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._received = 0
        self.up: list[Passed] = []
        self.down: list[Passed] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def _noted(self, kind: FrameKind, send: Callable[..., Any], *arguments: Any) -> Any:
        with self._lock:
            start = self._channel.bytes_sent
            result = send(*arguments)
            self.up.append(Passed(kind, start, self._channel.bytes_sent - start))
            return result

    def send(self, kind: FrameKind, *arguments: Any) -> None:
        self._noted(kind, self._channel.send, kind, *arguments)

    def send_chunk(self, request: int, blob: StoredBlob, manifest: bool = False) -> bool:
        return self.send_chunks(request, (blob,), manifest)

    def send_chunks(
        self, request: int, blobs: Iterable[StoredBlob], manifest: bool = False
    ) -> bool:
        sent = list(blobs)
        with self._lock:
            start = self._channel.bytes_sent
            waited = self._channel.send_chunks(request, sent, manifest)
            data = sum(len(blob.data) for blob in sent)
            around, rest = divmod(self._channel.bytes_sent - start - data, max(1, len(sent)))
            assert not rest, "what stands around the data of a chunk has one size"
            for blob in sent:
                size = around + len(blob.data)
                self.up.append(Passed(FrameKind.CHUNK, start, size))
                start += size
        return waited

    def finish(self, last: bool = False) -> None:
        self._noted(FrameKind.TOTALS, self._channel.finish, last)

    def end(self) -> None:
        self.finish(last=True)
        self.expect_end()

    def receive(self) -> Frame:
        frame = self._channel.receive()
        self.down.append(Passed(frame.kind, self._received, frame.size))
        self._received += frame.size
        return frame

    def expect_end(self) -> None:
        self._channel.expect_end()
        size = self._channel.bytes_received - self._received
        if size:  # they were not received as a frame
            self.down.append(Passed(FrameKind.TOTALS, self._received, size))


class Tenant:
    """The tenant's side: a job manager that is logged in, and what it saw.

    :ivar events: the steps of its sessions
    :ivar warnings: security warnings, of either side
    :ivar channel: the last session's
    """

    def __init__(self, stage: Stage, reactor: Any, port: int) -> None:
        self._stage = stage
        self.events: list[SessionEvent] = []
        self.warnings: list[SecurityWarning] = []
        self.channel: TappedChannel | None = None
        trust = TrustPolicy("localhost", fingerprints=stage.settings.identity.fingerprints()[:1])
        self.manager = JobManager(
            reactor,
            "localhost",
            port,
            trust,
            happened=self.events.append,
            warned=self.warnings.append,
        )

    async def log_in(self) -> None:
        await self.manager.log_in(TENANT, Password(self._stage.token))

    def accelerate(self) -> None:
        """Sessions go through accelerators from now on."""
        reactor, manager, stage = self._stage.reactor, self.manager, self._stage
        folder = stage.directory.parent / "tenant"
        folder.mkdir(exist_ok=True)
        caches = caches_in(reactor, folder / "wan", folder / "wan.key", 64 << 20, 64 << 20)
        self.accelerator = SourceAccelerator(reactor, caches, manager.far_endpoint)
        near, self.accelerator.link = link_in_process(reactor, manager.reports, self.accelerator)
        endpoint = MemoryEndpoint(reactor, "the source WAN accelerator")
        endpoint.listen(self.accelerator.factory)
        self.accelerator.startService()
        ids = b"p" * 16 + stage.description.repository
        self.manager.use_accelerator(OwnAccelerator(near, endpoint, ids, STREAMS))
        self._links = (near, self.accelerator.link)

    accelerator: SourceAccelerator | None = None

    async def close(self) -> None:
        if self.accelerator is not None:
            await maybeDeferred(self.accelerator.stopService)
            for link in self._links:
                if link.transport is not None:
                    link.transport.loseConnection()
        await self.manager.close()

    async def session(self, kind: SessionKind, dialogue: Callable[[Any, bytes], _T]) -> _T:
        def tapped(channel: FrameChannel, session: bytes) -> _T:
            self.channel = TappedChannel(channel)
            return dialogue(self.channel, session)

        stage = self._stage
        self.job_id = new_job_id()
        return await self.manager.session(
            kind,
            stage.description.repository,
            self.job_id,
            HOST,
            JOB,
            tapped,
            wan=self.accelerator is not None,
        )

    async def back_up(self, source: str) -> BackupResult:
        """One backup session."""
        stage = self._stage

        def dialogue(channel: Any, session: bytes) -> BackupResult:
            labels = Labels(host=HOST, job=JOB, job_id=self.job_id)
            options = BackupOptions(paths=(os.fsencode(os.path.abspath(source)),))
            return BackupRun(channel, stage.keys, stage.description, options, labels, session).run()

        return await self.session(SessionKind.BACKUP, dialogue)

    async def restore(self, point: bytes, target: str) -> RestoreResult:
        """One restore session."""
        stage = self._stage

        def dialogue(channel: Any, session: bytes) -> RestoreResult:
            options = RestoreOptions(target=os.fsencode(os.path.abspath(target)))
            return RestoreRun(channel, stage.keys, stage.description, point, options).run()

        return await self.session(SessionKind.RESTORE, dialogue)


class Stage:
    """A provider with one tenant, and a proxy in front of it.

    :param reactor: the reactor
    :param hurry: how much faster the provider's and the tenant's clock runs
    :param wan: whether sessions go through accelerators
    :ivar token: the tenant's login password
    """

    def __init__(self, reactor: Any, hurry: float = 1.0, wan: bool = False) -> None:
        self._real = reactor
        self._wan = wan
        self.reactor = HurriedReactor(reactor, hurry) if hurry != 1.0 else reactor
        # Not below trial's own folder: the path of a socket has at most 107 bytes.
        self._temporary = tempfile.TemporaryDirectory(prefix="cloudconnect-")
        self.directory = Path(self._temporary.name, "provider")
        self.settings = initialize(self.directory, ("localhost",))
        self.token = add_tenant(self.settings, TENANT)
        master = MasterKey.generate()
        repository = os.urandom(16)
        costs = Argon2Costs(iterations=1, lanes=1, memory_kib=64)
        self.passphrase = Password(b"a passphrase of these tests")
        slot = make_slot(master, repository, self.passphrase, costs=costs)
        self.description = describe(master, repository, EncryptionMode.TENANT, (slot,))
        self.keys = RepositoryKeys(master, repository)
        self._tenants: list[Tenant] = []
        self._closed = False
        self.provider: Any = None
        self.proxy: Any = None

    async def open(self, connect: bool = True) -> None:
        """Start the provider and the proxy, and make the tenant's repository.

        :param connect: whether to make it: no tenant has to be in time for anything without
        """
        try:
            await self._open(connect)
        except BaseException:
            await self.close()  # or its threads would keep the process of the tests for ever
            raise

    async def _open(self, connect: bool) -> None:
        settings = self.settings
        places = Places(
            accounts_url=settings.accounts_url,
            repositories=settings.repositories,
            identity=settings.identity,
            admin_socket=settings.admin_socket,
            public=TCP4ServerEndpoint(self._real, 0, interface=LOOPBACK),
            accelerator=accelerator_of(self.reactor, settings) if self._wan else None,
        )
        self.provider = EmbeddedProvider(self.reactor, places)
        listening: Any = await self.provider.listen()
        self.port: int = listening.getHost().port
        self.proxy = Proxy(self._real, self.port)
        if not connect:
            return
        tenant = await self.tenant()
        await tenant.manager.create_repository(self.description.encode())
        await self.leave(tenant)

    async def tenant(self) -> Tenant:
        """A tenant, logged in through the proxy."""
        tenant = Tenant(self, self.reactor, self.proxy.port)
        self._tenants.append(tenant)
        await tenant.log_in()
        if self._wan:
            tenant.accelerate()
        return tenant

    async def leave(self, tenant: Tenant) -> None:
        """The tenant closes its line."""
        self._tenants.remove(tenant)
        await tenant.close()

    async def close(self) -> None:
        """End everything; the provider's directory stays for the test to look at."""
        if self._closed:
            return
        self._closed = True
        for tenant in list(self._tenants):
            await self.leave(tenant)
        if self.proxy is not None:
            await self.proxy.close()
        if self.provider is not None:
            await maybeDeferred(self.provider.stopService)
        for _ in range(TURNS):
            await deferLater(self._real, 0)

    def remove(self) -> None:
        """Remove the provider's directory."""
        self._temporary.cleanup()

    # --- what an admin sees ----------------------------------------------------------------------

    def listed(self, what: str, **filters: str) -> list[dict[str, Any]]:
        """Every row of one of the provider's listings."""
        return rows(self.settings, what, **filters)

    def points(self) -> list[str]:
        """The ids of the tenant's restore points."""
        return [row["point"] for row in self.listed("point", tenant=TENANT)]

    def warnings(self, session: str) -> list[dict[str, Any]]:
        """The warnings of one session that the provider has kept."""
        return self.listed("event", type="warning", session=session)


def add_tenant(settings: ProviderSettings, name: str, **limits: Any) -> bytes:
    """Make a tenant at a provider that does not run; its login token."""
    accounts = Accounts(settings.accounts_url)
    try:
        token = Administration(accounts, settings.repositories).add_tenant(name, None, limits)
        assert token is not None
        return token.reveal()
    finally:
        accounts.close()


def rows(settings: ProviderSettings, what: str, **filters: str) -> list[dict[str, Any]]:
    """Every row of a provider's listing (fewer than a page), read beside the provider."""
    accounts = Accounts(settings.accounts_url)
    try:
        return Administration(accounts, settings.repositories).listings.page(what, filters, 0, 500)[
            0
        ]
    finally:
        accounts.close()


def make_files(top: str, count: int = 3, size: int = 5000) -> None:
    """Files of random content; by default less than the smallest chunk in all.

    Then their frames have the same sizes in each backup.
    """
    os.makedirs(top)
    for number in range(count):
        Path(top, f"file-{number:03}").write_bytes(os.urandom(size))
