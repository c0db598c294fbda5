"""Tests for cloudconnect.wire.channel."""

from __future__ import annotations

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import (
    Aborted,
    CloudConnectError,
    FrameMismatch,
    NoSpace,
    ProtocolViolation,
    ProviderNotTrusted,
    Refused,
    StoredDataDamaged,
    Truncated,
    UsageError,
    error_classes,
)
from cloudconnect.keys import Subkey
from cloudconnect.testing import PipePair
from cloudconnect.wire import channel
from cloudconnect.wire.channel import FAIL_TEXT_MAX, FrameChannel, failure, raise_failure
from cloudconnect.wire.frames import (
    Coding,
    Frame,
    FrameKind,
    FrameReader,
    FrameWriter,
    StoredBlob,
    encode_body,
    unpack_chunk,
)


class ChannelTests(SynchronousTestCase):
    """Two channels over an in-memory pipe that is wide enough for one thread."""

    def setUp(self) -> None:
        self.pipes = PipePair(1 << 22)
        there, back = Subkey(b"t" * 32), Subkey(b"b" * 32)
        self.writer = FrameWriter(there, 0)
        self.left = FrameChannel(self.pipes.left, self.writer, FrameReader(back, 0))
        self.right = FrameChannel(self.pipes.right, FrameWriter(back, 0), FrameReader(there, 0))

    def test_whole_dialogue(self) -> None:
        """Frames and chunks arrive in order, totals agree, and both ends are seen."""
        data = b"stored" * 1000
        stored = StoredBlob(bytes(32), 7000, Coding.ZSTD, blake3(data).digest(), data)
        self.left.send(FrameKind.GET, 1, bytes(64))
        self.left.send_chunk(2, stored)
        self.left.finish()
        self.assertEqual(self.right.receive().kind, FrameKind.GET)
        self.assertEqual(unpack_chunk(self.right.receive().body), stored)
        self.assertEqual(self.right.receive().kind, FrameKind.TOTALS)
        self.right.expect_end()
        self.right.finish()
        self.left.expect_end()
        self.assertEqual(self.left.bytes_sent, self.right.bytes_received)
        self.assertEqual(self.right.bytes_sent, self.left.bytes_received)

    def test_ending(self) -> None:
        """Who waits for the last words hears when nothing but the ends is due, and only then."""
        heard: list[bool] = []

        def made() -> FrameChannel:
            key = Subkey(b"k" * 32)
            pipe = PipePair(1 << 10).left
            return FrameChannel(
                pipe, FrameWriter(key, 0), FrameReader(key, 0), lambda: heard.append(True)
            )

        made().finish()  # the peer may still have much to say
        self.assertEqual([], heard)
        made().finish(last=True)
        self.assertEqual([True], heard)

    def test_no_totals(self) -> None:
        """An end of the pipe without totals is truncation, however proper the pipe's own end."""
        self.left.send(FrameKind.GET, 1, bytes(32))
        self.pipes.left.finish()
        self.right.receive()
        self.assertRaises(Truncated, self.right.receive)

    def test_end_inside_frame(self) -> None:
        """So is one inside a frame."""
        self.pipes.left.write(b"".join(self.writer.encode(FrameKind.GET, 1, bytes(32)))[:-1])
        self.pipes.left.finish()
        self.assertRaises(Truncated, self.right.receive)

    def test_wrong_totals(self) -> None:
        """Totals that do not match what came are a mismatch."""
        for totals in ({"bytes": 0, "frames": 1}, {"bytes": 60, "frames": 0}):
            self.setUp()
            self.left.send(FrameKind.GET, 1, bytes(32))
            self.left.send(FrameKind.TOTALS, 0, encode_body(**totals))
            self.right.receive()
            self.assertRaises(FrameMismatch, self.right.receive)

    def test_right_totals_by_hand(self) -> None:
        """Totals count the bytes and frames before them (60 bytes: 12 + 32 + 16)."""
        self.left.send(FrameKind.GET, 1, bytes(32))
        self.left.send(FrameKind.TOTALS, 0, encode_body(bytes=60, frames=1))
        self.right.receive()
        self.assertEqual(self.right.receive().kind, FrameKind.TOTALS)

    def test_bad_totals(self) -> None:
        """Totals with other fields are a violation."""
        self.left.send(FrameKind.TOTALS, 0, encode_body(bytes=0))
        self.assertRaises(ProtocolViolation, self.right.receive)

    def test_after_totals(self) -> None:
        """Nothing may come after the totals."""
        for end in (FrameChannel.receive, FrameChannel.expect_end):
            self.setUp()
            self.left.send(FrameKind.TOTALS, 0, encode_body(bytes=0, frames=0))
            self.left.send(FrameKind.GET, 1, bytes(32))
            self.assertEqual(self.right.receive().kind, FrameKind.TOTALS)
            self.assertRaises(ProtocolViolation, end, self.right)

    def test_end_expected(self) -> None:
        """Where the end is due, another frame is a violation, and a FAIL is that error."""
        self.left.send(FrameKind.GET, 1, bytes(32))
        self.assertRaises(ProtocolViolation, self.right.expect_end)
        self.left.send_failure(0, NoSpace("full"))
        self.assertRaises(NoSpace, self.right.expect_end)

    def test_good_before_bad(self) -> None:
        """A good frame is delivered although the bytes behind it are bad; then the error, again."""
        good = b"".join(self.writer.encode(FrameKind.GET, 1, bytes(32)))
        bad = b"".join(self.writer.encode(FrameKind.GET, 2, bytes(32)))[:-1] + b"?"
        self.pipes.left.write(good + bad)
        self.assertEqual(self.right.receive().request, 1)
        for _ in range(2):
            self.assertRaises(FrameMismatch, self.right.receive)

    def test_give_up(self) -> None:
        """The peer learns why, then the end; what it still sends is dropped, changed or not."""
        self.left.send(FrameKind.GET, 1, bytes(32))
        self.pipes.left.write(b"junk")
        self.pipes.left.finish()
        self.right.give_up(NoSpace("full"))
        frame = self.left.receive()
        self.assertEqual((frame.kind, frame.request), (FrameKind.FAIL, 0))
        self.assertEqual(str(failure(frame)), "full")
        self.left.expect_end()

    def test_give_up_on_a_dead_pipe(self) -> None:
        """Where nobody can be told, nothing is raised: the first error is the one that counts."""
        self.right.abort(Aborted("gone"))
        self.right.give_up(NoSpace("full"))
        self.assertRaises(Aborted, self.right.receive)

    def test_give_up_is_bounded(self) -> None:
        """A peer that goes on sending without end is not listened to without end."""
        self.patch(channel, "DROPPED_MAX", 10)
        for _ in range(3):
            self.pipes.left.write(bytes(6))
        self.right.give_up(NoSpace("full"))
        self.assertEqual(self.pipes.right.read(), bytes(6))

    def test_abort(self) -> None:
        """After an abort its reason is what both calls raise."""
        self.left.abort(Aborted("enough", 3))
        self.assertRaises(Aborted, self.left.send, FrameKind.GET, 1, bytes(32))
        self.assertRaises(Aborted, self.left.receive)


