"""Layer 4: the provider's LAN link: how the service and its nodes find each other.

Inside one process the roles are linked over the in-memory transport. A gateway, a data mover or a
WAN accelerator of its own process dials the service's LAN port over mutual TLS 1.3, with a node
certificate, says that it is there, and answers the service's commands on the same line
(``docs/protocol.rst``, section 10). What a node may say is decided by the role in its certificate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IHandshakeListener, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.amp import CommandLocator
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import Role
from cloudconnect.commands.lan import (
    AskOwner,
    Register,
    RegisterAccelerator,
    RegisterMover,
    ReportEvent,
    ReportLoad,
    ReportWarning,
)
from cloudconnect.commands.registering import Registration
from cloudconnect.commands.renewing import RenewNode, ShowNode
from cloudconnect.errors import CloudConnectError, ProtocolViolation, Refused, UsageError
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.gateways import Load
from cloudconnect.provider.mover import TargetDataMover
from cloudconnect.provider.movers import MoverPlace
from cloudconnect.provider.node_renewal import NodeRenewals
from cloudconnect.provider.planning import DEFAULT_POOL, GatewayPlace
from cloudconnect.provider.service import CloudConnectService
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.line import keep_alive
from cloudconnect.transports.nodes import ACCELERATOR, GATEWAY, MOVER, NodeName


def read_warning(values: Any) -> SecurityWarning:
    """A warning as a role reports it.

    :raises ProtocolViolation: it cannot be read
    """
    try:
        return SecurityWarning.from_dict(values)
    except (ValueError, KeyError, TypeError):
        raise ProtocolViolation("a warning cannot be read") from None


def read_event(values: Any) -> SessionEvent:
    """One step of a session as a role reports it.

    :raises ProtocolViolation: it cannot be read
    """
    try:
        event = SessionEvent(**values)
        bytes.fromhex(event.session)
    except (TypeError, ValueError):
        raise ProtocolViolation("an event cannot be read") from None
    texts = (event.name, event.session, event.text)
    if not (all(type(text) is str for text in texts) and isinstance(event.fields, dict)):
        raise ProtocolViolation("an event cannot be read")
    return event


class ServiceEnd(CommandLocator):
    """What the service answers a role in its own process."""

    def __init__(self, service: CloudConnectService, role: str) -> None:
        super().__init__()
        self._service = service
        self._role = role

    @ReportWarning.responder
    def report_warning(self, warning: Any) -> Deferred[dict[str, Any]]:
        """Keep a role's warning."""
        return self._service.reports.warned(read_warning(warning)).addCallback(lambda _: {})

    @ReportEvent.responder
    def report_event(self, event: Any) -> Deferred[dict[str, Any]]:
        """Keep one step of a session."""
        return self._service.reports.happened(read_event(event), self._role).addCallback(
            lambda _: {}
        )

    @AskOwner.responder
    def ask_owner(self, repository: bytes) -> Deferred[dict[str, Any]]:
        """Whose a repository is."""
        return Deferred.fromCoroutine(self._service.tenants.owner(repository))


class Node(CommandLocator):
    """What the service answers a node of its own process.

    :param link: the service's end of the line
    :param backend: what the node connects to for everything of the service's process
    :param named: role and name in the node's certificate
    :param renewals: issues its next certificate, or None
    """

    _log = Logger()

    def __init__(
        self,
        service: CloudConnectService,
        link: BoundedAMP,
        backend: str,
        named: NodeName,
        renewals: NodeRenewals | None = None,
    ) -> None:
        super().__init__()
        self._service = service
        self._link = link
        self._backend = backend
        self._named = named
        self._name = named.name
        self._renewals = renewals

    @RenewNode.responder
    def renew(self, request: bytes) -> Deferred[dict[str, Any]]:
        """Another certificate of the same role and name."""
        if self._renewals is None:
            raise Refused("this provider issues no certificates for nodes")
        return self._renewals.renew(self._named.role, self._name, request)

    @ShowNode.responder
    def show(self) -> dict[str, Any]:
        """It is let in."""
        return {"role": self._named.role, "name": self._name}


def read_load(connections: int, up: int, down: int, groups: Any) -> Load:
    """A gateway's load as it reports it.

    :raises ProtocolViolation: it cannot be read
    """
    try:
        counted = {bytes(group): int(relays) for group, relays in groups}
    except (TypeError, ValueError):
        raise ProtocolViolation("a load cannot be read") from None
    if min(connections, up, down, *counted.values()) < 0:
        raise ProtocolViolation("a load cannot be read")
    return Load(connections, up, down, counted)


