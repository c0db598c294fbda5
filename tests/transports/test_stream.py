"""Tests of :mod:`cloudconnect.transports.stream`, on both of its paths."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import (
    Aborted,
    HandshakeTimeout,
    KeyForgotten,
    Replayed,
    Tampered,
    Truncated,
)
from cloudconnect.keys import Secret
from cloudconnect.settings import (
    CLOSE_SECONDS,
    HANDSHAKE_SECONDS,
    HIGH_WATER,
    PING_SECONDS,
    RECORD_PAYLOAD_FAST,
    RECORD_PAYLOAD_MAX,
    RECORD_PAYLOAD_PLAIN,
    RECORD_SECONDS,
    SILENCE_SECONDS,
)
from cloudconnect.testing import (
    BufferRecorder,
    Flood,
    HalfCloseRecorder,
    Recorder,
    flood_bytes,
)
from cloudconnect.transports.stream import RecordStream, RecordStreamLayer
from cloudconnect.wire.records import (
    HEADER_SIZE,
    RecordHandshake,
    RecordOpener,
    RecordSealer,
    RecordType,
)
from tests.transports.sockets import REACTORS, Peer, Sockets

SECRET = bytes(range(32))
CONTEXT = b"tests of the stream"


def assert_forgotten(layer: Any) -> None:
    """Neither direction can seal or open anything any more."""
    for direction in (layer._session.sealer, layer._session.opener):
        assert direction._cipher is None, "a key is still there"
        try:
            direction._traffic.record_key()
        except KeyForgotten:
            continue
        raise AssertionError("a secret is still there")


# --- with a peer that is driven by hand ---------------------------------------------------------


class FarSide:
    """The other end of a stream: a plain socket and the record layer's pure core."""

    sealer: RecordSealer
    opener: RecordOpener

    def __init__(self, peer: Peer, initiator: bool = True, **options: Any) -> None:
        self.peer = peer
        secret = Secret(options.pop("secret", SECRET))
        context = options.pop("context", CONTEXT)
        self.handshake = RecordHandshake(initiator, secret, context, **options)

    def shake(self, behind: Callable[[], bytes] = bytes) -> None:
        """Go through the handshake as initiator; ``behind`` makes what follows in the same send."""
        self.peer.send(self.handshake.start())
        begin = self.handshake.receive(self.peer.read(64))
        self.sealer, self.opener = self.handshake.sealer, self.handshake.opener
        self.peer.send(begin + behind())

    def seal(self, data: bytes) -> bytes:
        """A DATA record."""
        return self.sealer.seal(RecordType.DATA, data)

    def open(self) -> tuple[RecordType, bytes]:
        """The next record."""
        header = self.peer.read(HEADER_SIZE)
        kind, length = self.opener.header(header)
        return kind, self.opener.open(header, self.peer.read(length))


