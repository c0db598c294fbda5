"""Layer 4: the lines of job managers to a source WAN accelerator of its own process.

Each machine of the tenant has a line of its own, mutual TLS with certificates of the tenant's small
authority. What the accelerator sees of a session goes to the line that has handed it over, and a
session ends with that line.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.accelerator.source import SourceAccelerator
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.lan import EndWAN, HandWAN


class ManagerLine(BoundedAMP):
    """The accelerator's end of a line to one job manager.

    :param reactor: clock
    """

    log = Logger()

    def __init__(self, reactor: Any, accelerator: SourceAccelerator) -> None:
        super().__init__(reactor)
        self._accelerator = accelerator

    @HandWAN.responder
    def hand(self, **values: Any) -> Deferred[dict[str, Any]]:
        """Take part in a session."""
        return self._accelerator.take_part(self, **values)

    @EndWAN.responder
    def end(self, session: bytes, aborted: bool) -> Deferred[dict[str, Any]]:
        """The session is over: the last byte goes out, then say what was saved."""
        return self._accelerator.end_part(self, session, aborted)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The job manager is gone."""
        super().connectionLost(reason)
        self._accelerator.manager_lost(self)


class ManagerFactory(Factory):
    """Makes the accelerator's ends of lines."""

    noisy = False

    def __init__(self, reactor: Any, accelerator: SourceAccelerator) -> None:
        self._reactor = reactor
        self._accelerator = accelerator

    def buildProtocol(self, addr: IAddress | None) -> ManagerLine:
        """One for this job manager."""
        return ManagerLine(self._reactor, self._accelerator)
