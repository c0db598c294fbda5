"""What the tests of provider and tenant stand on: all roles in one process, on a clock.

Nothing here listens anywhere. Connections are those of :mod:`cloudconnect.transports.memory`; what
worker threads hand to the reactor waits in a queue until the test runs it. Layers, machines, data
bases, repositories and threads are the real ones.
"""

from __future__ import annotations

import datetime
import math
import os
import queue
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IReactorFromThreads,
    IReactorPluggableNameResolver,
)
from twisted.internet.task import Clock
from twisted.logger import eventAsText, globalLogPublisher
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from cloudconnect.accelerator.caches import TenantCaches
from cloudconnect.accelerator.source import SourceAccelerator
from cloudconnect.accelerator.target import TargetAccelerator
from cloudconnect.backup.dialogue import greet
from cloudconnect.backup.options import (
    BackupOptions,
    BackupResult,
    Labels,
    RestoreOptions,
    RestoreResult,
)
from cloudconnect.backup.restore import RestoreRun
from cloudconnect.backup.upload import BackupRun
from cloudconnect.cache.keys import NodeKey
from cloudconnect.commands.control import SessionKind
from cloudconnect.commands.links import link_in_process
from cloudconnect.content.atrest import (
    EncryptionMode,
    RepositoryDescription,
    RepositoryKeys,
    make_open_slot,
)
from cloudconnect.content.atrest import describe as described
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.interfaces import IRelayTarget
from cloudconnect.keys import MasterKey, Password
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.admin.administration import Administration
from cloudconnect.provider.control.control import ControlFactory
from cloudconnect.provider.data_mover.mover import TargetDataMover
from cloudconnect.provider.gateway.gateway import Gateway
from cloudconnect.provider.nodes.answers import ServiceEnd
from cloudconnect.provider.service.planning import HERE, GatewayPlace
from cloudconnect.provider.service.service import CloudConnectService
from cloudconnect.provider.ways import here_to
from cloudconnect.sessions.acceptance import RoleTarget
from cloudconnect.tenant.accelerated import OwnAccelerator
from cloudconnect.tenant.control import Account
from cloudconnect.tenant.jobmanager import JobManager, new_job_id
from cloudconnect.transports.memory import MemoryEndpoint, MemoryPair
from cloudconnect.transports.switch import FactoryTarget
from cloudconnect.transports.tls import PinnedTLS
from cloudconnect.transports.trust import TrustPolicy
from cloudconnect.wire.channel import FrameChannel
from tests.certificates import Issued, self_signed

_T = TypeVar("_T")

HOST, PORT = "localhost", 6180
TENANT = "acme"
LABELS = ("some-host", "some-job")
#: A worker thread that takes longer than this has hung: the test fails in the place of waiting.
HUNG_SECONDS = 60
#: Timers that are due within so many seconds of the clock go off while worker threads are waited
#: for: an accelerator sends what waits for more after such a time.
SHORT_SECONDS = 0.1
#: Bytes of each block cache.
CACHE_SIZE = 64 << 20
#: Connections between the accelerators.
STREAMS = 3

#: The last day of a lease that has ended, in whose time of grace tests run.
ENDED = (datetime.date.today() - datetime.timedelta(days=10)).isoformat()

_identity: list[Issued] = []


def server_certificate() -> Issued:
    """One certificate for all tests of a process."""
    if not _identity:
        _identity.append(self_signed((HOST,)))
    return _identity[0]


