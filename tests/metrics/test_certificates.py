"""Tests of :mod:`cloudconnect.metrics.certificates`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.metrics.certificates import CertificateEnds
from cloudconnect.provider.alarms.expiry import Ending


class EndsTests(SynchronousTestCase):
    """When certificates end."""

    def test_now(self) -> None:
        """What is shown is what is there when it is asked for."""
        found = [Ending("one", 5.0)]
        registry = CollectorRegistry()
        registry.register(CertificateEnds(lambda: found))
        found[:] = [Ending("one", 6.0), Ending("two", 7.0)]
        text = generate_latest(registry).decode()
        name = "cloudconnect_certificate_end_timestamp_seconds"
        self.assertIn(f'{name}{{certificate="one"}} 6.0', text)
        self.assertIn(f'{name}{{certificate="two"}} 7.0', text)
