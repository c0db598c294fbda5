"""Which chunks came not long ago."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content.recent import RecentIds


class RecentIdsTests(SynchronousTestCase):
    """A set that forgets."""

    def test_knows_what_was_added(self) -> None:
        """An id is new once."""
        recent = RecentIds(10)
        self.assertTrue(recent.add(b"a"))
        self.assertFalse(recent.add(b"a"))
        self.assertIn(b"a", recent)
        self.assertNotIn(b"b", recent)

    def test_is_bounded(self) -> None:
        """The last ``size`` ids are known, and never more than twice as many."""
        recent = RecentIds(10)
        names = [b"%d" % number for number in range(100)]
        for name in names:
            recent.add(name)
        self.assertTrue(all(name in recent for name in names[-10:]))
        self.assertLessEqual(sum(name in recent for name in names), 20)
        self.assertNotIn(names[0], recent)
