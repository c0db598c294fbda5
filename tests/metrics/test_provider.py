"""Tests of :mod:`cloudconnect.metrics.provider`: what is counted, and within which bound."""

from __future__ import annotations

import shutil
import subprocess
import time

from prometheus_client import generate_latest
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from cloudconnect.errors import WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.metrics.labels import TENANTS_MAX
from cloudconnect.metrics.process import process_registry
from cloudconnect.metrics.provider import ProviderMetrics
from cloudconnect.provider.alarms.expiry import Ending
from cloudconnect.provider.watching import SessionEnd
from tests.provider.stage import StageCase, idle


def some_session(metrics: ProviderMetrics, tenant: str, number: int, state: str = "done") -> None:
    """A log-in and a whole backup."""
    metrics.logged_in(tenant, "192.0.2.1")
    metrics.session_started(f"{number:032x}", tenant, "backup")
    event = SessionEvent(time=time.time(), name="key_a_made", session="", text="")
    metrics.happened(event, tenant, "service")
    metrics.session_ended(
        SessionEnd(
            session=f"{number:032x}",
            tenant=tenant,
            kind="backup",
            host="host",
            job="job",
            state=state,
            summary={"bytes_sent": 10},
        )
    )


class CountTests(SynchronousTestCase):
    """What is counted."""

    def setUp(self) -> None:
        self.stored: dict[str, int] = {}
        self.registry = process_registry(["service"])
        self.metrics = ProviderMetrics(
            self.registry, lambda: self.stored, endings=lambda: [Ending("the certificate", 5.0)]
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"cloudconnect_{name}", labels)

    def test_session(self) -> None:
        """A backup is counted when it begins and ends, with what it sent."""
        self.metrics.session_started("ab" * 16, "acme", "restore")
        some_session(self.metrics, "acme", 1)
        done = {"tenant": "acme", "kind": "backup", "state": "done"}
        self.assertEqual(1, self.value("sessions_total", **done))
        self.assertEqual(0, self.value("sessions_running", kind="backup"))
        self.assertEqual(1, self.value("sessions_running", kind="restore"))
        self.assertEqual(10, self.value("backup_sent_bytes_total", tenant="acme"))
        self.assertEqual(1, self.value("role_up", role="service"))
        last = self.value("last_backup_timestamp_seconds", tenant="acme")
        self.assertGreater(last or 0, time.time() - 3600)

    def test_failed(self) -> None:
        """A backup that failed is no last backup."""
        some_session(self.metrics, "acme", 1, "failed")
        self.assertIsNone(self.value("last_backup_timestamp_seconds", tenant="acme"))

    def test_endings(self) -> None:
        """When certificates end can be watched."""
        ends = self.value("certificate_end_timestamp_seconds", certificate="the certificate")
        self.assertEqual(5.0, ends)

    def test_warning(self) -> None:
        """A warning is counted by its kind."""
        warning = SecurityWarning(time=1.0, kind=WarningKind.TAMPERED, role="target-mover")
        self.metrics.warned(warning)
        labels = {"kind": WarningKind.TAMPERED.value, "role": "target-mover"}
        self.assertEqual(1, self.value("security_warnings_total", **labels))

    def test_bound(self) -> None:
        """A thousand tenants stay within the bound, and what they have adds up."""
        for number in range(1000):
            some_session(self.metrics, f"tenant-{number}", number)
            self.stored[f"tenant-{number}"] = 5
        text = generate_latest(self.registry).decode()
        named = {part.split('"')[1] for part in text.split("tenant=")[1:]}
        self.assertEqual(TENANTS_MAX + 1, len(named))
        rest = 1000 - TENANTS_MAX
        self.assertEqual(rest, self.value("logins_total", tenant="other"))
        self.assertEqual(5 * rest, self.value("stored_bytes", tenant="other"))
        self.assertLess(text.count("\n"), 20 * TENANTS_MAX)

    def test_promtool(self) -> None:
        """Prometheus's own tool accepts the metrics."""
        promtool = shutil.which("promtool")
        if promtool is None:
            raise SkipTest("promtool is not installed")
        some_session(self.metrics, "acme", 1)
        self.metrics.administered("add_tenant", {}, "done")
        warning = SecurityWarning(time=1.0, kind=WarningKind.TAMPERED, role="target-mover")
        self.metrics.warned(warning)
        self.stored["acme"] = 5
        done = subprocess.run(
            [promtool, "check", "metrics"],
            input=generate_latest(self.registry),
            capture_output=True,
            timeout=60,
        )
        self.assertEqual((0, b"", b""), (done.returncode, done.stdout, done.stderr))


class StageTests(StageCase):
    """With a whole provider."""

    def test_seen(self) -> None:
        """A session of a real service is counted from its log-in to its end."""
        registry = process_registry([])
        self.provider.service.watchers.add(ProviderMetrics(registry))
        tenant = self.connected()
        self.reactor.result_of(tenant.session(idle(tenant)))
        labels = {"tenant": "acme", "kind": "read", "state": "done"}
        self.assertEqual(1, registry.get_sample_value("cloudconnect_sessions_total", labels))
        self.assertEqual(
            1, registry.get_sample_value("cloudconnect_logins_total", {"tenant": "acme"})
        )
