"""Layer 4: the gateway: one public port, a table of routes, and no key at all.

The first byte of a connection decides: TLS goes whole to the Cloud Connect service, a preamble to
the back end that its route id was published with (``docs/protocol.rst``, section 1). The same class
serves inside the provider's process and alone on another host; only its link to the service and the
back ends that it knows differ.

Connections are bounded in all, for each address and for each tenant's group; where a rate is set,
the groups share it (:mod:`cloudconnect.provider.gateway.shaping`). What it has to do the gateway
reports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.protocols.amp import CommandLocator
from zope.interface import implementer

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.lan import DrainGateway, PublishRoute, ReportLoad, RetireRoute
from cloudconnect.errors import Refused
from cloudconnect.interfaces import IRelayTarget
from cloudconnect.provider.gateway.relay import Relays, RelayTo, join_in_memory
from cloudconnect.provider.gateway.shaping import Shaper
from cloudconnect.settings import (
    ADDRESS_CONNECTIONS_MAX,
    CONNECTIONS_MAX,
    LOAD_SECONDS,
    TENANT_CONNECTIONS_MAX,
)
from cloudconnect.transports.admission import Admission, descriptors_for
from cloudconnect.transports.descriptor import hear_loss
from cloudconnect.transports.switch import FirstBytesFactory, LogLimit

#: Most routes that are published at once: a bound on the table, far above any gateway's sessions.
ROUTES_MAX = 100_000
#: Descriptors that one relayed connection costs: two sockets.
DESCRIPTORS_EACH: Final = 2
#: Most groups that one report names.
GROUPS_REPORTED: Final = 1000


@attrs.frozen(kw_only=True)
class Bounds:
    """What a gateway lets in, and how fast.

    :ivar connections: most connections, in all; fewer where descriptors do not suffice
    :ivar of_address: most of one address
    :ivar of_tenant: most data connections of one tenant
    :ivar line_rate: bytes a second of the line in each direction, 0 for no limit
    """

    connections: int = CONNECTIONS_MAX
    of_address: int = ADDRESS_CONNECTIONS_MAX
    of_tenant: int = TENANT_CONNECTIONS_MAX
    line_rate: int = 0


@attrs.define(eq=False)
class _Route:
    """A published route.

    :ivar ends: when, on the reactor's clock
    """

    route: bytes
    target: IRelayTarget
    ends: float
    group: bytes
    rate: int


class Gateway(Service, CommandLocator):
    """Accepts connections and hands each to its back end.

    :param reactor: clock of the routes' lifetimes
    :param endpoint: where to listen
    :param resolve: makes the relay target of a back end's name, as PublishRoute gives it; raises
        :class:`Refused` for one that this gateway must not reach
    :param service_backend: name of the back end that TLS connections go to
    :param relays: what all relays share
    :param bounds: what is let in
    :ivar factory: of what is accepted
    :ivar line: the line to a service in this process, to report to
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamServerEndpoint,
        resolve: Callable[[str], IRelayTarget],
        service_backend: str = "",
        *,
        relays: Relays | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        CommandLocator.__init__(self)
        self._reactor = reactor
        self._endpoint = endpoint
        self._resolve = resolve
        self._bounds = bounds = Bounds() if bounds is None else bounds
        self._routes: dict[bytes, _Route] = {}
        self._port: IListeningPort | None = None
        self._leaving = False
        self._groups: Counter[bytes] = Counter()
        self._shaper = Shaper(reactor, bounds.line_rate)
        self._limit = LogLimit(reactor)
        self._reporting: IDelayedCall | None = None
        self._before = (reactor.seconds(), 0, 0)
        self.relays = Relays(reactor) if relays is None else relays
        self.admission = Admission(
            descriptors_for(bounds.connections, DESCRIPTORS_EACH), bounds.of_address
        )
        self.factory = FirstBytesFactory(self.target, None, reactor, admission=self.admission)
        self.line: BoundedAMP | None = None
        if service_backend:
            self.serve_tls_from(service_backend)

    def serve_tls_from(self, backend: str) -> None:
        """From now on TLS connections go to ``backend``."""
        self.factory.tls = self._resolve(backend)

    def change(self, bounds: Bounds) -> None:
        """Let in as much as ``bounds`` say from now on; who is in stays.

        Relays that were begun without any limit of a rate go on without one.
        """
        self._bounds = bounds
        self._shaper.change(bounds.line_rate)
        self.admission.change(
            descriptors_for(bounds.connections, DESCRIPTORS_EACH), bounds.of_address
        )

    # --- routes ----------------------------------------------------------------------------------

    def target(self, route: bytes) -> IRelayTarget | None:
        """Where connections with this route id go, or None."""
        found = self._routes.get(route)
        if found is None or found.ends < self._reactor.seconds():
            self._routes.pop(route, None)
            return None
        return _Counted(self, found)

    def connect(self, found: _Route, transport: Any, data: bytes) -> None:
        """Hand a connection to its route's back end, counted among those of its group."""
        if self._groups[found.group] >= self._bounds.of_tenant:
            dropped = self._limit.admit()
            if dropped is not None:
                self._log.warn(
                    "refused a data connection from {peer}: its tenant has too many "
                    "({dropped} more not logged)",
                    peer=transport.getPeer(),
                    dropped=dropped,
                )
            transport.abortConnection()
            return
        self._groups[found.group] += 1
        grants = self._shaper.join(found.group, found.route, found.rate)

        def over() -> None:
            self._groups[found.group] -= 1
            if not self._groups[found.group]:
                del self._groups[found.group]
            for grant in grants or ():
                grant.close()

        if isinstance(found.target, RelayTo):
            found.target.relay(transport, data, grants, over)
        elif grants is not None:
            join_in_memory(self.relays, found.target, transport, data, grants, over)
        else:
            if not hear_loss(transport, over):
                over()
            found.target.connect(transport, data)

    @PublishRoute.responder
    def publish(
        self, route: bytes, backend: str, group: bytes, rate: int, lifetime: int
    ) -> dict[str, object]:
        """Add a route, or give one a new lifetime."""
        if self._leaving:
            raise Refused("this gateway is leaving")
        now = self._reactor.seconds()
        if len(self._routes) >= ROUTES_MAX:
            self._routes = {r: kept for r, kept in self._routes.items() if kept.ends >= now}
            if len(self._routes) >= ROUTES_MAX:
                raise Refused("this gateway's route table is full")
        ends = now + lifetime / 1000
        self._routes[route] = _Route(route, self._resolve(backend), ends, group, rate)
        return {}

    @RetireRoute.responder
    def retire(self, route: bytes) -> dict[str, object]:
        """Forget a route; running connections stay."""
        self._routes.pop(route, None)
        return {}

    @property
    def route_count(self) -> int:
        """How many routes are published, those among them whose time is just over."""
        return len(self._routes)

    # --- load and leaving ------------------------------------------------------------------------

    def report_to(self, line: BoundedAMP) -> None:
        """Report the load on ``line``, now and every few seconds as long as it is up."""
        if self._reporting is not None and self._reporting.active():
            self._reporting.cancel()
        self._report(line)

    def _report(self, line: BoundedAMP) -> None:
        if line.transport is None:
            return
        traffic, now = self.relays.traffic, self._reactor.seconds()
        then, up, down = self._before
        seconds = max(now - then, 0.001)
        self._before = (now, traffic.up, traffic.down)
        called = line.call(
            ReportLoad,
            connections=self.admission.count,
            up=int((traffic.up - up) / seconds),
            down=int((traffic.down - down) / seconds),
            groups=[list(pair) for pair in self._groups.most_common(GROUPS_REPORTED)],
        )
        called.addCallbacks(self._take_caps, lambda _: None)  # a lost line is noticed by itself
        self._reporting = self._reactor.callLater(LOAD_SECONDS, self._report, line)

    def _take_caps(self, answer: dict[str, Any]) -> None:
        for group, rate in answer["rates"]:
            self._shaper.cap(group, rate)

    @DrainGateway.responder
    def drain(self, leaving: bool) -> Deferred[dict[str, object]]:
        """Accept no connections any more and forget every route, or accept them again."""
        if leaving == self._leaving:
            return succeed({})
        self._leaving = leaving
        self._log.info("gateway is {what}", what="leaving" if leaving else "back")
        if leaving:
            self._routes.clear()
            return self._stop_listening().addCallback(lambda _: {})
        return self.listen().addCallback(lambda _: {})

    # --- the port --------------------------------------------------------------------------------

    def startService(self) -> None:
        """Begin to report."""
        Service.startService(self)
        if self.line is not None:
            self.report_to(self.line)

    def listen(self) -> Deferred[IListeningPort]:
        """Begin to accept; fires with the port."""

        def listening(port: IListeningPort) -> IListeningPort:
            self._port = port
            self._log.info("gateway listens on {address}", address=port.getHost())
            return port

        return self._endpoint.listen(self.factory).addCallback(listening)

    def _stop_listening(self) -> Deferred[Any]:
        port, self._port = self._port, None
        stopped: Deferred[Any] | None = None if port is None else port.stopListening()
        return succeed(None) if stopped is None else stopped

    def stopService(self) -> Deferred[None] | None:
        """Accept no more; relayed connections end with their own sides."""
        Service.stopService(self)
        self._routes.clear()
        if self._reporting is not None and self._reporting.active():
            self._reporting.cancel()
        return None if self._port is None else self._stop_listening()


@implementer(IRelayTarget)
@attrs.frozen(eq=False)
class _Counted:
    """A route's target, with its group's bounds around it."""

    _gateway: Gateway
    _found: _Route

    @property
    def description(self) -> str:
        return str(self._found.target.description)

    def connect(self, transport: object, data: bytes) -> None:
        self._gateway.connect(self._found, transport, data)
