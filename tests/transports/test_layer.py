"""Tests of :mod:`cloudconnect.transports.layer`, `flow` and `recipe`, with the simplest layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from cloudconnect.errors import NonceExhausted, ProtocolViolation, Tampered, Truncated
from cloudconnect.keys import KeyA, KeyB
from cloudconnect.settings import CLOSE_SECONDS, HIGH_WATER
from cloudconnect.testing import (
    Flood,
    HalfCloseRecorder,
    MemoryContract,
    MemoryPair,
    Recorder,
    TCPContract,
)
from cloudconnect.transports.flow import PullAdapter, WriteGate
from cloudconnect.transports.layer import ANSWERS_MAX, CLOSE_RATE, EndingLayer, Layer
from cloudconnect.transports.recipe import LayerFactory, Recipe
from cloudconnect.transports.stream import RecordStream
from cloudconnect.transports.tunnel import NoiseTunnel


class PlainLayer(Layer):
    """Adds nothing: no handshake, no end."""

    name: ClassVar[str] = "plain"

    def _opened(self) -> None:
        self._ready()

    def _received(self, data: bytes) -> Iterator[bytes]:
        yield data

    def _seal(self, data: bytes) -> bytes:
        return data


class FramedLayer(EndingLayer):
    """A handshake of one byte, messages of at most 255 bytes, an empty one as the end.

    A message of the length 7 is a bad one; one of the length 9 is a question, answered by itself.
    """

    name: ClassVar[str] = "framed"

    def __init__(self, protocol: Any, clock: Any) -> None:
        super().__init__(protocol, clock)
        self.buffer = b""
        self.key: str | None = "key"

    def _opened(self) -> None:
        self._write_below(b"H")

    def _received(self, data: bytes) -> Iterator[bytes]:
        self.buffer += data
        if self.buffer and not self._is_ready:
            if self.buffer[:1] != b"H":
                raise ProtocolViolation("not a greeting")
            self.buffer = self.buffer[1:]
            self._ready()
        while self.buffer and len(self.buffer) > self.buffer[0]:
            size = self.buffer[0]
            message, self.buffer = self.buffer[1 : size + 1], self.buffer[size + 1 :]
            if size == 7:
                raise Tampered("seven")
            if size == 9:
                self._answer(message * 100)
            elif message:
                yield memoryview(message)
            else:
                self._end_came()

    def _seal(self, data: bytes) -> Iterator[bytes]:
        for offset in range(0, len(data), 255):
            part = data[offset : offset + 255]
            pieces = [part] if len(part) not in (7, 9) else [part[:1], part[1:4], part[4:]]
            for piece in pieces:
                yield bytes((len(piece),)) + piece

    def _seal_end(self) -> bytes:
        return b"\0"

    def _forget_keys(self) -> None:
        assert self.key is not None, "called twice"
        self.key = None


class PlainRecipe(Recipe):
    """Makes plain layers."""

    name = "plain"

    def layer(self, initiator: bool, protocol: Any, clock: Any) -> Layer:
        return PlainLayer(protocol, clock)


class FramedRecipe(Recipe):
    """Makes framed layers."""

    name = "framed"

    def layer(self, initiator: bool, protocol: Any, clock: Any) -> Layer:
        return FramedLayer(protocol, clock)


class PlainStack:
    """A layer without handshake, cipher or end."""

    authenticated_end = False
    cipher = False

    def stack(self) -> Any:
        return [(PlainRecipe(), PlainRecipe())]


class PlainMemoryTests(PlainStack, MemoryContract, TestCase):
    """The contract over memory."""


class PlainTCPTests(PlainStack, TCPContract, TestCase):
    """The contract over TCP."""


class FramedStack:
    """A layer with handshake and end, and no cipher."""

    cipher = False

    def stack(self) -> Any:
        return [(FramedRecipe(), FramedRecipe())]


class FramedMemoryTests(FramedStack, MemoryContract, TestCase):
    """The contract over memory."""

    bulk = 500_000

    def assert_forgotten(self, layer: Any) -> None:
        self.assertIsNone(layer.key)


class FramedTCPTests(FramedStack, TCPContract, TestCase):
    """The contract over TCP."""

    bulk = 1_000_000


def tunnel() -> Any:
    recipe = NoiseTunnel(KeyA.generate(), b"prologue")
    return recipe, recipe


def stream() -> Any:
    recipe = RecordStream(KeyB.generate(), b"context")
    return recipe, recipe


class TunnelInStreamStack:
    """Three layers: a stream in a tunnel in a stream."""

    def stack(self) -> Any:
        return [stream(), tunnel(), stream()]


class TunnelInStreamMemoryTests(TunnelInStreamStack, MemoryContract, TestCase):
    """The contract over memory."""

    flip_step = 7
    strict = False


class TunnelInStreamTCPTests(TunnelInStreamStack, TCPContract, TestCase):
    """The contract over TCP; the lowest layer takes the socket over."""


class StreamInTunnelStack:
    """Four layers: plain ones below a stream in a tunnel."""

    def stack(self) -> Any:
        plain, framed = PlainRecipe(), FramedRecipe()
        return [(plain, plain), tunnel(), (framed, framed), stream()]


class StreamInTunnelMemoryTests(StreamInTunnelStack, MemoryContract, TestCase):
    """The contract over memory."""

    bulk = 500_000
    flip_step = 7
    strict = False


class StreamInTunnelTCPTests(StreamInTunnelStack, TCPContract, TestCase):
    """The contract over TCP."""

    bulk = 1_000_000


class Below:
    """A transport that does nothing but keep what it is told."""

    disconnecting = False

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.written = b""
        self.producer: Any = None
        self.on_write: Any = None

    def __getattr__(self, name: str) -> Any:
        known = ("pauseProducing", "resumeProducing", "loseConnection", "abortConnection")
        if name not in known:
            raise AttributeError(name)
        return lambda: self.calls.append(name)

    def write(self, data: bytes) -> None:
        self.written += data
        if self.on_write is not None:
            self.on_write()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def getPeer(self) -> str:
        return "peer"


class LayerTests(SynchronousTestCase):
    """The layer between a recorder and a transport that the test plays."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.app: Any = Recorder()
        self.below = Below()
        self.layer = FramedLayer(self.app, self.clock)

    def connect(self, ready: bool = True) -> None:
        self.layer.makeConnection(self.below)
        if ready:
            self.layer.dataReceived(b"H")
            self.below.written = b""

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

    # --- closing --------------------------------------------------------------------------------

    def test_close_before_handshake(self) -> None:
        """With nothing to send a close does not wait for the handshake, and is the peer's loss."""
        self.connect(ready=False)
        self.layer.loseConnection()
        self.assertEqual(self.below.calls, ["loseConnection"])
        self.layer.dataReceived(b"H\x01a")
        self.layer.connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(self.app.reason, ConnectionDone)
        self.assertEqual((self.app.data, self.app.handshakes), (b"", 0))

    def test_close_timer_is_extended(self) -> None:
        """A peer that is still sending is given more time, but not for ever."""
        self.connect()
        self.layer.loseConnection()
        for _ in range(9):
            self.clock.advance(CLOSE_SECONDS - 1)
            self.layer.dataReceived(b"\x01a")
            self.assertEqual(self.below.calls, [])
        self.clock.advance(CLOSE_SECONDS)
        self.assertEqual(self.below.calls, ["abortConnection"])
        self.layer.connectionLost(Failure(ConnectionAborted()))
        self.assertIsInstance(self.app.reason, Truncated)

    def test_close_timer_of_full_transport(self) -> None:
        """While the transport below has bytes to send the peer has time for these as well."""
        self.connect()
        self.below.producer.pauseProducing()
        self.layer.write(bytes(10 * CLOSE_RATE))
        self.layer.loseConnection()
        self.clock.advance(CLOSE_SECONDS + HIGH_WATER // CLOSE_RATE + 9)
        self.assertEqual(self.below.calls, [])
        self.below.producer.resumeProducing()
        self.clock.advance(CLOSE_SECONDS - 1)
        self.assertEqual(self.below.calls, [])
        self.clock.advance(1)
        self.assertEqual(self.below.calls, ["abortConnection"])

    def test_transport_that_does_not_close(self) -> None:
        """When both ends have passed and the transport below does not close, it is aborted."""
        self.connect()
        self.layer.dataReceived(b"\0")
        self.assertEqual((self.below.written, self.below.calls), (b"\0", ["loseConnection"]))
        self.clock.advance(CLOSE_SECONDS)
        self.assertEqual(self.below.calls, ["loseConnection", "abortConnection"])
        self.layer.connectionLost(Failure(ConnectionAborted()))
        self.assertIsInstance(self.app.reason, ConnectionDone)

    def test_failure_with_last_words(self) -> None:
        """A layer may send an alert when it fails; then the transport is closed, not aborted."""
        self.connect()
        self.layer._fail(Tampered("x"), b"alert")
        self.assertEqual((self.below.written, self.below.calls), (b"alert", ["loseConnection"]))
        self.layer.write(b"y")
        self.assertEqual(self.below.written, b"alert")
        self.clock.advance(CLOSE_SECONDS)
        self.assertEqual(self.below.calls, ["loseConnection", "abortConnection"])

    def test_no_abort_below(self) -> None:
        """A transport that cannot be aborted is closed."""

        class Limited(Below):
            def __getattr__(self, name: str) -> Any:
                if name == "abortConnection":
                    raise AttributeError(name)
                return super().__getattr__(name)

        self.below = Limited()
        self.connect()
        self.layer.abortConnection()
        self.assertEqual(self.below.calls, ["loseConnection"])

    def test_half_closed_by_both(self) -> None:
        """Once both directions have ended the transport is closed, without being told to."""
        self.app = HalfCloseRecorder()
        self.layer = FramedLayer(self.app, self.clock)
        self.connect()
        self.layer.dataReceived(b"\0")
        self.clock.advance(1000)
        self.assertEqual((self.app.read_ends, self.below.calls), (1, []))
        self.layer.loseWriteConnection()
        self.assertEqual((self.app.write_ends, self.below.calls), (1, ["loseConnection"]))
        self.layer.connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(self.app.reason, ConnectionDone)

    # --- reasons --------------------------------------------------------------------------------

    def test_reasons(self) -> None:
        """The layer's own reason, then that of a layer below, then what the ends say."""
        for told, ends, expected in (
            (ConnectionDone(), False, Truncated),
            (ConnectionLost(), False, Truncated),
            (ConnectionLost(), True, ConnectionDone),
            (Tampered("below"), False, Tampered),
            (Tampered("below"), True, Tampered),
            (Truncated("below"), True, ConnectionDone),
            (ProtocolViolation("below"), False, ProtocolViolation),
        ):
            self.setUp()
            self.connect()
            if ends:
                self.layer.dataReceived(b"\0")
            self.layer.connectionLost(Failure(told))
            self.assertIsInstance(self.app.reason, expected)
            if expected is not Truncated and expected is not ConnectionDone:
                self.assertIs(self.app.reason, told)

    def test_plain_reason(self) -> None:
        """A layer without an end passes on what the transport below says."""
        self.layer = PlainLayer(self.app, self.clock)  # type: ignore[assignment]
        self.layer.makeConnection(self.below)
        reason = ConnectionLost()
        self.layer.connectionLost(Failure(reason))
        self.assertIs(self.app.reason, reason)

    def test_waiters_fail(self) -> None:
        """Who waits for the handshake is told why there will be none."""
        self.connect(ready=False)
        waiting = self.layer.when_ready()
        self.layer.dataReceived(b"?")
        self.layer.connectionLost(Failure(ConnectionAborted()))
        self.failureResultOf(waiting, ProtocolViolation)
        self.assertIsInstance(self.app.reason, ProtocolViolation)

    def test_abort_in_handshake_completed(self) -> None:
        """An application that does not like its peer aborts before anything it wrote is sent."""
        self.app.greeting = b"secret"
        self.app.handshakeCompleted = lambda: self.layer.abortConnection()
        self.connect(ready=False)
        self.layer.dataReceived(b"H")
        self.assertEqual((self.below.written, self.below.calls), (b"H", ["abortConnection"]))

    def test_error_in_connection_made(self) -> None:
        """What the application raises in connectionMade ends the connection."""

        def bug() -> None:
            raise KeyError("bug")

        self.app.connectionMade = bug
        self.connect(ready=False)
        self.assertEqual((self.below.calls, self.below.written), (["abortConnection"], b""))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

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


class FlowTests(SynchronousTestCase):
    """The two producers of the flow module."""

    def test_gate(self) -> None:
        """Only changes are told."""
        told: list[Any] = []
        gate = WriteGate(lambda: told.append(gate.paused), lambda: told.append("stop"))
        for call in (gate.resumeProducing, gate.pauseProducing, gate.pauseProducing):
            call()
        gate.resumeProducing()
        gate.stopProducing()
        self.assertEqual(told, [True, False, "stop"])

    def test_interfaces(self) -> None:
        """Both are push producers."""
        from twisted.internet.interfaces import IPushProducer

        verifyObject(IPushProducer, WriteGate(list, list))
        verifyObject(IPushProducer, PullAdapter(None, list, Clock()))

    def test_pull(self) -> None:
        """The producer is asked once a turn, not while paused, and never again once stopped."""
        asked: list[str] = []

        class Pulled:
            def resumeProducing(self) -> None:
                asked.append("pull")
                if len(asked) == 3:
                    adapter.pauseProducing()

            def stopProducing(self) -> None:
                asked.append("stop")

        clock = Clock()
        adapter = PullAdapter(Pulled(), list, clock)
        adapter.resumeProducing()
        adapter.resumeProducing()
        self.assertEqual(asked, [])
        clock.advance(0)
        clock.advance(0)
        self.assertEqual(asked, ["pull"] * 3)
        adapter.resumeProducing()
        adapter.stopProducing()
        clock.advance(0)
        self.assertEqual(asked, ["pull"] * 3 + ["stop"])
        self.assertEqual(clock.getDelayedCalls(), [])


class LayerFactoryTests(SynchronousTestCase):
    """What a client factory expects of the factory that wraps it."""

    def test_client_factory(self) -> None:
        """What a connector says is passed on to a client factory, and to no other one."""
        told: list[str] = []

        class Client(ClientFactory):
            protocol = Protocol

            def startedConnecting(self, connector: Any) -> None:
                told.append("started")

            def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
                told.append("failed")

            def clientConnectionLost(self, connector: Any, reason: Any) -> None:
                told.append("lost")

        for inner in (Client(), Factory.forProtocol(Protocol)):
            factory = PlainRecipe().client_factory(inner, Clock())
            factory.startedConnecting(None)
            factory.clientConnectionFailed(None, None)
            factory.clientConnectionLost(None, None)
        self.assertEqual(told, ["started", "failed", "lost"])

    def test_layer_knows_factory(self) -> None:
        """A layer's factory is the one that built it."""
        factory = PlainRecipe().server_factory(Factory.forProtocol(Protocol), Clock())
        layer = factory.buildProtocol(None)
        self.assertIs(layer.factory, factory)
        self.assertIsInstance(factory, LayerFactory)

    def test_pair(self) -> None:
        """Two lines are enough to run a protocol over a layer in memory."""
        client, server = Recorder(), Recorder()
        pair = MemoryPair()
        pair.connect(FramedLayer(client, pair.clock), FramedLayer(server, pair.clock))
        client.transport.write(b"hello")  # type: ignore[union-attr]
        pair.pump()
        self.assertEqual(server.data, b"hello")
