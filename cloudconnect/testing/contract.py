"""Testing support: what every transport layer must do, as tests that can be mixed in.

The numbers are those of the list of a transport wrapper in the developers' documentation. A test
case says how its layers are made (:meth:`TransportContract.stack`) and inherits the tests, once
over memory (:class:`MemoryContract`, with somebody in the middle who changes, cuts and delays) and
once over real TCP (:class:`TCPContract`)::

    class TunnelStack:
        def stack(self):
            tunnel = NoiseTunnel(Secret.generate(), b"context")
            return [(tunnel, tunnel)]

    class TunnelOverMemoryTests(TunnelStack, MemoryContract, TestCase): ...
    class TunnelOverTCPTests(TunnelStack, TCPContract, TestCase): ...
"""

# mypy: allow-untyped-calls
# (trial's and Twisted's methods have no types)

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHandshakeListener,
    ILoggingContext,
    IProtocol,
    IPushProducer,
    ITLSTransport,
    ITransport,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from zope.interface.verify import verifyObject

from cloudconnect.errors import HandshakeTimeout, Truncated
from cloudconnect.testing.protocols import (
    BufferRecorder,
    Flood,
    HalfCloseRecorder,
    PullRecorder,
    Recorder,
    flood_bytes,
)
from cloudconnect.testing.wire import DOWN, UP, Wire
from cloudconnect.transports.layer import IHalfCloseTransport, Layer
from cloudconnect.transports.memory import PIECE
from cloudconnect.transports.recipe import Recipe

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _Base
else:
    _Base = object

Pieces = Callable[[], int]


