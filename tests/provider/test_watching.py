"""Tests of :mod:`cloudconnect.provider.watching`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.provider.watching import Watcher, Watchers


class Counting(Watcher):
    """Counts log-ins."""

    seen = 0

    def logged_in(self, tenant: str, peer: str) -> None:
        self.seen += 1


class Broken(Watcher):
    """Cannot count."""

    def logged_in(self, tenant: str, peer: str) -> None:
        raise ValueError("no")


class WatcherTests(SynchronousTestCase):
    """Who is told."""

    def test_told(self) -> None:
        """Everybody is told, also after one that fails, which is logged."""
        watchers, counting = Watchers(), Counting()
        for watcher in (Watcher(), Broken(), counting):
            watchers.add(watcher)
        watchers.tell(lambda watcher: watcher.logged_in("acme", ""))
        self.assertEqual(1, counting.seen)
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))
