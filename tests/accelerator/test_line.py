"""Tests of :mod:`cloudconnect.accelerator.line`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.accelerator.line import AHEAD_MAX, AHEAD_MIN, STEP, Line
from cloudconnect.dedup.levels import KEEP, LevelController

#: Bytes of the stream that may be under way.
WINDOW = 8 << 20
#: Bytes of it in one batch.
BATCH = 2 << 20


class Simulated:
    """A stream that always has more, a coder, a line and a mover at its end, batch by batch.

    :param line: is told
    :param rate: bytes that the line takes in a second
    :param mover: bytes of the stream that the mover takes in a second
    :param ratio: bytes of the stream for one that is coded
    """

    def __init__(self, line: Line, rate: float, mover: float = 1e12, ratio: float = 3) -> None:
        self.line = line
        self.rate, self.mover, self.ratio = rate, mover, ratio
        self.now = 0.0
        self.sent: list[float] = []  # when the line is done with each batch
        self.done: list[float] = []  # when the mover has taken each

    def step(self) -> None:
        """One batch: wait for the window, code, send."""
        under_way = WINDOW // BATCH
        while len(self.done) >= under_way and self.done[-under_way] > self.now:
            self.line.stand(self.now)
            self.now = self.done[-under_way]  # its acknowledgement comes
            self.line.look(self.now, self.sent[-1] > self.now)
        self.now += 0.004 * self.line.level
        self.line.work(0.004 * self.line.level)
        left = sum(at <= self.now for at in self.sent) * BATCH / self.ratio
        self.line.observe(self.now, BATCH * (len(self.sent) + 1), int(left))
        sent = max([self.now, *self.sent[-1:]]) + BATCH / self.ratio / self.rate
        self.sent.append(sent)
        self.done.append(max([sent, *self.done[-1:]]) + BATCH / self.mover)


class LineTests(SynchronousTestCase):
    """The level that follows the line."""

    def setUp(self) -> None:
        self.line = Line(LevelController(), 0.0)

    def run_batches(self, simulated: Simulated) -> int:
        """The level after a while."""
        for _ in range(100):
            simulated.step()
        return simulated.line.level

    def test_fast(self) -> None:
        """On a line that is faster than the coder the level comes down, wherever it began."""
        for first in (3, 9, 19):
            line = Line(LevelController(first=first), 0.0)
            self.assertEqual(1, self.run_batches(Simulated(line, 1e9)))

    def test_slow(self) -> None:
        """On a line that the coder waits for the level goes up, and comes down when it is fast."""
        for rate in (2.5e6, 12.5e6):
            self.setUp()
            simulated = Simulated(self.line, rate)
            self.assertGreater(self.run_batches(simulated), 5)
            simulated.rate = 1e9
            self.assertEqual(1, self.run_batches(simulated))

    def test_slow_mover(self) -> None:
        """Where it is the mover at the other end that is slow, the level is that at first."""
        simulated = Simulated(self.line, 1e9, mover=20e6)
        self.assertEqual(3, self.run_batches(simulated))
        simulated.rate = 2.5e6
        self.assertGreater(self.run_batches(simulated), 5)
        simulated.rate = 1e9
        self.assertEqual(3, self.run_batches(simulated))

    def test_small(self) -> None:
        """A dialogue of small batches says nothing of the line."""
        line = Line(LevelController(first=9), 0.0)
        for turn in range(1, 100):
            line.observe(turn / 10, turn * 1000, turn * 100)
        self.assertEqual(9, line.level)

    def test_standing(self) -> None:
        """Time counts from when the coder first stood still until something happened."""
        line = Line(LevelController(), 0.0)
        self.assertFalse(line.stands)
        for turn in range(10):
            line.stand(turn + 0.1)
            line.stand(turn + 0.5)
            self.assertTrue(line.stands)
            line.look(turn + 0.8, True)
            self.assertFalse(line.stands)
            line.look(turn + 0.9, True)
            line.observe(turn + 1.0, (turn + 1) * KEEP, 0)
        self.assertEqual(19, line.level)

    def test_ahead(self) -> None:
        """More is coded ahead for a faster line, between two bounds."""
        for rate, ahead in ((1e5, AHEAD_MIN), (5e6, 2_500_000), (1e9, AHEAD_MAX)):
            line = Line(LevelController(), 0.0)
            self.assertEqual(AHEAD_MIN, line.ahead)
            line.observe(1.0, STEP, int(rate))
            self.assertEqual(ahead, line.ahead)
