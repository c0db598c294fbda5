"""Tests of :mod:`cloudconnect.provider.assembly`: the roles together, on real loopback ports."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from cloudconnect.commands.admin import AddTenant, List
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import SessionKind
from cloudconnect.config.gateway import enroll, lan_tls
from cloudconnect.config.gateway import load as load_gateway
from cloudconnect.config.provider import initialize
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys, describe
from cloudconnect.keys import MasterKey
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.assembly import EmbeddedProvider
from cloudconnect.provider.places import Places
from cloudconnect.tap.gateway import GatewayProcess
from cloudconnect.tenant.jobmanager import JobManager, new_job_id
from cloudconnect.transports.trust import TrustPolicy
from tests.provider.stage import Tenant as MemoryTenant
from tests.provider.stage import idle

LOOPBACK = "127.0.0.1"


def loopback(port: int = 0) -> TCP4ServerEndpoint:
    return TCP4ServerEndpoint(reactor, port, interface=LOOPBACK)


class AssemblyCase(TestCase):
    """A test with a provider's directory."""

    timeout = 120

    def setUp(self) -> None:
        # Not below trial's own folder: the path of a socket has at most 107 bytes.
        temporary = tempfile.TemporaryDirectory(prefix="cloudconnect-")
        self.addCleanup(temporary.cleanup)
        self.top = Path(temporary.name)
        self.settings = initialize(self.top / "provider", ("localhost",))

    def made(self, public: Any = None, **places: Any) -> EmbeddedProvider:
        settings = self.settings
        provider = EmbeddedProvider(
            reactor,
            Places(
                accounts_url=settings.accounts_url,
                repositories=settings.repositories,
                identity=settings.identity,
                admin_socket=settings.admin_socket,
                public=public or loopback(),
                **places,
            ),
        )
        self.addCleanup(lambda: maybeDeferred(provider.stopService))
        return provider

    async def admin(self) -> BoundedAMP:
        endpoint = UNIXClientEndpoint(reactor, str(self.settings.admin_socket))
        made: BoundedAMP = await connectProtocol(endpoint, BoundedAMP(reactor))
        return made

    async def whole_session(self, port: int) -> list[str]:
        """Make a tenant through the admin socket, and play its story; the provider's events."""
        admin = await self.admin()
        answer = await admin.call(AddTenant, name="acme", password=None, settings={})
        trust = TrustPolicy("localhost", fingerprints=self.settings.identity.fingerprints()[:1])
        manager = JobManager(reactor, "localhost", port, trust)
        master, repository = MasterKey.generate(), os.urandom(16)
        tenant = MemoryTenant.__new__(MemoryTenant)
        tenant.keys = RepositoryKeys(master, repository)
        tenant.description = describe(master, repository, EncryptionMode.TENANT, ())
        try:
            await manager.log_in("acme", answer["token"])
            await manager.create_repository(tenant.description.encode())
            await manager.session(
                SessionKind.READ, repository, new_job_id(), "host", "job", idle(tenant)
            )
        finally:
            await manager.close()
        page = await admin.call(List, what="event", filters={}, after=0, limit=100)
        assert admin.transport is not None
        admin.transport.loseConnection()
        return [row["name"] for row in page["rows"]]


