"""Tests of :mod:`cloudconnect.provider.service.amending`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.control import SessionKind
from cloudconnect.provider.service.amending import GoodEnds
from cloudconnect.provider.service.live import LiveSession
from cloudconnect.settings import AMEND_SECONDS

JOB = b"j" * 16


def live_session(**changes: Any) -> LiveSession:
    values: dict[str, Any] = {
        "session": b"s" * 16,
        "tenant": "acme",
        "kind": SessionKind.BACKUP,
        "job": JOB,
        "labels": ("host", "job"),
        "repository": bytes(16),
        "parts": [],
        "notify": lambda warning: succeed(True),
        "label": "one",
        **changes,
    }
    return LiveSession(**values)


class GoodEndsTests(SynchronousTestCase):
    """Sessions of several jobs."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.good = GoodEnds(self.clock)
        self.ours = live_session()
        self.others = [
            live_session(tenant="other"),
            live_session(job=b"k" * 16),
            live_session(label="two"),
        ]
        for live in (self.ours, *self.others):
            self.good.add(live)

    def judged(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.good.judge("acme", JOB, "one"))

    def test_for_a_while(self) -> None:
        """An end may be taken back for so long, and then is not remembered."""
        self.clock.advance(AMEND_SECONDS)
        self.assertTrue(self.good.has(self.ours))
        self.clock.advance(1)
        self.assertFalse(self.good.has(self.ours))
        self.assertEqual({}, self.good._known)

    def test_judged(self) -> None:
        """Nor once the job goes on; other jobs, tenants and credentials have no part in that."""
        self.successResultOf(self.judged())
        self.assertFalse(self.good.has(self.ours))
        self.assertTrue(all(map(self.good.has, self.others)))

    def test_succeeded(self) -> None:
        """An end that is told only then is not taken back either."""
        late = live_session(session=b"l" * 16, succeeded=True)
        self.good.add(late)
        self.assertFalse(self.good.has(late))

    def test_waited_for(self) -> None:
        """What is being taken back is waited for, also where that fails; it is done once."""
        with self.assertRaises(ValueError), self.good.taking_back(self.ours):
            self.assertFalse(self.good.has(self.ours))
            judged = self.judged()
            self.assertNoResult(judged)
            raise ValueError
        self.successResultOf(judged)
        self.assertFalse(self.good.has(self.ours))