@implementer(IReactorFromThreads, IReactorPluggableNameResolver, IHostnameResolver, IHostResolution)
class MemoryReactor(Clock):
    """A clock whose connections are in memory, and which takes calls from threads.

    :ivar network: what listens, by port
    :ivar dialled: host and port of every connection that was asked for
    """

    def __init__(self) -> None:
        super().__init__()
        self._handed: queue.Queue[Callable[[], object]] = queue.Queue()
        self.network: dict[int, Any] = {}
        self.dialled: list[tuple[str, int]] = []
        self.pairs: list[MemoryPair] = []
        self.name = ""

    # --- threads ---------------------------------------------------------------------------------

    def callFromThread(self, call: Callable[..., object], *a: Any, **k: Any) -> None:
        self._handed.put(lambda: call(*a, **k))

    def settle(self) -> None:
        """Run what is due, and what threads have handed over so far."""
        self.advance(0)
        while True:
            try:
                call = self._handed.get_nowait()
            except queue.Empty:
                return
            call()
            self.advance(0)

    def result_of(self, waited: Any) -> Any:
        """What a Deferred or coroutine comes to, with threads; raises what it fails with."""
        if isinstance(waited, Coroutine):
            waited = Deferred.fromCoroutine(waited)
        results: list[Any] = []
        waited.addBoth(results.append)
        self.settle()
        while not results:
            self._wait()
            self.settle()
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def _wait(self) -> None:
        """Run what a thread hands over next; where none does at once, a timer that is near."""
        due = min((call.getTime() for call in self.getDelayedCalls()), default=math.inf)
        short = due - self.seconds()
        try:
            call = self._handed.get(timeout=HUNG_SECONDS if short > SHORT_SECONDS else 0.002)
        except queue.Empty:
            if short > SHORT_SECONDS:
                raise
            self.advance(max(short, 0))
        else:
            call()

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let time go by in small steps, as it does, so that everybody answers in between."""
        self.settle()
        while seconds > 0:
            self.advance(min(step, seconds))
            self.settle()
            seconds -= step

    # --- names and connections -------------------------------------------------------------------

    @property
    def nameResolver(self) -> MemoryReactor:
        return self

    def cancel(self) -> None:
        """There is nothing to cancel: names are known at once."""

    def resolveHostName(
        self, receiver: Any, hostName: str, portNumber: int = 0, *a: Any, **k: Any
    ) -> Any:
        self.name = hostName
        receiver.resolutionBegan(self)
        receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        receiver.resolutionComplete()
        return self

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        self.dialled.append((self.name, port))
        listening = self.network.get(port)
        factory.doStart()
        client = IPv4Address("TCP", "192.0.2.7", 40_000 + len(self.pairs))
        server = listening.buildProtocol(client) if listening is not None else None
        protocol = factory.buildProtocol(IPv4Address("TCP", host, port)) if server else None
        if server is None or protocol is None:
            factory.clientConnectionFailed(self, Failure(ConnectionRefusedError()))
            return self
        pair = MemoryPair(self, left_address=client, right_address=IPv4Address("TCP", host, port))
        self.pairs.append(pair)
        pair.connect(protocol, server)
        return self


def caches_in(reactor: MemoryReactor, folder: Path) -> Callable[[ThreadPool], TenantCaches]:
    """Makes block caches below a folder; always with the same node key."""
    return lambda pool: TenantCaches(reactor, pool, folder, NodeKey(b"n" * 32), CACHE_SIZE)


class Provider(Service):
    """Every role of a provider, as :mod:`cloudconnect.provider.assembly` puts them together."""

    def __init__(self, reactor: MemoryReactor, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.reactor = reactor
        self.repositories = directory / "repositories"
        self.accounts = Accounts(f"sqlite:///{directory / 'accounts.sqlite'}")
        self.administration = Administration(self.accounts, self.repositories)
        self.service = CloudConnectService(
            reactor, self.accounts, maybeDeferred, provider=b"p" * 16, decoy_key=b"d" * 32
        )
        self.mover = TargetDataMover(reactor, self.repositories)
        self.issued = server_certificate()
        self.control = control = PinnedTLS(
            identity=self.issued.write(directory / "tls"), asking=True
        ).server_factory(ControlFactory(self.service), reactor)
        self.targets: dict[str, IRelayTarget] = {
            "service": FactoryTarget(control, "service"),
            HERE: RoleTarget(self.mover),
        }
        self.gateway = Gateway(
            reactor, MemoryEndpoint(reactor, "public"), self.targets.__getitem__, "service"
        )
        end, self.mover.link = link_in_process(
            reactor, ServiceEnd(self.service, self.mover.role), self.mover
        )
        self.service.nodes.set_mover(end)
        self.gateway_link, _ = link_in_process(reactor, None, self.gateway)
        self.service.nodes.add_gateway(self.gateway_link, GatewayPlace())
        self.mover.startService()
        self.service.startService()
        reactor.network[PORT] = self.gateway.factory

    def accelerate(self, kind: type[TargetAccelerator] = TargetAccelerator) -> TargetAccelerator:
        """Add a WAN accelerator, of which the service knows from now on."""
        reactor, way = self.reactor, here_to(self.reactor, self.mover)
        self.caches = self.repositories.parent / "caches"
        made = kind(reactor, caches_in(reactor, self.caches), lambda backend: way)
        self.accelerator_end, made.link = link_in_process(
            reactor, ServiceEnd(self.service, made.role), made
        )
        self.targets[HERE] = RoleTarget(self.mover, made)
        self.service.nodes.add_accelerator(self.accelerator_end)
        made.startService()
        self.accelerator = made
        return made

    accelerator: TargetAccelerator | None = None

    def add_tenant(self, name: str = TENANT, **settings: Any) -> Password:
        """Make a tenant; its token."""
        token = self.administration.add_tenant(name, None, settings)
        assert token is not None
        return token

    def stop(self) -> None:
        """End everything."""
        self.reactor.result_of(self.service.stopService())
        if self.accelerator is not None and self.accelerator.running:
            self.reactor.result_of(self.accelerator.stopService())
        self.reactor.result_of(self.mover.stopService())
        self.accounts.close()

    def events(self, **filters: str) -> list[dict[str, Any]]:
        """What the provider has kept."""
        self.reactor.settle()
        return self.accounts.events(filters, 0, 500)

    def names(self, **filters: str) -> list[str]:
        """The names of what the provider has kept."""
        return [row["name"] for row in self.events(**filters)]

    def points(self, tenant: str = TENANT) -> list[dict[str, Any]]:
        """The tenant's restore points."""
        return self.administration.listings.page("point", {"tenant": tenant}, 0, 500)[0]


