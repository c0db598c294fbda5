"""Testing support: what every transport wrapper must do, as tests that can be mixed in.

The number in the name of each test is that of the item in the list of a transport wrapper, which
``docs/howto/wrapper.rst`` has. A test case says how its wrapper is
put around a factory, on each side, and inherits the tests, once over memory
(:class:`~cloudconnect.testing.middle.MemoryContract`, with somebody in the middle who changes, cuts
and delays) and once over real sockets (:class:`~cloudconnect.testing.sockets.TCPContract`,
:class:`~cloudconnect.testing.sockets.UNIXContract`)::

    class MyWrapper:
        def client_factory(self, factory):
            return MyClientFactory(factory, key, self.reactor)

        def server_factory(self, factory):
            return MyServerFactory(factory, key, self.reactor)

        def held_keys(self, transport):
            return [key for key in (transport.key,) if key is not None]

    class MyWrapperOverMemoryTests(MyWrapper, MemoryContract, TestCase): ...
    class MyWrapperOverTCPTests(MyWrapper, TCPContract, TestCase): ...

Nothing here asks for this project's own base class. Wrappers that are described by a
:class:`~cloudconnect.transports.recipe.Recipe` say only which, by :meth:`TransportContract.stack`.
"""

# mypy: allow-untyped-calls
# (trial's and Twisted's methods have no types)

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
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
from zope.interface import providedBy
from zope.interface.verify import verifyObject

from cloudconnect.errors import CloudConnectError, Truncated
from cloudconnect.testing.protocols import (
    Flood,
    HalfCloseRecorder,
    PullRecorder,
    Recorder,
    flood_bytes,
)
from cloudconnect.transports.memory import PIECE

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _Base
else:
    _Base = object

#: Asked before each delivery in memory: its most bytes.
Pieces = Callable[[], int]


