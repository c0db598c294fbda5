"""Layer 4: connections that are opened before it is known what they are for.

A session needs two more TCP connections as soon as Start is answered, and with WAN acceleration
several. To open them while Start is under way saves two round trips on a long line; a provider that
then names other gateways makes them useless, and they are closed unused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.errors import NotReachable
from cloudconnect.transports.switch import hand_over


class _Waiting(Protocol):
    """Holds a connection until somebody wants it."""

    lost = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


@implementer(IStreamClientEndpoint)
class ConnectedAhead:
    """An endpoint that connects at once, and gives its one connection to who asks first.

    :param endpoint: where to connect
    """

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint
        factory = Factory.forProtocol(_Waiting)
        factory.noisy = False
        self._connecting: Deferred[Any] | None = endpoint.connect(factory)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """The connection, as soon as it is there; once only.

        :return: fails with what the endpoint says; a connection that was closed meanwhile is opened
            again
        """
        connecting, self._connecting = self._connecting, None
        if connecting is None:
            return fail(NotReachable("this connection was given away already"))
        return connecting.addCallback(self._give, protocolFactory)

    def _give(self, waiting: _Waiting, factory: IProtocolFactory) -> Any:
        if waiting.lost or waiting.transport is None:
            return self._endpoint.connect(factory)  # it was kept waiting for too long
        protocol = factory.buildProtocol(waiting.transport.getPeer())
        if protocol is None:
            waiting.transport.loseConnection()
            raise NotReachable("the connection is not wanted")
        hand_over(waiting.transport, protocol, b"")
        return protocol

    def close(self) -> None:
        """It is not needed: close it, or give up connecting."""
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.addCallbacks(_drop, lambda _: None)
            connecting.cancel()


def _drop(waiting: _Waiting) -> None:
    if waiting.transport is not None:
        waiting.transport.loseConnection()


class Ahead:
    """Connections to one address, opened at once, and endpoints for what goes elsewhere.

    :param make: makes a client endpoint of a host and a port
    :param host: where to connect
    :param port: its TCP port
    :param count: how many connections
    :ivar place: host and port
    """

    def __init__(
        self, make: Callable[[str, int], IStreamClientEndpoint], host: str, port: int, count: int
    ) -> None:
        self._make = make
        self.place = (host, port)
        self._made = [ConnectedAhead(make(host, port)) for _ in range(count)]
        self._free = list(self._made)

    def endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        """One that is connected already, where there is one left to that address."""
        if (host, port) == self.place and self._free:
            return self._free.pop(0)
        return self._make(host, port)

    def close(self) -> None:
        """The rest is not needed."""
        for made in self._made:
            made.close()
