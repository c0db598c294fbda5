"""Tests of :mod:`cloudconnect.provider.nodes.answers`: what roles may report, and of what."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import succeed

from cloudconnect.accelerator.registration import AcceleratorRegistration
from cloudconnect.commands.control import Role, SessionKind
from cloudconnect.commands.keeping import AskOwner
from cloudconnect.commands.lan import EndSession, RegisterAccelerator, ReportEvent, ReportWarning
from cloudconnect.commands.links import link_in_process
from cloudconnect.errors import ContextMismatch, ProtocolViolation, Refused, WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.nodes.answers import ServiceEnd
from cloudconnect.provider.service.live import LiveSession
from cloudconnect.provider.service.planning import GatewayPlace, Part
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.tls import MutualTLS
from tests.provider.lan_parts import ITS_BACKEND, Accelerator, LanCase
from tests.provider.stage import TENANT, StageCase


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
