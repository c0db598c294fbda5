"""Tests of :mod:`cloudconnect.provider.alarms.delivery`: the queue, on a clock."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import NotReachable
from cloudconnect.provider.alarms.alarms import Alarm
from cloudconnect.provider.alarms.delivery import (
    BATCH_MAX,
    COLLECT_SECONDS,
    GIVE_UP_SECONDS,
    QUEUE_MAX,
    RETRY_SECONDS,
    SEND_SECONDS,
    Delivery,
)

ALARM = Alarm(time=1.0, name="tampered", security=True, tenant="acme", text="seen")


class Somebody:
    """Takes alarms, or does not."""

    name = "somebody"

    def __init__(self) -> None:
        self.got: list[tuple[int, int]] = []
        self.answer: Deferred[None] | None = None
        self.asked = 0
        self.away = False

    def send(self, alarms: Sequence[Alarm], dropped: int) -> Deferred[None]:
        self.asked += 1
        if self.answer is not None:
            return self.answer
        if self.away:
            return fail(NotReachable("away"))
        self.got.append((len(alarms), dropped))
        return succeed(None)


class QueueTests(SynchronousTestCase):
    """The queue before one way."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.way = Somebody()
        self.told: list[tuple[str, str]] = []
        self.delivery = Delivery(
            self.clock, self.way, lambda name, why: self.told.append((name, why))
        )
        self.delivery.startService()
        self.addCleanup(self.delivery.stopService)

    def test_together(self) -> None:
        """What comes within some seconds is one message."""
        for _ in range(3):
            self.delivery.add(ALARM)
        self.assertEqual([], self.way.got)
        self.clock.advance(COLLECT_SECONDS)
        self.assertEqual([(3, 0)], self.way.got)

    def test_many(self) -> None:
        """A message has at most so many; the rest follows at once."""
        for _ in range(BATCH_MAX + 1):
            self.delivery.add(ALARM)
        self.clock.advance(COLLECT_SECONDS)
        self.clock.advance(0)
        self.assertEqual([(BATCH_MAX, 0), (1, 0)], self.way.got)

    def test_again(self) -> None:
        """What did not get through is tried again, later and later, and nothing is lost."""
        self.way.away = True
        self.delivery.add(ALARM)
        self.clock.advance(COLLECT_SECONDS)
        for seconds in RETRY_SECONDS[:3]:
            self.clock.advance(seconds)
        self.assertEqual(4, self.way.asked)
        self.way.away = False
        self.delivery.add(ALARM)
        self.clock.advance(RETRY_SECONDS[3])
        self.assertEqual([(2, 0)], self.way.got)

    def test_told(self) -> None:
        """That it does not get through is told once, and so is that it does again."""
        self.way.away = True
        self.delivery.add(ALARM)
        self.clock.advance(COLLECT_SECONDS)
        self.clock.advance(RETRY_SECONDS[0])
        self.assertEqual([("somebody", "away")], self.told)
        self.assertEqual((True, 1), (self.delivery.failing, self.delivery.waiting))
        self.way.away = False
        self.clock.advance(RETRY_SECONDS[1])
        self.assertEqual([("somebody", "away"), ("somebody", "")], self.told)
        self.assertEqual((False, 0), (self.delivery.failing, self.delivery.waiting))

    def test_silent(self) -> None:
        """Somebody who does not answer is asked again."""
        self.way.answer = Deferred()
        self.delivery.add(ALARM)
        self.clock.advance(COLLECT_SECONDS)
        self.clock.advance(SEND_SECONDS)
        self.way.answer = None
        self.clock.advance(RETRY_SECONDS[0])
        self.assertEqual([(1, 0)], self.way.got)

    def test_bounds(self) -> None:
        """The queue is bounded, and after a day what waits is given up; both are counted."""
        self.way.away = True
        for _ in range(QUEUE_MAX + 7):
            self.delivery.add(ALARM)
        self.assertEqual(7, self.delivery.dropped)
        self.clock.pump([600.0] * int(GIVE_UP_SECONDS / 600 + 10))
        self.assertEqual(QUEUE_MAX + 7, self.delivery.dropped)
        self.way.away = False
        self.delivery.add(ALARM)
        self.clock.pump([600.0] * 10)
        self.assertEqual([(1, QUEUE_MAX + 7)], self.way.got)
        self.assertEqual(0, self.delivery.dropped)

    def test_taken_over(self) -> None:
        """What waits for a way that has stopped can be sent by another one."""
        self.way.away = True
        self.delivery.add(ALARM)
        self.clock.advance(COLLECT_SECONDS)
        self.delivery.stopService()
        way = Somebody()
        other = Delivery(self.clock, way)
        other.startService()
        self.addCleanup(other.stopService)
        other.take_over(self.delivery)
        self.clock.advance(COLLECT_SECONDS)
        self.assertEqual([(1, 0)], way.got)

    def test_stop(self) -> None:
        """After a stop nothing is sent any more."""
        self.delivery.add(ALARM)
        self.delivery.stopService()
        self.assertEqual([], self.clock.getDelayedCalls())
