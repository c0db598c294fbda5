"""The level that follows the line."""

from __future__ import annotations

from itertools import groupby

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.dedup.levels import KEEP, LevelController

#: Bytes of a batch.
BATCH = 2 << 20


class LevelTests(SynchronousTestCase):
    """What the controller does with what it is told."""

    def setUp(self) -> None:
        self.plain = 0

    def told(self, controller: LevelController, stands: float, works: float) -> list[int]:
        """Every level while it is told the same for a long time."""
        seen = []
        for _ in range(100):
            self.plain += BATCH
            seen.append(controller.observe(self.plain, stands, works))
        return seen

    def test_slow_line(self) -> None:
        """While the coder stands still for the line the level goes up, as far as there is time."""
        for works, level in ((0.01, 19), (0.1, 12), (0.2, 9), (0.38, 6), (0.45, 3)):
            controller = LevelController()
            self.plain = 0
            seen = self.told(controller, 0.6, works)
            self.assertLessEqual(seen[KEEP // BATCH], level)
            self.assertEqual({3, level}, {3, seen[KEEP // BATCH]})

    def test_fast_line(self) -> None:
        """While the coder works all the time it falls to the lowest."""
        for first in (3, 9, 19):
            self.assertEqual(1, self.told(LevelController(first=first), 0.0, 1.0)[-1])

    def test_balance(self) -> None:
        """While neither is slow it goes back to where it began, where it costs anything, and from
        below it does not."""
        controller = LevelController(highest=9)
        self.assertEqual([3] * 100, self.told(controller, 0.0, 0.3))
        self.assertEqual(9, self.told(controller, 0.9, 0.2)[8])
        self.assertEqual([9] * 100, self.told(controller, 0.4, 0.6))
        self.assertEqual([9] * 100, self.told(controller, 0.0, 0.2))
        self.assertEqual(3, self.told(controller, 0.1, 0.6)[-1])
        self.told(controller, 0.0, 1.0)
        self.assertEqual([1] * 100, self.told(controller, 0.3, 0.6))

    def test_kept(self) -> None:
        """A level stays for a while, whatever happens."""
        controller = LevelController()
        seen = []
        for turn in range(200):
            self.plain += BATCH
            seen.append(controller.observe(self.plain, 0.9 * (turn % 2), 0.9 * (1 - turn % 2)))
        stayed = [len(list(times)) for _, times in groupby(seen)]
        self.assertGreater(len(stayed), 2)
        self.assertGreaterEqual(min(stayed[:-1]), KEEP // BATCH - 1)

    def test_bounds(self) -> None:
        """It stays between the lowest and the highest that it was given."""
        controller = LevelController(2, 7, 4)
        self.assertEqual(7, self.told(controller, 1.0, 0.0)[-1])
        self.assertEqual(2, self.told(controller, 0.0, 1.0)[-1])
        fixed = LevelController(4, 4, 4)
        self.assertEqual([4] * 100, self.told(fixed, 1.0, 0.0))

    def test_refused(self) -> None:
        """Levels out of order."""
        for levels in ((0, 3, 1), (3, 2, 3), (1, 20, 3), (1, 9, 10), (5, 9, 4)):
            self.assertRaises(ValueError, LevelController, *levels)
