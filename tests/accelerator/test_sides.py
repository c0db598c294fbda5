"""Tests of :mod:`cloudconnect.accelerator.sides`."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cloudconnect.accelerator.sides import QUEUE_HIGH, SEND, Side
from cloudconnect.errors import Aborted, Tampered, Truncated
from cloudconnect.keys import KeyB
from cloudconnect.testing import HalfCloseRecorder, MemoryPair
from cloudconnect.transports.stream import RecordStream


class SideTests(SynchronousTestCase):
    """One side, over a pair in memory, whose other end the test plays."""

    def setUp(self) -> None:
        self.changes = 0
        self.side = Side(self.changed)
        self.other: Any = HalfCloseRecorder()
        self.pair = MemoryPair()

    def changed(self) -> None:
        self.changes += 1

    def connect(self, sealed: bool = False) -> None:
        """The connection is there."""
        here: Any = self.side
        there: Any = self.other
        if sealed:
            recipe = RecordStream(KeyB.generate(), b"hop")
            here = recipe.layer(True, here, self.pair.clock)
            there = recipe.layer(False, there, self.pair.clock)
        self.pair.connect(here, there)
        self.pump()

    def pump(self) -> None:
        for _ in range(200):
            self.pair.pump()

    def test_interfaces(self) -> None:
        """It provides what it says."""
        verifyObject(IProtocol, self.side)
        verifyObject(IHalfCloseableProtocol, self.side)

    def test_before(self) -> None:
        """What is sent before there is a connection leaves once there is one, whatever it is in."""
        self.side.send([b"one", memoryview(b"two"), bytearray(b"three"), b""])
        self.assertEqual((11, 0), (self.side.held, self.side.left))
        self.assertFalse(self.side.free)
        for sealed in (False, True):
            self.setUp()
            self.side.send([b"one", memoryview(b"two"), bytearray(b"three"), b""])
            self.connect(sealed)
            self.assertEqual(b"onetwothree", bytes(self.other.data))
            self.assertEqual((0, 11, True), (self.side.held, self.side.left, self.side.free))

    def test_full(self) -> None:
        """A transport that is full gets no more, until it is not; each change is told."""
        self.connect()
        self.other.transport.pauseProducing()
        data = bytes(range(256)) * 40_000
        self.side.send([data])
        self.pump()
        self.assertFalse(self.side.free)
        self.assertLessEqual(self.side.left, SEND + (128 << 10))
        self.assertEqual(len(data), self.side.left + self.side.held)
        before = self.changes
        self.other.transport.resumeProducing()
        self.pump()
        self.assertEqual(data, bytes(self.other.data))
        self.assertGreater(self.changes, before)
        self.assertTrue(self.side.free)

    def test_waiting(self) -> None:
        """What a transport says that it holds, and what no peer acknowledged, waits too."""
        self.connect()
        self.pair.left.waiting = 1000  # type: ignore[attr-defined]
        self.assertEqual((1000, 1000), (self.side.waiting, self.side.unsent))
        self.pair.left.unsent = lambda: 3000  # type: ignore[attr-defined]
        self.assertEqual(3000, self.side.unsent)
        self.other.transport.pauseProducing()
        self.side.send([bytes(1_000_000)])
        self.assertEqual(self.side.held + 3000, self.side.unsent)

    def test_queue(self) -> None:
        """The transport is paused while much is queued, and what is put back comes first."""
        self.connect()
        self.other.transport.write(bytes(range(250)) * 20_000)
        self.pump()
        self.assertGreater(self.side.queued, QUEUE_HIGH)
        self.assertLessEqual(self.side.queued, QUEUE_HIGH + 65536)
        taken = self.side.take()
        first = taken.popleft()
        self.pump()
        self.side.put_back(taken)
        got = first
        while self.side.queued:
            got += b"".join(self.side.take())
            self.pump()
        self.assertEqual(bytes(range(250)) * 20_000, got)
        self.side.put_back(deque())
        self.assertEqual(0, self.side.queued)

    def test_half(self) -> None:
        """Our direction ends after what was sent; the connection closes once both have ended."""
        for first in (True, False):
            self.setUp()
            self.connect(sealed=True)
            self.side.send([b"last"])
            if first:
                self.side.finish()
                self.pump()
                self.assertEqual((b"last", 1), (bytes(self.other.data), self.other.read_ends))
                self.assertFalse(self.side.lost)
                self.other.transport.loseWriteConnection()
            else:
                self.other.transport.loseWriteConnection()
                self.pump()
                self.assertTrue(self.side.read_ended)
                self.side.finish()
            self.pump()
            self.other.transport.loseConnection()
            self.pump()
            self.assertEqual((True, None), (self.side.lost, self.side.error))
            self.assertIsInstance(self.other.reason, ConnectionDone)

    def test_transport_that_closes_at_once(self) -> None:
        """Where a direction cannot end alone, our end closes, and a clean close is the peer's."""

        class Whole(Protocol):
            """A transport without half-closing."""

            closed = 0

            def registerProducer(self, producer: Any, streaming: bool) -> None:
                pass

            unregisterProducer = abortConnection = lambda self: None

            def loseConnection(self) -> None:
                self.closed += 1

        transport = Whole()
        self.side.makeConnection(transport)
        self.side.finish()
        self.side.finish()
        self.assertEqual(1, transport.closed)
        self.side.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(
            (True, True, None), (self.side.lost, self.side.read_ended, self.side.error)
        )

    def test_lost(self) -> None:
        """A cut connection is an error of ours; what cannot leave any more is dropped."""
        self.connect()
        self.side.connectionLost(Failure(ConnectionLost()))
        self.assertIsInstance(self.side.error, Truncated)
        self.side.send([b"late"])
        self.assertEqual(0, self.side.held)
        self.side.finish()
        self.assertFalse(self.side.finished)

    def test_abort(self) -> None:
        """The peer is told that we give up, but for a security error; nothing waits any more."""
        for error, kind in ((Truncated("gone"), Aborted), (Tampered("changed"), Truncated)):
            self.setUp()
            self.connect(sealed=True)
            self.other.transport.write(b"some")
            self.pump()
            self.side.abort(error)
            self.side.abort(error)
            self.side.send([b"more"])
            self.pump()
            self.assertEqual((0, 0), (self.side.queued, self.side.held))
            self.assertIsInstance(self.other.reason, kind)
            self.assertEqual(b"", bytes(self.other.data))

    def test_abort_before(self) -> None:
        """A connection that comes too late is given up at once."""
        self.side.abort(Truncated("gone"))
        self.connect()
        self.assertEqual(1, self.other.losses)
