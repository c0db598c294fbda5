"""Tests of :mod:`cloudconnect.provider.looking`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.provider.looking import Looking


class LookingTests(SynchronousTestCase):
    """On a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.looks = 0
        self.answer: Any = None

    def look(self) -> Any:
        self.looks += 1
        return self.answer

    def begin(self) -> Looking:
        looking = Looking(self.clock, 10.0, self.look)
        looking.startService()
        return looking

    def test_again(self) -> None:
        """At once, and then every so often, until it is stopped."""
        looking = self.begin()
        self.clock.pump([10.0, 10.0])
        self.assertEqual(3, self.looks)
        self.successResultOf(looking.stopService())
        self.clock.pump([10.0])
        self.assertEqual((3, []), (self.looks, self.clock.getDelayedCalls()))

    def test_slow(self) -> None:
        """A look that takes long is waited for, and given up at a stop."""
        cancelled: list[Any] = []
        self.answer = Deferred(cancelled.append)
        self.answer.addErrback(lambda _: None)
        looking = self.begin()
        self.clock.pump([10.0, 10.0])
        self.assertEqual(1, self.looks)
        self.successResultOf(looking.stopService())
        self.assertEqual(1, len(cancelled))
