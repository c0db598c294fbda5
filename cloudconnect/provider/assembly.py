"""Layer 4: the provider's roles put together in one process.

Every role is a service of its own and speaks with the others over its LAN link, in memory here. The
public port belongs to the gateway; a second, private port (``lan``) takes nodes of their own
process, and a third (``backend``) what they send on (``docs/howto/gateway.rst``,
``docs/howto/wan.rst``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, UNIXServerEndpoint
from twisted.internet.interfaces import (
    IListeningPort,
)
from twisted.logger import Logger

from cloudconnect.commands.links import link_in_process
from cloudconnect.commands.notice import Notice
from cloudconnect.errors import NoSpace, UsageError
from cloudconnect.interfaces import IRelayTarget
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.admin.administration import Administration
from cloudconnect.provider.admin.health import Health
from cloudconnect.provider.admin.socket import AdminFactory
from cloudconnect.provider.control.control import ControlFactory
from cloudconnect.provider.data_mover.maintenance import Intervals
from cloudconnect.provider.data_mover.mover import TargetDataMover
from cloudconnect.provider.data_mover.reserve import Reserve
from cloudconnect.provider.data_mover.storage import host_name, storage_of
from cloudconnect.provider.gateway.gateway import Bounds, Gateway
from cloudconnect.provider.gateway.relay import Relays, RelayTo
from cloudconnect.provider.history.keep import Keep
from cloudconnect.provider.nodes.answers import GatewayEnd, ServiceEnd
from cloudconnect.provider.nodes.enrolment import EnrolmentTarget
from cloudconnect.provider.nodes.lan import NodeFactory
from cloudconnect.provider.nodes.movers import WAIT_SECONDS, MoverPlace
from cloudconnect.provider.nodes.renewal import NodeCertificates, NodeRenewals
from cloudconnect.provider.one_thread import OneThread
from cloudconnect.provider.overseeing import oversee
from cloudconnect.provider.places import Places
from cloudconnect.provider.readiness import readiness
from cloudconnect.provider.service.departures import Departures
from cloudconnect.provider.service.planning import HERE, GatewayPlace
from cloudconnect.provider.service.service import CloudConnectService
from cloudconnect.provider.ways import backend_factory, dial_from
from cloudconnect.sessions.acceptance import RoleTarget
from cloudconnect.sessions.role import TargetRole
from cloudconnect.settings import CONNECT_SECONDS
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.listening import Listener
from cloudconnect.transports.proxied import ProxiedEndpoint
from cloudconnect.transports.switch import FactoryTarget, FirstBytesFactory
from cloudconnect.transports.tls import PinnedTLS, TLSServerFactory


def _control_tls(identity: ServerIdentity) -> PinnedTLS:
    """The TLS of control channels: tenants may show certificates in the place of passwords."""
    return PinnedTLS(identity=identity, asking=True)


def _place_of(places: Places) -> MoverPlace:
    """Where the mover of this process stands."""
    try:
        storage = storage_of(places.repositories).hex()
    except (OSError, ValueError):  # a read-only disk, of an older release: then nobody shares it
        storage = ""
    return MoverPlace(storage=storage, host=host_name())


def place_text(address: Any) -> str:
    """Where a port listens, for a person."""
    if isinstance(address, UNIXAddress):
        return os.fsdecode(address.name or b"")
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


class EmbeddedProvider(MultiService):
    """Gateway, Cloud Connect service, target data mover and target WAN accelerator in one process.

    :param reactor: clock, connections and threads
    :param places: where everything lies and listens
    :ivar service: the Cloud Connect service
    :ivar usage: knows how much each tenant has stored
    :ivar forgetting: forgets what happened long ago
    :ivar readiness: looks at what must work for a backup
    :ivar listening: where what listens, by its name in the log
    :ivar health: looks at how all of it is
    """

    _log = Logger()

    def __init__(self, reactor: Any, places: Places) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._lan: TLSServerFactory | None = None
        reserve = None if places.reserve is None else Reserve(places.reserve)
        if reserve is not None:
            reserve.look()
        accounts = Accounts(places.accounts_url)
        with contextlib.suppress(NoSpace):  # nothing can be written: then that waits
            accounts.abandon_sessions()
        thread = OneThread(reactor, "accounts", accounts.close)
        service = CloudConnectService(
            reactor,
            accounts,
            thread.run,
            provider=accounts.provider_value("provider-id", 16),
            decoy_key=accounts.provider_value("decoy-key", 32),
            advertise=places.advertise,
            mover_backend=places.backend_address or HERE,
            grace_days=places.grace_days,
        )
        service.node_certificates = NodeCertificates(accounts.nodes())
        mover: TargetDataMover | None = None
        if "mover" in places.roles:
            mover = TargetDataMover(
                reactor, places.repositories, places.keys, reserve, places.intervals
            )
        self._mover = mover
        self._control = control = _control_tls(places.identity).server_factory(
            ControlFactory(service), reactor
        )
        roles: list[TargetRole] = [] if mover is None else [mover]
        if places.accelerator is not None and "wan" in places.roles:
            accelerator, fill = places.accelerator(
                dial_from(reactor, places.backend_address, mover)
            )
            roles.append(accelerator)
            if mover is not None:
                mover.fill = fill
        targets: dict[str, IRelayTarget] = {
            "service": FactoryTarget(control, "the Cloud Connect service in this process"),
            HERE: RoleTarget(*roles),
        }

        relays = Relays(reactor)

        def resolve(backend: str) -> IRelayTarget:
            if backend in targets:
                return targets[backend]
            host, port = split_host_port(backend)  # an accelerator of its own process
            endpoint = HostnameEndpoint(reactor, host, port, CONNECT_SECONDS)
            return RelayTo(endpoint, backend, relays)

        self._gateway = gateway = Gateway(
            reactor, places.public, resolve, "service", relays=relays, bounds=places.bounds
        )
        for role in roles:
            service_end, role.link = link_in_process(reactor, ServiceEnd(service, role.role), role)
            if role is mover:
                service.nodes.set_mover(service_end, _place_of(places))
            else:
                service.nodes.add_accelerator(service_end)
        gateway_end = GatewayEnd(service)
        gateway_end.link, gateway.line = link_in_process(reactor, gateway_end, gateway)
        public = "gateway" in places.roles
        service.nodes.add_gateway(gateway_end.link, GatewayPlace(HERE, public=public))
        self._administration = administration = Administration(
            accounts, places.repositories, reserve, places.removed_days
        )
        self._listeners: list[Gateway | Listener] = [gateway] if public else []
        if places.admin_socket is not None:
            self._listeners.append(
                Listener(
                    UNIXServerEndpoint(reactor, str(places.admin_socket), mode=0o600),
                    AdminFactory(reactor, administration, thread.run, service),
                    "admin socket",
                )
            )
        if places.lan is not None and places.backend is not None:
            service.nodes.settling.begin(WAIT_SECONDS)
            endpoint, tls = places.lan
            joining: EnrolmentTarget | None = None
            renewals: NodeRenewals | None = None
            if places.sign is not None:
                renewals = NodeRenewals(reactor, accounts, thread.run, places.sign, service.renewed)
                joining = EnrolmentTarget(
                    reactor, accounts, thread.run, places.sign, service.joined
                )
            nodes = NodeFactory(service, places.backend_address, renewals)
            lines = self._lan = tls.server_factory(nodes, reactor)
            self._listeners += [
                Listener(
                    endpoint,
                    FirstBytesFactory(
                        lambda route: joining, FactoryTarget(lines, "LAN lines"), reactor
                    ),
                    "LAN link",
                ),
                # The peer's real address comes in front, in a PROXY protocol header.
                Listener(
                    ProxiedEndpoint(places.backend),
                    backend_factory(reactor, roles, targets["service"]),
                    "back end",
                ),
            ]
        self.service = service
        self.readiness = readiness(service, accounts, thread.run, reserve)
        self.usage, self.forgetting, watching = oversee(
            reactor, service, accounts, thread.run, places.audit, places.keep
        )
        self.listening: dict[str, str] = {}
        self.health = Health(
            service,
            accounts,
            thread.run,
            self.usage,
            self.readiness,
            lambda: self.listening,
            places.repositories,
            ["service", *sorted(places.roles - {"service"})],
            (places.intervals or Intervals()).scrub_days,
        )
        service.health = self.health.look
        departures = Departures(reactor, service, accounts, thread.run)
        for child in (thread, *watching, *roles, service, departures, *self._listeners):
            child.setServiceParent(self)

    def reload(
        self, identity: ServerIdentity, advertise: Iterable[str], notice: Notice
    ) -> list[UsageError]:
        """Take another certificate, and what else may change while sessions run.

        Connections that are there go on as they are. What cannot be used changes nothing.

        :param identity: what the control channel shows from now on
        :param advertise: gateways that tenants are told
        :param notice: what they are told that will hold from some day on
        :return: what could not be used
        """
        wrong = []
        for factory, recipe in ((self._control, _control_tls(identity)), (self._lan, None)):
            try:
                if factory is not None:
                    factory.reload(recipe)
            except UsageError as error:
                wrong.append(error)
        self.service.nodes.advertise(advertise)
        self.service.tenants.notice = notice
        return wrong

    def use(
        self, bounds: Bounds, intervals: Intervals, keep: Keep, grace_days: int, removed_days: int
    ) -> None:
        """Take other limits while everything runs; see :class:`~.places.Places` for what they are.

        What is there stays: connections, sessions, tenants that are removed already.
        """
        self._gateway.change(bounds)
        if self._mover is not None:
            self._mover.maintenance.change(intervals)
        self.health.scrub_days = intervals.scrub_days
        self.forgetting.keep = keep
        self.service.tenants.grace_days = grace_days
        self._administration.tenants.removed_days = removed_days

    def stopService(self) -> Deferred[None]:
        """Stop accepting, end the sessions, then what they need: in this order.

        What does not run (any more), for instance because it could not listen, stays as it is.
        """
        if not self.running:
            return succeed(None)
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop_in_order())

    async def _stop_in_order(self) -> None:
        for child in reversed(list(self)):
            await maybeDeferred(child.stopService)

    async def listen(self) -> IListeningPort:
        """Open every port; returns the public one. Nothing listens after a failure."""
        if not self.running:
            self.startService()  # type: ignore[no-untyped-call]
        try:
            ports = [await listener.listen() for listener in self._listeners]
        except BaseException:
            await maybeDeferred(self.stopService)
            raise
        for listener, port in zip(self._listeners, ports, strict=True):
            name = listener.label if isinstance(listener, Listener) else "gateway"
            self.listening[name] = place_text(port.getHost())
        return ports[0]
