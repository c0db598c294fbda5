"""Tests of :mod:`cloudconnect.provider.gateway.relay`: in memory, and over real loopback TCP."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.haproxy import proxyEndpoint
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from cloudconnect.interfaces import IRelayTarget
from cloudconnect.provider.gateway.relay import RelayProtocol, Relays, RelayTo, proxy_header
from cloudconnect.testing import Flood, HalfCloseRecorder, MemoryPair, Recorder, flood_bytes
from cloudconnect.transports.memory import CAPACITY, WRITER_HIGH_WATER, MemoryEndpoint

V4 = IPv4Address("TCP", "192.0.2.7", 40_001), IPv4Address("TCP", "198.51.100.1", 6180)
V6 = (
    IPv6Address("TCP", "2001:db8:0:0:0:0:0:7", 40_001),
    IPv6Address("TCP", "2001:db8:0:0:0:0:0:1", 6180),
)


class HeaderTests(SynchronousTestCase):
    """The PROXY protocol v2 header, against Twisted's parser."""

    def parsed(self, header: bytes) -> Any:
        info, rest = V2Parser().feed(header + b"what follows")
        self.assertEqual(b"what follows", rest)
        return info

    def test_addresses(self) -> None:
        """The parser reads the addresses of both ends, of either family."""
        for peer, host in (V4, V6):
            info = self.parsed(proxy_header(peer, host))
            self.assertEqual((peer, host), (info.source, info.destination))

    def test_bytes(self) -> None:
        """The header of an IPv4 connection, octet for octet."""
        self.assertEqual(
            bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c c0000207 c6336401 9c41 1824"),
            proxy_header(*V4),
        )

    def test_unknown(self) -> None:
        """Of addresses that are no IP addresses, or of two families, nothing is said."""
        for pair in ((UNIXAddress("/a"), UNIXAddress("/b")), (V4[0], V6[1]), (V6[0], V4[1])):
            info = self.parsed(proxy_header(*pair))
            self.assertEqual((None, None), (info.source, info.destination))


class MemoryTests(SynchronousTestCase):
    """A relay between two connections in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.back: list[HalfCloseRecorder] = []
        self.endpoint = MemoryEndpoint(self.clock, "back end")
        self.endpoint.listen(Factory.forProtocol(self.build))
        self.target = RelayTo(self.endpoint, "the back end", Relays(self.clock))
        self.client = HalfCloseRecorder()
        self.pair = MemoryPair(self.clock)

    def build(self) -> HalfCloseRecorder:
        self.back.append(HalfCloseRecorder())
        return self.back[-1]

    def connect(self, first: bytes = b"first") -> HalfCloseRecorder:
        """A client connects and its first bytes were read; returns the back end's protocol."""
        self.pair.connect(self.client, Recorder())
        self.target.connect(self.pair.right, first)
        self.clock.advance(0)
        return self.back[0]

    def test_interface(self) -> None:
        """It is a relay target, and each side hears of half closes."""
        verifyObject(IRelayTarget, self.target)
        verifyObject(IHalfCloseableProtocol, RelayProtocol())

    def test_bytes(self) -> None:
        """The back end gets the header, the first bytes and all that follows; and answers."""
        back = self.connect()
        self.pair.left.write(b" and second")
        back.transport.write(b"answer")
        self.clock.advance(0)
        header = proxy_header(self.pair.right.getPeer(), self.pair.right.getHost())
        self.assertEqual(header + b"first and second", bytes(back.data))
        self.assertEqual(b"answer", bytes(self.client.data))

    def test_slow_back_end(self) -> None:
        """A back end that does not read pauses the client; nothing is lost or held without end."""
        back = self.connect(b"")
        back.transport.pauseProducing()
        flood = Flood(self.pair.left, 2_000_000)
        flood.start()
        self.clock.advance(0)
        self.assertGreater(flood.left, 0)
        written = 2_000_000 - flood.left
        self.assertLess(written, 2 * (CAPACITY + WRITER_HIGH_WATER) + 200_000)
        back.transport.resumeProducing()
        self.clock.advance(0)
        self.assertTrue(bytes(back.data).endswith(flood_bytes(0, 2_000_000)))

    def test_slow_client(self) -> None:
        """A client that does not read pauses the back end."""
        back = self.connect()
        self.pair.left.pauseProducing()
        flood = Flood(back.transport, 2_000_000)
        flood.start()
        self.clock.advance(0)
        self.assertGreater(flood.left, 1_000_000)
        self.pair.left.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(flood_bytes(0, 2_000_000), bytes(self.client.data))

    def test_half_close(self) -> None:
        """When one side has said all, the other is told so, and may still answer."""
        back = self.connect()
        self.pair.left.loseWriteConnection()
        self.clock.advance(0)
        self.assertEqual((1, None), (back.read_ends, back.reason))
        back.transport.write(b"late answer")
        self.clock.advance(0)
        self.assertEqual((b"late answer", None), (bytes(self.client.data), self.client.reason))

    def test_both_halves(self) -> None:
        """When both sides have said all, nothing of the relay stays behind."""
        back = self.connect()
        far = self.pair.right.protocol._other
        self.pair.left.loseWriteConnection()
        self.clock.advance(0)
        back.transport.loseWriteConnection()
        self.clock.advance(0)
        self.assertTrue(self.pair.right.disconnected)
        self.assertTrue(far.transport.disconnected)

    def test_abort(self) -> None:
        """A client that vanishes takes its connection to the back end with it."""
        back = self.connect()
        self.pair.left.abortConnection()
        self.clock.advance(0)
        self.assertEqual(1, back.losses + back.read_ends)
        self.assertTrue(self.pair.right.disconnected)

    def test_gone_before(self) -> None:
        """A client that has left before the back end was reached leaves nothing behind."""
        waiting: list[Any] = []

        class Slow:
            def connect(self, factory: Any) -> Deferred[Any]:
                waiting.append((factory, Deferred()))
                return waiting[0][1]

        self.pair.connect(self.client, Recorder())
        slow: Any = Slow()
        RelayTo(slow, "slow", Relays(self.clock)).connect(self.pair.right, b"first")
        self.pair.right.resumeProducing()
        self.pair.left.abortConnection()
        self.clock.advance(0)
        factory, connected = waiting[0]
        far, back = factory.buildProtocol(None), Recorder()
        MemoryPair(self.clock).connect(far, back)
        connected.callback(far)
        self.clock.advance(0)
        self.assertEqual((b"", 1), (bytes(back.data), back.losses))

    def test_no_back_end(self) -> None:
        """Where the back end is not there, the client is closed."""
        self.endpoint.stopListening()
        self.pair.connect(self.client, Recorder())
        self.target.connect(self.pair.right, b"first")
        self.clock.advance(0)
        self.assertEqual(1, self.client.losses + self.client.read_ends)
        self.assertTrue(self.pair.right.disconnected)


