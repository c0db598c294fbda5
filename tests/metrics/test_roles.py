"""Tests of :mod:`cloudconnect.metrics.roles`, with roles that work in memory."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.accelerator.target import TargetAccelerator
from cloudconnect.commands.links import link_in_process
from cloudconnect.metrics.roles import GatewayLoad, NodesSeen, RoleSessions
from cloudconnect.provider.gateway.gateway import Gateway
from cloudconnect.provider.nodes.movers import MoverPlace
from cloudconnect.transports.memory import MemoryEndpoint
from tests.provider.stage import StageCase


def shown(collector: Any) -> str:
    """What a process shows."""
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


class GatewayTests(SynchronousTestCase):
    """A gateway."""

    def test_load(self) -> None:
        """Its connections, routes, and what it has relayed."""
        clock = Clock()
        target: Any = object()
        gateway = Gateway(clock, MemoryEndpoint(clock, "port"), lambda backend: target)
        gateway.publish(b"r" * 16, "here", b"g" * 16, 0, 60_000)
        gateway.relays.traffic.up = 7
        text = shown(GatewayLoad(gateway))
        for line in (
            "cloudconnect_gateway_connections 0.0",
            "cloudconnect_gateway_routes 1.0",
            'cloudconnect_gateway_relayed_bytes_total{direction="up"} 7.0',
            'cloudconnect_gateway_relayed_bytes_total{direction="down"} 0.0',
        ):
            self.assertIn(line, text)


class SessionTests(SynchronousTestCase):
    """Target roles."""

    def test_count(self) -> None:
        """In how many sessions each takes part."""
        nothing: Any = lambda *_: None  # noqa: E731
        role = TargetAccelerator(Clock(), nothing, nothing)
        self.assertIn(
            'cloudconnect_role_sessions{role="target-wan"} 0.0', shown(RoleSessions([role]))
        )
        session: Any = object()
        role._by_session[b"s" * 16] = session
        self.assertIn(
            'cloudconnect_role_sessions{role="target-wan"} 1.0', shown(RoleSessions([role]))
        )


class NodeTests(StageCase):
    """Nodes of their own processes."""

    def test_up(self) -> None:
        """A node that is registered is up; one that was seen and is away is not."""
        service = self.provider.service
        for name in ("one", "two"):
            service.node_certificates.saw("mover", name, 5.0)
        link, _ = link_in_process(self.reactor, None, None)
        service.nodes.join(link, "mover", "one")
        service.nodes.movers.add(link, MoverPlace("one:1", "s", "h", "one"))
        text = shown(NodesSeen(service))
        self.assertIn('cloudconnect_node_up{name="one",role="mover"} 1.0', text)
        self.assertIn('cloudconnect_node_up{name="two",role="mover"} 0.0', text)
        self.assertIn('cloudconnect_node_sessions{name="one",role="mover"} 0.0', text)
