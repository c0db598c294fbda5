"""A provider's LAN link in memory, with nodes that the test plays."""

from __future__ import annotations

import os
from typing import Any

from twisted.protocols.amp import CommandLocator

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.lan import EndSession
from cloudconnect.events import SecurityWarning
from cloudconnect.provider.gateway.gateway import Gateway
from cloudconnect.provider.nodes.lan import NodeFactory
from cloudconnect.provider.nodes.registrations import GatewayRegistration
from cloudconnect.provider.service.planning import GatewayPlace
from cloudconnect.transports.endpoints import wrap_client_endpoint, wrap_server_endpoint
from cloudconnect.transports.memory import MemoryEndpoint
from cloudconnect.transports.nodes import NodeName, NodeTrust
from cloudconnect.transports.switch import FactoryTarget
from cloudconnect.transports.tls import MutualTLS
from tests.certificates import Authority
from tests.provider.stage import StageCase

BACKEND, ADVERTISED = "10.0.0.5:6182", "gateway.example.com:6180"
ITS_BACKEND = "10.0.0.6:6183"


class Accelerator(CommandLocator):
    """What the registration and the service know of an accelerator.

    :ivar lost: how often it was told that its line is gone
    :ivar ends: outcomes of the sessions that the service has ended
    """

    def __init__(self) -> None:
        super().__init__()
        self.link: BoundedAMP | None = None
        self.lost = 0
        self.ends: list[str] = []

    def link_lost(self) -> None:
        self.lost += 1

    @EndSession.responder
    def end(self, session: bytes, outcome: str) -> dict[str, Any]:
        self.ends.append(outcome)
        return {"warnings": [], "points": [], "failed": False}


class LanCase(StageCase):
    """A test with the service's LAN port and certificates."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority("LAN")
        os.makedirs(self.directory, exist_ok=True)
        self.ca = self.authority.write(self.directory / "ca.pem")
        self.lan = MemoryEndpoint(self.reactor, "LAN")
        self.registered: list[str] = []
        self.made: list[Any] = []
        self.told: list[SecurityWarning] = []

    def tls(
        self, role: str, name: str, *peers: str, authority: Authority | None = None
    ) -> MutualTLS:
        issued = (authority or self.authority).issue_node(NodeName(role, name).uri)
        identity = issued.write(self.directory / f"{role}-{name}")
        return MutualTLS(NodeTrust(self.ca, peers), identity)

    def serve(self, backend: str = BACKEND) -> None:
        """The service listens for gateways and accelerators."""
        factory = NodeFactory(self.provider.service, backend)
        build = factory.buildProtocol
        factory.buildProtocol = lambda addr: self.made.append(build(addr)) or self.made[-1]
        tls = self.tls("service", "service", "gateway", "accelerator")
        self.successResultOf(wrap_server_endpoint(tls, self.lan, self.reactor).listen(factory))

    def start(self, tls: MutualTLS | None = None) -> Gateway:
        """A gateway starts."""
        self.public = MemoryEndpoint(self.reactor, "public of the gateway")
        self.resolved: list[str] = []

        def resolve(backend: str) -> FactoryTarget:
            self.resolved.append(backend)
            return FactoryTarget(None, backend)  # type: ignore[arg-type]

        gateway = Gateway(self.reactor, self.public, resolve)
        self.registration = registration = GatewayRegistration(
            self.reactor,
            wrap_client_endpoint(
                tls or self.tls("gateway", "edge", "service"), self.lan, self.reactor
            ),
            gateway,
            ADVERTISED,
            lambda service, line: self.registered.append(service),
        )
        registration.startService()
        self.addCleanup(registration.stopService)
        self.reactor.settle()
        return gateway

    @property
    def places(self) -> list[GatewayPlace]:
        return [known.place for known in self.provider.service.nodes._gateways.values()]