class DrivenStream(SynchronousTestCase):
    """A stream that was accepted over TCP, on the fast path; its timers are on a ``Clock``."""

    own_socket = True
    payload = RECORD_PAYLOAD_FAST
    kind = "epoll"
    unix = False

    def setUp(self) -> None:
        self.sockets = Sockets(self.kind, self.unix)
        self.addCleanup(self.sockets.close)
        self.clock = Clock()
        self.warnings: list[Any] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: Any) -> None:
        if event["log_level"] >= LogLevel.warn:
            self.warnings.append(event)

    def accept(self, protocol: Recorder | None = None, **options: Any) -> FarSide:
        """A stream whose handshake has not begun, and its peer."""
        self.protocol = Recorder() if protocol is None else protocol
        stream = RecordStream(Secret(SECRET), CONTEXT, own_socket=self.own_socket, **options)
        self.layer = stream.layer(False, self.protocol, self.clock)
        return FarSide(self.sockets.accept(self.layer))

    def joined(self, protocol: Recorder | None = None, **options: Any) -> FarSide:
        """A stream whose handshake is over."""
        far = self.accept(protocol, **options)
        far.shake()
        self.until(lambda: self.protocol.handshakes)
        return far

    def until(self, condition: Callable[[], object]) -> None:
        def look() -> object:
            self.clock.advance(0)
            return condition()

        self.sockets.until(look)

    def settle(self) -> None:
        """Let everything happen that is under way."""
        for _ in range(10):
            self.clock.advance(0)
            self.sockets.turns(3)

    def pass_time(self, seconds: float) -> None:
        """Second by second."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            self.sockets.turns(3)

    def reason(self) -> BaseException:
        """Why the application lost its connection, once it has."""
        self.until(lambda: self.protocol.losses)
        self.settle()
        self.assertEqual(self.protocol.losses, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        assert self.protocol.reason is not None
        return self.protocol.reason

    @property
    def transport(self) -> Any:
        return self.protocol.transport

    def assert_failed(self, kind: type[Exception], data: bytes = b"") -> BaseException:
        """The connection failed, after ``data``; keys are gone, one line is in the log."""
        reason = self.reason()
        self.assertIsInstance(reason, kind)
        self.assertEqual(self.protocol.data, data)
        self.assertEqual(len(self.warnings), 1)
        if self.layer._session is not None:
            assert_forgotten(self.layer)
        return reason


class HandshakeTests(DrivenStream):
    """From the first byte to the first record."""

    def test_path(self) -> None:
        """The stream takes the path that it should, and says which."""
        self.accept()
        self.assertFalse(self.layer.owns_socket)
        self.setUp()
        self.joined()
        self.assertEqual(self.layer.owns_socket, self.own_socket)

    def test_records_behind_the_handshake(self) -> None:
        """Records that came in one piece with the end of the handshake are not lost."""
        far = self.accept()
        far.shake(lambda: far.seal(b"early ") + far.seal(flood_bytes(0, 30_000)))
        self.until(lambda: len(self.protocol.data) == 30_006)
        self.assertEqual(self.protocol.data, b"early " + flood_bytes(0, 30_000))

    def test_byte_by_byte(self) -> None:
        """The handshake and records may come one byte at a time."""
        far = self.accept()
        for octet in far.handshake.start():
            far.peer.send(bytes((octet,)))
            self.settle()
        begin = far.handshake.receive(far.peer.read(64))
        for octet in begin + far.handshake.sealer.seal(RecordType.DATA, b"slowly"):
            far.peer.send(bytes((octet,)))
            self.settle()
        self.until(lambda: self.protocol.data == b"slowly")

    def test_as_initiator(self) -> None:
        """The side that opens the connection speaks first."""
        self.protocol = Recorder()
        stream = RecordStream(Secret(SECRET), CONTEXT, connection=7, own_socket=self.own_socket)
        self.layer = stream.layer(True, self.protocol, self.clock)
        far = FarSide(self.sockets.open(self.layer), initiator=False)
        far.peer.send(far.handshake.receive(far.peer.read(36)))
        far.handshake.receive(far.peer.read(32))
        self.assertEqual(far.handshake.connection, 7)
        far.sealer, far.opener = far.handshake.sealer, far.handshake.opener
        far.peer.send(far.seal(b"to the initiator"))
        self.until(lambda: self.protocol.data == b"to the initiator")
        self.transport.write(b"from the initiator")
        self.assertEqual(far.open(), (RecordType.DATA, b"from the initiator"))
        self.assertEqual(self.layer.owns_socket, self.own_socket)

    def test_other_secret_or_context(self) -> None:
        """A peer of another secret or context is refused, and has proved nothing."""
        for options in ({"secret": bytes(32)}, {"context": b"another"}):
            self.setUp()
            far = self.accept()
            far.handshake = FarSide(far.peer, **options).handshake
            far.peer.send(far.handshake.start())
            self.assertRaises(Tampered, far.handshake.receive, far.peer.read(64))
            far.peer.send(bytes(32))
            self.assert_failed(Tampered)
            self.assertFalse(self.layer.peer_proved)
            self.assertEqual(self.protocol.handshakes, 0)

    def test_connection_number(self) -> None:
        """The number is learned from the peer, and judged once the peer has proved itself."""
        asked: list[int] = []

        def allow(number: int) -> bool:
            asked.append(number)
            return number != 6

        far = self.accept(allow=allow)
        far.handshake = FarSide(far.peer, connection=5).handshake
        far.peer.send(far.handshake.start())
        begin = far.handshake.receive(far.peer.read(64))
        self.settle()
        self.assertEqual(asked, [])
        far.peer.send(begin)
        self.until(lambda: self.protocol.handshakes)
        self.assertEqual((asked, self.layer.connection), ([5], 5))
        self.assertTrue(self.layer.peer_proved)

        self.setUp()
        far = self.accept(allow=allow)
        far.handshake = FarSide(far.peer, connection=6).handshake
        far.shake()
        self.assert_failed(Replayed)
        self.assertEqual((asked, self.layer.connection), ([5, 6], 6))
        self.assertTrue(self.layer.peer_proved)

    def test_recorded_handshake(self) -> None:
        """A recorded handshake, played again, proves nothing."""
        far = self.accept()
        hello = far.handshake.start()
        far.peer.send(hello)
        begin = far.handshake.receive(far.peer.read(64))
        self.setUp()
        far = self.accept()
        far.peer.send(hello + begin)
        self.assert_failed(Tampered)
        self.assertFalse(self.layer.peer_proved)

    def test_silent_peer(self) -> None:
        """A peer that says nothing is given up."""
        self.accept()
        self.pass_time(HANDSHAKE_SECONDS - 1)
        self.assertEqual(self.protocol.losses, 0)
        self.pass_time(1)
        self.assert_failed(HandshakeTimeout)

    def test_peer_leaves_at_once(self) -> None:
        """A peer that goes right after the handshake has been cut off, not ended."""
        far = self.accept()
        far.shake()
        far.peer.close()
        self.assertIsInstance(self.reason(), Truncated)

    def test_peer_leaves_in_the_handshake(self) -> None:
        """So has one that goes before."""
        far = self.accept()
        far.peer.send(far.handshake.start()[:20])
        far.peer.close()
        self.assertIsInstance(self.reason(), Truncated)


class RecordTests(DrivenStream):
    """Records, and what they do to the application."""

    def test_size_of_records(self) -> None:
        """Bulk goes in records of the path's size, or of the size that was asked for."""
        for payload in (None, 5000):
            self.setUp()
            far = self.joined(payload=payload)
            size = payload or self.payload
            data = flood_bytes(0, 3 * size + 1)
            self.transport.write(data)
            records = [far.open()[1] for _ in range(4)]
            self.assertEqual(b"".join(records), data)
            self.assertEqual([len(r) for r in records], [size, size, size, 1])

    def test_largest_records(self) -> None:
        """A peer may send the largest records, whatever this side's size."""
        far = self.joined()
        data = flood_bytes(0, RECORD_PAYLOAD_MAX)
        for _ in range(3):
            far.peer.send(far.seal(data))
        self.until(lambda: len(self.protocol.data) == 3 * len(data))
        self.assertEqual(self.protocol.data, data * 3)

    def test_views(self) -> None:
        """A buffer receiver is handed the payload where it was opened; nothing is allocated."""
        protocol = BufferRecorder()
        seen: list[Any] = []
        received = protocol.bufferReceived

        def buffer_received(buffer: memoryview) -> None:
            seen.append(buffer.obj)
            received(buffer)

        protocol.bufferReceived = buffer_received  # type: ignore[method-assign]
        far = self.joined(protocol)
        for size in (10, 300_000, 20):
            far.peer.send(far.seal(flood_bytes(0, size)))
        self.until(lambda: len(protocol.data) == 300_030)
        self.assertEqual(len({id(obj) for obj in seen}), 1)

    def test_bytes(self) -> None:
        """Any other protocol is handed bytes of its own."""
        far = self.joined()
        kept: list[bytes] = []
        self.protocol.on_data = kept.append
        for size in (10, 300_000, 20):
            far.peer.send(far.seal(flood_bytes(size, size)))
        self.until(lambda: len(kept) == 3)
        self.assertEqual(kept, [flood_bytes(size, size) for size in (10, 300_000, 20)])

    def test_buffers_that_are_not_bytes(self) -> None:
        """bytearray and memoryview may be written, also of other items than bytes."""
        far = self.joined()
        self.transport.write(bytearray(b"one "))
        self.transport.writeSequence(
            [memoryview(b"two "), memoryview(struct.pack("I", 3)).cast("I")]
        )
        data = b""
        while len(data) < 12:
            data += far.open()[1]
        self.assertEqual(data, b"one two " + struct.pack("I", 3))

    def test_rekey_by_bytes(self) -> None:
        """Keys change under way, in both directions, and nothing is lost by it."""
        far = self.joined()
        assert self.layer._session is not None
        self.layer._session.sealer._rekey_bytes = 100_000
        far.sealer._rekey_bytes = 100_000
        data = flood_bytes(0, 250_000)
        for _ in range(4):
            self.transport.write(data)
        received = b""
        while len(received) < 1_000_000:
            kind, payload = far.open()
            received += payload if kind is RecordType.DATA else b""
        self.assertEqual(received, data * 4)
        self.assertGreater(far.opener.epoch, 0)
        for _ in range(3):
            far.peer.send(far.sealer.rekey() + far.seal(b"next"))
        self.until(lambda: self.protocol.data == b"nextnextnext")

    def test_rekey_by_age(self) -> None:
        """Keys of an idle connection change too: PINGs use them."""
        far = self.joined()
        kinds = []
        for _ in range(33):
            far.peer.send(far.sealer.seal(RecordType.PING, bytes(8)))
            self.pass_time(PING_SECONDS)
        self.settle()
        while far.peer.take() or far.peer.received:
            kinds.append(far.open()[0])
        self.assertEqual(kinds.count(RecordType.REKEY), 1)
        self.assertEqual(set(kinds), {RecordType.REKEY, RecordType.PING, RecordType.PONG})
        self.assertEqual(far.opener.epoch, 1)

    def test_clean_end(self) -> None:
        """END for END: both have said all, and the connection closes."""
        far = self.joined()
        far.peer.send(far.seal(b"all") + far.sealer.end())
        self.assertEqual(far.open()[0], RecordType.END)
        self.assertEqual(far.peer.read_end(), b"")
        self.assertTrue(far.peer.ended)
        far.peer.close()
        self.assertIsInstance(self.reason(), ConnectionDone)
        self.assertEqual((self.protocol.data, self.warnings), (b"all", []))

    def test_end_after_what_was_written(self) -> None:
        """Closing sends everything first, to a peer that reads late."""
        far = self.joined()
        data = flood_bytes(0, 9_000_000)
        self.transport.write(data)
        self.transport.loseConnection()
        self.settle()
        received = b""
        while (record := far.open())[0] is not RecordType.END:
            received += record[1]
        self.assertEqual(received, data)
        self.assertEqual(self.protocol.losses, 0)
        far.peer.send(far.sealer.end())
        far.peer.close()
        self.assertIsInstance(self.reason(), ConnectionDone)

    def test_peer_that_does_not_close(self) -> None:
        """After END for END, nothing that happens to the connection below matters any more."""
        far = self.joined()
        far.peer.send(far.sealer.end())
        self.assertEqual(far.open()[0], RecordType.END)
        self.pass_time(CLOSE_SECONDS)
        self.assertIsInstance(self.reason(), ConnectionDone)

    def test_abort_received(self) -> None:
        """A peer that gives up is no attack, and its reason is told."""
        far = self.joined()
        far.peer.send(far.seal(b"so far") + far.sealer.seal(RecordType.ABORT, b"\x01\x02"))
        reason: Any = self.assert_failed(Aborted, b"so far")
        self.assertEqual(reason.code, 0x0102)

    def test_give_up(self) -> None:
        """Giving up drops what is queued, tells the peer why, and closes."""
        far = self.joined()
        self.transport.write(b"before")
        self.assertEqual(far.open()[1], b"before")
        flood = Flood(self.transport, -1)
        flood.start()
        self.layer.give_up(77)
        self.layer.give_up(78)
        self.assertEqual(flood.calls, ["stop"])
        self.assertEqual(far.open(), (RecordType.ABORT, (77).to_bytes(2, "big")))
        self.assertEqual(far.peer.read_end(), b"")
        far.peer.close()
        self.assertIsInstance(self.reason(), ConnectionAborted)
        self.assertRaises(OverflowError, self.layer.give_up, 1 << 16)

    def test_give_up_behind_a_queue(self) -> None:
        """A record that is half sent is completed, the rest of the queue is not."""
        far = self.joined()
        self.transport.write(flood_bytes(0, 20_000_000))
        self.settle()
        self.layer.give_up(5)
        received = 0
        while (record := far.open())[0] is RecordType.DATA:
            received += len(record[1])
        self.assertEqual(record, (RecordType.ABORT, b"\x00\x05"))
        if self.own_socket:
            self.assertLess(received, 20_000_000)
        far.peer.close()
        self.assertIsInstance(self.reason(), ConnectionAborted)

    def test_give_up_and_a_deaf_peer(self) -> None:
        """A peer that does not read is not waited for."""
        self.joined()
        self.transport.write(bytes(20_000_000))
        self.settle()
        self.layer.give_up(5)
        self.pass_time(CLOSE_SECONDS)
        self.assertIsInstance(self.reason(), ConnectionAborted)

    def test_give_up_early(self) -> None:
        """Before the handshake there is nothing to say."""
        far = self.accept()
        self.layer.give_up(5)
        self.assertEqual(far.peer.read_end(), b"")
        self.assertIsInstance(self.reason(), ConnectionAborted)


