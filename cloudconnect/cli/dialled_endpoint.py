"""Layer 6: the endpoint of a provider to which a connection was opened ahead of time."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from cloudconnect.cli.dialling import Dialled


class _Building(Factory):
    """Keeps what another factory builds, for whoever connects."""

    noisy = False

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory
        self.built: Any = None

    def buildProtocol(self, addr: IAddress) -> Any:  # type: ignore[override]
        self.built = self._factory.buildProtocol(addr)
        return self.built


@implementer(IStreamClientEndpoint)
class DialledEndpoint:
    """Gives a connection that is there already, or else connects as another endpoint does.

    :param reactor: takes over the socket, and has threads
    :param dialled: the connection
    :param otherwise: makes the endpoint that is used where there is no such connection
    """

    def __init__(
        self, reactor: Any, dialled: Dialled, otherwise: Callable[[], IStreamClientEndpoint]
    ) -> None:
        self._reactor = reactor
        self._dialled = dialled
        self._otherwise = otherwise

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """As ``IStreamClientEndpoint`` says; waits a little for a connection that is not up yet."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> Any:
        if not self._dialled.over:
            pool = self._reactor.getThreadPool()
            await deferToThreadPool(self._reactor, pool, self._dialled.wait)
        taken = self._dialled.take()
        built = None if taken is None else self._adopt(taken, factory)
        return await self._otherwise().connect(factory) if built is None else built

    def _adopt(self, taken: socket.socket, factory: IProtocolFactory) -> Any:
        building = _Building(factory)
        try:
            self._reactor.adoptStreamConnection(taken.fileno(), taken.family, building)
        except OSError:
            if building.built is not None:
                raise
            return None  # the other side was gone in this moment
        finally:
            taken.close()  # the reactor has a descriptor of its own
        return building.built
