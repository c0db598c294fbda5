"""The compression level that follows the line and the processor."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.following import LEVEL_FIRST, LEVELS, FollowingLevel


class FollowingTests(SynchronousTestCase):
    """One step at a time, within bounds."""

    def test_fast_line(self) -> None:
        """While the line takes everything, and chunks wait to be compressed, it comes down."""
        following = FollowingLevel()
        self.assertEqual(following.level, LEVEL_FIRST)
        self.assertEqual([following.observe(False, True) for _ in range(5)], [2, 1, 1, 1, 1])

    def test_nothing_waits(self) -> None:
        """Where nothing waits for anything a lower level would win nothing."""
        following = FollowingLevel()
        levels = {following.observe(False, False) for _ in range(8)}
        self.assertEqual(levels, {LEVEL_FIRST})

    def test_slow_line(self) -> None:
        """While chunks wait for the line it goes up to the highest, whatever else waits."""
        for behind in (False, True):
            following = FollowingLevel()
            levels = [following.observe(True, behind) for _ in range(8)]
            self.assertEqual(levels, sorted(levels))
            self.assertEqual((levels[0], levels[-1]), (LEVEL_FIRST, LEVELS[-1]))

    def test_back(self) -> None:
        """It comes down again when the line becomes fast."""
        following = FollowingLevel()
        for waited in (True, False):
            for _ in range(10):
                following.observe(waited, True)
        self.assertEqual(following.level, LEVELS[0])