class AttackTests(DrivenStream):
    """What somebody on the way can do, and how it ends."""

    def attacks(self) -> Iterator[tuple[str, Callable[[FarSide], bytes]]]:
        """What follows one good record."""

        def flipped(far: FarSide, at: int, record: bytes = b"") -> bytes:
            changed = bytearray(record or far.seal(b"bad one"))
            changed[at] ^= 1
            return bytes(changed) + (b"" if record else far.seal(b"later"))

        def again(far: FarSide) -> bytes:
            record = far.seal(b"once")
            return record + record

        def swapped(far: FarSide) -> bytes:
            first, second = far.seal(b"first"), far.seal(b"second")
            return second + first

        def left_out(far: FarSide) -> bytes:
            far.seal(b"left out")
            return far.seal(b"next")

        def other_connection(far: FarSide) -> bytes:
            near, there = (RecordHandshake(i, Secret(SECRET), CONTEXT) for i in (True, False))
            there.receive(near.receive(there.receive(near.start())))
            near.sealer.seal(RecordType.DATA, b"good")
            return near.sealer.seal(RecordType.DATA, b"spliced")

        def mirrored(far: FarSide) -> bytes:
            self.transport.write(b"one")
            self.transport.write(b"two")
            self.settle()
            far.peer.take()
            return far.peer.received

        def false_end(far: FarSide) -> bytes:
            far.sealer.data_bytes += 1
            return far.sealer.end()

        def after_end(far: FarSide) -> bytes:
            end = far.sealer.end()
            far.sealer.ended = False
            return end + far.seal(b"after")

        yield "tag", lambda far: flipped(far, -1)
        yield "payload", lambda far: flipped(far, HEADER_SIZE)
        yield "type", lambda far: flipped(far, 0)
        yield "flags", lambda far: flipped(far, 1)
        yield "epoch", lambda far: flipped(far, 3)
        yield "length", lambda far: flipped(far, 4)
        yield "shorter", lambda far: flipped(far, 7, far.seal(b"odd size!"))
        yield "unknown type", lambda _: b"\xff" * 40
        yield "end", lambda far: flipped(far, -3, far.sealer.end())
        yield "again", again
        yield "left out", left_out
        yield "swapped", swapped
        yield "spliced", other_connection
        yield "mirrored", mirrored
        yield "false end", false_end
        yield "after end", after_end

    def test_one_uniform_close(self) -> None:
        """Whatever was done: what came before counts, nothing else does, and it ends in one way."""
        for name, attack in self.attacks():
            self.setUp()
            far = self.joined(HalfCloseRecorder())
            far.peer.send(far.seal(b"good"))
            self.until(lambda: self.protocol.data)
            far.peer.take()
            octets = attack(far)
            far.peer.received = b""
            far.peer.send(octets)
            good = {"again": b"goodonce"}.get(name, b"good")
            self.assert_failed(Tampered, good)
            self.assertEqual(far.peer.read_end(), b"", name)
            self.assertTrue(far.peer.was_reset or self.unix, name)

    def test_nothing_after_a_bad_record(self) -> None:
        """A good record behind a bad one, in the same read, is not looked at."""
        far = self.joined()
        good, bad, later = (bytearray(far.seal(text)) for text in (b"good", b"bad", b"later"))
        bad[HEADER_SIZE] ^= 0x80
        far.peer.send(bytes(good + bad + later))
        self.assert_failed(Tampered, b"good")

    def test_large_bad_record(self) -> None:
        """Nothing of a large record is delivered before its tag was seen."""
        for protocol in (Recorder(), BufferRecorder()):
            self.setUp()
            far = self.joined(protocol)
            record = bytearray(far.seal(bytes(RECORD_PAYLOAD_MAX)))
            record[-1] ^= 1
            far.peer.send(bytes(record[:-1]))
            self.settle()
            self.assertEqual((protocol.data, protocol.losses), (b"", 0))
            far.peer.send(bytes(record[-1:]))
            self.assert_failed(Tampered)

    def test_cut(self) -> None:
        """An end of the connection without END is a cut, wherever it comes."""
        for make in (
            lambda far: b"",
            lambda far: far.seal(b"data"),
            lambda far: far.seal(b"data") + far.seal(b"more")[:3],
            lambda far: far.seal(b"data") + far.seal(b"more")[:-1],
        ):
            self.setUp()
            far = self.joined()
            octets = make(far)
            far.peer.send(octets)
            self.settle()
            far.peer.close()
            self.assertIsInstance(self.reason(), Truncated)
            self.assertEqual(self.protocol.data, b"data" if octets else b"")

    def test_cut_after_one_end(self) -> None:
        """One side's END alone is not a clean end for the other."""
        far = self.joined()
        self.transport.loseConnection()
        self.assertEqual(far.open()[0], RecordType.END)
        far.peer.close()
        self.assertIsInstance(self.reason(), Truncated)

    def test_pings_without_end(self) -> None:
        """A peer that asks and never reads does not make us hold more and more."""
        far = self.joined()
        ping_size, count, sent = 32, 2_000_000, 0
        while sent < count:
            pings = b"".join(
                far.sealer.seal(RecordType.PING, n.to_bytes(8, "big")) for n in range(3000)
            )
            view = memoryview(pings)
            stuck = 0
            while view and stuck < 200:
                try:
                    view = view[far.peer.socket.send(view) :]
                    stuck = 0
                except BlockingIOError:
                    stuck += 1
                self.sockets.turns(1)
                self.clock.advance(0)
            sent += len(pings) // ping_size
            if view:
                break
        self.assertLess(sent, count)
        held = self.layer._session.writer.held if self.layer._session else 0
        self.assertLess(held, 2 * HIGH_WATER)
        self.assertEqual(self.protocol.losses, 0)


