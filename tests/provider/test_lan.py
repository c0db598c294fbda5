"""Tests of :mod:`cloudconnect.provider.lan`: how gateways and movers speak with the service."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import attrs
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.protocols.amp import CommandLocator
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.accelerator.registration import AcceleratorRegistration
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import Role, SessionKind
from cloudconnect.commands.lan import (
    AskOwner,
    EndSession,
    PublishRoute,
    Register,
    RegisterAccelerator,
    RegisterMover,
    ReportEvent,
    ReportLoad,
    ReportWarning,
)
from cloudconnect.commands.links import link_in_process
from cloudconnect.commands.renewing import RenewNode, ShowNode
from cloudconnect.errors import ContextMismatch, ProtocolViolation, Refused, WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.gateway import Gateway
from cloudconnect.provider.lan import GatewayRegistration, NodeFactory, ServiceEnd
from cloudconnect.provider.live import LiveSession
from cloudconnect.provider.planning import GatewayPlace, Part
from cloudconnect.transports.endpoints import wrap_client_endpoint, wrap_server_endpoint
from cloudconnect.transports.memory import MemoryEndpoint
from cloudconnect.transports.nodes import NodeName, NodeTrust
from cloudconnect.transports.switch import FactoryTarget
from cloudconnect.transports.tls import MutualTLS
from cloudconnect.transports.tls_layer import TLSFacts
from tests.certificates import Authority
from tests.provider.stage import TENANT, StageCase

BACKEND, ADVERTISED = "10.0.0.5:6182", "gateway.example.com:6180"
ITS_BACKEND = "10.0.0.6:6183"


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


class RegistrationTests(LanCase):
    """How a gateway of its own process registers, over mutual TLS."""

    def test_registers(self) -> None:
        """The service knows the gateway and its address, the gateway where TLS goes."""
        self.serve()
        self.start()
        self.assertEqual([BACKEND], self.registered)
        self.assertEqual([GatewayPlace(), GatewayPlace(BACKEND, ADVERTISED, "edge")], self.places)

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
        self.assertEqual([GatewayPlace(), GatewayPlace(BACKEND, ADVERTISED, "edge")], self.places)
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
        self.start(self.tls("gateway", "edge", "service", authority=Authority("another LAN")))
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


class AcceleratorTests(LanCase):
    """How a target WAN accelerator of its own process registers and reports."""

    def setUp(self) -> None:
        super().setUp()
        self.service = self.provider.service
        self.accelerator = Accelerator()

    def start_accelerator(self, tls: MutualTLS | None = None) -> None:
        """An accelerator starts."""
        self.registration = registration = AcceleratorRegistration(
            self.reactor,
            wrap_client_endpoint(
                tls or self.tls("accelerator", "one", "service"), self.lan, self.reactor
            ),
            self.accelerator,  # type: ignore[arg-type]
            ITS_BACKEND,
        )
        registration.startService()
        self.addCleanup(registration.stopService)
        self.reactor.settle()

    @property
    def backends(self) -> list[str]:
        return [backend for backend, _ in self.service.nodes._accelerators.values()]

    def call(self, command: Any, **values: Any) -> Any:
        """What the accelerator's call on its line comes to."""
        assert self.accelerator.link is not None
        answer = self.accelerator.link.call(command, **values)
        self.reactor.settle()
        return answer

    def session(self) -> LiveSession:
        """A session that goes through the accelerator."""
        live = LiveSession(
            session=b"s" * 16,
            tenant=TENANT,
            kind=SessionKind.BACKUP,
            job=b"j" * 16,
            labels=("host", "job"),
            repository=b"r" * 16,
            parts=[Part(Role.TARGET_WAN, *self.service.nodes.accelerator({}))],
            notify=lambda warning: succeed(self.told.append(warning) is None),
        )
        self.service.sessions.add(live)
        self.addCleanup(self.service.sessions.remove, live)
        return live

    def test_registers(self) -> None:
        """The service knows it, and where gateways find it."""
        self.serve()
        self.start_accelerator()
        self.assertEqual([ITS_BACKEND], self.backends)
        self.assertTrue(self.service.nodes.accelerates)

    def test_offer_on_the_same_line(self) -> None:
        """The service offers sessions on the line that the accelerator has opened."""
        self.serve()
        self.start_accelerator()
        answer = self.made[0].call(EndSession, session=b"s" * 16, outcome="done")
        self.reactor.settle()
        self.assertEqual(["done"], self.accelerator.ends)
        self.successResultOf(answer)

    def test_gone(self) -> None:
        """When the line is lost no session goes there any more, and those there end; it comes back
        by itself."""
        self.serve()
        self.start_accelerator()
        self.made[0].transport.abortConnection()
        self.reactor.settle()
        self.assertEqual(([], 1), (self.backends, self.accelerator.lost))
        self.reactor.pass_time(60)
        self.assertEqual([ITS_BACKEND], self.backends)
        self.assertEqual(1, self.accelerator.lost)

    def test_no_back_end(self) -> None:
        """Where the provider has no port on which its mover can be reached, it says so."""
        self.serve("")
        self.start_accelerator()
        self.assertEqual([], self.backends)
        self.assertIn("no back-end port", self.log_text())

    def test_no_address(self) -> None:
        """A back end that is no address is refused."""
        self.serve()
        self.start_accelerator()
        self.failureResultOf(self.call(RegisterAccelerator, backend="here"), Refused)
        self.assertEqual([ITS_BACKEND], self.backends)

    def test_wrong_role(self) -> None:
        """By its certificate an accelerator is no gateway, and a gateway is no accelerator."""
        self.serve()
        self.start_accelerator(self.tls("gateway", "edge", "service"))
        self.start(self.tls("accelerator", "one", "service"))
        self.assertEqual(([], [GatewayPlace()]), (self.backends, self.places))
        self.assertEqual([], self.registered)

    def test_warning(self) -> None:
        """It warns of sessions that it takes part in, as what it is, whatever it writes."""
        self.serve()
        self.start_accelerator()
        live = self.session()
        warning = SecurityWarning(
            time=1.0,
            kind=WarningKind.TAMPERED,
            session=live.identifier,
            tenant="somebody else",
            role="target-mover",
            text="flipped",
        )
        self.successResultOf(self.call(ReportWarning, warning=warning.as_dict()))
        (row,) = self.provider.events(type="warning")
        self.assertEqual(
            ("tampered", TENANT, "target-wan"), (row["name"], row["tenant"], row["reported_by"])
        )
        self.assertEqual([TENANT], [told.tenant for told in self.told])

    def test_event(self) -> None:
        """So it does with steps of a session."""
        self.serve()
        self.start_accelerator()
        event = SessionEvent(time=1.0, name="a_step", session=self.session().identifier, text="")
        self.successResultOf(self.call(ReportEvent, event=attrs.asdict(event)))
        (row,) = self.provider.events(name="a_step")
        self.assertEqual((TENANT, "target-wan"), (row["tenant"], row["reported_by"]))

    def test_no_part_of_it(self) -> None:
        """Of a session in which it takes no part it cannot say anything."""
        self.serve()
        self.start_accelerator()
        self.session().parts.clear()
        for session in ("73" * 16, "ab" * 16, ""):
            warning = SecurityWarning(time=1.0, kind=WarningKind.TAMPERED, session=session)
            event = SessionEvent(time=1.0, name="a_step", session=session, text="")
            for call in (
                self.call(ReportWarning, warning=warning.as_dict()),
                self.call(ReportEvent, event=attrs.asdict(event)),
            ):
                self.failureResultOf(call, ContextMismatch)
        self.assertEqual(([], []), (self.provider.events(), self.told))

    def test_nothing_of_the_mover(self) -> None:
        """It cannot ask what only a mover may."""
        self.serve()
        self.start_accelerator()
        self.failureResultOf(self.call(AskOwner, repository=b"r" * 16), ProtocolViolation)


