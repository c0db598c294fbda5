"""Tests of :mod:`cloudconnect.accelerator.line`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.accelerator.line import AHEAD_MAX, AHEAD_MIN, STEP, Line
from cloudconnect.dedup.levels import LevelController


class Simulated:
    """A stream that always has more, a coder and a line, in steps of 2 MiB of the stream.

    :param rate: bytes that the line takes in a second
    :param ratio: bytes of the stream for one that is coded
    """

    def __init__(self, line: Line, rate: float, ratio: float = 3) -> None:
        self.line = line
        self.rate = rate
        self.ratio = ratio
        self.now = self.left = self.waiting = 0.0
        self.plain = 0

    def step(self) -> None:
        """One batch."""
        seconds = 0.004 * self.line.level  # what it takes to code it
        if self.waiting > self.line.ahead:  # the coder waits for the line
            seconds += (self.waiting - self.line.ahead) / self.rate
        self.now += seconds
        left = min(self.rate * seconds, self.waiting)
        self.left += left
        self.waiting -= left
        self.plain += 2 << 20
        self.line.observe(self.now, self.plain, int(self.left), int(self.waiting))
        self.waiting += (2 << 20) / self.ratio


class LineTests(SynchronousTestCase):
    """The level that follows the line."""

    def level(self, rate: float, first: int, batches: int = 60) -> int:
        """The level after so many batches on a line of this rate."""
        line = Line(LevelController(first=first), 0.0)
        simulated = Simulated(line, rate)
        for _ in range(batches):
            simulated.step()
        return line.level

    def test_fast(self) -> None:
        """On a line that is faster than the coder the level comes down, wherever it began."""
        for first in (3, 9, 19):
            self.assertEqual(1, self.level(1e9, first))

    def test_slow(self) -> None:
        """On a line that the coder waits for the level goes up."""
        for rate in (2.5e6, 12.5e6):
            self.assertGreater(self.level(rate, 3), 5)

    def test_turns(self) -> None:
        """It comes down again when the line becomes fast."""
        line = Line(LevelController(), 0.0)
        simulated = Simulated(line, 2.5e6)
        for _ in range(60):
            simulated.step()
        self.assertGreater(line.level, 5)
        simulated.rate = 1e9
        for _ in range(60):
            simulated.step()
        self.assertEqual(1, line.level)

    def test_small(self) -> None:
        """A dialogue of small batches says nothing of the line."""
        line = Line(LevelController(first=9), 0.0)
        for turn in range(1, 100):
            line.observe(turn / 10, turn * 1000, turn * 100, 0)
        self.assertEqual(9, line.level)

    def test_ahead(self) -> None:
        """More is coded ahead for a faster line, between two bounds."""
        for rate, ahead in ((1e5, AHEAD_MIN), (5e6, 2_500_000), (1e9, AHEAD_MAX)):
            line = Line(LevelController(), 0.0)
            self.assertEqual(AHEAD_MIN, line.ahead)
            line.observe(1.0, STEP, int(rate), 1)
            self.assertEqual(ahead, line.ahead)
