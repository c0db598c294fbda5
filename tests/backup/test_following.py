"""The compression level that follows the line."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.following import LEVELS, FollowingLevel
from cloudconnect.content.compression import LEVEL_DEFAULT


class FollowingTests(SynchronousTestCase):
    """One step at a time, within bounds."""

    def test_fast_line(self) -> None:
        """While the line takes everything the level comes down to the lowest, and stays there."""
        following = FollowingLevel()
        self.assertEqual(following.level, LEVEL_DEFAULT)
        self.assertEqual([following.observe(False) for _ in range(8)], [3, 2, 2, 1, 1, 1, 1, 1])

    def test_slow_line(self) -> None:
        """While chunks wait it goes up to the highest, and stays there."""
        following = FollowingLevel()
        levels = [following.observe(True) for _ in range(8)]
        self.assertEqual(levels, sorted(levels))
        self.assertEqual((levels[0], levels[-1]), (LEVEL_DEFAULT, LEVELS[-1]))

    def test_back(self) -> None:
        """It comes down again when the line becomes fast."""
        following = FollowingLevel()
        for waited in (True, False):
            for _ in range(10):
                following.observe(waited)
        self.assertEqual(following.level, LEVELS[0])
