"""Tests of :mod:`cloudconnect.provider.nodes.settling`."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.provider.nodes.settling import Settling


class SettlingTests(SynchronousTestCase):
    """Waiting in the first seconds."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.settling = Settling(self.clock)
        self.there = False

    def until(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.settling.until(lambda: self.there))

    def test_comes(self) -> None:
        """What is waited for comes, and what else comes meanwhile does not end the waiting."""
        self.settling.begin(8.0)
        first, second = self.until(), self.until()
        self.clock.advance(2)
        self.settling.changed()
        self.assertNoResult(first)
        self.there = True
        self.settling.changed()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_over(self) -> None:
        """After the first seconds nobody waits, and whoever waited goes on."""
        self.settling.begin(8.0)
        first = self.until()
        self.clock.advance(8)
        self.successResultOf(first)
        self.successResultOf(self.until())

    def test_not_begun(self) -> None:
        """Where all roles are in one process, or there is no clock, nothing is waited for."""
        self.successResultOf(self.until())
        self.settling = Settling(None)
        self.settling.begin(8.0)
        self.successResultOf(self.until())