class TransportContract(_Base):
    """What holds over any connection; a test case mixes in one of the classes that make one.

    :cvar authenticated_end: whether the wrapper can tell an end from a cut
    :cvar half_close: whether one direction can be ended alone; None for: as ``authenticated_end``
    :cvar handshake: whether the wrapper has one, and so calls ``handshakeCompleted``
    :cvar cipher: whether what is written must neither show on the wire nor be changed there
    :cvar errors: base class of the reasons that the wrapper gives itself
    :cvar truncation: the reason when bytes stop without an end
    :cvar bulk: bytes of a transfer that no buffer on the way can hold
    :cvar resets: whether the connection below itself tells an abort from an end
    :ivar reactor: the reactor, or the ``Clock``, for the wrapper
    :ivar times: how many of the wrapper lie on each other
    """

    authenticated_end = True
    half_close: bool | None = None
    handshake = True
    cipher = True
    errors: type[Exception] = CloudConnectError
    truncation: type[Exception] = Truncated
    bulk = 2_000_000
    resets = True
    reactor: Any
    times = 1

    # --- what a test case says ------------------------------------------------------------------

    def stack(self) -> Sequence[tuple[Any, Any]]:
        """Recipes of the client's and the server's wrapper, from the bottom to the top.

        Asked once for each connection. To be overridden, unless :meth:`client_factory` and
        :meth:`server_factory` are.

        :returns: pairs of what has ``client_factory`` and ``server_factory``, each called with a
            factory and the reactor
        """
        raise NotImplementedError

    def client_factory(self, factory: Any) -> Any:
        """``factory``, wrapped for connections that it opens.

        Called before :meth:`server_factory`, once for each connection.

        :param factory: an ``IProtocolFactory``
        """
        for recipes in reversed(self._recipes()):
            factory = recipes[0].client_factory(factory, self.reactor)
        return factory

    def server_factory(self, factory: Any) -> Any:
        """``factory``, wrapped for connections that it accepts.

        :param factory: an ``IProtocolFactory``
        """
        for recipes in reversed(self._latest):
            factory = recipes[1].server_factory(factory, self.reactor)
        return factory

    def _recipes(self) -> Sequence[tuple[Any, Any]]:
        self._latest = self.stack()
        return self._latest

    def held_keys(self, transport: Any) -> list[Any]:
        """The keys that a wrapper still holds; to be overridden where there is a cipher.

        :param transport: what the protocol above has as its transport
        """
        if self.cipher:
            raise NotImplementedError("how are the keys of this wrapper found?")
        return []

    def use_up(self, transport: Any) -> bool:
        """Set the counter of the nonces that ``transport`` sends with to its very end.

        :returns: False where nobody can, as when a library keeps the counter
        """
        return False

    # --- what the connection says ---------------------------------------------------------------

    def join(self, client: Any, server: Any, piece: Pieces = lambda: PIECE) -> Deferred[None]:
        """Connect two protocols over the stack; done when both handshakes are.

        :param client: a :class:`~cloudconnect.testing.protocols.Recorder`
        :param server: another
        :param piece: most bytes of one delivery, asked before each one, where that can be
            chosen
        """
        raise NotImplementedError

    def until(self, condition: Callable[[], object]) -> Deferred[None]:
        """Done when ``condition`` holds."""
        raise NotImplementedError

    def lowest(self) -> tuple[Any, Any]:
        """The client's and the server's transport below all wrappers."""
        raise NotImplementedError

    def factories(self, client: Any, server: Any) -> tuple[Any, Any]:
        """Factories of the whole stack around ready-made protocols.

        :param client: the protocol that the client's factory builds
        :param server: the protocol that the server's factory builds
        """
        found = []
        for protocol in (client, server):
            factory: Any = Factory()
            factory.noisy = False
            factory.buildProtocol = lambda _, protocol=protocol: protocol
            found.append(factory)
        for _ in range(self.times):
            found = [self.client_factory(found[0]), self.server_factory(found[1])]
        return found[0], found[1]

    def settled(self, *protocols: Any) -> bool:
        """Whether the handshake of all ``protocols`` is over, or their connection is."""
        return all(
            protocol.losses
            or (protocol.transport is not None and (protocol.handshakes or not self.handshake))
            for protocol in protocols
        )

    @property
    def _half_closes(self) -> bool:
        return self.authenticated_end if self.half_close is None else self.half_close

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

    def assert_cut(self, protocol: Recorder) -> None:
        """``protocol`` does not take the end for a proper one, where anybody can tell."""
        if self.authenticated_end or self.resets:
            self.assertNotIsInstance(protocol.reason, ConnectionDone)

    # --- 1: interfaces --------------------------------------------------------------------------

    async def test_01_interfaces(self) -> None:
        """The transport provides what it claims, and claims nothing that would slip past it."""
        client, server = await self.joined()
        for protocol in (client, server):
            transport: Any = protocol.transport
            for interface in (ITransport, IConsumer, IPushProducer, IProtocol, ILoggingContext):
                verifyObject(interface, transport)
            for interface in providedBy(transport):
                verifyObject(interface, transport)
            self.assertFalse(ITLSTransport.providedBy(transport))
            for name in ("startTLS", "getHandle", "socket", "doRead", "stopReading"):
                self.assertFalse(hasattr(transport, name), name)
            self.assertEqual(hasattr(transport, "loseWriteConnection"), self._half_closes)

    async def test_01_addresses(self) -> None:
        """Each side sees both addresses, through every layer."""
        client, server = await self.joined()
        for protocol, below in zip((client, server), self.lowest(), strict=True):
            transport: Any = protocol.transport
            self.assertEqual(transport.getPeer(), below.getPeer())
            self.assertEqual(transport.getHost(), below.getHost())

    # --- 2: writing -----------------------------------------------------------------------------

    async def test_02_write(self) -> None:
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

    async def test_02_wrong_types(self) -> None:
        """What is not bytes is refused, and nothing of that call is sent."""
        client, server = await self.joined()
        near: Any = client.transport
        for wrong in ("text", 7, None):
            self.assertRaises(TypeError, near.write, wrong)
            self.assertRaises(TypeError, near.writeSequence, [b"not sent", wrong])
        near.write(b"sent")
        await self.until(lambda: server.data)
        self.assertEqual(server.data, b"sent")

    async def test_02_write_before_handshake(self) -> None:
        """What is written in connectionMade is sent when the handshake is over."""
        client, server = Recorder(), Recorder()
        client.greeting, server.greeting = b"hello", b"welcome"
        await self.join(client, server)
        await self.until(lambda: len(server.data) == 5 and len(client.data) == 7)
        self.assertEqual((server.data, client.data), (b"hello", b"welcome"))

    # --- 5: back-pressure -----------------------------------------------------------------------

    async def test_05_bulk(self) -> None:
        """Bulk arrives whole and in order, in both directions at once."""
        client, server = await self.joined()
        Flood(client.transport, self.bulk).start()
        Flood(server.transport, self.bulk).start()
        await self.until(lambda: len(server.data) == len(client.data) == self.bulk)
        self.assertEqual(server.data, flood_bytes(0, self.bulk))
        self.assertEqual(client.data, flood_bytes(0, self.bulk))

    async def test_05_slow_reader(self) -> None:
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

    async def test_05_slow_reader_of_a_pull_producer(self) -> None:
        """A pull producer is not asked while too much is on its way, and asked again later."""
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

    async def test_05_pause_inside_delivery(self) -> None:
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

    async def test_06_close(self) -> None:
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

    async def test_06_close_by_server(self) -> None:
        """The same from the other side."""
        client, server = await self.joined()
        far: Any = server.transport
        far.write(flood_bytes(0, 1_000_000))
        far.stopProducing()
        await self.until_lost(client, server)
        self.assertEqual(client.data, flood_bytes(0, 1_000_000))
        self.assert_clean(client, server)

    async def test_06_close_on_both_sides(self) -> None:
        """Both sides may close at once, and what both wrote before arrives."""
        client, server = await self.joined()
        for protocol in (client, server):
            transport: Any = protocol.transport
            transport.write(b"last")
            transport.loseConnection()
        await self.until_lost(client, server)
        self.assertEqual((client.losses, server.losses), (1, 1))
        if self.authenticated_end:  # else nothing waits for the other side, as TCP does not
            self.assertEqual((client.data, server.data), (b"last", b"last"))
            self.assert_clean(client, server)

    async def test_06_close_waits_for_producer(self) -> None:
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

    async def test_06_close_in_connection_made(self) -> None:
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

    async def test_06_half_close(self) -> None:
        """One direction ends, the other goes on until it ends too; then both sides close."""
        if not self._half_closes:
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

    async def test_06_half_close_waits_for_producer(self) -> None:
        """Ending one direction waits for the producer as closing does."""
        if not self._half_closes:
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

    async def test_06_half_close_unheard(self) -> None:
        """A protocol that does not know of half-closing is closed, and its producer stopped."""
        if not self._half_closes:
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

    async def test_07_abort(self) -> None:
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
        self.assert_cut(server)
        self.assertEqual((client.losses, server.losses, server.data), (1, 1, b""))

    async def test_07_abort_while_paused(self) -> None:
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

    async def test_07_abort_in_connection_made(self) -> None:
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

    # --- 8: the reason --------------------------------------------------------------------------

    async def test_08_abort_is_no_end(self) -> None:
        """The other side of an abort sees that bytes are missing, where the wrapper can tell."""
        client, server = await self.joined()
        near: Any = client.transport
        near.write(b"before")
        await self.until(lambda: server.data)
        near.abortConnection()
        await self.until_lost(client, server)
        self.assert_cut(server)
        if self.authenticated_end:
            self.assertIsInstance(server.reason, self.truncation)
        self.assertEqual((client.losses, server.losses, server.data), (1, 1, b"before"))

    # --- 9: producers ---------------------------------------------------------------------------

    async def test_09_producers(self) -> None:
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

    async def test_09_pull_producer(self) -> None:
        """A pull producer is asked again and again, until it unregisters."""
        client, server = await self.joined()
        near: Any = client.transport
        pull = PullRecorder(near, 20, b"y" * 1000)
        near.registerProducer(pull, False)
        await self.until(lambda: len(server.data) == 20_000)
        near.loseConnection()
        await self.until_lost(client, server)
        self.assertEqual((len(server.data), pull.stops), (20_000, 0))
        self.assert_clean(client, server)

    # --- 10: from inside a delivery -------------------------------------------------------------

    async def test_10_close_inside_delivery(self) -> None:
        """The application may close inside dataReceived."""
        client, server = await self.joined()
        near: Any = client.transport
        far: Any = server.transport
        server.on_data = lambda _: far.loseConnection()
        near.write(b"bye")
        await self.until_lost(client, server)
        self.assert_clean(client, server)

    async def test_10_abort_inside_delivery(self) -> None:
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

    async def test_10_write_inside_delivery(self) -> None:
        """An echo of bulk, written from inside dataReceived, comes back whole."""
        client, server = await self.joined()
        far: Any = server.transport
        server.on_data = far.write
        Flood(client.transport, 500_000).start()
        await self.until(lambda: len(client.data) == 500_000)
        self.assertEqual(client.data, flood_bytes(0, 500_000))

    async def test_10_error_in_application(self) -> None:
        """What the application raises is logged, and ends its connection with that reason."""
        client, server = await self.joined()

        def bug(_: bytes) -> None:
            raise KeyError("bug")

        server.on_data = bug
        near: Any = client.transport
        near.write(b"x")
        await self.until_lost(client, server)
        self.assertIsInstance(server.reason, KeyError)
        self.assert_cut(client)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    # --- 12: factories and what survives --------------------------------------------------------

    def test_12_factory(self) -> None:
        """A refusal stays one; starting and stopping are passed on; the layer is named, quietly."""
        for wrap in (self.client_factory, self.server_factory):
            inner: Any = Factory.forProtocol(Recorder)
            inner.noisy = False
            factory = wrap(inner)
            factory.doStart()
            self.assertEqual(inner.numPorts, 1)
            factory.doStop()
            self.assertEqual(inner.numPorts, 0)
            self.assertFalse(factory.noisy)
            self.assert_named(factory.logPrefix(), inner.logPrefix())
            inner.buildProtocol = lambda _: None
            self.assertIsNone(factory.buildProtocol(None))

    def assert_named(self, prefix: str, inner: str) -> None:
        """A log prefix names what is wrapped, and something more.

        :param prefix: of the wrapper, or of its factory
        :param inner: of what is wrapped
        """
        self.assertIn(inner, prefix)
        self.assertGreater(len(prefix), len(inner))

    async def test_12_log_prefix(self) -> None:
        """The log prefix names the application and the layer."""
        client, _ = await self.joined()
        near: Any = client.transport
        self.assert_named(near.logPrefix(), "Recorder")

    async def test_12_handshake_listener(self) -> None:
        """An IHandshakeListener hears of the end of the handshake, once, before any byte."""
        if not self.handshake:
            return
        client, server = Recorder(), Recorder()
        client.greeting = b"hello"
        before: list[int] = []
        server.on_data = lambda _: before.append(server.handshakes)
        await self.join(client, server)
        await self.until(lambda: server.data)
        self.assertTrue(IHandshakeListener.providedBy(client))
        self.assertEqual((client.handshakes, server.handshakes, before), (1, 1, [1]))

    # --- 13: layers over layers -----------------------------------------------------------------

    async def test_13_over_itself(self) -> None:
        """Three of the wrapper, one on the other, carry bulk both ways and end properly."""
        self.times = 3
        client, server = await self.joined()
        near: Any = client.transport
        far: Any = server.transport
        Flood(near, 400_000).start()
        Flood(far, 400_000).start()
        await self.until(partial(self._have, 400_000, client, server))
        self.assertEqual(server.data, flood_bytes(0, 400_000))
        self.assertEqual(client.data, flood_bytes(0, 400_000))
        near.loseConnection()
        await self.until_lost(client, server)
        self.assert_clean(client, server)

    async def test_13_abort_through_itself(self) -> None:
        """An abort goes through all three."""
        self.times = 3
        client, server = await self.joined()
        near: Any = client.transport
        near.abortConnection()
        await self.until_lost(client, server)
        self.assertIsInstance(client.reason, ConnectionAborted)
        self.assert_cut(server)
