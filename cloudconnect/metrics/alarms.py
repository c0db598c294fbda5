"""Layer 5: the metrics of whether alarms get to somebody."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cloudconnect.provider.alarms.delivery import Delivery


class AlarmsWaiting(Collector):
    """How many alarms wait for each way, and whether it fails, read when somebody asks.

    :param deliveries: the ways as they are now
    """

    def __init__(self, deliveries: Callable[[], Iterable[Delivery]]) -> None:
        self._deliveries = deliveries

    def collect(self) -> Iterable[Metric]:
        """The three families."""
        named = ["way"]
        waiting = GaugeMetricFamily(
            "cloudconnect_alarms_waiting", "Alarms that wait to be sent.", labels=named
        )
        failing = GaugeMetricFamily(
            "cloudconnect_alarms_failing", "Whether alarms do not get through.", labels=named
        )
        dropped = GaugeMetricFamily(
            "cloudconnect_alarms_given_up",
            "Alarms that were given up since one got through.",
            labels=named,
        )
        for delivery in self._deliveries():
            waiting.add_metric([delivery.way], delivery.waiting)
            failing.add_metric([delivery.way], delivery.failing)
            dropped.add_metric([delivery.way], delivery.dropped)
        return (waiting, failing, dropped)
