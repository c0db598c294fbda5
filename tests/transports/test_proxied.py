"""Tests for the PROXY protocol header in front of a connection."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cloudconnect.errors import ProtocolViolation
from cloudconnect.provider.gateway.relay import PROXY_LOCAL, proxy_header
from cloudconnect.testing import MemoryPair, Recorder
from cloudconnect.transports.proxied import (
    REST_MAX,
    SIGNATURE,
    ProxiedEndpoint,
    ProxiedFactory,
    read_proxy_header,
)

V4 = proxy_header(IPv4Address("TCP", "192.0.2.1", 1000), IPv4Address("TCP", "192.0.2.2", 6180))
V6 = proxy_header(IPv6Address("TCP", "2001:db8::1", 1), IPv6Address("TCP", "2001:db8::2", 2))


class HeaderTests(SynchronousTestCase):
    """The header as bytes."""

    def test_addresses(self) -> None:
        """What the gateway writes is read: both addresses, of both families."""
        found = read_proxy_header(V4 + b"behind")
        assert found is not None
        self.assertEqual(len(V4), found.size)
        self.assertEqual(IPv4Address("TCP", "192.0.2.1", 1000), found.peer)
        self.assertEqual(IPv4Address("TCP", "192.0.2.2", 6180), found.host)
        found = read_proxy_header(V6)
        assert found is not None
        self.assertEqual(IPv6Address("TCP", "2001:db8::1", 1), found.peer)

    def test_says_nothing(self) -> None:
        """LOCAL and an unspecified family leave the peer as it is; further fields are skipped."""
        for octets in (PROXY_LOCAL, SIGNATURE + b"\x21\x00\x00\x00", SIGNATURE + b"\x20\x11\0\2ab"):
            found = read_proxy_header(octets)
            assert found is not None
            self.assertEqual((found.size, found.peer), (len(octets), None))
        longer = V4[:14] + (12 + 5).to_bytes(2, "big") + V4[16:] + b"field"
        found = read_proxy_header(longer + b"behind")
        assert found is not None
        self.assertEqual(len(longer), found.size)

    def test_every_prefix(self) -> None:
        """No prefix of a header is one, and none is refused."""
        for header in (V4, V6):
            for size in range(len(header)):
                self.assertIsNone(read_proxy_header(header[:size]), size)

    def test_refused(self) -> None:
        """Other versions, families, sizes and texts are refused as early as they can be told."""
        for octets in (
            b"P",
            b"PROXY TCP4 127.0.0.1 127.0\x9e0.2 1000 6180\r\n",
            SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
            SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
            SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),
            SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216),
            SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
            SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
            SIGNATURE + b"\x21\x11" + (REST_MAX + 1).to_bytes(2, "big"),
        ):
            with self.assertRaises(ProtocolViolation, msg=repr(octets)):
                read_proxy_header(octets)


class ConnectionTests(SynchronousTestCase):
    """A connection with a header in front."""

    def connect(self) -> None:
        self.clock = Clock()
        self.above = Recorder()
        factory = ProxiedFactory(Factory.forProtocol(lambda: self.above))  # type: ignore[arg-type]
        self.pair = MemoryPair(self.clock)
        self.gateway = Recorder()
        self.pair.connect(self.gateway, factory.buildProtocol(self.pair.right.getPeer()))
        self.clock.advance(0)

    def send(self, octets: bytes) -> None:
        self.pair.left.write(octets)
        self.clock.advance(0)

    def test_single_bytes(self) -> None:
        """A header that comes byte by byte is read, and nothing behind it is lost."""
        self.connect()
        for octet in V4 + b"behind":
            self.send(bytes((octet,)))
        self.assertEqual(b"behind", self.above.data)
        transport: Any = self.above.transport
        self.assertEqual("192.0.2.1", transport.getPeer().host)
        self.assertEqual(6180, transport.getHost().port)

    def test_at_once(self) -> None:
        """So is one that comes with what stands behind it."""
        self.connect()
        self.send(PROXY_LOCAL + b"behind")
        self.send(b" more")
        self.assertEqual(b"behind more", self.above.data)
        transport: Any = self.above.transport
        self.assertEqual(self.pair.right.getPeer(), transport.getPeer())

    def test_malformed(self) -> None:
        """What is no header ends the connection, raises nothing and reaches nobody."""
        self.connect()
        self.send(b"PROXY TCP4 127.0.0.1 127.0\x9e0.2 1000 6180\r\nbehind")
        self.send(V4 + b"behind")
        self.clock.advance(1)
        self.assertEqual((b"", 1), (bytes(self.above.data), self.above.losses))
        self.assertEqual(1, self.gateway.losses)
        self.assertEqual([], self.flushLoggedErrors())

    def test_endpoint(self) -> None:
        """The endpoint listens where the one below does, with the factory wrapped."""
        reactor: Any = MemoryReactor()
        endpoint = ProxiedEndpoint(TCP4ServerEndpoint(reactor, 6181))
        self.assertTrue(verifyObject(IStreamServerEndpoint, endpoint))
        factory = Factory.forProtocol(Recorder)
        self.successResultOf(endpoint.listen(factory))
        self.assertEqual(6181, reactor.tcpServers[0][0])
        self.assertIs(factory, reactor.tcpServers[0][1].wrappedFactory)
