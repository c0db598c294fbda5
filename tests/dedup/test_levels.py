"""The level that follows the line."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.dedup.levels import LADDER, LevelController


class LevelTests(SynchronousTestCase):
    """What the controller does with what it is told."""

    def test_slow_line(self) -> None:
        """While bytes wait for the line the level climbs to the highest and stays."""
        controller = LevelController()
        seen = [controller.observe(1_000_000, 100_000) for _ in range(60)]
        self.assertEqual(seen, sorted(seen))
        self.assertEqual(seen[-1], 19)
        self.assertEqual(sorted(set(seen) | {1, 2}), list(LADDER))

    def test_fast_line(self) -> None:
        """While the line waits it falls to the lowest."""
        controller = LevelController(first=9)
        for _ in range(60):
            controller.observe(0, 1e8)
        self.assertEqual(controller.level, 1)

    def test_balance(self) -> None:
        """Between the two it stays where it is."""
        controller = LevelController()
        for _ in range(20):
            self.assertEqual(controller.observe(100_000, 1_000_000), 3)

    def test_stalled(self) -> None:
        """A line that takes nothing is slow; one with nothing to take is not."""
        controller = LevelController()
        for _ in range(4):
            controller.observe(5000, 0)
        self.assertGreater(controller.level, 3)
        controller = LevelController()
        for _ in range(9):
            controller.observe(0, 0)
        self.assertEqual(controller.level, 1)

    def test_bounds(self) -> None:
        """It stays between the lowest and the highest that it was given."""
        controller = LevelController(2, 6, 4)
        for _ in range(30):
            controller.observe(1 << 30, 1)
        self.assertEqual(controller.level, 6)
        for _ in range(30):
            controller.observe(0, 1)
        self.assertEqual(controller.level, 2)
        fixed = LevelController(3, 3, 3)
        fixed.observe(1 << 30, 1)
        self.assertEqual(fixed.observe(1 << 30, 1), 3)

    def test_refused(self) -> None:
        """Levels out of order."""
        for levels in ((0, 3, 1), (3, 2, 3), (1, 20, 3), (1, 9, 10), (5, 9, 4)):
            self.assertRaises(ValueError, LevelController, *levels)
