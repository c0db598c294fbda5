"""A false provider: bad certificates and old versions against the tenant's real log-in."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.trial.unittest import SkipTest, TestCase
from zope.interface import implementer

from cloudconnect.errors import CloudConnectError, ExitCode, ProviderNotTrusted
from cloudconnect.events import SessionEvent
from cloudconnect.keys import Password
from cloudconnect.tenant.jobmanager import JobManager
from cloudconnect.transports.tls import CONTROL_ALPN, PinnedTLS
from cloudconnect.transports.trust import TrustPolicy
from tests.attacks.bad_certificates import Case, cases
from tests.certificates import HOST, Authority, Issued

LOOPBACK = "127.0.0.1"
#: So many attempts to agree on an old version.
TRIES = 100
#: It would be in the first message of the log-in, in clear inside TLS.
TENANT = "canary-tenant"
OLD = (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION, SSL.TLS1_2_VERSION)


@implementer(IOpenSSLContextFactory)
class Shown:
    """A server's context that shows a certificate, however weak it is.

    :param newest: the newest version that it speaks
    """

    def __init__(self, issued: Issued, newest: int = SSL.TLS1_3_VERSION) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_VERSION)
        context.set_max_proto_version(newest)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.use_certificate(X509.from_cryptography(issued.certificate))
        for above in issued.chain:
            context.add_extra_chain_cert(X509.from_cryptography(above))
        context.use_privatekey(PKey.from_cryptography_key(issued.key))
        context.set_alpn_select_callback(lambda _, offered: offered[0])
        self._context = context

    def getContext(self) -> SSL.Context:
        return self._context


class Heard(Protocol):
    """What a server understood: bytes that were sent after its certificate was judged."""

    def __init__(self) -> None:
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.transport.loseConnection()  # type: ignore[union-attr]


class FalseProviderTests(TestCase):
    """The job manager logs in at somebody who is not its provider."""

    timeout = 180

    async def heard(self, endpoint: Any, trust: TrustPolicy) -> tuple[Any, bytes]:
        """What a log-in came to, and what the server understood of it."""
        heard: list[Heard] = []

        def build() -> Heard:
            heard.append(Heard())
            return heard[-1]

        factory = Factory.forProtocol(build)  # type: ignore[arg-type]
        factory.noisy = False
        port = await endpoint.listen(factory)
        events: list[SessionEvent] = []
        manager = JobManager(reactor, LOOPBACK, port.getHost().port, trust, happened=events.append)
        error = None
        try:
            await manager.log_in(TENANT, Password(b"cct1-" + b"a" * 52))
        except CloudConnectError as failure:
            error = failure
        finally:
            await manager.close()
            await port.stopListening()
        self.events = events
        return error, b"".join(one.data for one in heard)

    async def judge(self, case: Case) -> list[str]:
        """What is not as it must be."""
        endpoint = SSL4ServerEndpoint(reactor, 0, Shown(case.shown), interface=LOOPBACK)
        error, heard = await self.heard(endpoint, case.trust)
        if case.error is None:
            return [] if TENANT.encode() in heard else [f"{case.name}: refused, {error!r}"]
        found = []
        if heard:
            found.append(f"{case.name}: {len(heard)} bytes were sent")
        if type(error) is not case.error:
            found.append(f"{case.name}: {error!r}")
        elif error.exit_code is not ExitCode.PROVIDER_NOT_TRUSTED:
            found.append(f"{case.name}: status {error.exit_code}")
        return found

    async def test_matrix(self) -> None:
        """Each bad certificate is refused for what is wrong with it, with not a byte of the log-in
        sent; each good one is taken."""
        complaints, bad, good = [], 0, 0
        for case in cases(Path(self.mktemp())):
            complaints += await self.judge(case)
            bad += case.error is not None
            good += case.error is None
        self.assertEqual([], complaints)
        self.assertGreaterEqual(bad, 45)
        self.assertEqual(9, good)

    async def test_old_servers(self) -> None:
        """A server of TLS 1.2 or older gets no handshake, however often it is tried."""
        root = Authority()
        trust = TrustPolicy(HOST, ca_file=root.write(Path(self.mktemp())))
        issued = root.issue()
        for attempt in range(TRIES):
            shown = Shown(issued, OLD[attempt % 3])
            endpoint = SSL4ServerEndpoint(reactor, 0, shown, interface=LOOPBACK)
            error, heard = await self.heard(endpoint, trust)
            self.assertIsInstance(error, ProviderNotTrusted)
            self.assertEqual(b"", heard)

    async def test_group(self) -> None:
        """The key exchange that came out is the hybrid one, and is told."""
        if SSL.OPENSSL_VERSION_NUMBER < 0x30500000:
            raise SkipTest("this OpenSSL has no X25519MLKEM768")
        root = Authority()
        trust = TrustPolicy(HOST, ca_file=root.write(Path(self.mktemp())))
        endpoint = SSL4ServerEndpoint(reactor, 0, Shown(root.issue()), interface=LOOPBACK)
        await self.heard(endpoint, trust)
        [connected] = [event for event in self.events if event.name == "connected"]
        self.assertEqual("X25519MLKEM768", connected.fields["group"])
        self.assertEqual("TLSv1.3", connected.fields["version"])


class OldClientTests(TestCase):
    """Clients that want an old version, at the provider's own TLS."""

    timeout = 120

    async def test_old_clients(self) -> None:
        """TLS 1.2 and older: no handshake in 100 tries; TLS 1.3 in the first."""
        identity = Authority().issue().write(self.mktemp())
        above: list[Heard] = []

        def build() -> Heard:
            above.append(Heard())
            return above[-1]

        factory = Factory.forProtocol(build)  # type: ignore[arg-type]
        server = PinnedTLS(identity=identity).server_factory(factory, reactor)
        port = await TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK).listen(server)
        self.addCleanup(port.stopListening)
        shaken = [
            await self.shakes(port.getHost().port, OLD[number % 3]) for number in range(TRIES)
        ]
        self.assertEqual([False] * TRIES, shaken)
        self.assertTrue(await self.shakes(port.getHost().port, SSL.TLS1_3_VERSION))
        self.assertEqual(b"", b"".join(one.data for one in above[:TRIES]))

    async def shakes(self, port: int, version: int) -> bool:
        """Whether a handshake of this version comes about."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.set_alpn_protos([CONTROL_ALPN.encode()])
        connection = SSL.Connection(context, None)
        connection.set_connect_state()
        client = _Shaking(connection)
        reactor.connectTCP(LOOPBACK, port, _factory(client))  # type: ignore[attr-defined]
        done: bool = await client.done
        return done


class _Shaking(Protocol):
    """Does a handshake, and nothing else."""

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection
        self.done: Deferred[bool] = Deferred()

    def connectionMade(self) -> None:
        self._go_on()

    def dataReceived(self, data: bytes) -> None:
        self._connection.bio_write(data)
        self._go_on()

    def connectionLost(self, reason: Any = None) -> None:
        self._end(False)

    def _go_on(self) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error:
            self._end(False)
        else:
            self._end(True)
        with contextlib.suppress(SSL.WantReadError):
            self.transport.write(self._connection.bio_read(1 << 16))  # type: ignore[union-attr]

    def _end(self, shaken: bool) -> None:
        if not self.done.called:
            self.done.callback(shaken)
            self.transport.loseConnection()  # type: ignore[union-attr]


def _factory(protocol: Protocol) -> Any:
    factory = ClientFactory.forProtocol(lambda: protocol)  # type: ignore[arg-type]
    factory.noisy = False
    return factory
