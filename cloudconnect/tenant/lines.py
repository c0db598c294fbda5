"""Layer 4: the job manager's ends of its two command lines: control channel and Key A tunnel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import BINDING_SIZE, GatewaysChanged, MoveOn, Ping, Warn
from cloudconnect.errors import CloudConnectError, ProtocolViolation
from cloudconnect.events import SecurityWarning
from cloudconnect.settings import PING_SECONDS, SILENCE_SECONDS


class ControlClient(BoundedAMP):
    """The tenant's end of the control channel.

    :param warned: takes the provider's security warnings
    :param lost: takes the error when the channel ends
    :param moved: takes the session that the provider wants to be gone on with in a new one, whether
        a role of it is lost, and why
    :param gateways: takes where the provider's gateways are now, and which of them are to stop
    :param patience: asked how many seconds a ping may take to be answered
    :ivar hung: the channel was cut because a ping was not answered
    """

    def __init__(
        self,
        reactor: Any,
        warned: Callable[[SecurityWarning], None],
        lost: Callable[[BaseException | None], None],
        moved: Callable[[bytes, bool, str], None] = lambda session, lost, text: None,
        gateways: Callable[[Any, Any], None] = lambda told, leaving: None,
        patience: Callable[[], float] = lambda: SILENCE_SECONDS,
    ) -> None:
        super().__init__(reactor)
        self._patience = patience
        self.hung = False
        self._moved = moved
        self._gateways = gateways
        self._reactor = reactor
        self._warned = warned
        self._lost = lost
        self._pinging: IDelayedCall | None = None

    @Warn.responder
    def warn(self, warning: Any) -> dict[str, Any]:
        """The provider saw something."""
        try:
            self._warned(SecurityWarning.from_dict(warning))
        except (ValueError, KeyError, TypeError):
            raise ProtocolViolation("a warning cannot be read") from None
        return {}

    @GatewaysChanged.responder
    def gateways_changed(self, gateways: Any, leaving: Any) -> dict[str, Any]:
        """The provider's gateways are others."""
        self._gateways(gateways, leaving)
        return {}

    @MoveOn.responder
    def move_on(self, session: bytes, lost: bool, text: str) -> dict[str, Any]:
        """A role of a session is lost, or about to stop."""
        self._moved(session, lost, text)
        return {}

    @Ping.responder
    def ping(self) -> dict[str, Any]:
        """Alive."""
        return {}

    def keep_alive(self) -> None:
        """Notice when the provider is gone, or a gateway on the way hangs."""
        self._pinging = self._reactor.callLater(PING_SECONDS, self._ping)

    def _ping(self) -> None:
        pinged = self.call(Ping, timeout=self._patience())
        pinged.addCallbacks(lambda _: self.keep_alive(), lambda _: self._abort())

    def _abort(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            self.hung = True
            transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The job manager hears why; then pending calls fail, and who made them asks it."""
        if self._pinging is not None and self._pinging.active():
            self._pinging.cancel()
        self._lost(reason.value)
        super().connectionLost(reason)

    def exporter(self, label: bytes, context: bytes) -> bytes:
        """Keying material of the TLS connection, 32 bytes."""
        return bytes(self.transport.exporter(label, context, BINDING_SIZE))  # type: ignore


class TunnelClient(BoundedAMP):
    """The job manager's end of a Key A tunnel.

    :param lost: takes the error when the tunnel ends
    """

    def __init__(self, reactor: Any, lost: Callable[[BaseException | None], None]) -> None:
        super().__init__(reactor)
        self._lost = lost
        self._ended: Deferred[None] = Deferred()
        self._reason: BaseException | None = None

    async def end(self) -> None:
        """End it, and wait for the other side's end.

        :raises SecurityError, Truncated: it did not end properly
        """
        if self.transport is not None:
            self.transport.loseConnection()
        await self._ended
        if isinstance(self._reason, CloudConnectError):
            raise self._reason

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The liveness line of the session is gone; then pending calls fail."""
        self._reason = reason.value
        self._lost(reason.value)
        super().connectionLost(reason)
        self._ended.callback(None)
