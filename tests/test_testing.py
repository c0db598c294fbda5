"""Tests of :mod:`cloudconnect.testing`."""

from __future__ import annotations

import threading

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cloudconnect.errors import LocalError, Tampered, Truncated
from cloudconnect.interfaces import IBytePipe
from cloudconnect.testing import PipePair


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
