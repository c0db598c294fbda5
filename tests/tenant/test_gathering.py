"""Tests of :mod:`cloudconnect.tenant.gathering`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import NotReachable, Tampered
from cloudconnect.tenant.gathering import all_of


async def waiting(deferred: Deferred[Any]) -> Any:
    """A step that takes what the test hands it."""
    return await deferred


class GatheringTests(SynchronousTestCase):
    """Several steps at once."""

    def setUp(self) -> None:
        self.cancelled: list[int] = []
        self.steps: list[Deferred[Any]] = [
            Deferred(lambda _, number=number: self.cancelled.append(number))  # type: ignore[misc]
            for number in range(3)
        ]
        self.all = Deferred.fromCoroutine(all_of(*map(waiting, self.steps)))

    def test_results(self) -> None:
        """All are begun at once, and the results are in their order, whichever came first."""
        for number in (2, 0, 1):
            self.assertNoResult(self.all)
            self.steps[number].callback(number * 10)
        self.assertEqual([0, 10, 20], self.successResultOf(self.all))

    def test_none(self) -> None:
        """No step has no result."""
        self.assertEqual([], self.successResultOf(Deferred.fromCoroutine(all_of())))

    def test_first_error(self) -> None:
        """The first error is raised as it is, and ends those that are still waiting."""
        self.steps[0].callback(0)
        error = Tampered("changed")
        self.steps[1].errback(error)
        self.assertIs(error, self.failureResultOf(self.all, Tampered).value)
        self.assertEqual([2], self.cancelled)

    def test_later_errors(self) -> None:
        """What else fails is nobody's: neither raised nor logged as unhandled."""
        self.steps[1].errback(NotReachable("first"))
        self.assertEqual("first", str(self.failureResultOf(self.all, NotReachable).value))
        self.assertEqual([], self.flushLoggedErrors(CancelledError, NotReachable))