class GatewayEnd(CommandLocator):
    """What the service answers a gateway in its own process.

    :ivar link: the service's end of the line, set before anything is asked
    """

    link: BoundedAMP

    def __init__(self, service: CloudConnectService) -> None:
        super().__init__()
        self._service = service

    @ReportLoad.responder
    def report_load(self, **load: Any) -> dict[str, Any]:
        """What it has to do; the caps of its groups."""
        shares = self._service.nodes.reported(self.link, read_load(**load))
        return {"rates": [list(share) for share in shares]}


class GatewayNode(Node):
    """What the service answers a gateway of its own process."""

    @Register.responder
    def register(self, advertise: str, pool: str | None = None) -> dict[str, Any]:
        """A gateway is there."""
        if not self._backend:
            raise Refused("this provider has no back-end port for gateways on other hosts")
        self._service.nodes.add_gateway(
            self._link,
            GatewayPlace(self._backend, advertise, self._name, pool or DEFAULT_POOL),
        )
        self._log.info(
            "gateway {name} {advertise} registered", name=self._name, advertise=advertise
        )
        return {"service": self._backend}

    @ReportLoad.responder
    def report_load(self, **load: Any) -> dict[str, Any]:
        """What it has to do; the caps of its groups."""
        shares = self._service.nodes.reported(self._link, read_load(**load))
        return {"rates": [list(share) for share in shares]}


class TargetNode(Node):
    """What the service answers a target role of its own process.

    It reports under its own role, and only of sessions that it takes part in.

    :cvar role: the role
    """

    role: ClassVar[Role]

    def _check_place(self, backend: str) -> None:
        spoken = self.role.value
        if not self._backend:
            raise Refused(f"this provider has no back-end port for a {spoken} on another host")
        try:
            split_host_port(backend)
        except UsageError as error:
            raise Refused(f"the back end of this {spoken} cannot be used: {error}") from None

    @ReportWarning.responder
    def report_warning(self, warning: Any) -> Deferred[dict[str, Any]]:
        """Keep its warning."""
        told = read_warning(warning)
        live = self._service.sessions.taking_part(self._link, told.session)
        told = attrs.evolve(told, session=live.identifier, tenant=live.tenant, role=self.role.value)
        return self._service.reports.warned(told).addCallback(lambda _: {})

    @ReportEvent.responder
    def report_event(self, event: Any) -> Deferred[dict[str, Any]]:
        """Keep one step of a session."""
        told = read_event(event)
        self._service.sessions.taking_part(self._link, told.session)
        return self._service.reports.happened(told, self.role.value).addCallback(lambda _: {})


class AcceleratorNode(TargetNode):
    """What the service answers a target WAN accelerator of its own process."""

    role = Role.TARGET_WAN

    @RegisterAccelerator.responder
    def register(self, backend: str) -> dict[str, Any]:
        """An accelerator is there."""
        self._check_place(backend)
        self._service.nodes.add_accelerator(self._link, backend, self._name)
        self._log.info(
            "WAN accelerator {name} registered, back end {backend}",
            name=self._name,
            backend=backend,
        )
        return {}


class MoverNode(TargetNode):
    """What the service answers a target data mover of its own process.

    Beside sessions it tells of what it does to repositories by itself, and of what it finds there.
    """

    role = Role.TARGET_MOVER

    @RegisterMover.responder
    def register(self, backend: str, storage: bytes, host: str) -> dict[str, Any]:
        """A mover is there."""
        self._check_place(backend)
        place = MoverPlace(backend, storage.hex(), host, self._name)
        self._service.nodes.movers.add(self._link, place)
        self._log.info(
            "data mover {name} registered, back end {backend}", name=self._name, backend=backend
        )
        return {}

    @AskOwner.responder
    def ask_owner(self, repository: bytes) -> Deferred[dict[str, Any]]:
        """Whose a repository is that this mover is to tend; nobody's where another one is to."""
        if not self._service.nodes.movers.tends(self._link, repository):
            return succeed({"tenant": "", "rules": {}, "frozen": False})
        return Deferred.fromCoroutine(self._service.tenants.owner(repository))

    @ReportWarning.responder
    def report_warning(self, warning: Any) -> Deferred[dict[str, Any]]:
        """Keep its warning."""
        told = read_warning(warning)
        if told.session:
            return super().report_warning(warning)
        self._check_registered()
        told = attrs.evolve(told, role=self.role.value)
        return self._service.reports.warned(told).addCallback(lambda _: {})

    @ReportEvent.responder
    def report_event(self, event: Any) -> Deferred[dict[str, Any]]:
        """Keep one step of a session, or of what it does by itself."""
        told = read_event(event)
        if told.session:
            return super().report_event(event)
        self._check_registered()
        return self._service.reports.happened(told, self.role.value).addCallback(lambda _: {})

    def _check_registered(self) -> None:
        if self._link not in self._service.nodes.movers:
            raise Refused("a mover registers before it reports")


