"""Tests of :mod:`cloudconnect.sessions.unproved`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.sessions.unproved import UNPROVED_MAX, Unproved


class Stranger:
    """A connection that proves nothing, and its own transport."""

    aborted = False

    @property
    def transport(self) -> Stranger:
        return self

    def abortConnection(self) -> None:
        self.aborted = True


class UnprovedTests(SynchronousTestCase):
    """Strangers on a route."""

    def test_room(self) -> None:
        """There is always room for one more: the oldest are closed for it, and no other."""
        unproved, strangers = Unproved(), [Stranger() for _ in range(UNPROVED_MAX + 5)]
        for stranger in strangers:
            unproved.make_room()
            unproved.append(stranger)
        self.assertEqual(strangers[5:], unproved)
        self.assertEqual(strangers[:5], [one for one in strangers if one.aborted])

    def test_settled(self) -> None:
        """One that is settled does not count any more, however often that is said."""
        one, other = Stranger(), Stranger()
        unproved: Any = Unproved([one, other])
        for _ in range(2):
            unproved.settled(one)
            self.assertEqual([other], unproved)
        self.assertFalse(one.aborted)
