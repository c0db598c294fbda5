"""Layer 6: the private port of metrics and health that a process may have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector
from twisted.logger import Logger

from cloudconnect.config.endings import node_endings
from cloudconnect.metrics.alarms import AlarmsWaiting
from cloudconnect.metrics.certificates import CertificateEnds
from cloudconnect.metrics.endpoint import Checks, MetricsSite
from cloudconnect.metrics.process import process_registry
from cloudconnect.metrics.provider import ProviderMetrics
from cloudconnect.metrics.roles import GatewayLoad, NodesSeen, RoleSessions
from cloudconnect.provider.alarms.delivery import Delivery
from cloudconnect.provider.alarms.expiry import Ending
from cloudconnect.provider.gateway.gateway import Gateway
from cloudconnect.sessions.role import TargetRole
from cloudconnect.tap.processes import endpoint_from
from cloudconnect.transports.listening import Listener

if TYPE_CHECKING:  # of the provider's own process; others start without all of it
    from cloudconnect.provider.assembly import EmbeddedProvider

#: The option of every plugin for it.
METRICS_OPTION: Final = [
    "metrics",
    "m",
    None,
    "Endpoint string of a private port for /metrics, /healthz and /readyz.",
]


class MetricsPort(Listener):
    """Listens as soon as it is started; where it cannot, the process goes on without it.

    :param where: endpoint string
    :raises UsageError: it describes no endpoint
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, where: str, registry: CollectorRegistry, checks: Checks | None = None
    ) -> None:
        site: Any = MetricsSite(reactor, registry, checks)
        super().__init__(endpoint_from(reactor, where), site, "metrics")

    def startService(self) -> None:
        """Listen."""
        super().startService()  # type: ignore[no-untyped-call]
        self.listen().addErrback(
            lambda failure: self._log.error("no metrics: {why}", why=failure.getErrorMessage())
        )


def add_metrics(
    reactor: Any,
    process: Any,
    where: str | None,
    role: str,
    directory: Path | None = None,
    collectors: Iterable[Collector] = (),
) -> None:
    """Give a process of one role its metrics, where it was told to have them.

    :param process: its ``MultiService``
    :param directory: of a node, whose certificates are shown
    :param collectors: what else is shown
    :raises UsageError: ``where`` describes no endpoint
    """
    if where:
        registry = process_registry([role])
        if directory is not None:
            registry.register(CertificateEnds(partial(node_endings, directory)))
        for collector in collectors:
            registry.register(collector)
        MetricsPort(reactor, where, registry).setServiceParent(process)  # type: ignore[no-untyped-call]


def provider_registry(
    provider: EmbeddedProvider,
    endings: Callable[[], Iterable[Ending]],
    deliveries: Callable[[], Iterable[Delivery]],
) -> CollectorRegistry:
    """The metrics of a provider's process, which counts from now on.

    :param endings: the certificates as they are now
    :param deliveries: the ways of alarms as they are now
    """
    gateways = [child for child in provider if isinstance(child, Gateway)]
    roles = [child for child in provider if isinstance(child, TargetRole)]
    names = ["service", *(["gateway"] if gateways else []), *(role.role for role in roles)]
    registry = process_registry(names)
    provider.service.watchers.add(
        ProviderMetrics(registry, lambda: provider.usage.stored, endings=endings)
    )
    for collector in (
        NodesSeen(provider.service),
        RoleSessions(roles),
        AlarmsWaiting(deliveries),
        *map(GatewayLoad, gateways),
    ):
        registry.register(collector)
    return registry
