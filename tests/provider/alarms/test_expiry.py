"""Tests of :mod:`cloudconnect.provider.alarms.expiry`:
30, 14 and 3 days before, under a fake clock.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.provider.alarms.expiry import DAY, Ending, ExpiryWatch, due, ending_text


class ExpiryTests(SynchronousTestCase):
    """When it is told."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endings = [Ending("it", 40 * DAY)]
        self.told: list[tuple[int, int]] = []
        self.watch = ExpiryWatch(self.clock, lambda: self.endings, self.tell, self.clock.seconds)
        self.watch.startService()
        self.addCleanup(self.watch.stopService)

    def tell(self, name: str, days: int, text: str) -> None:
        self.told.append((round(self.clock.seconds() / DAY), days))

    def days(self, count: int) -> None:
        for _ in range(4 * count):
            self.clock.advance(DAY / 4)

    def test_days(self) -> None:
        """Once at each of 30, 14 and 3 days before, and when it has ended."""
        self.days(50)
        self.assertEqual([(10, 30), (26, 14), (37, 3), (40, 0)], self.told)

    def test_renewed(self) -> None:
        """After a renewal it is quiet, and tells of the new one in its turn."""
        self.days(12)
        self.endings = [Ending("it", 60 * DAY)]
        self.watch.look()
        self.days(20)
        self.assertEqual([(10, 30), (30, 30)], self.told)

    def test_late_start(self) -> None:
        """What is due when it starts is told at once, and once."""
        self.clock.advance(0)
        told: list[int] = []
        watch = ExpiryWatch(
            self.clock, lambda: [Ending("x", 5 * DAY)], lambda n, d, t: told.append(d), lambda: 0.0
        )
        watch.startService()
        watch.look()
        watch.stopService()
        self.assertEqual([14], told)

    def test_due(self) -> None:
        """The last of the moments that were reached counts."""
        found = [due(100 * DAY, now * DAY) for now in (69, 70, 90, 97, 100, 200)]
        self.assertEqual([None, 30, 14, 3, 0, 0], found)

    def test_text(self) -> None:
        """A sentence with the date, and what is left."""
        self.assertEqual("it expires on 1970-01-03, in 1 day", ending_text("it", 2 * DAY, DAY))
        self.assertEqual("it has expired on 1970-01-03", ending_text("it", 2 * DAY, 3 * DAY))

    def test_unreadable(self) -> None:
        """What cannot be looked at is logged, and looked at again."""

        def broken() -> list[Ending]:
            raise OSError("no")

        watch = ExpiryWatch(self.clock, broken, self.tell, self.clock.seconds)
        watch.look()
        self.assertEqual(1, len(self.flushLoggedErrors(OSError)))
