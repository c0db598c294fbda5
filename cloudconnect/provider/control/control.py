"""Layer 4: the service's end of a tenant's control channel, put together."""

from __future__ import annotations

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from cloudconnect.provider.control.authenticating import Authentication
from cloudconnect.provider.control.channel import TenantChannel
from cloudconnect.provider.control.session_commands import SessionCommands
from cloudconnect.provider.control.tenant_commands import TenantCommands
from cloudconnect.provider.service.service import CloudConnectService


class ControlProtocol(TenantChannel):
    """Speaks with one tenant's job manager: log in, then commands.

    :param service: what it asks and tells
    """

    def __init__(self, service: CloudConnectService) -> None:
        super().__init__(service)
        self._running = SessionCommands(self)
        self.answer_with(Authentication(self), TenantCommands(self), self._running)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Its sessions learn of it."""
        self._running.lost(reason.value)
        super().connectionLost(reason)


class ControlFactory(Factory):
    """Makes a :class:`ControlProtocol` for each tenant's connection."""

    noisy = False

    def __init__(self, service: CloudConnectService) -> None:
        self._service = service

    def logPrefix(self) -> str:
        """Names the role in logs."""
        return "cloud connect service"

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol:
        """One for this connection."""
        return ControlProtocol(self._service)
