"""Tests of :mod:`cloudconnect.transports.switch`."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import ClientFactory, Factory
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from cloudconnect.interfaces import IRelayTarget
from cloudconnect.keys import KeyA, KeyB
from cloudconnect.settings import PREAMBLE_SECONDS
from cloudconnect.testing import (
    Flood,
    HalfCloseRecorder,
    MemoryEndpoint,
    MemoryPair,
    Recorder,
    flood_bytes,
)
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.stream import RecordStream
from cloudconnect.transports.switch import (
    REFUSALS_LOGGED,
    REFUSALS_SECONDS,
    FactoryTarget,
    FirstBytesFactory,
    LogLimit,
    Outcome,
    PreambleEndpoint,
    hand_over,
)
from cloudconnect.transports.tunnel import NoiseTunnel
from cloudconnect.wire.preamble import PREAMBLE_SIZE, ConnectionKind, Preamble


def factory_of(protocol: Any) -> Any:
    """A factory that builds ``protocol``, or refuses when it is None."""
    factory = Factory()
    factory.noisy = False
    factory.buildProtocol = lambda _: protocol
    return factory


class Target:
    """Keeps what it is given."""

    description = "kept"

    def __init__(self) -> None:
        self.taken: list[tuple[Any, bytes]] = []
        self.protocol = Recorder()

    def connect(self, transport: Any, data: bytes) -> None:
        self.taken.append((transport, data))
        hand_over(transport, self.protocol, data)


class FirstBytesTests(SynchronousTestCase):
    """The accepting side."""

    def setUp(self) -> None:
        self.pair = MemoryPair()
        self.clock: Any = self.pair.clock
        self.route = os.urandom(16)
        self.target, self.tls = Target(), Target()
        self.factory = FirstBytesFactory({self.route: self.target}.get, self.tls, self.clock)
        self.client: Any = None

    def connect(self) -> Any:
        self.pair = MemoryPair(self.clock)
        self.client = Recorder()
        self.server = self.factory.buildProtocol(None)
        self.pair.connect(self.client, self.server)
        return self.client.transport

    def send(self, *parts: bytes) -> None:
        transport = self.connect()
        for part in parts:
            transport.write(part)
            self.pair.pump()

    def preamble(self, kind: ConnectionKind = ConnectionKind.KEY_A_TUNNEL) -> bytes:
        return Preamble(kind, self.route).encode()

    def assert_refused(self, outcome: Outcome) -> None:
        self.assertEqual(dict(self.factory.counts), {outcome: 1})
        self.assertIsInstance(self.client.reason, ConnectionLost)
        self.assertEqual(self.client.data, b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_tls(self) -> None:
        """A connection that begins as TLS does is handed over whole, at its first byte."""
        self.send(b"\x16", b"\x03\x01rest")
        self.assertEqual([data for _, data in self.tls.taken], [b"\x16"])
        self.assertEqual(self.tls.protocol.data, b"\x16\x03\x01rest")
        self.assertEqual(dict(self.factory.counts), {Outcome.TLS: 1})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_data_connection(self) -> None:
        """One with a preamble goes to its route's target, with the preamble and what followed."""
        for kind, outcome in (
            (ConnectionKind.KEY_A_TUNNEL, Outcome.TUNNEL),
            (ConnectionKind.KEY_B_STREAM, Outcome.STREAM),
        ):
            self.setUp()
            self.send(self.preamble(kind) + b"handshake")
            self.assertEqual(self.target.protocol.data, self.preamble(kind) + b"handshake")
            self.assertIs(self.target.taken[0][0], self.pair.right)
            self.assertIs(self.pair.right.protocol, self.target.protocol)
            self.assertEqual(dict(self.factory.counts), {outcome: 1})

    def test_one_byte_at_a_time(self) -> None:
        """It does not matter how the preamble is cut."""
        octets = self.preamble() + b"more"
        self.send(*[octets[i : i + 1] for i in range(len(octets))])
        self.assertEqual(self.target.protocol.data, octets)
        self.assertEqual(len(self.target.taken[0][1]), PREAMBLE_SIZE)

    def test_garbage(self) -> None:
        """What is neither is refused at the first byte that shows it."""
        wrong_kind = bytearray(self.preamble())
        wrong_kind[4] = 9
        for parts in ((b"GET / HTTP/1.1\r\n",), (b"C", b"C", b"X"), (bytes(wrong_kind[:5]),)):
            self.setUp()
            self.send(*parts)
            self.assert_refused(Outcome.GARBAGE)
            self.assertEqual(self.target.taken + self.tls.taken, [])

    def test_unknown_route(self) -> None:
        """A route that nobody knows, or no longer, is refused."""
        self.factory.lookup = lambda route: None
        self.send(self.preamble())
        self.assert_refused(Outcome.UNKNOWN_ROUTE)

    def test_no_tls(self) -> None:
        """Where no TLS is served it is refused in the same way."""
        self.factory.tls = None
        self.send(b"\x16")
        self.assert_refused(Outcome.UNKNOWN_ROUTE)

    def test_timeout(self) -> None:
        """An incomplete preamble is waited for so long, and single bytes do not extend that."""
        transport = self.connect()
        for at in range(5):
            transport.write(self.preamble()[at : at + 1])
            self.clock.advance(PREAMBLE_SECONDS / 5 - 0.001)
            self.assertEqual(self.client.losses, 0)
        self.clock.advance(0.005)
        self.clock.advance(0)
        self.assert_refused(Outcome.TIMEOUT)

    def test_silence(self) -> None:
        """So is a connection that says nothing."""
        self.connect()
        self.clock.advance(PREAMBLE_SECONDS)
        self.clock.advance(0)
        self.assert_refused(Outcome.TIMEOUT)

    def test_gone(self) -> None:
        """One that leaves first is counted, and leaves no timer."""
        self.connect().loseConnection()
        self.pair.pump()
        self.assertEqual(dict(self.factory.counts), {Outcome.GONE: 1})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refusals_look_alike(self) -> None:
        """From outside every refusal is the same: nothing is sent, the connection is reset."""
        seen = []
        for octets in (b"x", self.preamble()):
            self.setUp()
            self.factory.lookup = lambda route: None
            transport = self.connect()
            transport.write(octets)
            self.clock.advance(0)
            seen.append((bytes(self.client.data), type(self.client.reason), self.clock.seconds()))
        self.assertEqual(seen[0], seen[1])

    def test_refusals_are_logged(self) -> None:
        """Each refusal is logged with the peer's address, but only so many in a while."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        for _ in range(REFUSALS_LOGGED + 5):
            self.send(b"x")
        self.assertEqual(len(events), REFUSALS_LOGGED)
        self.assertEqual(events[0]["peer"], self.pair.right.getPeer())
        self.assertEqual(events[0]["outcome"], "garbage")
        self.clock.advance(REFUSALS_SECONDS)
        self.send(b"x")
        self.assertEqual(events[-1]["dropped"], 5)
        self.assertEqual(self.factory.counts[Outcome.GARBAGE], REFUSALS_LOGGED + 6)

    def test_log_limit(self) -> None:
        """So many lines in a period, then none; the next period says how many were left out."""
        clock = Clock()
        limit = LogLimit(clock, 2, 10)
        self.assertEqual([limit.admit() for _ in range(4)], [0, 0, None, None])
        clock.advance(10)
        self.assertEqual([limit.admit() for _ in range(3)], [2, 0, None])

    def test_quiet(self) -> None:
        """The factory does not log each start and connection."""
        self.assertFalse(self.factory.noisy)
        self.assertEqual(self.factory.logPrefix(), "first bytes")


class FactoryTargetTests(SynchronousTestCase):
    """A target in this process."""

    def setUp(self) -> None:
        self.pair = MemoryPair()
        self.client, self.first, self.app = Recorder(), Recorder(), Recorder()
        self.pair.connect(self.client, self.first)

    def test_connect(self) -> None:
        """The factory's protocol gets what was read, without what is skipped, then the rest."""
        for skip, expected in ((0, b"preamblehello"), (8, b"hello")):
            self.setUp()
            target = FactoryTarget(factory_of(self.app), "here", skip)
            verifyObject(IRelayTarget, target)
            target.connect(self.pair.right, b"preamblehello")
            self.assertEqual(self.app.data, expected)
            self.pair.left.write(b" and more")
            self.pair.pump()
            self.assertEqual(self.app.data, expected + b" and more")
            self.assertEqual(self.first.data, b"")

    def test_refuses(self) -> None:
        """A factory that builds nothing refuses the connection."""
        FactoryTarget(factory_of(None), "here").connect(self.pair.right, b"x")
        self.pair.pump()
        self.assertIsInstance(self.client.reason, ConnectionLost)

    def test_hand_over_nothing(self) -> None:
        """Without bytes that were read dataReceived is not called."""
        hand_over(self.pair.right, self.app, b"")
        self.assertEqual(self.app.sizes, [])
        self.assertIs(self.app.transport, self.pair.right)

    def test_hand_over_of_layers(self) -> None:
        """A layer, ours or Twisted's TLS, is handed over by the name it knows its protocol by."""
        tunnel = NoiseTunnel(KeyA.generate(), b"").layer(True, self.first, Clock())
        tls: Any = TLSMemoryBIOProtocol(None, self.first)
        for layer in (tunnel, tls):
            hand_over(layer, self.app, b"")
            self.assertIs(layer.wrappedProtocol, self.app)


