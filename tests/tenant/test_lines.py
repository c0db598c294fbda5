"""Tests of :mod:`cloudconnect.tenant.lines`: against a real provider, in memory."""

from __future__ import annotations

from cloudconnect.commands.control import Warn
from cloudconnect.errors import (
    NotReachable,
    ProtocolViolation,
    WarningKind,
)
from cloudconnect.events import SecurityWarning
from cloudconnect.settings import PING_SECONDS, SILENCE_SECONDS
from tests.tenant.managers import ManagerCase


class ControlTests(ManagerCase):
    """The tenant's end of the control channel."""

    def test_odd(self) -> None:
        """A provider's warning that cannot be read is refused, and printed nowhere."""
        tenant = self.connected()
        (control,) = [p.right.protocol.wrappedProtocol for p in self.reactor.pairs[:1]]
        whole = SecurityWarning(time=1.0, kind=WarningKind.TAMPERED).as_dict()
        for odd in (None, [], {}, {**whole, "text": 5}, {**whole, "kind": "x"}):
            self.failure_of(control.call(Warn, warning=odd), ProtocolViolation)
        self.assertEqual([], tenant.warnings)

    def test_silent_provider(self) -> None:
        """A provider that is gone without a word is noticed."""
        tenant = self.connected()
        self.pairs()[0].right.pauseProducing()
        self.reactor.pass_time(PING_SECONDS + SILENCE_SECONDS + 2)
        self.failure_of(tenant.manager.points(), NotReachable)
