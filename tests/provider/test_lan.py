"""Tests of :mod:`cloudconnect.provider.lan`: how gateways and movers speak with the service."""

from __future__ import annotations

import os
from typing import Any

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.lan import PublishRoute, Register, ReportEvent, ReportWarning
from cloudconnect.commands.links import link_in_process
from cloudconnect.errors import ProtocolViolation, WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.gateway import Gateway
from cloudconnect.provider.lan import GatewayRegistration, NodeFactory, ServiceEnd
from cloudconnect.provider.planning import GatewayPlace
from cloudconnect.transports.endpoints import wrap_client_endpoint, wrap_server_endpoint
from cloudconnect.transports.memory import MemoryEndpoint
from cloudconnect.transports.nodes import NodeName, NodeTrust
from cloudconnect.transports.switch import FactoryTarget
from cloudconnect.transports.tls import MutualTLS
from tests.certificates import Authority
from tests.provider.stage import StageCase

BACKEND, ADVERTISED = "10.0.0.5:6182", "gateway.example.com:6180"


class ReportTests(StageCase):
    """What a mover reports."""

    def setUp(self) -> None:
        super().setUp()
        _, self.link = link_in_process(
            self.reactor, ServiceEnd(self.provider.service, "target-mover"), None
        )

    def report(self, command: Any, **values: Any) -> Any:
        answer = self.link.call(command, **values)
        self.reactor.settle()
        return answer

    def test_warning(self) -> None:
        """A mover's warning is kept."""
        warning = SecurityWarning(
            time=1.0, kind=WarningKind.TAMPERED, tenant="acme", role="target-mover", text="flipped"
        )
        self.successResultOf(self.report(ReportWarning, warning=warning.as_dict()))
        (row,) = self.provider.events(type="warning")
        self.assertEqual(
            ("tampered", "acme", "target-mover"), (row["name"], row["tenant"], row["reported_by"])
        )

    def test_event(self) -> None:
        """A mover's step is kept, as the mover's."""
        event = SessionEvent(time=1.0, name="a_step", session="ab" * 16, text="", fields={"n": 1})
        self.successResultOf(self.report(ReportEvent, event=attrs.asdict(event)))
        (row,) = self.provider.events(name="a_step")
        self.assertEqual(("target-mover", {"n": 1}), (row["reported_by"], row["fields"]))

    def test_unreadable(self) -> None:
        """What is no warning or no event is refused, and nothing is kept."""
        whole = SecurityWarning(time=1.0, kind=WarningKind.TAMPERED).as_dict()
        for wrong in (None, [], {}, {**whole, "kind": "nonsense"}, {**whole, "more": 1}):
            self.failureResultOf(self.report(ReportWarning, warning=wrong), ProtocolViolation)
        for wrong in ({}, {"time": 1.0}, {"more": 1}):
            self.failureResultOf(self.report(ReportEvent, event=wrong), ProtocolViolation)
        self.assertEqual([], self.provider.events())