class PreambleEndpointTests(SynchronousTestCase):
    """The connecting side, in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = MemoryEndpoint(self.clock, "place")
        self.server = HalfCloseRecorder()
        self.successResultOf(self.endpoint.listen(factory_of(self.server)))
        self.preamble = Preamble(ConnectionKind.KEY_B_STREAM, bytes(range(16)))
        self.client = Recorder()

    def test_connect(self) -> None:
        """The preamble goes first; the protocol sits on the transport itself."""
        endpoint = PreambleEndpoint(self.endpoint, self.preamble)
        verifyObject(IStreamClientEndpoint, endpoint)
        self.client.greeting = b"hello"
        result = self.successResultOf(endpoint.connect(factory_of(self.client)))
        self.assertIs(result, self.client)
        self.clock.advance(0)
        self.assertEqual(self.server.data, self.preamble.encode() + b"hello")
        transport: Any = self.client.transport
        self.assertIs(transport.protocol, self.client)

    def test_under_a_layer(self) -> None:
        """A layer's endpoint stands on it as on any other."""
        key = KeyA.generate()
        recipe = NoiseTunnel(key, b"prologue")
        connecting = wrap_client_endpoint(
            recipe, PreambleEndpoint(self.endpoint, self.preamble), self.clock
        ).connect(factory_of(self.client))
        self.clock.advance(0)
        self.assertNoResult(connecting)
        self.assertTrue(self.server.data.startswith(self.preamble.encode()))
        inside = Recorder()
        server: Any = self.server.transport
        hand_over(server, recipe.layer(False, inside, self.clock), bytes(self.server.data[21:]))
        self.clock.advance(0)
        self.assertIs(self.successResultOf(connecting), self.client)

    def test_over_a_layer(self) -> None:
        """It works inside a layer too."""
        recipe = NoiseTunnel(KeyA.generate(), b"prologue")
        self.successResultOf(
            self.endpoint.listen(recipe.server_factory(factory_of(self.server), self.clock))
        )
        endpoint = PreambleEndpoint(
            wrap_client_endpoint(recipe, self.endpoint, self.clock), self.preamble
        )
        connecting = endpoint.connect(factory_of(self.client))
        self.clock.advance(0)
        self.assertIs(self.successResultOf(connecting), self.client)
        self.assertEqual(self.server.data, self.preamble.encode())
        self.assertEqual(self.client.handshakes, 1)

    def test_refusals(self) -> None:
        """A factory that refuses, or nobody there, is the endpoint's failure."""
        endpoint = PreambleEndpoint(self.endpoint, self.preamble)
        self.failureResultOf(endpoint.connect(factory_of(None)), ConnectionRefusedError)
        self.successResultOf(self.endpoint.stopListening())
        self.failureResultOf(endpoint.connect(factory_of(self.client)), ConnectionRefusedError)