class LivenessTests(DrivenStream):
    """Times, on both paths."""

    def test_ping(self) -> None:
        """An idle stream sends a PING each PING_SECONDS; what is sent puts it off."""
        far = self.joined()
        self.pass_time(PING_SECONDS)
        self.assertEqual(far.open()[0], RecordType.PING)
        self.pass_time(PING_SECONDS - 1)
        self.transport.write(b"data")
        self.assertEqual(far.open()[0], RecordType.DATA)
        self.pass_time(PING_SECONDS - 1)
        self.assertFalse(far.peer.readable())
        self.pass_time(1)
        self.assertEqual(far.open()[0], RecordType.PING)

    def test_pong(self) -> None:
        """A PING is answered with its own octets; a PONG with nothing."""
        far = self.joined()
        far.peer.send(far.sealer.seal(RecordType.PING, b"question"))
        self.assertEqual(far.open(), (RecordType.PONG, b"question"))
        far.peer.send(far.sealer.seal(RecordType.PONG, b"unasked!"))
        self.settle()
        self.assertFalse(far.peer.readable())
        self.assertEqual(self.protocol.data, b"")

    def test_silence(self) -> None:
        """A peer that says nothing for SILENCE_SECONDS is gone; a PONG is enough."""
        far = self.joined()
        self.pass_time(SILENCE_SECONDS - 1)
        far.peer.send(far.sealer.seal(RecordType.PONG, bytes(8)))
        self.settle()
        self.pass_time(SILENCE_SECONDS - 1)
        self.assertEqual(self.protocol.losses, 0)
        self.pass_time(1)
        self.assert_failed(Truncated)

    def test_record_that_stops(self) -> None:
        """A record that has started and stops is a cut after RECORD_SECONDS."""
        for size, part in ((100, 50), (100, 3), (RECORD_PAYLOAD_MAX, RECORD_PAYLOAD_MAX // 2)):
            self.setUp()
            far = self.joined()
            far.peer.send(far.seal(b"whole") + far.seal(bytes(size))[:part])
            self.settle()
            self.pass_time(RECORD_SECONDS - 1)
            self.assertEqual(self.protocol.losses, 0)
            # what lies below the mark at which the kernel wakes us is looked for first
            self.pass_time(RECORD_SECONDS + 1)
            self.assert_failed(Truncated, b"whole")

    def test_record_that_trickles(self) -> None:
        """Single bytes do not keep a record alive."""
        far = self.joined()
        record = far.seal(bytes(1000))
        far.peer.send(record[:10])
        for n in range(2 * int(RECORD_SECONDS)):
            if self.protocol.losses:
                break
            far.peer.send(record[10 + n : 11 + n])
            self.pass_time(1)
        self.assert_failed(Truncated)

    def test_slow_line(self) -> None:
        """A large record over a slow line arrives, however long it takes."""
        far = self.joined()
        data = flood_bytes(0, RECORD_PAYLOAD_MAX)
        view = memoryview(far.seal(data))
        while view:
            far.peer.send(view[:RECORD_PAYLOAD_PLAIN])
            view = view[RECORD_PAYLOAD_PLAIN:]
            self.settle()
            self.pass_time(RECORD_SECONDS - 1)
        self.until(lambda: len(self.protocol.data) == len(data))
        self.assertEqual(self.protocol.data, data)

    def test_application_that_pauses(self) -> None:
        """That the application does not read is not held against the peer."""
        far = self.joined()
        self.transport.pauseProducing()
        record = far.seal(flood_bytes(0, 500_000))
        far.peer.send(record[:100_000])
        self.pass_time(5 * SILENCE_SECONDS)
        self.assertEqual((self.protocol.losses, self.protocol.data), (0, b""))
        self.transport.resumeProducing()
        far.peer.send(record[100_000:])
        self.until(lambda: len(self.protocol.data) == 500_000)
        self.assertEqual(self.protocol.data, flood_bytes(0, 500_000))

    def test_peer_that_does_not_answer_the_end(self) -> None:
        """A close waits for the peer's END, for a time."""
        far = self.joined()
        self.transport.loseConnection()
        self.assertEqual(far.open()[0], RecordType.END)
        self.pass_time(CLOSE_SECONDS - 1)
        self.assertEqual(self.protocol.losses, 0)
        self.pass_time(1)
        self.assert_failed(Truncated)


class FlowTests(DrivenStream):
    """Back-pressure, in both directions."""

    def test_peer_that_does_not_read(self) -> None:
        """What an honest producer makes us hold is bounded."""
        far = self.joined()
        flood = Flood(self.transport, 100_000_000, size=1 << 20)
        flood.start()
        self.settle()
        self.assertEqual(flood.calls[-1], "pause")
        session = self.layer._session
        assert session is not None
        self.assertLessEqual(session.writer.held, HIGH_WATER + (1 << 20) + 100_000)
        left = flood.left
        self.settle()
        self.assertEqual(flood.left, left)
        received = 0
        while flood.left == left:
            received += len(far.open()[1])
        self.assertGreater(received, 0)

    def test_application_that_does_not_read(self) -> None:
        """What a peer can make us hold is bounded, too."""
        far = self.joined()
        self.transport.pauseProducing()
        sent = 0
        record = far.seal(bytes(50_000))
        try:
            while sent < 100_000_000:
                sent += far.peer.socket.send(record)
                record = far.seal(bytes(50_000))
                self.sockets.turns(1)
        except BlockingIOError:
            pass
        self.assertLess(sent, 100_000_000)
        self.assertEqual(self.protocol.data, b"")

    def test_pause_and_resume_inside_a_delivery(self) -> None:
        """Several records of one read: each is one delivery, and none comes while paused."""
        far = self.joined()
        self.protocol.on_data = lambda _: self.transport.pauseProducing()
        far.peer.send(b"".join(far.seal(bytes((n,)) * 10) for n in range(5)))
        for n in range(5):
            self.until(lambda n=n: len(self.protocol.sizes) == n + 1)
            self.settle()
            self.assertEqual(len(self.protocol.sizes), n + 1)
            self.transport.resumeProducing()
        self.assertEqual(self.protocol.sizes, [10] * 5)

    def test_abort_inside_a_delivery(self) -> None:
        """What stands behind it in the same read is not delivered."""
        far = self.joined()
        self.protocol.on_data = lambda _: self.transport.abortConnection()
        far.peer.send(far.seal(b"one") + far.seal(b"two"))
        self.assertIsInstance(self.reason(), ConnectionAborted)
        self.assertEqual(self.protocol.data, b"one")


class FastPathTests(DrivenStream):
    """What only a stream that owns its socket can do."""

    def test_slow_peer_at_the_end(self) -> None:
        """A peer that still has much to read is given the time for it."""
        far = self.joined()
        self.transport.write(flood_bytes(0, 900_000))
        self.transport.loseConnection()
        self.pass_time(3 * CLOSE_SECONDS)
        self.assertEqual(self.protocol.losses, 0)
        received = b""
        while (record := far.open())[0] is not RecordType.END:
            received += record[1] if record[0] is RecordType.DATA else b""
        self.assertEqual(received, flood_bytes(0, 900_000))
        far.peer.send(far.sealer.end())
        far.peer.close()
        self.assertIsInstance(self.reason(), ConnectionDone)


class PlainPath:
    """Turns a class of tests to the plain path."""

    own_socket = False
    payload = RECORD_PAYLOAD_PLAIN


class PlainHandshakeTests(PlainPath, HandshakeTests):
    """The same on the plain path."""


class PlainRecordTests(PlainPath, RecordTests):
    """The same on the plain path."""


class PlainAttackTests(PlainPath, AttackTests):
    """The same on the plain path."""


class PlainLivenessTests(PlainPath, LivenessTests):
    """The same on the plain path."""


class PlainFlowTests(PlainPath, FlowTests):
    """The same on the plain path."""

    def test_as_fast_as_the_transport_takes_it(self) -> None:
        """What the transport below does not take yet is not sealed, and so not held twice."""
        far = self.joined()
        self.transport.write(flood_bytes(0, 20_000_000))
        self.settle()
        below: Any = self.layer.transport
        self.assertLess(len(below.dataBuffer) + below._tempDataLen, 1_000_000)
        self.assertEqual(self.protocol.losses, 0)
        received = b""
        while len(received) < 20_000_000:
            received += far.open()[1]
        self.assertEqual(received, flood_bytes(0, 20_000_000))


class UNIXRecordTests(RecordTests):
    """Records on the fast path over a UNIX socket."""

    unix = True


class UNIXLivenessTests(LivenessTests):
    """Times on the fast path over a UNIX socket."""

    unix = True


# --- reactors, and the description --------------------------------------------------------------


class ReactorTests(SynchronousTestCase):
    """Two streams on the fast path, on each reactor that watches descriptors."""

    @contextmanager
    def joined(self, kind: str, unix: bool) -> Iterator[tuple[Sockets, Clock, Any, Any]]:
        sockets, clock = Sockets(kind, unix), Clock()
        stream = RecordStream(Secret(SECRET), CONTEXT)
        client, server = Recorder(), Recorder()
        near, far = stream.layer(True, client, clock), stream.layer(False, server, clock)
        try:
            sockets.join(near, far)
            sockets.until(lambda: client.handshakes and server.handshakes)
            self.assertTrue(near.owns_socket and far.owns_socket)
            yield sockets, clock, client, server
        finally:
            sockets.close()

    def test_queue(self) -> None:
        """What waits in a stream is counted; a producer can be paused earlier than by itself."""
        with self.joined("epoll", False) as (sockets, clock, client, server):
            near, far = client.transport, server.transport
            far.pauseProducing()
            near.limit_queue(100_000)
            # What is queued when it is paused; the kernel may take of that whenever it likes.
            paused: list[tuple[int, int]] = []

            class Watched(Flood):
                def pauseProducing(self) -> None:
                    paused.append((near.waiting, near.unsent()))
                    super().pauseProducing()

            flood = Watched(near, 40_000_000, size=50_000)
            flood.start()
            sockets.turns(50)
            self.assertEqual(flood.calls[-1], "pause")
            for waiting, unsent in paused:
                self.assertTrue(100_000 < waiting <= 160_000, waiting)
                self.assertGreaterEqual(unsent, waiting)
            self.assertLessEqual(near.waiting, 160_000)
            self.assertGreater(near.unsent(), near.waiting)
            far.resumeProducing()

            def all_there() -> bool:
                clock.advance(0)
                return len(server.data) == 40_000_000

            sockets.until(all_there)
            self.assertEqual(near.waiting, 0)

    def test_both_directions(self) -> None:
        """Bulk in both directions at once, then a clean end."""
        for kind in REACTORS:
            for unix in (False, True):
                with self.joined(kind, unix) as (sockets, _, client, server):
                    for protocol in (client, server):
                        Flood(protocol.transport, 5_000_000, size=200_000).start()
                    sockets.until(
                        lambda c=client, s=server: len(c.data) == len(s.data) == 5_000_000
                    )
                    self.assertEqual(client.data, flood_bytes(0, 5_000_000))
                    self.assertEqual(server.data, flood_bytes(0, 5_000_000))
                    client.transport.loseConnection()
                    sockets.until(lambda c=client, s=server: c.losses and s.losses)
                    self.assertIsInstance(client.reason, ConnectionDone)
                    self.assertIsInstance(server.reason, ConnectionDone)


class RecipeTests(SynchronousTestCase):
    """The public description."""

    def test_no_secret_shows(self) -> None:
        """Neither the secret nor the context is printed."""
        stream = RecordStream(Secret(b"canary" + bytes(26)), b"a context")
        self.assertNotIn("canary", repr(stream))
        self.assertNotIn("a context", repr(stream))

    def test_payload_out_of_bounds(self) -> None:
        """A record has 1 byte to 1 MiB of payload."""
        for payload in (0, -1, RECORD_PAYLOAD_MAX + 1):
            self.assertRaises(ValueError, RecordStream, Secret(SECRET), CONTEXT, payload=payload)
        RecordStream(Secret(SECRET), CONTEXT, payload=RECORD_PAYLOAD_MAX)

    def test_connection_out_of_bounds(self) -> None:
        """A connection's number has 32 bits."""
        stream = RecordStream(Secret(SECRET), CONTEXT, connection=1 << 32)
        self.assertRaises(ValueError, stream.layer, True, Recorder(), Clock())

    def test_forgotten_secret(self) -> None:
        """A secret that was forgotten opens no connection."""
        secret = Secret(SECRET)
        layer = RecordStream(secret, CONTEXT).layer(False, Recorder(), Clock())
        self.assertIsInstance(layer, RecordStreamLayer)
        secret.forget()
        sockets = Sockets()
        self.addCleanup(sockets.close)
        far = FarSide(sockets.accept(layer))
        far.peer.send(far.handshake.start())
        self.assertEqual(far.peer.read_end(), b"")
