"""Tests of :mod:`cloudconnect.tenant.accelerated`: what an own accelerator reports."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.lan import ReportEvent, ReportWarning
from cloudconnect.commands.links import link_in_process
from cloudconnect.errors import ProtocolViolation, WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.tenant.accelerated import Reports

WARNING = SecurityWarning(
    time=1.0, kind=WarningKind.TAMPERED, session="ab" * 16, role="source-wan", text="flipped"
)
EVENT = SessionEvent(time=2.0, name="wan_cache", session="ab" * 16, text="taken", fields={"n": 1})


class ReportTests(SynchronousTestCase):
    """Reports over a LAN link."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[SessionEvent] = []
        self.warnings: list[SecurityWarning] = []
        reports = Reports(self.events.append, self.warnings.append)
        _, self.link = link_in_process(self.clock, reports, None)

    def report(self, command: Any, **values: Any) -> Any:
        """What the job manager answers."""
        answer = self.link.call(command, **values)
        self.clock.pump([0] * 20)
        return answer

    def test_reports(self) -> None:
        """Events and warnings arrive as they were."""
        self.successResultOf(self.report(ReportEvent, event=attrs.asdict(EVENT)))
        self.successResultOf(self.report(ReportWarning, warning=WARNING.as_dict()))
        self.assertEqual(([EVENT], [WARNING]), (self.events, self.warnings))

    def test_unreadable(self) -> None:
        """What is neither is refused, and nothing is told."""
        whole = WARNING.as_dict()
        for wrong in (None, [], {}, {**whole, "kind": "nonsense"}, {**whole, "more": 1}):
            self.failureResultOf(self.report(ReportWarning, warning=wrong), ProtocolViolation)
        for wrong in ({}, {"time": 1.0}, {**attrs.asdict(EVENT), "more": 1}):
            self.failureResultOf(self.report(ReportEvent, event=wrong), ProtocolViolation)
        self.assertEqual(([], []), (self.events, self.warnings))