class Tenant:
    """A tenant's job manager, its keys, and what it was told."""

    def __init__(
        self,
        provider: Provider,
        name: str = TENANT,
        mode: EncryptionMode = EncryptionMode.TENANT,
        **settings: Any,
    ) -> None:
        self.provider = provider
        self.reactor = provider.reactor
        self.name = name
        self.events: list[SessionEvent] = []
        self.warnings: list[SecurityWarning] = []
        self.token = provider.add_tenant(name, **{"modes": [mode.value], **settings})
        master, self.repository = MasterKey.generate(), os.urandom(16)
        slots = () if mode is EncryptionMode.TENANT else (make_open_slot(master),)
        self.description: RepositoryDescription = described(master, self.repository, mode, slots)
        self.keys = RepositoryKeys(master, self.repository, mode)
        self.manager = self.make_manager()
        self.accelerator: SourceAccelerator | None = None

    def make_manager(self) -> JobManager:
        trust = TrustPolicy(HOST, fingerprints=(self.provider.issued.spki,))
        return JobManager(
            self.reactor,
            HOST,
            PORT,
            trust,
            happened=self.events.append,
            warned=self.warnings.append,
        )

    def log_in(self) -> Account:
        account: Account = self.reactor.result_of(
            self.manager.log_in(self.name, Password(self.token.reveal()))
        )
        return account

    def connect(self) -> Tenant:
        """Log in and make the repository."""
        self.log_in()
        self.reactor.result_of(self.manager.create_repository(self.description.encode()))
        return self

    def accelerate(
        self, caches: Path, kind: type[SourceAccelerator] = SourceAccelerator
    ) -> SourceAccelerator:
        """Have sessions go through a WAN accelerator of our own.

        :param caches: where its block caches lie
        """
        reactor, manager = self.reactor, self.manager
        made = kind(reactor, caches_in(reactor, caches), manager.far_endpoint)
        near, made.link = link_in_process(reactor, manager.reports, made)
        endpoint = MemoryEndpoint(reactor, "the source WAN accelerator")
        endpoint.listen(made.factory)
        made.startService()
        names = b"p" * 16 + self.repository
        self.own = OwnAccelerator(near, endpoint, names, STREAMS)
        manager.use_accelerator(self.own)
        self.accelerator = made
        return made

    def session(
        self,
        dialogue: Callable[[FrameChannel, bytes], _T],
        kind: SessionKind = SessionKind.READ,
        job_id: bytes | None = None,
        **parts: Any,
    ) -> Deferred[_T]:
        """Begin a session, through the accelerators where there is one of our own."""
        parts = {"wan": self.accelerator is not None, **parts}
        return Deferred.fromCoroutine(
            self.manager.session(
                kind, self.repository, job_id or new_job_id(), *LABELS, dialogue, **parts
            )
        )

    def back_up(
        self,
        source: str,
        around: Callable[[Callable[[], BackupResult]], BackupResult] | None = None,
    ) -> Deferred[BackupResult]:
        """Begin a backup of a folder; ``around`` may do something before and after it."""
        job_id = new_job_id()

        def dialogue(channel: FrameChannel, session: bytes) -> BackupResult:
            labels = Labels(host=LABELS[0], job=LABELS[1], job_id=job_id)
            plain = self.accelerator is not None and self.keys.mode is not EncryptionMode.TENANT
            options = BackupOptions(
                paths=(os.fsencode(os.path.abspath(source)),),
                **({"compression": 0} if plain else {}),  # type: ignore[arg-type]
            )
            run = BackupRun(channel, self.keys, self.description, options, labels, session).run
            return run() if around is None else around(run)

        return self.session(dialogue, SessionKind.BACKUP, job_id)

    def restore(self, point: bytes, target: str) -> Deferred[RestoreResult]:
        """Begin to restore all of a point."""

        def dialogue(channel: FrameChannel, session: bytes) -> RestoreResult:
            options = RestoreOptions(target=os.fsencode(os.path.abspath(target)))
            return RestoreRun(channel, self.keys, self.description, point, options).run()

        return self.session(dialogue, SessionKind.RESTORE)

    def names(self) -> list[str]:
        """The names of the steps that it was told."""
        return [event.name for event in self.events]

    def close(self) -> None:
        if self.accelerator is not None:
            if self.accelerator.running:
                self.reactor.result_of(self.accelerator.stopService())
            for link in (self.own.link, self.accelerator.link):
                if link is not None and link.transport is not None:
                    link.transport.loseConnection()
        self.reactor.result_of(self.manager.close())
        self.reactor.settle()


