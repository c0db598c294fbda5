"""Tests of :mod:`cloudconnect.testing`."""

from __future__ import annotations

import threading

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cloudconnect.errors import LocalError, Tampered, Truncated
from cloudconnect.interfaces import IBytePipe
from cloudconnect.testing import (
    DOWN,
    UP,
    Flood,
    MemoryPair,
    PipePair,
    Recorder,
    Wire,
    flood_bytes,
)


class PipePairTests(SynchronousTestCase):
    """Two joined ends of a pipe."""

    def test_provides(self) -> None:
        """Both ends provide exactly what they claim."""
        pair = PipePair()
        verifyObject(IBytePipe, pair.left)
        verifyObject(IBytePipe, pair.right)

    def test_both_directions(self) -> None:
        """Parts arrive in order, each direction on its own, whatever bytes-like type they had."""
        pair = PipePair()
        pair.left.write(b"ab", memoryview(b"cd"), bytearray(b"ef"), b"")
        pair.right.write(b"back")
        self.assertEqual([pair.right.read() for _ in range(3)], [b"ab", b"cd", b"ef"])
        self.assertEqual(pair.left.read(), b"back")
        self.assertEqual(pair.left.written, 6)

    def test_finish(self) -> None:
        """What was written before finish is read, then the end, as often as it is asked for."""
        pair = PipePair()
        pair.left.write(b"last")
        pair.left.finish()
        pair.left.finish()
        self.assertEqual([pair.right.read() for _ in range(3)], [b"last", b"", b""])
        pair.right.write(b"still open")
        self.assertEqual(pair.left.read(), b"still open")
        self.assertRaises(LocalError, pair.left.write, b"x")

    def test_abort(self) -> None:
        """The reason is raised by every later call here; the other end sees that bytes stopped."""
        pair = PipePair()
        pair.left.write(b"unread")
        pair.right.write(b"unread")
        pair.left.abort(Tampered("first"))
        pair.left.abort(Tampered("second"))
        for call in (pair.left.read, pair.left.finish, lambda: pair.left.write(b"x")):
            self.assertEqual(str(self.assertRaises(Tampered, call)), "first")
        self.assertRaises(Truncated, pair.right.read)
        self.assertRaises(Truncated, pair.right.write, b"x")

    def test_writer_waits(self) -> None:
        """A writer waits while the high-water mark is reached, and goes on when bytes were read."""
        pair = PipePair(high_water=4)
        entered, done = threading.Event(), threading.Event()

        def work() -> None:
            pair.left.write(b"1234")
            entered.set()
            pair.left.write(b"5")
            done.set()

        thread = threading.Thread(target=work)
        thread.start()
        entered.wait(30)
        self.assertFalse(done.is_set())
        self.assertEqual(pair.right.read(), b"1234")
        self.assertEqual(pair.right.read(), b"5")
        thread.join(30)
        self.assertTrue(done.is_set())

    def test_time_limit(self) -> None:
        """A call that nobody answers raises rather than hangs."""
        pair = PipePair(high_water=1, timeout=0.001)
        self.assertRaises(TimeoutError, pair.left.read)
        pair.left.write(b"x")
        self.assertRaises(TimeoutError, pair.left.write, b"y")

    def test_abort_wakes(self) -> None:
        """A thread that waits in read is woken by an abort from another thread."""
        pair = PipePair()
        seen: list[BaseException] = []

        def work() -> None:
            try:
                pair.left.read()
            except Truncated as error:
                seen.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        pair.right.abort(Tampered())
        thread.join(30)
        self.assertEqual(len(seen), 1)


class FloodTests(SynchronousTestCase):
    """The producer that writes whenever it may."""

    def test_pattern(self) -> None:
        """Its bytes are the same however they are cut."""
        whole = flood_bytes(0, 300_000)
        self.assertEqual(len(whole), 300_000)
        self.assertEqual(flood_bytes(12_345, 200_000), whole[12_345:212_345])
        self.assertNotEqual(whole[:1000], whole[1000:2000])

    def test_writes(self) -> None:
        """It writes what it was told to, stops while paused, and then unregisters."""
        pair = MemoryPair()
        left, right = Recorder(), Recorder()
        pair.connect(left, right)
        flood = Flood(pair.left, 500_000)
        flood.start()
        self.assertEqual(flood.calls, ["pause"])
        pair.pump()
        self.assertEqual(right.data, flood_bytes(0, 500_000))
        pair.left.loseConnection()
        pair.pump()
        self.assertEqual((left.losses, right.losses), (1, 1))


class WireTests(SynchronousTestCase):
    """The connection with somebody in the middle."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.client, self.server = Recorder(), Recorder()
        self.wire = Wire(self.clock)
        self.wire.connect(self.client, self.server)

    def send(self) -> None:
        self.wire.client.write(b"question")
        self.wire.server.write(b"answer")
        self.clock.advance(0)

    def test_passes(self) -> None:
        """Undisturbed it is a connection; both directions are seen in the middle."""
        self.send()
        self.assertEqual((self.server.data, self.client.data), (b"question", b"answer"))
        self.assertEqual(self.wire.seen, {UP: b"question", DOWN: b"answer"})
        self.wire.client.loseConnection()
        self.clock.advance(0)
        self.assertIsInstance(self.server.reason, ConnectionDone)

    def test_abort(self) -> None:
        """An abort on one side is one on the other."""
        self.wire.client.abortConnection()
        self.clock.advance(0)
        self.assertIsInstance(self.server.reason, ConnectionLost)

    def test_flips(self) -> None:
        """The bits that were asked for are changed, and no others."""
        self.wire.flips = {(UP, 0): 1, (DOWN, 5): 0x20}
        self.send()
        self.assertEqual((self.server.data, self.client.data), (b"puestion", b"answeR"))

    def test_mutes(self) -> None:
        """One direction's bytes vanish, the other's do not."""
        self.wire.muted.add(UP)
        self.send()
        self.assertEqual((self.server.data, self.client.data), (b"", b"answer"))

    def test_cut(self) -> None:
        """So many bytes pass, then both sides see an ordinary end."""
        self.wire.cut(UP, 3)
        self.send()
        self.assertEqual(self.server.data, b"que")
        self.assertIsInstance(self.client.reason, ConnectionDone)
        self.assertIsInstance(self.server.reason, ConnectionDone)

    def test_flow_control(self) -> None:
        """A reader that pauses is felt on the other side of the middle."""
        self.wire.server.pauseProducing()
        flood = Flood(self.wire.client, 2_000_000)
        flood.start()
        self.clock.advance(0)
        self.assertEqual(flood.calls[-1], "pause")
        self.assertGreater(flood.left, 1_000_000)
        self.wire.server.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(len(self.server.data), 2_000_000)
