"""Tests of :mod:`cloudconnect.transports.closing`."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from cloudconnect.errors import ProtocolViolation, Tampered, Truncated
from cloudconnect.settings import CLOSE_SECONDS, HIGH_WATER
from cloudconnect.testing import (
    HalfCloseRecorder,
)
from cloudconnect.transports.layer import CLOSE_RATE
from tests.transports.layer_parts import (
    Below,
    FramedLayer,
    PlainLayer,
    PlayedTransportTestCase,
)


class ClosingTests(PlayedTransportTestCase):
    """How a connection ends, and what is told of it."""

    def test_close_before_handshake(self) -> None:
        """With nothing to send a close does not wait for the handshake, and is the peer's loss."""
        self.connect(ready=False)
        self.layer.loseConnection()
        self.assertEqual(self.below.calls, ["loseConnection"])
        self.layer.dataReceived(b"H\x01a")
        self.layer.connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(self.app.reason, ConnectionDone)
        self.assertEqual((self.app.data, self.app.handshakes), (b"", 0))

    def test_end_fills_transport(self) -> None:
        """The end is sent once, also when the transport is full of it."""
        self.connect()
        self.below.on_write = lambda: self.below.producer.pauseProducing()
        self.layer.loseConnection()
        self.below.on_write = None
        self.below.producer.resumeProducing()
        self.assertEqual(self.below.written, b"\0")

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
