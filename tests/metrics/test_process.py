"""Tests of :mod:`cloudconnect.metrics.process`."""

from __future__ import annotations

from prometheus_client import generate_latest
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.metrics.process import process_registry


class ProcessTests(SynchronousTestCase):
    """What every process tells."""

    def test_told(self) -> None:
        """Its release, its roles, its memory and open files."""
        registry = process_registry(["gateway", "wan"])
        for role in ("gateway", "wan"):
            value = registry.get_sample_value("cloudconnect_role_up", {"role": role})
            self.assertEqual(1, value)
        self.assertIn(b"cloudconnect_build_info{version=", generate_latest(registry))
        self.assertGreater(registry.get_sample_value("process_open_fds") or 0, 0)
