"""Tests of :mod:`cloudconnect.transports.memory`: the same scenarios in memory and over TCP."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IListeningPort,
    IPullProducer,
    IPushProducer,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from cloudconnect.transports.layer import IHalfCloseTransport
from cloudconnect.transports.memory import (
    CAPACITY,
    PIECE,
    MemoryAddress,
    MemoryEndpoint,
    MemoryPair,
)


class Recorder(Protocol):
    """Keeps what it is told, and answers questions about it with Deferreds."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.sizes: list[int] = []
        self.reason: Any = None
        self.lost = 0
        self._waits: list[tuple[Any, Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.sizes.append(len(data))
        self.changed()

    def connectionLost(self, reason: Any = None) -> None:
        self.lost += 1
        self.reason = reason.value
        self.changed()

    def changed(self) -> None:
        for wait in [wait for wait in self._waits if wait[0]()]:
            self._waits.remove(wait)
            wait[1].callback(None)

    def until(self, condition: Any) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._waits.append((condition, done))
        self.changed()
        return done

    def until_lost(self) -> Deferred[None]:
        return self.until(lambda: self.lost)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Recorder):
    """Hears of each direction's end."""

    read_lost = write_lost = 0

    def readConnectionLost(self) -> None:
        self.read_lost += 1
        self.changed()

    def writeConnectionLost(self) -> None:
        self.write_lost += 1
        self.changed()


@implementer(IPushProducer)
class Flood:
    """Writes whenever it may, until ``total`` bytes are written; then it unregisters."""

    def __init__(self, transport: Any, total: int) -> None:
        self.transport = transport
        self.left = total
        self.calls: list[str] = []
        self.running = True

    def start(self) -> None:
        self.transport.registerProducer(self, True)
        self.go()

    def go(self) -> None:
        while self.running and self.left > 0:
            size = min(self.left, 30_000)
            self.left -= size
            self.transport.write(b"x" * size)
        if self.left == 0 and self.running:
            self.left = -1
            self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self.calls.append("pause")
        self.running = False

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        self.running = True
        self.go()

    def stopProducing(self) -> None:
        self.calls.append("stop")
        self.running = False


@implementer(IPullProducer)
class Pull:
    """Writes one part each time it is asked, then unregisters."""

    def __init__(self, transport: Any, parts: int, part: bytes) -> None:
        self.transport = transport
        self.parts = parts
        self.part = part
        self.stopped = 0

    def resumeProducing(self) -> None:
        if self.parts:
            self.parts -= 1
            self.transport.write(self.part)
        else:
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        self.stopped += 1


class Scenarios:
    """What a protocol can tell of a connection; ``join`` connects two protocols."""

    @inlineCallbacks
    def test_exchange(self) -> Any:
        """Bytes arrive whole and in order, in both directions, in pieces of at most 64 KiB."""
        left, right = Recorder(), Recorder()
        yield self.join(left, right)
        sent = bytes(range(256)) * 1000
        left.transport.write(sent)
        right.transport.writeSequence([b"one", b"two"])
        yield right.until(lambda: len(right.data) == len(sent))
        yield left.until(lambda: left.data == b"onetwo")
        self.assertEqual(right.data, sent)
        self.assertLessEqual(max(right.sizes), PIECE)

    @inlineCallbacks
    def test_lose_connection_flushes(self) -> Any:
        """Everything written before loseConnection arrives; both are told that it is done."""
        left, right = Recorder(), Recorder()
        yield self.join(left, right)
        left.transport.write(b"x" * 1_000_000)
        left.transport.loseConnection()
        yield right.until_lost()
        yield left.until_lost()
        self.assertEqual(len(right.data), 1_000_000)
        for side in (left, right):
            self.assertIsInstance(side.reason, ConnectionDone)
            self.assertEqual(side.lost, 1)

    @inlineCallbacks
    def test_abort(self) -> Any:
        """abortConnection reaches the peer as a lost connection, not as an end."""
        left, right = Recorder(), Recorder()
        yield self.join(left, right)
        right.transport.write(b"hello")
        yield left.until(lambda: left.data)
        left.transport.abortConnection()
        left.transport.abortConnection()
        yield left.until_lost()
        yield right.until_lost()
        self.assertIsInstance(left.reason, ConnectionAborted)
        self.assertIsInstance(right.reason, ConnectionLost)
        self.assertEqual((left.lost, right.lost), (1, 1))

    @inlineCallbacks
    def test_paused_reader_pauses_writer(self) -> Any:
        """A reader that has paused gets nothing; its writer's producer is paused, later resumed."""
        left, right = Recorder(), Recorder()
        yield self.join(left, right)
        right.transport.pauseProducing()
        total = 30_000_000
        flood = Flood(left.transport, total)
        flood.start()
        self.assertEqual(flood.calls, ["pause"])
        left.transport.loseConnection()
        right.transport.resumeProducing()
        yield right.until_lost()
        self.assertEqual(len(right.data), total)
        self.assertNotIn("stop", flood.calls)
        yield left.until_lost()
        self.assertIsInstance(left.reason, ConnectionDone)

    @inlineCallbacks
    def test_pull_producer(self) -> Any:
        """A pull producer is asked again and again until it unregisters."""
        left, right = Recorder(), Recorder()
        yield self.join(left, right)
        pull = Pull(left.transport, 20, b"y" * 10_000)
        left.transport.registerProducer(pull, False)
        yield right.until(lambda: len(right.data) == 200_000)
        self.assertEqual(pull.stopped, 0)

    @inlineCallbacks
    def test_producer_stopped_at_loss(self) -> Any:
        """A producer is stopped when the connection is lost, and at once when it comes later."""
        left, right = Recorder(), Recorder()
        yield self.join(left, right)
        flood, late = Flood(left.transport, -1), Flood(left.transport, -1)
        left.transport.registerProducer(flood, True)
        self.assertRaises(RuntimeError, left.transport.registerProducer, late, True)
        transport = left.transport
        right.transport.abortConnection()
        yield left.until_lost()
        self.assertEqual(flood.calls, ["stop"])
        transport.registerProducer(late, True)
        self.assertEqual(late.calls, ["stop"])

    @inlineCallbacks
    def test_half_close(self) -> Any:
        """One direction ends, the other goes on until it ends too."""
        left, right = HalfCloseable(), HalfCloseable()
        yield self.join(left, right)
        left.transport.write(b"question")
        left.transport.loseWriteConnection()
        yield right.until(lambda: right.read_lost)
        self.assertEqual((right.data, left.write_lost, right.lost), (b"question", 1, 0))
        left.transport.write(b"dropped")
        right.transport.write(b"answer")
        right.transport.loseConnection()
        yield right.until_lost()
        yield left.until(lambda: left.read_lost or left.lost)
        self.assertEqual(left.data, b"answer")

    @inlineCallbacks
    def test_half_close_unheard(self) -> Any:
        """A protocol that does not know of half-closing is closed by its peer's."""
        left, right = HalfCloseable(), Recorder()
        yield self.join(left, right)
        left.transport.loseWriteConnection()
        yield right.until_lost()
        self.assertIsInstance(right.reason, ConnectionDone)

    @inlineCallbacks
    def test_pause_inside_delivery(self) -> Any:
        """Nothing is delivered after a pause, also when it comes from inside dataReceived."""

        class Pausing(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.pauseProducing()
                super().dataReceived(data)

        left, right = Recorder(), Pausing()
        yield self.join(left, right)
        left.transport.write(b"z" * 300_000)
        left.transport.loseConnection()
        while len(right.data) < 300_000:
            before = len(right.sizes)
            right.transport.resumeProducing()
            self.assertEqual(len(right.sizes), before)  # never from inside resumeProducing
            yield right.until(lambda before=before: len(right.sizes) > before)
            self.assertEqual(len(right.sizes), before + 1)
        right.transport.resumeProducing()
        yield right.until_lost()
        self.assertIsInstance(right.reason, ConnectionDone)

    @inlineCallbacks
    def test_close_with_bytes_unread(self) -> Any:
        """Closing without having read everything looks to the peer like any other closing."""

        class Closing(Recorder):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.transport.loseConnection()

        left, right = Recorder(), Closing()
        yield self.join(left, right)
        Flood(left.transport, 30_000_000).start()
        yield right.until_lost()
        yield left.until_lost()
        self.assertEqual(len(right.sizes), 1)
        self.assertIsInstance(right.reason, ConnectionDone)
        self.assertIsInstance(left.reason, ConnectionDone)

    @inlineCallbacks
    def test_error_in_protocol(self) -> Any:
        """What a protocol raises is logged and ends its connection with that reason."""

        class Raising(Recorder):
            def dataReceived(self, data: bytes) -> None:
                raise KeyError("bug")

        left, right = Recorder(), Raising()
        yield self.join(left, right)
        left.transport.write(b"x")
        yield right.until_lost()
        yield left.until_lost()
        self.assertIsInstance(right.reason, KeyError)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    @inlineCallbacks
    def test_wrong_types(self) -> Any:
        """Only bytes are taken."""
        left, right = Recorder(), Recorder()
        yield self.join(left, right)
        self.assertRaises(TypeError, left.transport.write, "text")
        self.assertRaises(TypeError, left.transport.writeSequence, [b"x", "text"])

    @inlineCallbacks
    def test_addresses(self) -> Any:
        """Each end's peer is the other end's host."""
        left, right = Recorder(), Recorder()
        yield self.join(left, right)
        self.assertEqual(left.transport.getPeer(), right.transport.getHost())
        self.assertEqual(left.transport.getHost(), right.transport.getPeer())
        verifyObject(IAddress, left.transport.getPeer())

    @inlineCallbacks
    def test_hand_over(self) -> Any:
        """The protocol may be exchanged from inside dataReceived; the new one gets the rest."""
        second = Recorder()

        class First(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.protocol = second
                second.makeConnection(self.transport)
                second.dataReceived(data)

        left = Recorder()
        yield self.join(left, First())
        left.transport.write(b"w" * 200_000)
        left.transport.loseConnection()
        yield second.until_lost()
        self.assertEqual(len(second.data), 200_000)


class MemoryScenarioTests(Scenarios, TestCase):
    """In memory, delivered by the real reactor."""

    def join(self, left: Any, right: Any) -> Any:
        MemoryPair(reactor).connect(left, right)


class TCPScenarioTests(Scenarios, TestCase):
    """The same over real loopback TCP: what is claimed of memory is true of sockets."""

    @inlineCallbacks
    def join(self, left: Any, right: Any) -> Any:
        made: Deferred[None] = Deferred()
        plain = right.makeConnection

        def connected(transport: Any) -> None:
            plain(transport)
            made.callback(None)

        right.makeConnection = connected
        server, client = Factory(), Factory()
        server.noisy = client.noisy = False
        server.buildProtocol = lambda _: right
        client.buildProtocol = lambda _: left
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = yield endpoint.listen(server)
        self.addCleanup(port.stopListening)
        self.addCleanup(self.clean, left, right)
        yield TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(client)
        yield made

    @inlineCallbacks
    def clean(self, *protocols: Any) -> Any:
        for protocol in protocols:
            transport = protocol.transport
            if transport.connected:
                target = transport.protocol
                target = getattr(target, "_wrappedProtocol", target)
                transport.abortConnection()
                yield target.until_lost()


class MemoryTests(SynchronousTestCase):
    """What only a transport in memory promises: the exact turn and the exact byte."""

    def setUp(self) -> None:
        self.pair = MemoryPair(high_water=1000)
        self.left, self.right = Recorder(), Recorder()
        self.pair.connect(self.left, self.right)

    def test_interfaces(self) -> None:
        """It provides what it claims."""
        for end in (self.pair.left, self.pair.right):
            for interface in (IHalfCloseTransport, IConsumer, IPushProducer):
                verifyObject(interface, end)
        endpoint = MemoryEndpoint(Clock(), "here")
        for interface in (IStreamClientEndpoint, IStreamServerEndpoint, IListeningPort):
            verifyObject(interface, endpoint)

    def test_later(self) -> None:
        """Nothing is delivered from inside write."""
        self.left.transport.write(b"x")
        self.assertEqual(self.right.data, b"")
        self.pair.pump()
        self.assertEqual(self.right.data, b"x")

    def test_high_water(self) -> None:
        """The producer is paused above the mark and resumed when the buffer has drained."""
        flood = Flood(self.left.transport, -1)
        self.left.transport.registerProducer(flood, True)
        self.right.transport.pauseProducing()
        self.left.transport.write(b"x" * (CAPACITY + 1000))
        self.assertEqual(flood.calls, [])
        self.left.transport.write(b"x")
        self.assertEqual(flood.calls, ["pause"])
        self.assertEqual(self.pair.left.held, CAPACITY + 1001)
        self.right.transport.resumeProducing()
        self.pair.pump()
        self.assertEqual(flood.calls, ["pause", "resume"])

    def test_close_waits_for_producer(self) -> None:
        """loseConnection waits until the producer has unregistered.

        So ITransport says; Twisted's TCP keeps to it only while the producer is paused.
        """
        self.left.transport.registerProducer(Flood(self.left.transport, -1), True)
        self.left.transport.loseConnection()
        self.pair.pump()
        self.left.transport.write(b"late")
        self.pair.pump()
        self.assertEqual((self.right.data, self.left.lost), (b"late", 0))
        self.left.transport.unregisterProducer()
        self.pair.pump()
        self.assertEqual((self.left.lost, self.right.lost), (1, 1))

    def test_abort_drops(self) -> None:
        """Nothing that was on its way is delivered after an abort, in either direction."""
        self.left.transport.write(b"x")
        self.right.transport.write(b"y")
        self.left.transport.abortConnection()
        self.pair.pump()
        self.assertEqual((self.left.data, self.right.data), (b"", b""))

    def test_reset_reaches_paused_reader(self) -> None:
        """A reader that has paused is told of a reset at once."""
        self.right.transport.pauseProducing()
        self.left.transport.abortConnection()
        self.pair.pump()
        self.assertIsInstance(self.right.reason, ConnectionLost)

    def test_end_waits_for_paused_reader(self) -> None:
        """A reader that has paused is told of the end after it has had every byte."""
        self.right.transport.pauseProducing()
        self.left.transport.write(b"x")
        self.left.transport.loseConnection()
        self.pair.pump()
        self.assertEqual((self.left.lost, self.right.lost), (1, 0))
        self.right.transport.resumeProducing()
        self.pair.pump()
        self.assertEqual((self.right.data, self.right.lost), (b"x", 1))

    def test_failing_pull_producer(self) -> None:
        """A pull producer that raises is logged and unregistered."""
        self.left.transport.registerProducer(object(), False)
        self.pair.pump()
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.left.transport.loseConnection()
        self.pair.pump()
        self.assertEqual(self.left.lost, 1)


class MemoryEndpointTests(SynchronousTestCase):
    """Listening and connecting in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = MemoryEndpoint(self.clock, "place")
        self.factory = Factory.forProtocol(Protocol)

    def test_connects(self) -> None:
        """A client reaches the listener; each sees the other's address."""
        made: list[Any] = []

        class Server(Recorder):
            def connectionMade(self) -> None:
                made.append(self)

        port = self.successResultOf(self.endpoint.listen(Factory.forProtocol(Server)))
        self.assertEqual(port.getHost(), MemoryAddress("place"))
        client = self.successResultOf(self.endpoint.connect(self.factory))
        client.transport.write(b"hello")
        self.clock.advance(0)
        self.assertEqual(made[0].data, b"hello")
        self.assertEqual(client.transport.getPeer(), made[0].transport.getHost())

    def test_nobody_listens(self) -> None:
        """Without a listener, before and after one, a connection is refused."""
        self.failureResultOf(self.endpoint.connect(self.factory), ConnectionRefusedError)
        port = self.successResultOf(self.endpoint.listen(self.factory))
        self.assertEqual(self.factory.numPorts, 1)
        self.successResultOf(port.stopListening())
        self.assertEqual(self.factory.numPorts, 0)
        self.failureResultOf(self.endpoint.connect(self.factory), ConnectionRefusedError)

    def test_factory_refuses(self) -> None:
        """A factory that builds no protocol refuses the connection."""
        refusing = Factory()
        refusing.buildProtocol = lambda _: None
        self.successResultOf(self.endpoint.listen(refusing))
        self.failureResultOf(self.endpoint.connect(self.factory), ConnectionRefusedError)
