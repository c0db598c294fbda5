"""Tests of :mod:`cloudconnect.metrics.alarms`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.metrics.alarms import AlarmsWaiting
from cloudconnect.provider.alarms.delivery import COLLECT_SECONDS, Delivery
from tests.provider.alarms.test_delivery import ALARM, Somebody


class WaitingTests(SynchronousTestCase):
    """Whether alarms get through."""

    def test_failing(self) -> None:
        """A way that fails shows so, with what waits for it."""
        clock, way = Clock(), Somebody()
        delivery = Delivery(clock, way)
        delivery.startService()
        self.addCleanup(delivery.stopService)
        registry = CollectorRegistry()
        registry.register(AlarmsWaiting(lambda: [delivery]))
        name, label = "cloudconnect_alarms", '{way="somebody"}'
        self.assertIn(f"{name}_failing{label} 0.0", generate_latest(registry).decode())
        way.away = True
        delivery.add(ALARM)
        clock.advance(COLLECT_SECONDS)
        text = generate_latest(registry).decode()
        for line in (f"failing{label} 1.0", f"waiting{label} 1.0", f"given_up{label} 0.0"):
            self.assertIn(f"{name}_{line}", text)
