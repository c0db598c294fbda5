"""Layer 4: the gateway: one public port, a table of routes, and no key at all.

The first byte of a connection decides: TLS goes whole to the Cloud Connect service, a preamble to
the back end that its route id was published with (``docs/protocol.rst``, section 1). The same class
serves inside the provider's process and alone on another host; only its link to the service and the
back ends that it knows differ.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.protocols.amp import CommandLocator

from cloudconnect.commands.lan import PublishRoute, RetireRoute
from cloudconnect.errors import Refused
from cloudconnect.interfaces import IRelayTarget
from cloudconnect.transports.switch import FirstBytesFactory

#: Most routes that are published at once: a bound on the table, far above any gateway's sessions.
ROUTES_MAX = 100_000


class Gateway(Service, CommandLocator):
    """Accepts connections and hands each to its back end.

    :param reactor: clock of the routes' lifetimes
    :param endpoint: where to listen
    :param resolve: makes the relay target of a back end's name, as PublishRoute gives it; raises
        :class:`Refused` for one that this gateway must not reach
    :param service_backend: name of the back end that TLS connections go to
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamServerEndpoint,
        resolve: Callable[[str], IRelayTarget],
        service_backend: str = "",
    ) -> None:
        CommandLocator.__init__(self)
        self._reactor = reactor
        self._endpoint = endpoint
        self._resolve = resolve
        self._routes: dict[bytes, tuple[IRelayTarget, float]] = {}
        self._port: IListeningPort | None = None
        self.factory = FirstBytesFactory(self.target, None, reactor)
        if service_backend:
            self.serve_tls_from(service_backend)

    def serve_tls_from(self, backend: str) -> None:
        """From now on TLS connections go to ``backend``."""
        self.factory.tls = self._resolve(backend)

    def target(self, route: bytes) -> IRelayTarget | None:
        """Where connections with this route id go, or None."""
        target, ends = self._routes.get(route, (None, 0.0))
        if target is None or ends < self._reactor.seconds():
            self._routes.pop(route, None)
            return None
        return target

    @PublishRoute.responder
    def publish(
        self, route: bytes, backend: str, group: bytes, rate: int, lifetime: int
    ) -> dict[str, object]:
        """Add a route, or give one a new lifetime."""
        now = self._reactor.seconds()
        if len(self._routes) >= ROUTES_MAX:
            self._routes = {r: kept for r, kept in self._routes.items() if kept[1] >= now}
            if len(self._routes) >= ROUTES_MAX:
                raise Refused("this gateway's route table is full")
        self._routes[route] = (self._resolve(backend), now + lifetime / 1000)
        return {}

    @RetireRoute.responder
    def retire(self, route: bytes) -> dict[str, object]:
        """Forget a route; running connections stay."""
        self._routes.pop(route, None)
        return {}

    def listen(self) -> Deferred[IListeningPort]:
        """Begin to accept; fires with the port."""

        def listening(port: IListeningPort) -> IListeningPort:
            self._port = port
            self._log.info("gateway listens on {address}", address=port.getHost())
            return port

        return self._endpoint.listen(self.factory).addCallback(listening)

    def stopService(self) -> Deferred[None] | None:
        """Accept no more; relayed connections end with their own sides."""
        Service.stopService(self)
        port, self._port = self._port, None
        self._routes.clear()
        if port is None:
            return None
        stopped: Deferred[None] | None = port.stopListening()
        return stopped
