"""Layer 4: what the service answers the other roles, of its own process and of others.

What a node may say is decided by the role in its certificate, and what it reports is taken as its
own, and of sessions that it takes part in (``docs/protocol.rst``, section 10).
"""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.protocols.amp import CommandLocator

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import Role
from cloudconnect.commands.gateways import Register, ReportLoad
from cloudconnect.commands.keeping import AskOwner
from cloudconnect.commands.lan import RegisterAccelerator, RegisterMover, ReportEvent, ReportWarning
from cloudconnect.commands.renewing import RenewNode, ShowNode
from cloudconnect.errors import Refused, UsageError
from cloudconnect.provider.nodes.movers import MoverPlace
from cloudconnect.provider.nodes.renewal import NodeRenewals
from cloudconnect.provider.nodes.reported import read_event, read_load, read_warning
from cloudconnect.provider.service.planning import GatewayPlace
from cloudconnect.provider.service.service import CloudConnectService
from cloudconnect.settings import DEFAULT_POOL
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.nodes import NodeName


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
    :param spki: fingerprint of the key that it has proved
    :param renewals: issues its next certificate, or None
    """

    _log = Logger()

    def __init__(
        self,
        service: CloudConnectService,
        link: BoundedAMP,
        backend: str,
        named: NodeName,
        spki: str,
        renewals: NodeRenewals | None = None,
    ) -> None:
        super().__init__()
        self._service = service
        self._link = link
        self._backend = backend
        self._named = named
        self._name = named.name
        self._spki = spki
        self._renewals = renewals

    @RenewNode.responder
    def renew(self, request: bytes) -> Deferred[dict[str, Any]]:
        """Another certificate of the same role and name."""
        if self._renewals is None:
            raise Refused("this provider issues no certificates for nodes")
        return self._renewals.renew(self._named.role, self._name, request, self._spki)

    @ShowNode.responder
    def show(self) -> dict[str, Any]:
        """It is let in."""
        return {"role": self._named.role, "name": self._name}


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
