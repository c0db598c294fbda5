"""Testing support: the contract of a transport wrapper over memory, with somebody in the middle.

Source: the list in ``docs/howto/wrapper.rst``.
"""

# mypy: allow-untyped-calls
# (trial's and Twisted's methods have no types)

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from cloudconnect.errors import HandshakeTimeout
from cloudconnect.testing.contract import Pieces, TransportContract
from cloudconnect.testing.protocols import Recorder, flood_bytes
from cloudconnect.testing.wire import DOWN, UP, Wire
from cloudconnect.transports.memory import PIECE

#: Greetings of :meth:`MemoryContract.exchange`.
UPWARDS = b"from the client"
DOWNWARDS = b"from the server"


class MemoryContract(TransportContract):
    """Over memory, on a ``Clock``, with somebody in the middle.

    :cvar flip_step: every so many bytes of a recorded session one bit is changed
    :cvar strict: whether no byte at all may be changed, or be missing, without its receiver's
        application being told; not so for the last bytes of a lower layer of several, which come
        when the upper one has verified everything
    :cvar lateness: the reason when the peer takes no part in the handshake
    :cvar patience: seconds after which a silent peer must have been given up
    :cvar nonsense_max: bytes of nonsense after which a wrapper must have refused them
    """

    flip_step = 1
    strict = True
    lateness: type[Exception] = HandshakeTimeout
    patience = 600
    nonsense_max = 8 << 20
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
        """Connect two protocols over the stack; nothing has been delivered yet.

        :param client: a :class:`~cloudconnect.testing.protocols.Recorder`
        :param server: another
        :param piece: most bytes of one delivery, asked before each one
        """
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
        return self.until(lambda: self.settled(client, server))

    def lowest(self) -> tuple[Any, Any]:
        """Both ends of the wire."""
        return self.wire.client, self.wire.server

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
        """A whole short session, with bits changed or bytes cut off; time passes until its end.

        :param flips: bits to change, as in ``Wire.flips``
        :param cut: direction and offset where the bytes stop, as in ``Wire.cut``
        """
        client, server = Recorder(), Recorder()
        client.greeting, server.greeting = UPWARDS, DOWNWARDS
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
        self.flushLoggedErrors(self.errors)  # whether any may escape is looked at elsewhere (11)
        self.assertEqual((client.losses, server.losses), (1, 1), "a side was never told")
        self.assertTrue(UPWARDS.startswith(server.data), server.data)
        self.assertTrue(DOWNWARDS.startswith(client.data), client.data)
        return client, server

    def recorded(self) -> list[tuple[str, int]]:
        """Every position of an undisturbed :meth:`exchange`."""
        client, server = self.exchange()
        self.assert_clean(client, server)
        seen = self.wire.seen
        return [(where, at) for where in (UP, DOWN) for at in range(len(seen[where]))]

    # --- 2 and 3 --------------------------------------------------------------------------------

    async def test_02_nothing_in_clear(self) -> None:
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

    async def test_02_empty_write(self) -> None:
        """An empty write puts nothing on the wire."""
        client, _ = await self.joined()
        near: Any = client.transport
        before = len(self.wire.seen[UP])
        near.write(b"")
        near.writeSequence([])
        near.writeSequence([b"", b""])
        self.reactor.advance(0)
        self.assertEqual(len(self.wire.seen[UP]), before)

    async def test_03_any_chunking(self) -> None:
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

    async def test_06_unanswered_close(self) -> None:
        """A peer that never answers a close is given up after a time, and not for a clean end."""
        client, server = await self.joined()
        near: Any = client.transport
        self.wire.muted |= {UP, DOWN}
        near.loseConnection()
        self.reactor.advance(0)
        if self.authenticated_end:
            self.assertEqual(client.losses, 0)
            self.wait_for(client)
            self.assertIsInstance(client.reason, self.truncation)
        self.assertEqual(client.losses, 1)
        self.reactor.advance(0)
        self.assertEqual(server.losses, 1)

    def test_06_silent_handshake(self) -> None:
        """A handshake that the peer does not take part in is given up after a time."""
        if not self.handshake:
            return
        client, server = Recorder(), Recorder()
        wire = self.begin(client, server)
        wire.muted |= {UP, DOWN}
        self.reactor.advance(0)
        self.assertEqual(client.losses, 0)
        self.wait_for(client)
        self.reactor.advance(0)
        self.assertIsInstance(client.reason, self.lateness)
        self.assertEqual((client.losses, server.losses), (1, 1))
        self.assertEqual((client.handshakes, server.handshakes), (0, 0))

    def wait_for(self, protocol: Recorder) -> None:
        """Let time pass until ``protocol`` has lost its connection, or patience ends."""
        for _ in range(self.patience):
            if protocol.losses:
                return
            self.reactor.advance(1)

    # --- 8: what is changed, and what is cut ----------------------------------------------------

    def test_08_any_byte_changed(self) -> None:
        """Whatever byte is changed: nothing false is delivered, nor taken for an end."""
        if not self.cipher:
            return
        for where, at in self.recorded()[:: self.flip_step]:
            self.exchange(flips={(where, at): 1 << (at % 8)})
            self.assert_noticed(where, at)

    def test_08_cut_anywhere(self) -> None:
        """Wherever the bytes stop, who was to receive them does not take it for an end."""
        if not self.authenticated_end:
            return
        positions = self.recorded()
        for where, at in positions[:: self.flip_step]:
            self.exchange(cut=(where, at))
            self.assert_noticed(where, at)

    def assert_noticed(self, where: str, at: int) -> None:
        """Who received byte ``at`` does not take the end for a proper one, or has had it all.

        :param where: the direction of that byte
        :param at: its offset
        """
        receiver = self.sides[where]
        clean = isinstance(receiver.reason, ConnectionDone)
        self.assertFalse(clean and self.strict, f"{where} byte {at}")
        if clean:
            sent = UPWARDS if where == UP else DOWNWARDS
            self.assertEqual(receiver.data, sent, f"{where} byte {at}")

    # --- 4 and 11: what makes no sense ----------------------------------------------------------

    def nonsense(self) -> list[bytes]:
        """A MiB each of bytes that no peer sends; the largest lengths are among them."""
        size = 1 << 20
        return [random.Random(11).randbytes(size), bytes(size), b"\xff" * size]  # noqa: S311

    def feed(self, bottom: Any, data: bytes) -> None:
        """Give ``bottom`` bytes from below; what may escape is looked at elsewhere (11).

        :param data: the bytes
        """
        try:
            bottom.dataReceived(data)
        except self.errors:
            bottom.transport.abortConnection()

    def test_04_bounded(self) -> None:
        """Bytes that cannot be a message are refused, not gathered until one is complete."""
        if not self.cipher:
            return
        for octets in self.nonsense():
            for ready in (False, True):
                client, server = Recorder(), Recorder()
                wire = self.begin(client, server)
                if ready:
                    self.reactor.advance(0)
                for _ in range(self.nonsense_max // len(octets)):
                    self.feed(wire.server.protocol, octets)
                self.reactor.advance(0)
                self.assertEqual(server.losses, 1, f"it waits for more than {octets[:4]!r}...")
                self.give_up(client)

    def give_up(self, *protocols: Recorder) -> None:
        """Leave nothing behind."""
        for protocol in protocols:
            transport: Any = protocol.transport
            transport.abortConnection()
        self.reactor.advance(0)

    def test_11_nonsense(self) -> None:
        """Bytes that make no sense never raise; at most one line in the log is about them."""
        if not self.cipher:
            return
        for octets in self.nonsense():
            for ready in (False, True):
                client, server = Recorder(), Recorder()
                wire = self.begin(client, server)
                if ready:
                    self.reactor.advance(0)
                bottom: Any = wire.server.protocol
                with self.warnings() as events:
                    for start in range(0, 200_000, 50_000):
                        bottom.dataReceived(octets[start : start + 50_000])
                self.assertEqual(server.data, b"")
                self.assertLessEqual(len(self.about(wire.server.getPeer(), events)), 1)
                self.give_up(client, server)

    async def test_11_bad_message(self) -> None:
        """After one bad message the layer has failed for good, with one line in the log."""
        if not self.cipher:
            return
        client, server = await self.joined()
        first = self.passed(client, b"first")
        self.assertEqual(server.data, b"first")
        self.wire.flips[(UP, len(self.wire.seen[UP]) + len(first) - 1)] = 1
        with self.warnings() as events:
            self.passed(client, b"other")
            bottom: Any = self.wire.server.protocol
            for _ in range(3):
                bottom.dataReceived(first)
            self.reactor.advance(0)
        self.assertEqual((server.losses, server.data), (1, b"first"))
        self.assertEqual(self.flushLoggedErrors(), [], "it escaped from dataReceived")
        found = self.about(self.wire.server.getPeer(), events)
        self.assertEqual(len(found), 1, found)

    def about(self, peer: Any, events: list[Any]) -> list[Any]:
        """The log events that name ``peer``; all, where none names a peer.

        :param peer: an address
        :param events: Twisted's log events
        """
        if not any("peer" in event for event in events):
            return events
        return [event for event in events if event.get("peer") == peer]

    def passed(self, protocol: Recorder, data: bytes) -> bytes:
        """Write ``data``; return what went over the wire for it.

        :param protocol: who writes
        """
        direction = UP if self.wire.client is self.lowest_of(protocol) else DOWN
        before = len(self.wire.seen[direction])
        transport: Any = protocol.transport
        transport.write(data)
        self.reactor.advance(0)
        return bytes(self.wire.seen[direction][before:])

    def lowest_of(self, protocol: Recorder) -> Any:
        """The end of the wire that ``protocol`` is at."""
        transport: Any = protocol.transport
        is_client = transport.getHost() == self.wire.client.getHost()
        return self.wire.client if is_client else self.wire.server

    # --- 7: keys --------------------------------------------------------------------------------

    async def test_07_keys_forgotten(self) -> None:
        """After the end of a connection, however it came, no layer holds a key."""
        for end in ("loseConnection", "abortConnection"):
            client, server = await self.joined()
            near: Any = client.transport
            if self.cipher:
                self.assertNotEqual(self.held_keys(near), [], "held_keys finds none at all")
            getattr(near, end)()
            await self.until_lost(client, server)
            for protocol in (client, server):
                self.assertEqual(self.held_keys(protocol.transport), [])

    # --- 14: nonces -----------------------------------------------------------------------------

    async def test_14_counters(self) -> None:
        """The same bytes never go over the wire as the same bytes: each message has a nonce."""
        if not self.cipher:
            return
        client, server = await self.joined()
        wrote = [self.passed(protocol, b"same") for protocol in (client, client, server, server)]
        self.assertEqual(len(set(wrote)), 4)
        self.assertEqual((client.data, server.data), (b"samesame", b"samesame"))

    async def test_14_replay(self) -> None:
        """A message that comes a second time is refused."""
        if not self.cipher:
            return
        client, server = await self.joined()
        first = self.passed(client, b"once")
        self.feed(self.wire.server.protocol, first)
        self.reactor.advance(0)
        self.assertEqual((server.data, server.losses), (b"once", 1))

    async def test_14_reflection(self) -> None:
        """A message that comes back to its sender is refused: each direction has its own count."""
        if not self.cipher:
            return
        client, _ = await self.joined()
        first = self.passed(client, b"once")
        self.feed(self.wire.client.protocol, first)
        self.reactor.advance(0)
        self.assertEqual((client.data, client.losses), (b"", 1))

    async def test_14_overflow(self) -> None:
        """A counter that is used up ends the connection; it does not begin again."""
        client, server = await self.joined()
        if not self.use_up(client.transport):
            self.give_up(client)
            return
        for _ in range(3):
            self.passed(client, b"more")
        self.assertEqual((client.losses, server.data), (1, b""))
