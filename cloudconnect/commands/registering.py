"""Layer 3: keeps a node's LAN line open: what a role of its own process does to be found.

The node dials, says that it is there, and answers commands on the same line. When the line is lost,
or its registration refused, it tries again, ever more slowly (``docs/protocol.rst``, section 10).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.amp import CommandLocator
from twisted.python.failure import Failure

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.transports.endpoints import connect_protocol
from cloudconnect.transports.line import keep_alive


class NodeLine(BoundedAMP):
    """The node's end of a LAN line.

    :ivar lost: fires when it is gone
    """

    def __init__(self, reactor: Any, locator: CommandLocator) -> None:
        super().__init__(reactor, locator=locator)
        self.lost: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Say so."""
        super().connectionLost(reason)
        self.lost.callback(None)


class Registration(Service):
    """Keeps a node registered with the service: connects again, with back-off.

    Not Twisted's ``ClientService``: it takes a line whose handshake or registration fails for one
    that may stay open.

    :param reactor: clock and connections
    :param endpoint: the service's LAN port, with mutual TLS around it
    :param locator: the node, which answers the service's commands
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, endpoint: IStreamClientEndpoint, locator: CommandLocator
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._locator = locator
        self._delay = backoffPolicy()
        self._kept: Deferred[None] | None = None

    async def register(self, line: BoundedAMP) -> str:
        """Say on a new line who is there; what the log says of it.

        :raises CloudConnectError: the service does not take it
        """
        raise NotImplementedError

    def lost(self) -> None:
        """A line on which the node was registered, or was to be, is gone."""

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
        line = NodeLine(self._reactor, self._locator)
        await connect_protocol(self._endpoint, line)
        keep_alive(line.transport)
        try:
            what = await self.register(line)
            self._log.info("registered with the service, {what}", what=what)
            await line.lost
        finally:
            self.lost()
            if line.transport is not None:
                line.transport.loseConnection()