class NodeTests(SynchronousTestCase):
    """The service's end by itself."""

    class Service:
        """A service that nobody asks anything."""

        reactor = Clock()

        async def admit_node(self, link: object, *shown: Any) -> None:
            _, name, _, _ = shown
            if name == "removed":
                raise Refused("not any more")

    def answered(self, role: str, name: str = "name") -> set[bytes]:
        """The commands that a node of this role is answered."""
        service: Any = self.Service()
        node = NodeFactory(service, "").buildProtocol(None)
        self.assertEqual({}, node._locator._commandDispatch)
        node.transport = Line(role, name)  # type: ignore[assignment]
        node.handshakeCompleted()
        return set(node._locator._commandDispatch)

    def test_only_its_own(self) -> None:
        """On its line each node can say what is its own and nothing else, and nothing before its
        certificate is known: a gateway cannot report for a mover."""
        every = {RenewNode.commandName, ShowNode.commandName}
        reports = every | {ReportWarning.commandName, ReportEvent.commandName}
        of_a_gateway = {Register.commandName, ReportLoad.commandName}
        self.assertEqual(of_a_gateway | every, self.answered("gateway"))
        self.assertEqual({RegisterAccelerator.commandName} | reports, self.answered("accelerator"))
        of_a_mover = {RegisterMover.commandName, AskOwner.commandName}
        self.assertEqual(of_a_mover | reports, self.answered("mover"))

    def test_no_such_node(self) -> None:
        """A node whose role has no place here is cut off."""
        self.assertEqual(set(), self.answered("job-manager"))
        self.assertEqual(["job-manager"], Line.cut)

    def test_removed(self) -> None:
        """A node whose certificate was taken back is answered nothing, and cut off."""
        self.assertEqual(set(), self.answered("mover", "removed"))
        self.assertEqual("mover", Line.cut.pop())


class Line:
    """A TLS connection from a node of some role."""

    cut: ClassVar[list[str]] = []

    def __init__(self, role: str, name: str) -> None:
        self.facts = TLSFacts("", "", "", "", "", "ca", role, name)

    def pauseProducing(self) -> None:
        """Nothing comes anyway."""

    resumeProducing = pauseProducing

    def abortConnection(self) -> None:
        self.cut.append(self.facts.peer_role)