class FailureTests(SynchronousTestCase):
    """Errors cross the wire by their reason."""

    def sent(self, error: Exception) -> CloudConnectError:
        pipes = PipePair(1 << 20)
        key = Subkey(bytes(32))
        left = FrameChannel(pipes.left, FrameWriter(key, 0), FrameReader(key, 0))
        right = FrameChannel(pipes.right, FrameWriter(key, 0), FrameReader(key, 0))
        left.send_failure(5, error)
        frame = right.receive()
        self.assertEqual((frame.kind, frame.request), (FrameKind.FAIL, 5))
        return failure(frame)

    def test_by_reason(self) -> None:
        """A peer's error arrives as the class of its reason, security errors as such."""
        for error in (
            NoSpace("a"),
            StoredDataDamaged("b"),
            Refused("c"),
            Aborted("d"),
            FrameMismatch(""),
        ):
            got = self.sent(error)
            self.assertIs(type(got), type(error))
            if str(error) and not isinstance(error, Aborted):
                self.assertEqual(str(got), str(error))

    def test_every_class(self) -> None:
        """Every class of error can be rebuilt from a FAIL; what is local there is Refused here."""
        for reason, cls in error_classes().items():
            body = encode_body(reason=reason, text="why")
            got = failure(Frame(FrameKind.FAIL, 0, 0, 1, body))
            self.assertIn(type(got), (cls, Refused))
            self.assertEqual(str(got), "why")
        self.assertIs(type(self.sent(UsageError("x"))), Refused)
        self.assertIs(type(self.sent(ProviderNotTrusted("x"))), ProviderNotTrusted)

    def test_unexpected(self) -> None:
        """The text of an unexpected error stays here."""
        got = self.sent(KeyError("canary"))
        self.assertIs(type(got), Refused)
        self.assertNotIn("canary", str(got))

    def test_long_text(self) -> None:
        """A long text is cut, and one that UTF-8 cannot hold is made to fit."""
        self.assertEqual(len(str(self.sent(NoSpace("\U0001f4be" * 5000)))), FAIL_TEXT_MAX)
        self.assertEqual(str(self.sent(NoSpace("a\udc80"))), "a?")

    def test_unknown(self) -> None:
        """An unknown reason is Refused; a FAIL with other fields is a violation."""
        frame = Frame(FrameKind.FAIL, 0, 0, 1, encode_body(reason="new", text="t"))
        self.assertRaises(Refused, raise_failure, frame)
        for fields in (
            {"reason": "x"},
            {"reason": 1, "text": ""},
            {"reason": "", "text": "", "c": 1},
        ):
            frame = Frame(FrameKind.FAIL, 0, 0, 1, encode_body(**fields))
            self.assertRaises(ProtocolViolation, raise_failure, frame)
