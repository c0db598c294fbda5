"""Layer 5: what each role of a process has to do, and which nodes the service sees.

All are read when somebody asks. Nodes are those that an admin has let in: their names are few.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cloudconnect.provider.gateway.gateway import Gateway
from cloudconnect.sessions.role import TargetRole

if (
    TYPE_CHECKING
):  # a gateway or an accelerator shows metrics, too, and wants no data base in memory
    from cloudconnect.provider.service.service import CloudConnectService


class GatewayLoad(Collector):
    """What a gateway has to do.

    :param gateway: of this process
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterable[Metric]:
        """The three families."""
        gateway, traffic = self._gateway, self._gateway.relays.traffic
        yield GaugeMetricFamily(
            "cloudconnect_gateway_connections",
            "Connections that are open.",
            value=gateway.admission.count,
        )
        yield GaugeMetricFamily(
            "cloudconnect_gateway_routes",
            "Routes that sessions may use now.",
            value=gateway.route_count,
        )
        relayed = CounterMetricFamily(
            "cloudconnect_gateway_relayed_bytes",
            "Bytes relayed, from tenants (up) and to them (down).",
            labels=["direction"],
        )
        relayed.add_metric(["up"], traffic.up)
        relayed.add_metric(["down"], traffic.down)
        yield relayed


class RoleSessions(Collector):
    """In how many sessions the target roles of a process take part.

    :param roles: a mover, a WAN accelerator, or both
    """

    def __init__(self, roles: Sequence[TargetRole]) -> None:
        self._roles = list(roles)

    def collect(self) -> Iterable[Metric]:
        """The one family."""
        family = GaugeMetricFamily(
            "cloudconnect_role_sessions", "Sessions that a role takes part in.", labels=["role"]
        )
        for role in self._roles:
            family.add_metric([role.role], role.session_count)
        yield family


class NodesSeen(Collector):
    """Which nodes of their own process are there, as the service sees them.

    :param service: what they register with
    """

    def __init__(self, service: CloudConnectService) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """The two families."""
        labels = ["role", "name"]
        up = GaugeMetricFamily(
            "cloudconnect_node_up", "Whether a node is registered.", labels=labels
        )
        sessions = GaugeMetricFamily(
            "cloudconnect_node_sessions", "Sessions that a node takes part in.", labels=labels
        )
        for role, name in self._service.node_certificates.names():
            fields = self._service.node_fields(role, name)
            up.add_metric([role, name], fields["connected"])
            sessions.add_metric([role, name], fields["sessions"])
        return (up, sessions)
