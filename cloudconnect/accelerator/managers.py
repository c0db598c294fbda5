"""Layer 4: the lines of job managers to a source WAN accelerator of its own process.

Each machine of the tenant has a line of its own, mutual TLS with certificates of the tenant's small
authority. What the accelerator sees of a session goes to the line that has handed it over, and a
session ends with that line. A machine gets its next certificate on such a line, as nodes of a
provider do (:mod:`cloudconnect.commands.renewing`).
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHandshakeListener
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.accelerator.source import SourceAccelerator
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.lan import EndWAN, HandWAN, PassedWAN
from cloudconnect.commands.renewing import RenewNode, ShowNode
from cloudconnect.errors import Busy, CloudConnectError, Refused
from cloudconnect.transports.nodes import JOB_MANAGER


class TakenMachines(Protocol):
    """Who is let in, and gets another certificate (:mod:`cloudconnect.config.wan_machines`)."""

    def admit(self, name: str, spki: str) -> None:
        """Judge a machine that has proved its certificate.

        :raises Refused: it is not let in
        """

    def renew(self, name: str, spki: str, request: bytes) -> tuple[bytes, bytes]:
        """Issue its next certificate: that and the authority, PEM.

        :raises Refused: it gets none
        """


@implementer(IHandshakeListener)
class ManagerLine(BoundedAMP):
    """The accelerator's end of a line to one job manager.

    :param reactor: clock
    :param machines: who is let in; None: whoever has got this far
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        accelerator: SourceAccelerator,
        machines: TakenMachines | None = None,
    ) -> None:
        super().__init__(reactor)
        self._accelerator = accelerator
        self._machines = machines
        self._name = self._spki = ""
        self._renewed = False

    def handshakeCompleted(self) -> None:
        """The machine has proved which one it is."""
        line: Any = self.transport
        self._name, self._spki = line.facts.peer_name, line.facts.peer_spki
        try:
            self._admit()
        except CloudConnectError as error:
            self.log.warn("a machine is not let in: {why}", why=str(error))
            line.abortConnection()

    def _admit(self) -> None:
        if self._machines is not None:
            self._machines.admit(self._name, self._spki)

    @RenewNode.responder
    def renew(self, request: bytes) -> dict[str, Any]:
        """Another certificate of the same role and name."""
        if self._machines is None:
            raise Refused("this accelerator issues no certificates")
        if self._renewed:
            raise Busy("a line gets one certificate")
        self._renewed = True
        certificate, authority = self._machines.renew(self._name, self._spki, request)
        self.log.info("machine {name} gets its next certificate", name=self._name)
        return {"certificate": certificate, "authority": authority}

    @ShowNode.responder
    def show(self) -> dict[str, Any]:
        """It is let in."""
        self._admit()
        return {"role": JOB_MANAGER, "name": self._name}

    @HandWAN.responder
    def hand(self, **values: Any) -> Deferred[dict[str, Any]]:
        """Take part in a session."""
        self._admit()  # it may have been removed since the line came up
        return self._accelerator.take_part(self, **values)

    @PassedWAN.responder
    def passed(self, session: bytes) -> Deferred[dict[str, Any]]:
        """Once nothing but ends is due, say what was saved."""
        return self._accelerator.pass_part(self, session)

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

    def __init__(
        self,
        reactor: Any,
        accelerator: SourceAccelerator,
        machines: TakenMachines | None = None,
    ) -> None:
        self._reactor = reactor
        self._accelerator = accelerator
        self._machines = machines

    def buildProtocol(self, addr: IAddress | None) -> ManagerLine:
        """One for this job manager."""
        return ManagerLine(self._reactor, self._accelerator, self._machines)