class TransportContract(_Base):
    """What holds over any connection; see :class:`MemoryContract` and :class:`TCPContract`.

    :cvar authenticated_end: whether an end and a cut can be told apart
    :cvar bulk: bytes of a transfer that no buffer on the way can hold
    """

    authenticated_end = True
    bulk = 2_000_000
    reactor: Any

    def stack(self) -> list[tuple[Recipe, Recipe]]:
        """Recipes of the client's and the server's layer, from the bottom to the top."""
        raise NotImplementedError

    def join(self, client: Any, server: Any, piece: Pieces = lambda: PIECE) -> Deferred[None]:
        """Connect two protocols over the stack; done when both handshakes are."""
        raise NotImplementedError

    def until(self, condition: Callable[[], object]) -> Deferred[None]:
        """Done when ``condition`` holds."""
        raise NotImplementedError

    def factories(self, client: Any, server: Any) -> tuple[Any, Any]:
        """Factories of the whole stack around ready-made protocols."""
        stack = self.stack()
        found = []
        for protocol, side in ((client, 0), (server, 1)):
            factory: Any = Factory()
            factory.noisy = False
            factory.buildProtocol = lambda _, protocol=protocol: protocol
            for recipes in reversed(stack):
                wrap = recipes[side].server_factory if side else recipes[side].client_factory
                factory = wrap(factory, self.reactor)
            found.append(factory)
        return found[0], found[1]

    def until_lost(self, *protocols: Recorder) -> Deferred[None]:
        """Done when all ``protocols`` have lost their connection."""
        return self.until(lambda: all(protocol.losses for protocol in protocols))

    async def joined(self) -> tuple[Recorder, Recorder]:
        """Two recorders, connected."""
        client, server = Recorder(), Recorder()
        await self.join(client, server)
        return client, server

    def assert_clean(self, *protocols: Recorder) -> None:
        """All have lost their connection, once, and properly."""
        for protocol in protocols:
            self.assertIsInstance(protocol.reason, ConnectionDone)
            self.assertEqual(protocol.losses, 1)

    # --- 1: interfaces --------------------------------------------------------------------------

    async def test_interfaces(self) -> None:
        """The transport provides what it claims, and claims nothing that would slip past it."""
        client, server = await self.joined()
        for protocol in (client, server):
            transport: Any = protocol.transport
            for interface in (ITransport, IConsumer, IPushProducer, IProtocol, ILoggingContext):
                verifyObject(interface, transport)
            self.assertFalse(ITLSTransport.providedBy(transport))
            for name in ("startTLS", "getHandle", "socket", "doRead", "stopReading"):
                self.assertFalse(hasattr(transport, name), name)
            self.assertEqual(hasattr(transport, "loseWriteConnection"), self.authenticated_end)
            self.assertEqual(IHalfCloseTransport.providedBy(transport), self.authenticated_end)
            if self.authenticated_end:
                verifyObject(IHalfCloseTransport, transport)

    async def test_addresses(self) -> None:
        """Each side sees the other side's address, through every layer."""
        client, server = await self.joined()
        near: Any = client.transport
        far: Any = server.transport
        self.assertEqual(near.getPeer(), far.getHost())
        self.assertEqual(near.getHost(), far.getPeer())

    # --- 2: writing -----------------------------------------------------------------------------

    async def test_write(self) -> None:
        """write and writeSequence send the same; both directions; empty parts send nothing."""
        client, server = await self.joined()
        near: Any = client.transport
        far: Any = server.transport
        near.write(b"one ")
        near.write(b"")
        near.writeSequence([b"two ", b"", b"three"])
        near.writeSequence([])
        near.writeSequence(iter([b" four"]))
        far.writeSequence([b"back"])
        await self.until(lambda: len(server.data) == 18 and len(client.data) == 4)
        self.assertEqual((server.data, client.data), (b"one two three four", b"back"))

    async def test_wrong_types(self) -> None:
        """What is not bytes is refused, and nothing of that call is sent."""
        client, server = await self.joined()
        near: Any = client.transport
        for wrong in ("text", 7, None):
            self.assertRaises(TypeError, near.write, wrong)
            self.assertRaises(TypeError, near.writeSequence, [b"not sent", wrong])
        near.write(b"sent")
        await self.until(lambda: server.data)
        self.assertEqual(server.data, b"sent")

    async def test_write_before_handshake(self) -> None:
        """What is written in connectionMade is sent when the handshake is over."""
        client, server = Recorder(), Recorder()
        client.greeting, server.greeting = b"hello", b"welcome"
        await self.join(client, server)
        await self.until(lambda: len(server.data) == 5 and len(client.data) == 7)
        self.assertEqual((server.data, client.data), (b"hello", b"welcome"))

    # --- 5: back-pressure -----------------------------------------------------------------------

    async def test_bulk(self) -> None:
        """Bulk arrives whole and in order, in both directions at once."""
        client, server = await self.joined()
        Flood(client.transport, self.bulk).start()
        Flood(server.transport, self.bulk).start()
        await self.until(lambda: len(server.data) == len(client.data) == self.bulk)
        self.assertEqual(server.data, flood_bytes(0, self.bulk))
        self.assertEqual(client.data, flood_bytes(0, self.bulk))

    async def test_slow_reader(self) -> None:
        """A reader that has paused gets nothing; the producer far away is paused, then resumed."""
        client, server = await self.joined()
        far: Any = server.transport
        far.pauseProducing()
        flood = Flood(client.transport, self.bulk)
        flood.start()
        await self.until(lambda: "pause" in flood.calls)
        self.assertEqual(server.data, b"")
        far.resumeProducing()
        self.assertEqual(server.data, b"")  # never from inside resumeProducing
        await self.until(lambda: len(server.data) == self.bulk)
        self.assertEqual(server.data, flood_bytes(0, self.bulk))
        pauses = len(flood.calls) // 2
        self.assertEqual(flood.calls[: 2 * pauses], ["pause", "resume"] * pauses)
        self.assertIn(flood.calls[2 * pauses :], ([], ["pause"]))

    async def test_pause_inside_delivery(self) -> None:
        """One delivery after each resume when the application pauses inside it (5, 10)."""
        client, server = await self.joined()
        far: Any = server.transport
        near: Any = client.transport
        server.on_data = lambda _: far.pauseProducing()
        for _ in range(20):
            near.write(b"x" * 10_000)
        near.loseConnection()
        while len(server.data) < 200_000:
            count = len(server.sizes)
            far.resumeProducing()
            await self.until(partial(self._more_pieces, server, count))
            self.assertEqual(len(server.sizes), count + 1)
        far.resumeProducing()
        await self.until_lost(client, server)
        self.assert_clean(client, server)

    def _have(self, size: int, *recorders: Recorder) -> bool:
        return all(len(recorder.data) == size for recorder in recorders)

    def _more_pieces(self, recorder: Recorder, count: int) -> bool:
        return len(recorder.sizes) > count

    # --- 6: closing -----------------------------------------------------------------------------

    async def test_close(self) -> None:
        """Everything written before loseConnection arrives, nothing written after it."""
        client, server = await self.joined()
        near: Any = client.transport
        near.write(flood_bytes(0, 1_000_000))
        near.loseConnection()
        self.assertTrue(near.disconnecting)
        near.write(b"late")
        near.loseConnection()
        await self.until_lost(client, server)
        self.assertEqual(server.data, flood_bytes(0, 1_000_000))
        self.assert_clean(client, server)

    async def test_close_by_server(self) -> None:
        """The same from the other side."""
        client, server = await self.joined()
        far: Any = server.transport
        far.write(flood_bytes(0, 1_000_000))
        far.stopProducing()
        await self.until_lost(client, server)
        self.assertEqual(client.data, flood_bytes(0, 1_000_000))
        self.assert_clean(client, server)

    async def test_close_on_both_sides(self) -> None:
        """Both sides may close at once, and what both wrote before arrives."""
        client, server = await self.joined()
        for protocol in (client, server):
            transport: Any = protocol.transport
            transport.write(b"last")
            transport.loseConnection()
        await self.until_lost(client, server)
        if self.authenticated_end:  # else there is nothing to wait for, and TCP does not either
            self.assertEqual((client.data, server.data), (b"last", b"last"))
        self.assert_clean(client, server)

    async def test_close_waits_for_producer(self) -> None:
        """loseConnection waits until the producer has unregistered."""
        client, server = await self.joined()
        near: Any = client.transport
        near.registerProducer(Flood(near, -1), True)
        near.loseConnection()
        near.write(b"still")
        await self.until(lambda: server.data)
        self.assertEqual((server.data, client.losses, server.losses), (b"still", 0, 0))
        near.unregisterProducer()
        await self.until_lost(client, server)
        self.assert_clean(client, server)

    async def test_close_in_connection_made(self) -> None:
        """What was written before a close in connectionMade arrives too."""
        client, server = Recorder(), Recorder()

        def made() -> None:
            near: Any = client.transport
            near.write(b"short")
            near.loseConnection()

        client.connectionMade = made  # type: ignore[method-assign]
        await self.join(client, server)
        await self.until_lost(client, server)
        self.assertEqual(server.data, b"short")
        self.assert_clean(client, server)

    async def test_half_close(self) -> None:
        """One direction ends, the other goes on until it ends too; then both sides close."""
        if not self.authenticated_end:
            return
        client, server = HalfCloseRecorder(), HalfCloseRecorder()
        await self.join(client, server)
        near: Any = client.transport
        far: Any = server.transport
        near.write(b"question")
        near.loseWriteConnection()
        near.loseWriteConnection()
        await self.until(lambda: server.read_ends)
        self.assertEqual((client.write_ends, server.losses, client.losses), (1, 0, 0))
        near.write(b"dropped")
        far.write(b"answer")
        far.loseWriteConnection()
        await self.until_lost(client, server)
        self.assertEqual((server.data, client.data), (b"question", b"answer"))
        self.assertEqual((server.read_ends, client.read_ends), (1, 1))
        self.assert_clean(client, server)

    async def test_half_close_waits_for_producer(self) -> None:
        """Ending one direction waits for the producer as closing does."""
        if not self.authenticated_end:
            return
        client, server = HalfCloseRecorder(), HalfCloseRecorder()
        await self.join(client, server)
        near: Any = client.transport
        flood = Flood(near, self.bulk)
        flood.start()
        near.loseWriteConnection()
        await self.until(lambda: server.read_ends)
        self.assertEqual(len(server.data), self.bulk)
        near.loseConnection()
        far: Any = server.transport
        far.loseConnection()
        await self.until_lost(client, server)
        self.assert_clean(client, server)

    async def test_half_close_unheard(self) -> None:
        """A protocol that does not know of half-closing is closed, and its producer stopped."""
        if not self.authenticated_end:
            return
        client, server = HalfCloseRecorder(), Recorder()
        await self.join(client, server)
        flood = Flood(server.transport, -1)
        flood.start()
        near: Any = client.transport
        near.loseWriteConnection()
        await self.until_lost(client, server)
        self.assertEqual(flood.calls, ["stop"])
        self.assert_clean(client, server)

    # --- 7: aborting ----------------------------------------------------------------------------

    async def test_abort(self) -> None:
        """abortConnection reaches both sides, and neither takes it for an end."""
        client, server = await self.joined()
        near: Any = client.transport
        flood = Flood(near, -1)
        flood.start()
        near.abortConnection()
        near.abortConnection()
        self.assertEqual(flood.calls, ["stop"])
        near.write(b"late")
        await self.until_lost(client, server)
        self.assertIsInstance(client.reason, ConnectionAborted)
        expected = Truncated if self.authenticated_end else ConnectionLost
        self.assertIsInstance(server.reason, expected)
        self.assertEqual((client.losses, server.losses, server.data), (1, 1, b""))

    async def test_abort_while_paused(self) -> None:
        """What waits for an application that has paused is dropped when it aborts."""
        client, server = await self.joined()
        near: Any = client.transport
        far: Any = server.transport
        server.on_data = lambda _: far.pauseProducing()
        near.write(b"x" * 200_000)
        await self.until(lambda: server.data)
        count = len(server.data)
        far.abortConnection()
        far.resumeProducing()
        await self.until_lost(client, server)
        self.assertEqual(len(server.data), count)

    async def test_abort_in_connection_made(self) -> None:
        """A connection may be aborted before its handshake has begun."""
        client, server = Recorder(), Recorder()

        def made() -> None:
            near: Any = client.transport
            near.abortConnection()

        client.connectionMade = made  # type: ignore[method-assign]
        joining = self.join(client, server)
        joining.addErrback(lambda _: None)
        await self.until_lost(client, server)
        await joining
        self.assertIsInstance(client.reason, ConnectionAborted)
        self.assertEqual((client.losses, server.losses), (1, 1))

    # --- 9: producers ---------------------------------------------------------------------------

    async def test_producers(self) -> None:
        """A second producer is refused; one is stopped at the loss, a later one at once."""
        client, server = await self.joined()
        near: Any = client.transport
        far: Any = server.transport
        flood, late = Flood(near, -1), Flood(near, -1)
        near.registerProducer(flood, True)
        self.assertRaises(RuntimeError, near.registerProducer, late, True)
        far.abortConnection()
        await self.until_lost(client, server)
        self.assertEqual(flood.calls, ["stop"])
        near.registerProducer(late, True)
        self.assertEqual(late.calls, ["stop"])

    async def test_pull_producer(self) -> None:
        """A pull producer is asked again and again, and paused while too much is on its way."""
        client, server = await self.joined()
        near: Any = client.transport
        far: Any = server.transport
        far.pauseProducing()
        parts = self.bulk // 20_000
        pull = PullRecorder(near, parts, b"y" * 20_000)
        near.registerProducer(pull, False)
        await self.until(lambda: pull.parts < parts)
        self.assertGreater(pull.parts, 0)
        far.resumeProducing()
        await self.until(lambda: len(server.data) == parts * 20_000)
        near.loseConnection()
        await self.until_lost(client, server)
        self.assertEqual(pull.stops, 0)
        self.assert_clean(client, server)

    # --- 10: from inside a delivery -------------------------------------------------------------

    async def test_close_inside_delivery(self) -> None:
        """The application may close inside dataReceived."""
        client, server = await self.joined()
        near: Any = client.transport
        far: Any = server.transport
        server.on_data = lambda _: far.loseConnection()
        near.write(b"bye")
        await self.until_lost(client, server)
        self.assert_clean(client, server)

    async def test_abort_inside_delivery(self) -> None:
        """Nothing is delivered after the application has aborted inside dataReceived."""
        client, server = await self.joined()
        near: Any = client.transport
        far: Any = server.transport
        server.on_data = lambda _: far.abortConnection()
        for _ in range(20):
            near.write(b"x" * 5000)
        await self.until_lost(client, server)
        self.assertEqual(len(server.sizes), 1)
        self.assertIsInstance(server.reason, ConnectionAborted)

    async def test_write_inside_delivery(self) -> None:
        """An echo of bulk, written from inside dataReceived, comes back whole."""
        client, server = await self.joined()
        far: Any = server.transport
        server.on_data = far.write
        Flood(client.transport, 500_000).start()
        await self.until(lambda: len(client.data) == 500_000)
        self.assertEqual(client.data, flood_bytes(0, 500_000))

    async def test_error_in_application(self) -> None:
        """What the application raises is logged, and ends its connection with that reason."""
        client, server = await self.joined()

        def bug(_: bytes) -> None:
            raise KeyError("bug")

        server.on_data = bug
        near: Any = client.transport
        near.write(b"x")
        await self.until_lost(client, server)
        self.assertIsInstance(server.reason, KeyError)
        self.assertNotIsInstance(client.reason, ConnectionDone)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    # --- 12: factories and what survives --------------------------------------------------------

    def test_factory(self) -> None:
        """A refusal stays one; starting and stopping are passed on; the layer is named, quietly."""
        inner = Factory.forProtocol(Recorder)
        inner.noisy = False
        for client, server in self.stack():
            for factory in (
                client.client_factory(inner, self.reactor),
                server.server_factory(inner, self.reactor),
            ):
                factory.doStart()
                self.assertEqual(inner.numPorts, 1)
                factory.doStop()
                self.assertEqual(inner.numPorts, 0)
                self.assertFalse(factory.noisy)
                self.assertIn(client.name, factory.logPrefix())
                refusing: Any = Factory()
                refusing.buildProtocol = lambda _: None
                factory.wrappedFactory = refusing
                self.assertIsNone(factory.buildProtocol(None))

    async def test_log_prefix(self) -> None:
        """The log prefix names the application and the layer."""
        client, _ = await self.joined()
        near: Any = client.transport
        self.assertIn("Recorder", near.logPrefix())
        self.assertIn(near.name, near.logPrefix())

    async def test_handshake_listener(self) -> None:
        """An IHandshakeListener hears of the end of the handshake, once, before any byte."""
        client, server = Recorder(), Recorder()
        client.greeting = b"hello"
        before: list[int] = []
        server.on_data = lambda _: before.append(server.handshakes)
        await self.join(client, server)
        await self.until(lambda: server.data)
        self.assertTrue(IHandshakeListener.providedBy(client))
        self.assertEqual((client.handshakes, server.handshakes, before), (1, 1, [1]))

    async def test_buffer_receiver(self) -> None:
        """An IBufferReceiver is handed memoryviews."""
        client, server = Recorder(), BufferRecorder()
        await self.join(client, server)
        Flood(client.transport, 300_000).start()
        await self.until(lambda: len(server.data) == 300_000)
        self.assertEqual(server.data, flood_bytes(0, 300_000))
        self.assertGreater(server.buffers, 0)

    async def test_hand_over(self) -> None:
        """The protocol above may be exchanged from inside dataReceived."""
        client, server = await self.joined()
        second = Recorder()
        near: Any = client.transport
        far: Any = server.transport

        def exchange(data: bytes) -> None:
            far.wrappedProtocol = second
            second.makeConnection(far)
            second.dataReceived(data)

        server.on_data = exchange
        near.write(flood_bytes(0, 400_000))
        near.loseConnection()
        await self.until(lambda: second.losses and client.losses)
        self.assertEqual(second.data, flood_bytes(0, 400_000))
        self.assertEqual(server.losses, 0)
        self.assert_clean(client, second)

    async def test_when_ready(self) -> None:
        """when_ready fires with the protocol above, also later; after the end with its reason."""
        client, server = await self.joined()
        near: Any = client.transport
        self.assertIs(self.successResultOf(near.when_ready()), client)
        near.abortConnection()
        self.failureResultOf(near.when_ready(), ConnectionAborted)
        await self.until_lost(client, server)
        self.failureResultOf(near.when_ready(), ConnectionAborted)


