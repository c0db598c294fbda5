"""Layer 4: the provider's LAN link: how the service and its nodes find each other.

Inside one process the roles are linked over the in-memory transport. A gateway of its own process
dials the service's LAN port over mutual TLS 1.3 with a node certificate, says that it is there, and
answers route commands on the same line (``docs/protocol.rst``, section 10).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.amp import CommandLocator
from twisted.python.failure import Failure

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.lan import AskOwner, Register, ReportEvent, ReportWarning
from cloudconnect.errors import ProtocolViolation, Refused
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.planning import GatewayPlace
from cloudconnect.provider.service import CloudConnectService


class ServiceEnd(CommandLocator):
    """What the service answers a mover in its own process."""

    def __init__(self, service: CloudConnectService, role: str) -> None:
        super().__init__()
        self._service = service
        self._role = role

    @ReportWarning.responder
    def report_warning(self, warning: Any) -> Deferred[dict[str, Any]]:
        """Keep a role's warning."""
        try:
            told = SecurityWarning.from_dict(warning)
        except (ValueError, KeyError, TypeError):
            raise ProtocolViolation("a warning cannot be read") from None
        return self._service.warned(told).addCallback(lambda _: {})

    @ReportEvent.responder
    def report_event(self, event: Any) -> Deferred[dict[str, Any]]:
        """Keep one step of a session."""
        try:
            told = SessionEvent(**event)
        except TypeError:
            raise ProtocolViolation("an event cannot be read") from None
        return self._service.happened(told, self._role).addCallback(lambda _: {})

    @AskOwner.responder
    def ask_owner(self, repository: bytes) -> Deferred[dict[str, Any]]:
        """Whose a repository is."""
        return Deferred.fromCoroutine(self._service.owner(repository))


class NodeLink(BoundedAMP):
    """The service's end of a LAN line to a gateway.

    :param backend: what gateways on other hosts connect to for everything of this process
    """

    log = Logger()

    def __init__(self, service: CloudConnectService, backend: str) -> None:
        super().__init__(service.reactor)
        self._service = service
        self._backend = backend

    @Register.responder
    def register(self, advertise: str) -> dict[str, Any]:
        """A gateway is there."""
        if not self._backend:
            raise Refused("this provider has no back-end port for gateways on other hosts")
        self._service.add_gateway(self, GatewayPlace(self._backend, advertise))
        self.log.info("gateway {advertise} registered", advertise=advertise)
        return {"service": self._backend}

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is not there any more."""
        self._service.lose_gateway(self)
        super().connectionLost(reason)


class NodeFactory(Factory):
    """Makes the service's ends of LAN lines."""

    noisy = False

    def __init__(self, service: CloudConnectService, backend: str) -> None:
        self._service = service
        self._backend = backend

    def buildProtocol(self, addr: IAddress | None) -> NodeLink:
        """One for this node."""
        return NodeLink(self._service, self._backend)


class _Line(BoundedAMP):
    """The gateway's end of a LAN line.

    :ivar lost: fires when it is gone
    """

    def __init__(self, reactor: Any, locator: CommandLocator) -> None:
        super().__init__(reactor, locator=locator)
        self.lost: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Say so."""
        super().connectionLost(reason)
        self.lost.callback(None)


class GatewayRegistration(Service):
    """Keeps a separate gateway registered with the service: connects again, with back-off.

    Not Twisted's ``ClientService``: it takes a line whose handshake or registration fails for one
    that may stay open.

    :param reactor: clock and connections
    :param endpoint: the service's LAN port, with mutual TLS around it
    :param locator: the gateway, which answers route commands
    :param advertise: ``HOST:PORT`` that tenants can reach the gateway at, or empty
    :param registered: takes the back end of TLS connections each time the line comes up
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        locator: CommandLocator,
        advertise: str,
        registered: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._locator = locator
        self._advertise = advertise
        self._registered = registered
        self._delay = backoffPolicy()
        self._kept: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin."""
        super().startService()  # type: ignore[no-untyped-call]
        self._kept = Deferred.fromCoroutine(self._keep())

    def stopService(self) -> Deferred[None] | None:
        """Close the line and open no other."""
        super().stopService()  # type: ignore[no-untyped-call]
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.cancel()
        return kept

    async def _keep(self) -> None:
        failures = 0
        while self.running:
            try:
                await self._one_line()
                failures = 0
                why = "the line is lost"
            except Exception as error:
                failures += 1
                why = str(error) or type(error).__name__
            if self.running:  # else we were cancelled, by whatever name an endpoint calls that
                self._log.warn("not registered with the service: {why}", why=why)
                with suppress(CancelledError):
                    await deferLater(self._reactor, self._delay(failures))

    async def _one_line(self) -> None:
        """Connect, register, and wait for the end of the line."""
        line = _Line(self._reactor, self._locator)
        await connectProtocol(self._endpoint, line)
        try:
            answer = await line.call(Register, advertise=self._advertise)
            self._registered(answer["service"])
            self._log.info("registered with the service, back end {b}", b=answer["service"])
            await line.lost
        finally:
            if line.transport is not None:
                line.transport.loseConnection()