class LoopbackTests(TestCase):
    """Both sides over real TCP, up to the stream that takes the socket over."""

    timeout = 60

    async def until(self, condition: Any) -> None:
        from twisted.internet.task import deferLater

        while not condition():
            await deferLater(reactor, 0.001)

    async def test_streams_and_tls_ports(self) -> None:
        """Many data connections through one port: nothing is lost, and the layers are on TCP."""
        recipe = RecordStream(KeyB.generate(), b"context")
        route = os.urandom(16)
        servers: list[Recorder] = []

        def build(_: Any) -> Recorder:
            servers.append(Recorder())
            return servers[-1]

        apps = Factory()
        apps.noisy = False
        apps.buildProtocol = build
        target = FactoryTarget(recipe.server_factory(apps, reactor), "movers", PREAMBLE_SIZE)
        factory = FirstBytesFactory({route: target}.get, None, reactor)
        port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        tcp = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        preamble = Preamble(ConnectionKind.KEY_B_STREAM, route)
        endpoint = wrap_client_endpoint(recipe, PreambleEndpoint(tcp, preamble), reactor)
        clients = []
        for number in range(20):
            client = Recorder()
            await endpoint.connect(factory_of(client))
            self.assertTrue(client.transport.owns_socket)
            flood = Flood(client.transport, 100_000 + number)
            flood.start()
            client.transport.loseConnection()
            clients.append(client)
        await self.until(lambda: all(c.losses for c in clients) and all(s.losses for s in servers))
        self.assertEqual(
            sorted(len(server.data) for server in servers), [100_000 + n for n in range(20)]
        )
        for server in servers:
            self.assertEqual(server.data, flood_bytes(0, len(server.data)))
        self.assertEqual(dict(factory.counts), {Outcome.STREAM: 20})

    async def test_refusals(self) -> None:
        """Garbage and an unknown route both meet a reset, and nothing else."""
        factory = FirstBytesFactory(lambda route: None, None, reactor)
        port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        for octets in (b"x", Preamble(ConnectionKind.KEY_A_TUNNEL, bytes(16)).encode()):
            client: Any = Recorder()
            client.greeting = octets
            connecting = ClientFactory()
            connecting.noisy = False
            connecting.buildProtocol = lambda _, client=client: client
            await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(connecting)
            await self.until(lambda client=client: client.losses)
            self.assertIsInstance(client.reason, ConnectionLost)
            self.assertEqual(client.data, b"")
