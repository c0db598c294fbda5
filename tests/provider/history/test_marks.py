"""Tests of :mod:`cloudconnect.provider.history.marks`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.provider.history.marks import DAY, Mark, before, make_mark, read_marks
from tests.provider.audit.test_log import Kept


def mark(days: float, events: int = 0) -> Mark:
    return Mark(days * DAY, events, 0, 0)


class MarkTests(SynchronousTestCase):
    """Which numbers were the newest, and when."""

    def test_daily(self) -> None:
        """One a day is made, and kept."""
        kept = Kept()
        for hour in range(50):
            made = make_mark(kept, mark(hour / 24, hour), 400)
        self.assertEqual([mark(0), mark(1, 24), mark(2, 48)], made)
        self.assertEqual(made, read_marks(kept))

    def test_before(self) -> None:
        """The newest that is old enough counts, and there is none before the first."""
        marks = [mark(1, 10), mark(2, 20), mark(3, 30)]
        self.assertEqual(mark(2, 20), before(marks, 2.5 * DAY))
        self.assertEqual(mark(3, 30), before(marks, 3 * DAY))
        self.assertIsNone(before(marks, 0.5 * DAY))

    def test_bounded(self) -> None:
        """No more are kept than are needed, one of them as old as the days."""
        kept = Kept()
        for day in range(100):
            made = make_mark(kept, mark(day), 30)
        self.assertEqual(31, len(made))
        self.assertEqual(mark(69), before(made, 69 * DAY))
