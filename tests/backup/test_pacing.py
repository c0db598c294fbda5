"""Tests of :mod:`cloudconnect.backup.pacing`: on a clock that the waiting itself moves."""

from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cloudconnect.backup.pacing import PIECE_MIN, PIECE_SECONDS, Pace, PacedPipe
from cloudconnect.errors import Cancelled
from cloudconnect.interfaces import IBytePipe
from cloudconnect.testing import PipePair


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class PaceTests(SynchronousTestCase):
    """When the next bytes are due."""

    def setUp(self) -> None:
        self.time = Time()

    def test_unlimited(self) -> None:
        """Without a rate nothing ever waits."""
        self.assertEqual(0.0, Pace(0, self.time).moved(1 << 40))

    def test_share(self) -> None:
        """Bytes wait for their share of a second."""
        self.assertAlmostEqual(0.5, Pace(1000, self.time).moved(500))

    def test_adds_up(self) -> None:
        """Who does not wait owes the time with the next bytes."""
        pace = Pace(1000, self.time)
        pace.moved(500)
        self.assertAlmostEqual(1.0, pace.moved(500))
        self.time.now += 1.0
        self.assertAlmostEqual(0.5, pace.moved(500))

    def test_no_saving(self) -> None:
        """An idle minute is not made up for: a piece at most goes at once."""
        pace = Pace(1000, self.time)
        self.time.now += 60.0
        self.assertAlmostEqual(10.0 - PIECE_SECONDS, pace.moved(10_000))

    def test_piece(self) -> None:
        """Pieces are a small part of a second, and not so small that they cost more than they are
        worth."""
        self.assertEqual(int(10_000_000 * PIECE_SECONDS), Pace(10_000_000).piece)
        self.assertEqual(PIECE_MIN, Pace(10).piece)

    @settings(max_examples=50, deadline=None)
    @given(st.integers(1, 10**9), st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
    def test_rate_holds(self, rate: int, counts: list[int]) -> None:
        """Who always waits as told moves no more than the rate allows, but for one piece."""
        time = Time()
        pace = Pace(rate, time)
        began = time.now
        for count in counts:
            time.now += pace.moved(count)
        allowed = rate * (time.now - began + PIECE_SECONDS)
        self.assertLessEqual(sum(counts), allowed * 1.000001 + 1)


class _NoWait(threading.Event):
    """In the place of waiting, moves the clock and keeps how long."""

    def __init__(self, time: Time) -> None:
        super().__init__()
        self.time = time
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waited.append(timeout)
        self.time.now += timeout
        return True


class PipeTests(SynchronousTestCase):
    """A pipe that keeps to a rate."""

    def setUp(self) -> None:
        self.pair = PipePair(1 << 24)
        self.time = Time()

    def paced(self, upload: int, download: int) -> tuple[PacedPipe, _NoWait]:
        pipe = PacedPipe(self.pair.left, upload, download, self.time)
        pipe._ended = waiter = _NoWait(self.time)
        return pipe, waiter

    def test_interface(self) -> None:
        """It is a byte pipe as any other."""
        verifyObject(IBytePipe, PacedPipe(self.pair.left, 0, 0))

    def test_unlimited(self) -> None:
        """Without a limit the parts go through as they are."""
        pipe, waiter = self.paced(0, 0)
        pipe.write(b"one", memoryview(b"two"))
        self.assertEqual([b"one", b"two"], [self.pair.right.read(), self.pair.right.read()])
        self.pair.right.write(b"back")
        self.assertEqual(b"back", pipe.read())
        self.assertEqual(0.0, sum(waiter.waited))

    def test_upload(self) -> None:
        """Large parts go in pieces, in order, in the time that they may take."""
        pipe, waiter = self.paced(100_000, 0)
        data = bytes(range(256)) * 400
        self.assertTrue(pipe.write(data[:50_000], bytearray(data[50_000:])))
        pipe.finish()
        pieces = []
        while piece := self.pair.right.read():
            pieces.append(piece)
        self.assertEqual(data, b"".join(pieces))
        self.assertLessEqual(max(map(len, pieces)), 5000)
        self.assertAlmostEqual(len(data) / 100_000, sum(waiter.waited))

    def test_download(self) -> None:
        """What was read costs its time afterwards."""
        pipe, waiter = self.paced(0, 1000)
        self.pair.right.write(b"x" * 500)
        self.assertEqual(b"x" * 500, pipe.read())
        self.assertAlmostEqual(0.5, sum(waiter.waited))

    def test_end(self) -> None:
        """The peer's end is an end."""
        pipe, _ = self.paced(1000, 1000)
        self.pair.right.finish()
        self.assertEqual(b"", pipe.read())

    def test_abort(self) -> None:
        """An abort wakes who waits for the rate, and then the pipe raises the reason."""
        pipe = PacedPipe(self.pair.left, 1, 0)
        outcome: list[BaseException | None] = []

        def write() -> None:
            try:
                pipe.write(b"x" * PIECE_MIN, b"y")  # owes more than an hour
                outcome.append(None)
            except BaseException as error:
                outcome.append(error)

        worker = threading.Thread(target=write)
        worker.start()
        self.assertEqual(b"x" * PIECE_MIN, self.pair.right.read())
        reason = Cancelled("enough")
        pipe.abort(reason)
        worker.join(60)
        self.assertEqual([reason], outcome)
