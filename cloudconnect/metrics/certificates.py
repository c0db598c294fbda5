"""Layer 5: the metric of when certificates end, of a provider or a node."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cloudconnect.provider.alarms.expiry import Ending


class CertificateEnds(Collector):
    """When certificates end, read when somebody asks.

    :param endings: the certificates as they are now
    """

    def __init__(self, endings: Callable[[], Iterable[Ending]]) -> None:
        self._endings = endings

    def collect(self) -> Iterable[Metric]:
        """The one family."""
        family = GaugeMetricFamily(
            "cloudconnect_certificate_end_timestamp_seconds",
            "When a certificate ends.",
            labels=["certificate"],
        )
        for ending in self._endings():
            family.add_metric([ending.name], ending.ends)
        yield family