class MemoryContract(TransportContract):
    """Over memory, on a ``Clock``, with somebody in the middle.

    :cvar cipher: whether what is written must not show on the wire
    :cvar flip_step: every so many bytes of a recorded session one bit is changed
    :cvar strict: whether no byte at all may be changed, or be missing, without its receiver's
        application being told; not so for the last bytes of a lower layer of several, which come
        when the upper one has verified everything
    """

    cipher = True
    flip_step = 1
    strict = True
    wire: Wire

    def setUp(self) -> None:
        """A new clock."""
        self.reactor = Clock()

    def tearDown(self) -> None:
        """No timer outlives its connection."""
        wire = getattr(self, "wire", None)
        if wire is not None and wire.client.disconnected and wire.server.disconnected:
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def begin(self, client: Any, server: Any, piece: Pieces = lambda: PIECE) -> Wire:
        """Connect two protocols over the stack; nothing has been delivered yet."""
        client_factory, server_factory = self.factories(client, server)
        self.wire = Wire(self.reactor, piece)
        self.wire.connect(
            client_factory.buildProtocol(self.wire.client.getPeer()),
            server_factory.buildProtocol(self.wire.server.getPeer()),
        )
        return self.wire

    def join(self, client: Any, server: Any, piece: Pieces = lambda: PIECE) -> Deferred[None]:
        """Connect two protocols over the stack and see both handshakes through."""
        self.begin(client, server, piece)
        layers: list[Any] = [client.transport, server.transport]
        waits = [layer.when_ready() for layer in layers]
        for wait in waits:
            wait.addErrback(lambda _: None)
        return self.until(lambda: all(wait.called for wait in waits))

    def until(self, condition: Callable[[], object]) -> Deferred[None]:
        """Let everything happen that happens without time passing; then ``condition`` holds."""
        self.reactor.advance(0)
        self.assertTrue(condition(), "nothing more happens")
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    @contextmanager
    def warnings(self) -> Iterator[list[Any]]:
        """The log events of level ``warn`` and above while in this block."""
        events: list[Any] = []

        observe: Any = lambda event: (  # noqa: E731
            events.append(event) if event["log_level"] >= LogLevel.warn else None
        )
        globalLogPublisher.addObserver(observe)
        try:
            yield events
        finally:
            globalLogPublisher.removeObserver(observe)

    def exchange(self, flips: Any = None, cut: Any = None) -> tuple[Recorder, Recorder]:
        """A whole short session, with bits changed or bytes cut off; time passes until its end."""
        client, server = Recorder(), Recorder()
        client.greeting, server.greeting = b"from the client", b"from the server"
        self.sides = {UP: server, DOWN: client}
        wire = self.begin(client, server)
        wire.flips.update(flips or {})
        if cut is not None:
            wire.cut(*cut)
        near: Any = client.transport
        self.reactor.advance(0)
        near.loseConnection()
        self.reactor.advance(0)
        for _ in range(60):
            if client.losses and server.losses:
                break
            self.reactor.advance(5)
        self.assertEqual((client.losses, server.losses), (1, 1), "a side was never told")
        self.assertTrue(b"from the client".startswith(server.data), server.data)
        self.assertTrue(b"from the server".startswith(client.data), client.data)
        return client, server

    def recorded(self) -> list[tuple[str, int]]:
        """Every position of an undisturbed :meth:`exchange`."""
        client, server = self.exchange()
        self.assert_clean(client, server)
        seen = self.wire.seen
        return [(where, at) for where in (UP, DOWN) for at in range(len(seen[where]))]

    # --- 2 and 3 --------------------------------------------------------------------------------

    async def test_nothing_in_clear(self) -> None:
        """Neither write nor writeSequence put what they are given on the wire as it is."""
        if not self.cipher:
            return
        client, server = await self.joined()
        near: Any = client.transport
        near.write(b"canary bird one")
        near.writeSequence([b"canary bird two"])
        await self.until(lambda: len(server.data) == 30)
        self.assertNotIn(b"canary", self.wire.seen[UP])
        self.assertGreaterEqual(len(self.wire.seen[UP]), 30)

    async def test_empty_write(self) -> None:
        """An empty write puts nothing on the wire."""
        client, _ = await self.joined()
        near: Any = client.transport
        before = len(self.wire.seen[UP])
        near.write(b"")
        near.writeSequence([])
        near.writeSequence([b"", b""])
        self.reactor.advance(0)
        self.assertEqual(len(self.wire.seen[UP]), before)

    async def test_any_chunking(self) -> None:
        """One byte at a time, or cut at random: the application cannot tell."""
        rng = random.Random(7)  # noqa: S311
        for piece in (lambda: 1, lambda: rng.randint(1, 40), lambda: rng.randint(1, 5000)):
            client, server = Recorder(), Recorder()
            await self.join(client, server, piece)
            near: Any = client.transport
            far: Any = server.transport
            for size in (1, 100, 3000):
                near.write(flood_bytes(0, size))
                far.write(flood_bytes(7, size))
            await self.until(partial(self._have, 3101, client, server))
            near.loseConnection()
            await self.until_lost(client, server)
            self.assertEqual(server.data, b"".join(flood_bytes(0, n) for n in (1, 100, 3000)))
            self.assertEqual(client.data, b"".join(flood_bytes(7, n) for n in (1, 100, 3000)))
            self.assert_clean(client, server)

    # --- 6: a peer that does not answer ---------------------------------------------------------

    async def test_unanswered_close(self) -> None:
        """A peer that never answers a close is given up after a time, and not for a clean end."""
        client, server = await self.joined()
        near: Any = client.transport
        self.wire.muted |= {UP, DOWN}
        near.loseConnection()
        self.reactor.advance(0)
        if self.authenticated_end:
            self.assertEqual(client.losses, 0)
            for layer in self.layers_below(near):
                self.reactor.advance(layer.close_seconds)
            self.assertIsInstance(client.reason, Truncated)
        self.assertEqual(client.losses, 1)
        self.reactor.advance(0)
        self.assertEqual(server.losses, 1)

    def layers_below(self, transport: Any) -> list[Layer]:
        """The layers below, ``transport`` first."""
        found = []
        while isinstance(transport, Layer):
            found.append(transport)
            transport = transport.transport
        return found

    def test_silent_handshake(self) -> None:
        """A handshake that the peer does not take part in is given up after a time."""
        client, server = Recorder(), Recorder()
        wire = self.begin(client, server)
        near: Any = client.transport
        if near._is_ready:
            return  # there is no handshake
        wire.muted |= {UP, DOWN}
        waiting = near.when_ready()
        self.reactor.advance(0)
        self.assertNoResult(waiting)
        self.reactor.advance(near.handshake_seconds)
        self.reactor.advance(0)
        self.failureResultOf(waiting, HandshakeTimeout)
        self.assertIsInstance(client.reason, HandshakeTimeout)
        self.assertEqual((client.losses, server.losses), (1, 1))
        self.assertEqual((client.handshakes, server.handshakes), (0, 0))

    # --- 4, 8 and 11: what is changed, and what is cut ------------------------------------------

    def test_any_byte_changed(self) -> None:
        """Whatever byte is changed: nothing false is delivered, nor taken for an end."""
        if not self.cipher:
            return
        for where, at in self.recorded()[:: self.flip_step]:
            self.exchange(flips={(where, at): 1 << (at % 8)})
            self.assert_noticed(where, at)

    def test_cut_anywhere(self) -> None:
        """Wherever the bytes stop, who was to receive them does not take it for an end."""
        if not self.authenticated_end:
            return
        positions = self.recorded()
        for where, at in positions[:: self.flip_step]:
            self.exchange(cut=(where, at))
            self.assert_noticed(where, at)

    def assert_noticed(self, where: str, at: int) -> None:
        """Who received byte ``at`` does not take the end for a proper one, or has had it all."""
        receiver = self.sides[where]
        clean = isinstance(receiver.reason, ConnectionDone)
        self.assertFalse(clean and self.strict, f"{where} byte {at}")
        if clean:
            sent = b"from the client" if where == UP else b"from the server"
            self.assertEqual(receiver.data, sent, f"{where} byte {at}")

    def test_garbage(self) -> None:
        """Bytes that make no sense never raise; the layer fails for good, with one line in the log.

        (4, 11) Much of it, at any time.
        """
        if not self.cipher:
            return
        rng = random.Random(11)  # noqa: S311
        for kind in (
            lambda: rng.randbytes(200_000),
            lambda: bytes(200_000),
            lambda: b"\xff" * 9999,
        ):
            for ready in (False, True):
                client, server = Recorder(), Recorder()
                wire = self.begin(client, server)
                if ready:
                    self.reactor.advance(0)
                bottom: Any = wire.server.protocol
                with self.warnings() as events:
                    for _ in range(20):
                        bottom.dataReceived(kind())
                    self.reactor.advance(0)
                self.assertEqual((server.losses, server.data), (1, b""))
                self.assertNotIsInstance(server.reason, ConnectionDone)
                of_server = [
                    event for event in events if event.get("peer") == wire.server.getPeer()
                ]
                self.assertEqual(len(of_server), 1, of_server)
                near: Any = client.transport
                near.abortConnection()
                self.reactor.advance(0)

    async def test_keys_forgotten(self) -> None:
        """After the end of a connection, however it came, no layer holds a key."""
        for end in ("loseConnection", "abortConnection"):
            client, server = await self.joined()
            near: Any = client.transport
            layers = self.layers_below(near) + self.layers_below(server.transport)
            getattr(near, end)()
            await self.until_lost(client, server)
            for layer in layers:
                self.assertTrue(layer._keys_forgotten)
                self.assert_forgotten(layer)

    def assert_forgotten(self, layer: Layer) -> None:
        """Look into ``layer`` for keys that are still there; for the test case to add."""