class RegistrationTests(StageCase):
    """How a gateway of its own process registers, over mutual TLS."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority("LAN")
        os.makedirs(self.directory, exist_ok=True)
        self.ca = self.authority.write(self.directory / "ca.pem")
        self.lan = MemoryEndpoint(self.reactor, "LAN")
        self.registered: list[str] = []
        self.made: list[Any] = []

    def tls(self, role: str, name: str, peer: str, authority: Authority | None = None) -> MutualTLS:
        issued = (authority or self.authority).issue_node(NodeName(role, name).uri)
        identity = issued.write(self.directory / f"{role}-{name}")
        return MutualTLS(NodeTrust(self.ca, (peer,)), identity)

    def serve(self, backend: str = BACKEND) -> None:
        """The service listens for gateways."""
        factory = NodeFactory(self.provider.service, backend)
        build = factory.buildProtocol
        factory.buildProtocol = lambda addr: self.made.append(build(addr)) or self.made[-1]
        tls = self.tls("service", "service", "gateway")
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
            self.registered.append,
        )
        registration.startService()
        self.addCleanup(registration.stopService)
        self.reactor.settle()
        return gateway

    @property
    def places(self) -> list[GatewayPlace]:
        return list(self.provider.service._gateways.values())

    def test_registers(self) -> None:
        """The service knows the gateway and its address, the gateway where TLS goes."""
        self.serve()
        self.start()
        self.assertEqual([BACKEND], self.registered)
        self.assertEqual([GatewayPlace(), GatewayPlace(BACKEND, ADVERTISED)], self.places)

    def test_routes_on_the_same_line(self) -> None:
        """The service publishes routes on the line that the gateway has opened."""
        self.serve()
        gateway = self.start()
        route = b"r" * 16
        values = {"backend": BACKEND, "group": b"g" * 16, "rate": 0, "lifetime": 60_000}
        answer = self.made[0].call(PublishRoute, route=route, **values)
        self.reactor.settle()
        self.successResultOf(answer)
        target = gateway.target(route)
        assert target is not None
        self.assertEqual(BACKEND, target.description)

    def test_gone(self) -> None:
        """A gateway whose line is lost is not there any more; it comes back by itself."""
        self.serve()
        self.start()
        self.made[0].transport.abortConnection()
        self.reactor.settle()
        self.assertEqual([GatewayPlace()], self.places)
        self.reactor.pass_time(60)
        self.assertEqual([GatewayPlace(), GatewayPlace(BACKEND, ADVERTISED)], self.places)
        self.assertEqual([BACKEND] * 2, self.registered)

    def test_no_back_end(self) -> None:
        """A provider that is not set up for gateways on other hosts says so."""
        self.serve("")
        self.start()
        self.assertEqual(([], [GatewayPlace()]), (self.registered, self.places))
        self.assertIn("no back-end port", self.log_text())

    def test_other_role(self) -> None:
        """A node that is no gateway by its certificate cannot register."""
        self.serve()
        self.start(self.tls("mover", "edge", "service"))
        self.assertEqual(([], [GatewayPlace()]), (self.registered, self.places))

    def test_other_authority(self) -> None:
        """Nor can one that another authority has named."""
        self.serve()
        self.start(self.tls("gateway", "edge", "service", Authority("another LAN")))
        self.assertEqual(([], [GatewayPlace()]), (self.registered, self.places))

    def test_tries_again(self) -> None:
        """As long as it cannot register it tries again, ever more slowly, on one line at a time."""
        self.serve("")
        self.start()
        self.reactor.pass_time(600)
        self.assertTrue(5 < len(self.made) < 60, len(self.made))
        self.assertEqual([], [made for made in self.made if made.transport is not None])

    def test_not_there(self) -> None:
        """A service that is not there yet is found once it is."""
        self.start()
        self.assertEqual([], self.registered)
        self.serve()
        self.reactor.pass_time(60)
        self.assertEqual([BACKEND], self.registered)

    def test_stopped(self) -> None:
        """A gateway that stops closes its line and opens no other."""
        self.serve()
        self.start()
        self.reactor.result_of(self.registration.stopService())
        self.reactor.pass_time(600)
        self.assertEqual(([GatewayPlace()], 1), (self.places, len(self.made)))

    def test_stopped_while_waiting(self) -> None:
        """Nor does one that waits for its next attempt."""
        self.start()
        self.reactor.result_of(self.registration.stopService())
        self.serve()
        self.reactor.pass_time(600)
        self.assertEqual([], self.made)


class NodeTests(SynchronousTestCase):
    """The service's end by itself."""

    def test_only_register(self) -> None:
        """On its line a gateway can register and nothing else: it cannot report for a mover."""

        class Service:
            reactor = Clock()

            def lose_gateway(self, link: object) -> None:
                """Nothing."""

        node = NodeFactory(Service(), "").buildProtocol(None)  # type: ignore[arg-type]
        commands = set(node._commandDispatch)
        self.assertEqual({Register.commandName}, commands)