#: What is answered to nodes of each role, by the role in their certificate.
_NODES: dict[str, type[Node]] = {
    GATEWAY: GatewayNode,
    ACCELERATOR: AcceleratorNode,
    MOVER: MoverNode,
}


@implementer(IHandshakeListener)
class NodeLink(BoundedAMP):
    """The service's end of a LAN line: answers nothing before it knows whose certificate it is.

    :param backend: what nodes on other hosts connect to for everything of this process
    :param renewals: issues their next certificates, or None
    """

    log = Logger()

    def __init__(
        self, service: CloudConnectService, backend: str, renewals: NodeRenewals | None = None
    ) -> None:
        super().__init__(service.reactor, locator=CommandLocator())
        self._service = service
        self._backend = backend
        self._renewals = renewals

    def handshakeCompleted(self) -> None:
        """The node has proved which one it is."""
        line: Any = self.transport
        node = _NODES.get(line.facts.peer_role)
        if node is None:  # the line's own trust lets no other in
            self.log.warn("no node of role {role} has a place here", role=line.facts.peer_role)
            line.abortConnection()
            return
        keep_alive(line)
        facts = line.facts
        line.pauseProducing()
        admitted = Deferred.fromCoroutine(
            self._service.admit_node(
                self, facts.peer_role, facts.peer_name, facts.peer_spki, facts.peer_ends
            )
        )
        admitted.addCallbacks(self._admitted, self._refused, (node, line), {}, (line,))

    def _admitted(self, _: None, node: type[Node], line: Any) -> None:
        if self.transport is None:  # it has gone meanwhile
            self._service.nodes.left(self)
            return
        named = NodeName(line.facts.peer_role, line.facts.peer_name)
        self._locator = node(self._service, self, self._backend, named, self._renewals)
        line.resumeProducing()

    def _refused(self, failure: Failure, line: Any) -> None:
        if failure.check(CloudConnectError):
            self.log.warn("a node is not let in: {why}", why=failure.getErrorMessage())
        else:
            self.log.failure("a node could not be judged", failure)
        line.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is not there any more."""
        self._service.nodes.left(self)
        self._service.endings.role_lost(self)
        super().connectionLost(reason)


class NodeFactory(Factory):
    """Makes the service's ends of LAN lines."""

    noisy = False

    def __init__(
        self, service: CloudConnectService, backend: str, renewals: NodeRenewals | None = None
    ) -> None:
        self._service = service
        self._backend = backend
        self._renewals = renewals

    def buildProtocol(self, addr: IAddress | None) -> NodeLink:
        """One for this node."""
        return NodeLink(self._service, self._backend, self._renewals)


class MoverRegistration(Registration):
    """Keeps a separate data mover registered with the service.

    :param mover: it answers the service on the line, and reports there
    :param backend: ``HOST:PORT`` that gateways and accelerators reach it at
    :param storage: names the folder of its repositories, 16 bytes
    :param host: tells the host that it runs on from others
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        mover: TargetDataMover,
        backend: str,
        storage: bytes,
        host: str,
    ) -> None:
        super().__init__(reactor, endpoint, mover)
        self._mover = mover
        self._place = {"backend": backend, "storage": storage, "host": host}

    async def register(self, line: BoundedAMP) -> str:
        """Say where it is found, and what it has."""
        self._mover.link = line
        await line.call(RegisterMover, **self._place)  # type: ignore[arg-type]
        return f"as back end {self._place['backend']}"

    def lost(self) -> None:
        """End every session."""
        self._mover.link_lost()


class GatewayRegistration(Registration):
    """Keeps a separate gateway registered with the service.

    :param advertise: ``HOST:PORT`` that tenants can reach the gateway at, or empty
    :param registered: takes the back end of TLS connections, and the line, each time the line comes
        up
    :param pool: the tenants of which pool it is for
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        locator: CommandLocator,
        advertise: str,
        registered: Callable[[str, BoundedAMP], None],
        pool: str = DEFAULT_POOL,
    ) -> None:
        super().__init__(reactor, endpoint, locator)
        self._advertise = advertise
        self._registered = registered
        self._pool = pool

    async def register(self, line: BoundedAMP) -> str:
        """Say where tenants reach it; hear where TLS connections go."""
        answer = await line.call(Register, advertise=self._advertise, pool=self._pool)
        self._registered(answer["service"], line)
        return f"back end {answer['service']}"
