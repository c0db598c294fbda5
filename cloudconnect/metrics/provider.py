"""Layer 5: the metrics of a provider: sessions, log-ins, warnings, what is stored.

It looks on as a :class:`~cloudconnect.provider.watching.Watcher`. Names follow Prometheus's habits:
base units, ``_total`` for what only grows. Tenants have labels within a bound
(:mod:`cloudconnect.metrics.labels`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.metrics.certificates import CertificateEnds
from cloudconnect.metrics.labels import TENANTS_MAX, BoundedLabels
from cloudconnect.provider.alarms.expiry import Ending
from cloudconnect.provider.watching import SessionEnd, Watcher

#: Names of events, states and acts that have series of their own: more than there are.
WORDS_MAX: Final = 100
#: States of a backup that leave a restore point.
_GOOD: Final = ("done", "incomplete")


class ProviderMetrics(Watcher):
    """Counts what a provider's service sees.

    :param registry: where the metrics go
    :param stored: the bytes that each tenant had stored when that was measured last
    :param tenants_max: tenants with series of their own
    :param endings: the certificates and when they end
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        stored: Callable[[], Mapping[str, int]] = dict,
        tenants_max: int = TENANTS_MAX,
        endings: Callable[[], Iterable[Ending]] = tuple,
    ) -> None:
        self._tenant = BoundedLabels(tenants_max)
        self._word = BoundedLabels(WORDS_MAX)
        self._running: dict[str, str] = {}

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"cloudconnect_{name}", what, labels, registry=registry)

        self._started = counter("sessions_started", "Sessions that began.", "tenant", "kind")
        self._ended = counter("sessions", "Sessions that ended.", "tenant", "kind", "state")
        self._sent = counter(
            "backup_sent_bytes", "Bytes sent in backups, as the tenants say.", "tenant"
        )
        self._logins = counter("logins", "Log-ins that succeeded.", "tenant")
        self._warnings = counter("security_warnings", "Security warnings.", "kind", "role")
        self._events = counter("events", "Steps that were kept as events.", "name", "role")
        self._acts = counter("admin_acts", "Acts of an admin.", "act", "outcome")
        self._live = Gauge(
            "cloudconnect_sessions_running", "Sessions now.", ["kind"], registry=registry
        )
        self._last = Gauge(
            "cloudconnect_last_backup_timestamp_seconds",
            "When a tenant's last good backup ended.",
            ["tenant"],
            registry=registry,
        )
        registry.register(_Stored(stored, self._tenant))
        registry.register(CertificateEnds(endings))

    def happened(self, event: SessionEvent, tenant: str, reported_by: str) -> None:
        """One more event."""
        self._events.labels(name=self._word(event.name), role=self._word(reported_by)).inc()

    def warned(self, warning: SecurityWarning) -> None:
        """One more warning."""
        role = self._word(warning.role or "service")
        self._warnings.labels(kind=warning.kind.value, role=role).inc()

    def logged_in(self, tenant: str, peer: str) -> None:
        """One more log-in."""
        self._logins.labels(tenant=self._tenant(tenant)).inc()

    def session_started(self, session: str, tenant: str, kind: str) -> None:
        """One more session."""
        self._running[session] = kind
        self._started.labels(tenant=self._tenant(tenant), kind=kind).inc()
        self._live.labels(kind=kind).inc()

    def session_ended(self, end: SessionEnd) -> None:
        """One less."""
        tenant = self._tenant(end.tenant)
        kind = self._running.pop(end.session, None)
        if kind is not None:
            self._live.labels(kind=kind).dec()
        self._ended.labels(tenant=tenant, kind=end.kind, state=self._word(end.state)).inc()
        if end.kind == "backup" and end.state in _GOOD:
            self._last.labels(tenant=tenant).set_to_current_time()
            sent = end.summary.get("bytes_sent")
            if type(sent) is int and sent > 0:
                self._sent.labels(tenant=tenant).inc(sent)

    def administered(self, act: str, fields: dict[str, Any], outcome: str) -> None:
        """One more act."""
        self._acts.labels(act=self._word(act), outcome=self._word(outcome)).inc()


class _Stored(Collector):
    """What is stored, read when somebody asks; what ``other`` tenants have is added up."""

    def __init__(self, stored: Callable[[], Mapping[str, int]], label: BoundedLabels) -> None:
        self._stored = stored
        self._label = label

    def collect(self) -> Iterable[Metric]:
        """The one family."""
        sums: dict[str, int] = {}
        for tenant, count in sorted(self._stored().items()):
            label = self._label(tenant)
            sums[label] = sums.get(label, 0) + count
        family = GaugeMetricFamily(
            "cloudconnect_stored_bytes",
            "Bytes of packs on the disk, when they were measured last.",
            labels=["tenant"],
        )
        for label, count in sums.items():
            family.add_metric([label], count)
        yield family
