"""What the tests of TLS are made of: two ends, all bytes between them, and other servers."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from cloudconnect.errors import CloudConnectError
from cloudconnect.transports.memory import MemoryPair
from cloudconnect.transports.tls import PinnedTLS
from cloudconnect.transports.tls_layer import TLSFacts, TLSLayer
from cloudconnect.transports.trust import TrustPolicy
from tests.certificates import HOST, Authority, Issued

CANARY = b"the login password of this tenant"
CLIENT_HELLO, HANDSHAKE, ALERT = 0x01, 0x16, 0x15


@implementer(IHandshakeListener)
class Application(Protocol):
    """Writes at once, before anything can be known of the peer, and keeps what it is told."""

    first = b""

    def __init__(self) -> None:
        self.data = b""
        self.handshakes = 0
        self.reason: Any = None
        self.lost = Deferred[None]()

    def connectionMade(self) -> None:
        if self.first:
            self.transport.write(self.first)

    def handshakeCompleted(self) -> None:
        self.handshakes += 1

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.reason = reason.value
        self.lost.callback(None)


class Teller(Application):
    """A client that would tell its secret to anybody."""

    first = CANARY


class Link:
    """A client and a server, each a recipe or a protocol, and all bytes between them.

    :ivar client_wire: what the client's layer gave to its transport
    :ivar server_wire: the server's
    """

    def __init__(
        self,
        client: Any,
        server: Any,
        alter: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.pair = MemoryPair()
        self.client_app, self.server_app = Teller(), Application()
        clock = self.pair.clock
        if isinstance(client, Protocol):
            self.client = client
        else:
            factory = client.client_factory(Factory.forProtocol(lambda: self.client_app), clock)
            self.client = factory.buildProtocol(None)
        if isinstance(server, Protocol):
            self.server = server
        else:
            factory = server.server_factory(Factory.forProtocol(lambda: self.server_app), clock)
            self.server = factory.buildProtocol(None)
        self.client_wire, self.server_wire = b"", b""
        self.alter = alter or bytes
        self.to_client, self.to_server = self.pair.right.write, self.pair.left.write
        self.pair.left.write = self.from_client
        self.pair.right.write = self.from_server
        self.pair.connect(self.client, self.server)

    def from_client(self, data: bytes) -> None:
        self.client_wire += data
        self.to_server(data)

    def from_server(self, data: bytes) -> None:
        self.server_wire += data
        self.to_client(self.alter(data))

    def pump(self) -> Link:
        self.pair.pump()
        return self

    def cut(self) -> None:
        """The server's transport ends, below its layer."""
        self.pair.right.unregisterProducer()
        self.pair.right.loseConnection()

    def records(self) -> list[int]:
        """The types of the TLS records that the client sent."""
        found, wire = [], self.client_wire
        while wire:
            found.append(wire[0])
            wire = wire[5 + int.from_bytes(wire[3:5], "big") :]
        return found


class OpenSSLPeer(Protocol):
    """A peer that is not ours, and does what this context says.

    :ivar read: what it could decrypt
    """

    def __init__(self, context: SSL.Context, is_client: bool = False) -> None:
        self.tls = SSL.Connection(context, None)
        if is_client:
            self.tls.set_connect_state()
        else:
            self.tls.set_accept_state()
        self.read = b""

    def connectionMade(self) -> None:
        self.go_on()

    def dataReceived(self, data: bytes) -> None:
        self.tls.bio_write(data)
        self.go_on()

    def go_on(self) -> None:
        """Shake hands and read as far as it goes."""
        try:
            self.tls.do_handshake()
            self.read += self.tls.recv(65536)
        except SSL.Error:
            pass
        try:
            while True:
                self.transport.write(self.tls.bio_read(65536))
        except SSL.WantReadError:
            pass


class OldServer(OpenSSLPeer):
    """A TLS server that shows any certificate; version, suite and protocol as they are given."""

    def __init__(
        self,
        issued: Issued,
        version: int = SSL.TLS1_3_VERSION,
        suite: bytes = b"TLS_AES_256_GCM_SHA384",
        alpn: bytes | None = b"cloudconnect/1",
    ) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(version)
        context.set_cipher_list(b"DEFAULT@SECLEVEL=0")  # no certificate is too bad to be shown
        context.set_tls13_ciphersuites(suite)
        if alpn is not None:
            context.set_alpn_select_callback(lambda connection, offered: alpn)
        context.use_certificate(issued.certificate)
        context.use_privatekey(issued.key)
        for certificate in issued.chain:
            context.add_extra_chain_cert(certificate)
        super().__init__(context)


class OldClient(OpenSSLPeer):
    """A TLS client that trusts everybody and offers no application protocol."""

    def __init__(self, version: int = SSL.TLS1_3_VERSION) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(version)
        super().__init__(context, is_client=True)


class Speaker(Protocol):
    """A server of some other protocol."""

    def __init__(self, says: bytes) -> None:
        self.says = says
        self.raw = b""

    def dataReceived(self, data: bytes) -> None:
        self.raw += data
        self.transport.write(self.says)


class TLSTestCase(SynchronousTestCase):
    """Has an authority, and files.

    :ivar authority: issues certificates
    :ivar ca_file: where it is written
    :ivar good: a certificate of it that holds
    """

    def setUp(self) -> None:
        self.authority = Authority()
        self.good = self.authority.issue()
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.ca_file = self.authority.write(f"{self.directory}/ca.pem")

    def serving(self, issued: Issued) -> PinnedTLS:
        """A server that shows this."""
        return PinnedTLS(identity=issued.write(f"{self.directory}/{issued.spki[12:28]}"))

    def trusting(self, host: str = HOST, **parts: Any) -> PinnedTLS:
        """A client with this policy."""
        return PinnedTLS(TrustPolicy(host, **parts))

    def by_ca(self, host: str = HOST, **parts: Any) -> PinnedTLS:
        """A client that trusts our authority."""
        return self.trusting(host, ca_file=self.ca_file, **parts)

    def assert_works(self, link: Link) -> TLSFacts:
        """Both ends are there, and the secret has arrived; returns the client's facts."""
        link.pump()
        self.assertEqual((None, None), (link.client_app.reason, link.server_app.reason))
        self.assertEqual((1, 1), (link.client_app.handshakes, link.server_app.handshakes))
        self.assertEqual(CANARY, link.server_app.data)
        self.assertNotIn(CANARY, link.client_wire)
        return link.client.facts

    def assert_refuses(self, link: Link, kind: type[CloudConnectError]) -> Any:
        """The client has refused and sent a ClientHello and an alert at most; returns the error."""
        waiter = link.client.when_ready()
        link.pump()
        error = self.failureResultOf(waiter).value
        self.assertIs(error, link.client_app.reason)
        self.assertIs(kind, type(error), error)
        self.assertEqual(0, link.client_app.handshakes)
        self.assertEqual((HANDSHAKE, CLIENT_HELLO), (link.client_wire[0], link.client_wire[5]))
        hello = 5 + int.from_bytes(link.client_wire[3:5], "big")
        # an alert of two bytes, perhaps sealed, perhaps behind a compatibility record of one byte
        self.assertLessEqual(len(link.client_wire) - hello, 6 + 5 + 2 + 17)
        self.assertNotIn(CANARY, link.client_wire)
        self.assertIsNone(link.client.facts)
        if isinstance(link.server, TLSLayer):
            self.assertEqual(b"", link.server_app.data)
            self.assertEqual(0, link.server_app.handshakes)
            self.assertIsInstance(link.server_app.reason, CloudConnectError)
        self.flushLoggedErrors()
        return error