class StageCase(SynchronousTestCase):
    """A test with a provider, tenants, and everything that was logged."""

    def setUp(self) -> None:
        self.logged: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)
        self.reactor = MemoryReactor()
        self.directory = Path(self.mktemp())
        self.provider = Provider(self.reactor, self.directory)
        self.addCleanup(self.provider.stop)

    def tenant(self, name: str = TENANT, **settings: Any) -> Tenant:
        """A tenant that has not logged in."""
        made = Tenant(self.provider, name, **settings)
        self.addCleanup(made.close)
        return made

    def connected(self, name: str = TENANT, **settings: Any) -> Tenant:
        """A tenant that is logged in and has a repository."""
        return self.tenant(name, **settings).connect()

    def accelerated(
        self,
        name: str = TENANT,
        mode: EncryptionMode = EncryptionMode.PROVIDER,
        target: type[TargetAccelerator] = TargetAccelerator,
        source: type[SourceAccelerator] = SourceAccelerator,
        **settings: Any,
    ) -> Tenant:
        """A connected tenant whose sessions go through accelerators."""
        if self.provider.accelerator is None:
            self.provider.accelerate(target)
        tenant = self.connected(name, mode=mode, **settings)
        tenant.accelerate(self.directory / f"{name}-caches", source)
        return tenant

    def source(self) -> str:
        """A folder with a file."""
        path = self.mktemp()
        os.mkdir(path)
        with open(os.path.join(path, "file"), "wb") as file:
            file.write(os.urandom(3000))
        return path

    def failure_of(self, waited: Any, *kinds: type[BaseException]) -> Any:
        """The error of just one of these classes that ``waited`` comes to."""
        try:
            result = self.reactor.result_of(waited)
        except kinds as error:
            self.assertIn(type(error), kinds)
            return error
        return self.fail(f"{result!r} in the place of a failure")

    def log_text(self) -> str:
        """All that was logged, as people read it and as it is."""
        return "\n".join(f"{eventAsText(event)} {event!r}" for event in self.logged)

    def assert_unsaid(self, *secrets: bytes) -> None:
        """None of these octets stands in what was logged or kept, in any spelling."""
        kept = f"{self.log_text()}\n{self.provider.events()!r}"
        for secret in secrets:
            for spelling in (secret.hex(), repr(secret)[2:-1], secret.decode("latin-1")):
                self.assertNotIn(spelling, kept)


def idle(tenant: Tenant) -> Callable[[FrameChannel, bytes], bytes]:
    """A dialogue in which nothing is asked; returns the session."""

    def dialogue(channel: FrameChannel, session: bytes) -> bytes:
        greet(channel, tenant.keys, tenant.description, "read")
        channel.finish()
        channel.expect_end()
        return session

    return dialogue