class AssemblyTests(AssemblyCase):
    """A provider in one process."""

    @inlineCallbacks
    def test_story(self) -> Any:
        """Everything works together: admin socket, port, log-in, session."""
        provider = self.made()
        port: Any = yield _run(provider.listen())
        names = yield _run(self.whole_session(port.getHost().port))
        self.assertEqual(
            [
                "repository_made",
                "key_a_made",
                "key_b_received",
                "stream_up",
                "stream_done",
            ],
            names,
        )

    @inlineCallbacks
    def test_stop(self) -> Any:
        """A stopped provider listens no more, and may be stopped again."""
        provider = self.made()
        port: Any = yield _run(provider.listen())
        number = port.getHost().port
        yield maybeDeferred(provider.stopService)
        yield maybeDeferred(provider.stopService)
        for endpoint in (
            TCP4ClientEndpoint(reactor, LOOPBACK, number),
            UNIXClientEndpoint(reactor, str(self.settings.admin_socket)),
        ):
            yield self.assertFailure(connectProtocol(endpoint, Protocol()), ConnectError)

    @inlineCallbacks
    def test_port_in_use(self) -> Any:
        """Where one port cannot be had nothing listens, and stopping afterwards is no error."""
        taken: Any = yield loopback().listen(_Nothing())
        provider = self.made(loopback(taken.getHost().port))
        yield self.assertFailure(_run(provider.listen()), CannotListenError)
        self.assertFalse(self.settings.admin_socket.exists())
        yield maybeDeferred(provider.stopService)
        yield taken.stopListening()

    @inlineCallbacks
    def test_admin_socket_in_use(self) -> Any:
        """Nor does the public port where the admin socket cannot be had."""
        self.settings.admin_socket.mkdir()
        found: list[int] = []
        public = loopback()
        real = public.listen

        def listen(factory: Any) -> Any:
            return real(factory).addCallback(lambda p: (found.append(p.getHost().port), p)[1])

        public.listen = listen  # type: ignore[method-assign]
        provider = self.made(public)
        yield self.assertFailure(_run(provider.listen()), CannotListenError)
        endpoint = TCP4ClientEndpoint(reactor, LOOPBACK, found[0])
        yield self.assertFailure(connectProtocol(endpoint, Protocol()), ConnectError)

    def test_identity(self) -> None:
        """The provider's id and its decoy key stay the same over restarts; sessions that ran are
        interrupted."""
        first = self.made()
        service = first.service
        accounts = Accounts(self.settings.accounts_url)
        self.addCleanup(accounts.close)
        accounts.session_started(
            session="ab" * 16,
            tenant="acme",
            kind="read",
            job_id="cd" * 16,
            host="h",
            job="j",
            peer="",
            started=1.0,
            key_a="",
            key_b="",
            summary="{}",
        )
        second = self.made()
        again = second.service
        keys = [(s.provider, s.logins.decoy_key) for s in (service, again)]
        self.assertEqual(keys[0], keys[1])
        self.assertEqual([16, 32], [len(key) for key in keys[0]])
        self.assertEqual("interrupted", accounts.sessions("", 0, 10)[0]["state"])


class GatewayTests(AssemblyCase):
    """A provider, and a gateway of its own beside it."""

    @inlineCallbacks
    def test_story(self) -> Any:
        """A tenant that knows only the gateway's port plays its whole story through it."""
        lan: Any = yield self.free_port()
        backend: Any = yield self.free_port()
        provider = self.made(
            lan=(loopback(lan), lan_tls(self.settings.node_authority / "service", "gateway")),
            backend=loopback(backend),
            backend_address=f"{LOOPBACK}:{backend}",
        )
        yield _run(provider.listen())
        enroll(
            self.settings,
            "edge",
            self.top / "gateway",
            f"{LOOPBACK}:{lan}",
            f"tcp:0:interface={LOOPBACK}",
            "",
        )
        settings = load_gateway(self.top / "gateway")
        process = GatewayProcess(reactor, settings, settings.listen)
        yield _started(process)
        number = process._gateway._port.getHost().port  # type: ignore[union-attr]
        names = yield _run(self.whole_session(number))
        self.assertIn("stream_done", names)
        yield maybeDeferred(process.stopService)

    def free_port(self) -> Any:
        def got(port: Any) -> Any:
            number = port.getHost().port
            return maybeDeferred(port.stopListening).addCallback(lambda _: number)

        return loopback().listen(_Nothing()).addCallback(got)


def _run(work: Any) -> Any:
    return Deferred.fromCoroutine(work)


def _started(process: GatewayProcess) -> Any:
    """Fires once the gateway listens and is registered."""
    done: Deferred[None] = Deferred()
    (registration,) = [s for s in process if hasattr(s, "_registered")]
    real = registration._registered

    def registered(backend: str, line: Any) -> None:
        real(backend, line)
        done.callback(None)

    registration._registered = registered
    process.startService()
    return done


class _Nothing(Factory):
    """Refuses every connection."""

    noisy = False

    def buildProtocol(self, addr: object) -> None:
        return None