class TCPContract(TransportContract):
    """Over real loopback TCP."""

    bulk = 6_000_000

    def setUp(self) -> None:
        """The real reactor."""
        from twisted.internet import reactor

        self.reactor = reactor

    def until(self, condition: Callable[[], object]) -> Deferred[None]:
        """Look every millisecond; trial's time limit is the limit."""
        done: Deferred[None] = Deferred()

        def look() -> None:
            if condition():
                done.callback(None)
            else:
                self.reactor.callLater(0.001, look)

        look()
        return done

    def join(self, client: Any, server: Any, piece: Pieces = lambda: PIECE) -> Deferred[None]:
        """Connect two protocols over the stack and see both handshakes through."""
        return Deferred.fromCoroutine(self._join(client, server))

    async def _join(self, client: Any, server: Any) -> None:
        from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint

        client_factory, server_factory = self.factories(client, server)
        listening = TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")
        port: Any = await listening.listen(server_factory)
        self.addCleanup(port.stopListening)
        self.addCleanup(self._clean, client, server)
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port.getHost().port)
        await endpoint.connect(client_factory)
        await self.until(lambda: server.transport is not None)
        for protocol in (client, server):
            waiting = protocol.transport.when_ready()
            waiting.addErrback(lambda _: None)
            await waiting

    def _clean(self, *protocols: Any) -> Deferred[None]:
        """Leave no connection behind, whoever is its protocol now."""
        held = [p.transport for p in protocols if isinstance(p.transport, Layer)]
        for transport in held:
            transport.abortConnection()
        return self.until(lambda: not any(transport.connected for transport in held))
