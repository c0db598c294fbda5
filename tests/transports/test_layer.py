"""Tests of :mod:`cloudconnect.transports.layer`, with the simplest layers and over others."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import NonceExhausted, SecurityError, Tampered, Truncated
from cloudconnect.settings import HIGH_WATER
from cloudconnect.testing import (
    Flood,
    HalfCloseRecorder,
    Recorder,
    Wire,
)
from cloudconnect.transports.layer import ANSWERS_MAX
from tests.transports.layer_parts import (
    Below,
    FramedLayer,
    FramedRecipe,
    PlayedTransportTestCase,
)
from tests.transports.sockets import Sockets
from tests.transports.stacks import stream, tunnel


class LayerTests(PlayedTransportTestCase):
    """The layer between a recorder and a transport that the test plays."""

    # --- writing --------------------------------------------------------------------------------

    def test_held_bytes_pause_producer(self) -> None:
        """Before the handshake is over the producer is paused above the high-water mark."""
        self.connect(ready=False)
        flood = Flood(self.layer, -1)
        self.layer.registerProducer(flood, True)
        self.layer.write(bytes(HIGH_WATER))
        self.assertEqual(flood.calls, [])
        self.layer.write(b"x")
        self.assertEqual(flood.calls, ["pause"])
        self.assertEqual(self.below.written, b"H")
        self.layer.dataReceived(b"H")
        self.assertEqual(flood.calls, ["pause", "resume"])
        self.assertGreater(len(self.below.written), HIGH_WATER)

    def test_waiting(self) -> None:
        """What waits for the end of the handshake is counted; then nothing does."""
        self.connect(ready=False)
        self.layer.write(b"x" * 100)
        self.assertEqual((self.layer.ready, self.layer.waiting), (False, 100))
        self.layer.dataReceived(b"H")
        self.assertEqual((self.layer.ready, self.layer.waiting), (True, 0))

    def test_two_reasons_one_pause(self) -> None:
        """Held bytes and a full transport are one pause; both must be over for the resume."""
        self.connect(ready=False)
        flood = Flood(self.layer, -1)
        self.layer.registerProducer(flood, True)
        self.below.producer.pauseProducing()
        self.below.producer.pauseProducing()
        self.layer.write(bytes(HIGH_WATER + 1))
        self.assertEqual(flood.calls, ["pause"])
        self.layer.dataReceived(b"H")
        self.assertEqual(flood.calls, ["pause"])
        self.below.producer.resumeProducing()
        self.below.producer.resumeProducing()
        self.assertEqual(flood.calls, ["pause", "resume"])

    def test_flush_stops_when_full(self) -> None:
        """What is held goes out part by part, and only as long as the transport is not full."""
        self.connect(ready=False)
        parts = [b"one", b"two", b"three"]
        for part in parts:
            self.layer.write(part)
        self.below.on_write = lambda: self.below.producer.pauseProducing()
        self.layer.dataReceived(b"H")
        self.assertEqual(self.below.written, b"H\x03one")
        self.layer.write(b"four")
        self.assertEqual(self.below.written, b"H\x03one")
        self.below.producer.resumeProducing()
        self.assertEqual(self.below.written, b"H\x03one\x03two")
        self.below.on_write = None
        self.below.producer.resumeProducing()
        self.assertEqual(self.below.written, b"H\x03one\x03two\x05three\x04four")

    def test_late_producer_is_paused(self) -> None:
        """A producer that registers while the transport is full is paused at once."""
        self.connect()
        self.below.producer.pauseProducing()
        flood = Flood(self.layer, -1)
        self.layer.registerProducer(flood, True)
        self.assertEqual(flood.calls, ["pause"])

    def test_write_inside_pause(self) -> None:
        """What a producer writes while it is being paused comes after the part being sent."""
        self.connect()

        class Rude(Flood):
            def pauseProducing(self) -> None:
                super().pauseProducing()
                self.transport.write(b"after")
                self.transport.unregisterProducer()
                self.transport.loseConnection()

        rude = Rude(self.layer, -1)
        self.layer.registerProducer(rude, True)
        self.below.on_write = lambda: self.below.producer and self.below.producer.pauseProducing()
        self.layer.write(b"x" * 300)
        self.assertEqual(self.below.written, b"\xff" + b"x" * 255 + b"\x2d" + b"x" * 45)
        self.below.on_write = None
        self.below.producer.resumeProducing()
        self.assertTrue(self.below.written.endswith(b"x\x05after\0"))

    def test_seal_fails(self) -> None:
        """A key that is used up ends the connection with that reason, not the caller's write."""
        self.connect()

        def used_up(data: bytes) -> bytes:
            raise NonceExhausted("no more")

        self.layer._seal = used_up  # type: ignore[method-assign]
        self.layer.write(b"x")
        self.assertEqual(self.below.calls, ["abortConnection"])
        self.layer.connectionLost(Failure(ConnectionAborted()))
        self.assertIsInstance(self.app.reason, NonceExhausted)

    def test_bug_in_layer(self) -> None:
        """A bug in a concrete layer is logged as one and ends the connection."""
        self.connect()

        def bug(data: bytes) -> Any:
            raise ZeroDivisionError

        self.layer._received = bug  # type: ignore[method-assign]
        self.layer.dataReceived(b"x")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.layer.connectionLost(Failure(ConnectionAborted()))
        self.assertIsInstance(self.app.reason, ZeroDivisionError)

    # --- reading --------------------------------------------------------------------------------

    def test_one_input_many_outputs(self) -> None:
        """Pausing inside the first of many messages of one input holds the others back."""
        self.connect()
        self.app.on_data = lambda _: self.layer.pauseProducing()
        self.layer.dataReceived(b"\x01a\x01b\x01c")
        self.assertEqual(self.app.data, b"a")
        self.assertEqual(self.below.calls, ["pauseProducing"])
        self.layer.resumeProducing()
        self.assertEqual(self.app.data, b"a")
        self.clock.advance(0)
        self.assertEqual(self.app.data, b"ab")
        self.app.on_data = None
        self.layer.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(self.app.data, b"abc")
        self.assertEqual(self.below.calls, ["pauseProducing", "resumeProducing"])

    def test_pause_during_handshake(self) -> None:
        """The handshake goes on while the application is paused; only then is the rest held."""
        self.connect(ready=False)
        self.layer.pauseProducing()
        self.assertEqual(self.below.calls, [])
        self.layer.dataReceived(b"H\x01a")
        self.assertEqual(self.below.calls, ["pauseProducing"])
        self.assertEqual((self.app.handshakes, self.app.data), (1, b""))
        self.layer.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(self.app.data, b"a")

    def test_end_behind_paused_bytes(self) -> None:
        """The peer's end is not seen before the bytes in front of it were delivered."""
        self.connect()
        self.layer.pauseProducing()
        self.layer.dataReceived(b"\x01a\0")
        self.assertEqual((self.below.calls, self.below.written), (["pauseProducing"], b""))
        self.layer.resumeProducing()
        self.clock.advance(0)
        self.assertEqual((self.app.data, self.below.written), (b"a", b"\0"))
        self.assertIn("loseConnection", self.below.calls)

    def test_loss_behind_paused_bytes(self) -> None:
        """Bytes that were verified up to the peer's end outlive the transport below."""
        self.connect()
        self.layer.pauseProducing()
        self.layer.dataReceived(b"\x01a\0")
        self.layer.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.app.losses, 0)
        self.layer.resumeProducing()
        self.clock.advance(0)
        self.assertEqual((self.app.data, self.app.losses), (b"a", 1))
        self.assertIsInstance(self.app.reason, Truncated)  # our own end was never sent

    def test_leaving_paused_bytes(self) -> None:
        """An application that closes, or aborts, while such bytes wait is told once, later."""
        for leave in ("loseConnection", "abortConnection"):
            self.setUp()
            self.connect()
            self.layer.pauseProducing()
            self.layer.dataReceived(b"\x01a\0")
            self.layer.connectionLost(Failure(ConnectionDone()))
            getattr(self.layer, leave)()
            self.assertEqual(self.app.losses, 0)
            self.clock.advance(0)
            self.layer.resumeProducing()
            self.clock.advance(0)
            self.assertEqual((self.app.data, self.app.losses), (b"", 1))

    def test_cut_behind_paused_bytes(self) -> None:
        """Without the peer's end a loss is told at once, whatever waits."""
        self.connect()
        self.layer.pauseProducing()
        self.layer.dataReceived(b"\x01a")
        self.layer.connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(self.app.reason, Truncated)
        self.assertEqual(self.app.data, b"")

    def test_nothing_after_bad_message(self) -> None:
        """What stands before a bad message is delivered, nothing of it or behind it."""
        self.connect()
        self.layer.dataReceived(b"\x01a\x07seven77\x01b")
        self.layer.dataReceived(b"\x01c")
        self.assertEqual(self.app.data, b"a")
        self.assertEqual(self.below.calls, ["abortConnection"])
        self.layer.connectionLost(Failure(ConnectionDone()))
        self.layer.connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(self.app.reason, Tampered)
        self.assertEqual(self.app.losses, 1)

    def test_answers_are_bounded(self) -> None:
        """A peer that asks and does not read is not read from until it does."""
        self.connect()
        self.below.producer.pauseProducing()
        question = b"\x09questions"
        for _ in range(ANSWERS_MAX // 900):
            self.layer.dataReceived(question)
        self.assertEqual(self.below.calls, [])
        self.layer.dataReceived(question)
        self.assertEqual(self.below.calls, ["pauseProducing"])
        self.below.producer.resumeProducing()
        self.assertEqual(self.below.calls, ["pauseProducing", "resumeProducing"])

    def test_reentrant_transport(self) -> None:
        """A transport that delivers from inside a write does not upset the order."""
        self.connect()
        replies = [b"\x01b\x01c", b"\x01d"]

        def answer(data: bytes) -> None:
            self.layer.write(b"x")

        self.app.on_data = answer
        self.below.on_write = lambda: replies and self.layer.dataReceived(replies.pop(0))
        self.layer.dataReceived(b"\x01a\x01A")
        self.assertEqual(self.app.data, b"aAbcd")

    # --- what is below ---------------------------------------------------------------------------

    def test_tcp_options(self) -> None:
        """TCP's options are forwarded where there is TCP below, and not there otherwise."""
        self.assertFalse(hasattr(self.layer, "setTcpNoDelay"))
        options: list[bool] = []
        self.below.setTcpNoDelay = options.append  # type: ignore[attr-defined]
        above = FramedLayer(Recorder(), self.clock)
        self.layer = FramedLayer(above, self.clock)
        self.connect()
        above.setTcpNoDelay(True)  # type: ignore[attr-defined]
        self.assertEqual(options, [True])
        self.assertFalse(hasattr(above, "setTcpKeepAlive"))

    def test_small_writes_do_not_wait(self) -> None:
        """Over a TCP socket nothing waits for the acknowledgement of the write before it."""
        sockets = Sockets()
        self.addCleanup(sockets.close)
        layers = [FramedLayer(Recorder(), sockets.reactor) for _ in range(2)]
        sockets.join(*layers)
        self.assertTrue(all(layer.transport.getTcpNoDelay() for layer in layers))

    def test_unix_socket_below(self) -> None:
        """A UNIX socket, which has none of TCP's options, carries a layer like any other."""
        sockets = Sockets(unix=True)
        self.addCleanup(sockets.close)
        layers = [FramedLayer(Recorder(), sockets.reactor) for _ in range(2)]
        sockets.join(*layers)
        layers[0].write(b"octets")
        sockets.until(lambda: layers[1].wrappedProtocol.data == b"octets")

    def test_replace_below(self) -> None:
        """A layer may go on over another transport; pauses of both sides carry over."""
        self.connect()
        self.layer.pauseProducing()
        flood = Flood(self.layer, -1)
        self.layer.registerProducer(flood, True)
        self.below.producer.pauseProducing()
        other = Below()
        self.layer._release_below()
        self.assertIsNone(self.below.producer)
        self.layer._replace_below(other)
        self.assertEqual(other.calls, ["pauseProducing"])
        self.assertEqual(flood.calls, ["pause", "resume"])
        self.layer.write(b"x")
        self.assertEqual((self.below.written, other.written), (b"", b"\x01x"))


class Writer(Flood):
    """A flood whose writes somebody counts.

    :ivar stops: 1 when it was stopped before it had written everything, else 0
    """

    stops = 0

    def __init__(self, write: Any, transport: Any, total: int) -> None:
        super().__init__(self, total)
        self.write = write
        self.registerProducer = transport.registerProducer
        self.unregisterProducer = transport.unregisterProducer

    def stopProducing(self) -> None:
        self.stops = 1
        super().stopProducing()


class RandomTests(SynchronousTestCase):
    """Random lives of connections, over one layer and over several, with fixed seeds."""

    def live(self, seed: int, stack: Any) -> None:
        """Both sides do anything in any order; nothing false, lost, repeated or left behind."""
        rng = random.Random(seed)
        clock = Clock()
        sides: list[Any] = []
        for _ in range(2):
            side: Any = (HalfCloseRecorder if rng.random() < 0.5 else Recorder)()
            side.written, side.owed, side.floods = bytearray(), 0, []
            if rng.random() < 0.3:
                side.on_data = partial(self.act_inside, rng, side)
            sides.append(side)
        layers: list[Any] = list(sides)
        for recipes in reversed(stack):
            layers = [recipes[i].layer(i == 0, layers[i], clock) for i in (0, 1)]
        Wire(clock, lambda: rng.choice((1, 7, 300, 5000, 65536))).connect(*layers)
        for _ in range(rng.randint(1, 40)):
            side = rng.choice(sides)
            self.act(rng, side, side.transport)
            if rng.random() < 0.5:
                clock.advance(rng.choice((0, 0, 0, 0.1)))
        for side in sides:
            side.on_data = None
            side.transport.resumeProducing()
            side.transport.loseConnection()
        for _ in range(40):
            clock.advance(5)
        for side, peer in (sides, sides[::-1]):
            self.assertEqual(side.losses, 1, seed)
            self.assertNotIsInstance(side.reason, SecurityError)
            self.assertTrue(peer.written.startswith(side.data), seed)
            for flood in side.floods:
                self.assertEqual((flood.left, flood.calls.count("stop")), (-1, flood.stops), seed)
            if isinstance(side.reason, ConnectionDone) and side.handshakes:
                self.assertGreaterEqual(len(side.data), peer.owed, seed)
        self.assertEqual(clock.getDelayedCalls(), [], seed)

    def act(self, rng: random.Random, side: Any, transport: Any) -> None:
        """One side does one thing."""
        what = rng.random()
        if what < 0.4:
            data = rng.randbytes(rng.choice((1, 7, 9, 500, 70_000)))
            self.write(side, transport, data)
        elif what < 0.5 and not (side.floods and side.floods[-1].left >= 0):
            writer = Writer(
                partial(self.write, side, transport), transport, rng.randint(1, 400_000)
            )
            side.floods.append(writer)
            writer.start()
        elif what < 0.65:
            transport.pauseProducing()
        elif what < 0.9:
            transport.resumeProducing()
        elif what < 0.95:
            transport.loseWriteConnection()
        elif what < 0.98:
            transport.loseConnection()
        else:
            transport.abortConnection()

    def act_inside(self, rng: random.Random, side: Any, data: bytes) -> None:
        """The same from inside a delivery, now and then."""
        if rng.random() < 0.3:
            self.act(rng, side, side.transport)

    def write(self, side: Any, transport: Any, data: bytes) -> None:
        side.written += data
        closing = transport.disconnecting or transport._half_closing
        if transport._producer.registered or not closing:
            side.owed = len(side.written)
        transport.write(data)

    def test_lives(self) -> None:
        """A few hundred of them."""
        framed = FramedRecipe()
        for seed in range(100):
            self.live(seed, [(framed, framed)])
            self.live(seed, [tunnel()])
            self.live(seed, [stream()])
        for seed in range(40):
            self.live(seed, [tunnel(), (framed, framed), stream()])
        self.live(1814, [tunnel()])  # once found the end sent twice