class _Accepting(Factory):
    """Hands each accepted connection to a relay target at once."""

    def __init__(self, target: RelayTo) -> None:
        self.target = target
        self.accepted: list[Any] = []

    def buildProtocol(self, addr: Any) -> Recorder:
        made = Recorder()
        factory = self

        def connected() -> None:
            factory.accepted.append(made.transport)
            factory.target.connect(made.transport, b"first")

        made.connectionMade = connected  # type: ignore[method-assign]
        return made


class _Ending(HalfCloseRecorder):
    """Says when something has changed."""

    def __init__(self) -> None:
        super().__init__()
        self.whats: list[tuple[Any, Deferred[None]]] = []

    def when(self, what: Any) -> Deferred[None]:
        """Fires once ``what()`` holds."""
        done: Deferred[None] = Deferred()
        self.whats.append((what, done))
        self.look()
        return done

    def look(self) -> None:
        for entry in list(self.whats):
            if entry[0]():
                self.whats.remove(entry)
                entry[1].callback(None)

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.look()

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        self.look()

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        self.look()


class LoopbackTests(TestCase):
    """The same over real TCP, the back end behind Twisted's own PROXY protocol."""

    timeout = 60

    @inlineCallbacks
    def setUp(self) -> Any:
        self.backs: list[_Ending] = []
        self.arrived: Deferred[_Ending] = Deferred()

        def build() -> _Ending:
            back = _Ending()
            self.backs.append(back)
            self.arrived.callback(back)
            return back

        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port: Any = yield proxyEndpoint(endpoint).listen(Factory.forProtocol(build))
        self.addCleanup(port.stopListening)
        self.relays = Relays(reactor)  # type: ignore[arg-type]
        self.addCleanup(self.relays.pool.close)
        back_end = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        target = RelayTo(back_end, "back", self.relays)
        self.front = _Accepting(target)
        port = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.front)
        self.addCleanup(port.stopListening)
        self.client = _Ending()
        yield connectProtocol(
            TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), self.client
        )
        self.back: _Ending = yield self.arrived
        yield self.back.when(lambda: self.back.data)

    @inlineCallbacks
    def test_address(self) -> Any:
        """The back end sees the client's address, not the gateway's, and the first bytes."""
        self.assertEqual(self.client.transport.getHost(), self.back.transport.getPeer())
        self.assertEqual(b"first", bytes(self.back.data))
        self.client.transport.loseConnection()
        yield self.back.when(lambda: self.back.losses)
        yield self.client.when(lambda: self.client.losses)

    @inlineCallbacks
    def test_large(self) -> Any:
        """Megabytes go both ways at once, and arrive as they were sent."""
        size = 5_000_000
        Flood(self.client.transport, size).start()
        Flood(self.back.transport, size).start()
        yield self.back.when(lambda: len(self.back.data) == size + len(b"first"))
        yield self.client.when(lambda: len(self.client.data) == size)
        self.assertEqual(b"first" + flood_bytes(0, size), bytes(self.back.data))
        self.assertEqual(flood_bytes(0, size), bytes(self.client.data))
        self.back.transport.loseConnection()
        yield self.client.when(lambda: self.client.losses or self.client.read_ends)
        self.client.transport.loseConnection()
        yield self.client.when(lambda: self.client.losses)
        yield self.back.when(lambda: self.back.losses)

    @inlineCallbacks
    def test_half_close(self) -> Any:
        """One direction ends before the other; when both have ended, the relay's sockets close."""
        near = self.front.accepted[0].protocol
        ended: Deferred[None] = Deferred()
        original = near.connectionLost

        def lost(reason: Any) -> None:
            original(reason)
            ended.callback(None)

        near.connectionLost = lost
        # The proxy wrapper of the back end does not know of half closes: it closes in answer.
        self.back.transport.write(b"all that I know")
        self.client.transport.loseWriteConnection()
        yield self.back.when(lambda: self.back.losses)
        yield self.client.when(lambda: self.client.losses or self.client.read_ends)
        self.assertEqual(b"all that I know", bytes(self.client.data))
        yield ended
        self.client.transport.loseConnection()
        yield self.client.when(lambda: self.client.losses)
