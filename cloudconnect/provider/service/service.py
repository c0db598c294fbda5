"""Layer 4: the Cloud Connect service: knows tenants, starts sessions, makes Key A.

It holds the TLS key, the accounts and each Key A until it is delivered; never Key B, never
an at-rest key. One :class:`~cloudconnect.provider.control.control.ControlProtocol` serves each
tenant's connection and calls its parts, each of which is a module of its own; gateways, mover and
accelerators are reached through their LAN links, which :mod:`cloudconnect.provider.nodes.known`
knows (``docs/protocol.rst``, sections 2, 3 and 10).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.control.connections import Connections
from cloudconnect.provider.control.logins import LogIns
from cloudconnect.provider.nodes.known import Nodes
from cloudconnect.provider.nodes.renewal import NodeCertificates
from cloudconnect.provider.service.access import GRACE_DAYS
from cloudconnect.provider.service.earlier import EarlierWarnings
from cloudconnect.provider.service.ending import Endings
from cloudconnect.provider.service.keeping import PointKeeper
from cloudconnect.provider.service.live import LiveSessions
from cloudconnect.provider.service.planning import HERE
from cloudconnect.provider.service.reports import Reports
from cloudconnect.provider.service.repositories import TenantRepositories
from cloudconnect.provider.service.starting import Starts
from cloudconnect.provider.service.tenants import Tenants
from cloudconnect.provider.watching import Watchers
from cloudconnect.transports.nodes import GATEWAY


class CloudConnectService(Service):
    """The provider's service behind the gateway.

    :param reactor: clock
    :param accounts: the accounts data base; used only in the accounts thread
    :param in_accounts_thread: runs a blocking call there and fires with its result
    :param provider: names the provider, 16 bytes
    :param decoy_key: makes what a log-in name that does not exist is answered, 32 bytes
    :param advertise: ``HOST:PORT`` of the gateways where the admin set them; empty: the tenant goes
        on using the address that it connected to
    :param grace_days: days after the end of a lease in which its tenant may list and restore
    :param mover_backend: ``HOST:PORT`` where accelerators of their own process find the mover
    :ivar nodes: the other roles
    :ivar sessions: those that run; ``starts`` begins them, ``endings`` ends them
    :ivar earlier: what was seen of a job's sessions before
    :ivar tenants: what is agreed with them, and what they are told
    :ivar logins: who may log in
    :ivar repositories: what each of them has
    :ivar keeping: what is done to restore points
    :ivar reports: keeps what happened
    :ivar watchers: who is told what happens
    :ivar reload: reads certificates and settings again, where this process can
    :ivar health: looks at how the whole process is; takes for how many seconds back
    :ivar connections: the control channels that are up
    :ivar node_certificates: when those of nodes end
    :ivar node_endings: when the certificates of nodes end
    """

    def __init__(
        self,
        reactor: IReactorTime,
        accounts: Accounts,
        in_accounts_thread: Callable[..., Deferred[Any]],
        *,
        provider: bytes,
        decoy_key: bytes,
        advertise: Iterable[str] = (),
        mover_backend: str = HERE,
        grace_days: int = GRACE_DAYS,
    ) -> None:
        self.reactor = reactor
        self.provider = provider
        self.reload: Callable[[], None] | None = None
        self.health: Callable[[float], Awaitable[dict[str, Any]]] | None = None
        self.connections = Connections()
        self.node_certificates = NodeCertificates()
        self.watchers = watchers = Watchers()
        self.nodes = nodes = Nodes(advertise, reactor)
        self.sessions = sessions = LiveSessions()
        self.earlier = earlier = EarlierWarnings(accounts, in_accounts_thread)
        self.reports = reports = Reports(accounts, in_accounts_thread, sessions, earlier, watchers)
        self.tenants = tenants = Tenants(
            accounts, in_accounts_thread, reports, grace_days=grace_days
        )
        self.logins = LogIns(reactor, accounts, in_accounts_thread, tenants, reports, decoy_key)
        self.keeping = PointKeeper(tenants, nodes, reports)
        self.repositories = TenantRepositories(tenants, nodes, sessions, self.keeping, reports)
        self.endings = Endings(reactor, accounts, nodes, sessions, earlier, reports, watchers)
        self.starts = Starts(
            reactor,
            accounts,
            tenants,
            nodes,
            sessions,
            self.endings,
            earlier,
            reports,
            watchers,
            mover_backend,
        )
        self._accounts = accounts
        self._run = in_accounts_thread

    async def cut(self, tenant: str, label: str | None = None, number: int | None = None) -> None:
        """End at once what a tenant has running: its control channels and its sessions.

        What was acknowledged as stored stays.

        :param label: only what was begun with the credential of this name
        :param number: and of this number
        """
        self.connections.cut(tenant, label, number)
        await self.endings.interrupt(tenant, label, number)

    def stopService(self) -> Deferred[Any]:
        """End every session."""
        super().stopService()  # type: ignore[no-untyped-call]
        return self.endings.all()

    # --- nodes of other processes ----------------------------------------------------------------

    async def admit_node(
        self, link: BoundedAMP, role: str, name: str, spki: str, ends: float
    ) -> None:
        """Judge a node that has proved its certificate; from now on it is known by its name.

        :param spki: fingerprint of the key that it has proved
        :param ends: when its certificate ends, in seconds since 1970
        :raises Refused: its certificate was taken back
        """
        known = await self._run(self._accounts.admit_node, role, name, spki, ends or None)
        self.node_certificates.saw(role, name, ends)
        self.nodes.set_leaving(role, name, known.leaving)
        self.nodes.join(link, role, name)

    def joined(self, role: str, name: str) -> None:
        """A new node got its certificate."""
        self.reports.note("node_enrolled", "", f"{role} {name} got its certificate", node=name)

    def renewed(self, role: str, name: str) -> None:
        """A node got its next certificate."""
        self.reports.note("node_renewed", "", f"{role} {name} got its next certificate", node=name)

    def expel(self, role: str, name: str) -> None:
        """A node's certificate was taken back: cut its lines, and with them its sessions."""
        self.node_certificates.forget(role, name)
        for link in self.nodes.named(role, name):
            line: Any = link.transport
            if line is not None:
                line.abortConnection()

    def node_fields(self, role: str, name: str) -> dict[str, Any]:
        """Whether a node is there, in how many sessions, and a gateway's load."""
        links = [link for link in self.nodes.named(role, name) if self.nodes.is_there(link)]
        sessions = sum(len(self.sessions.at(link)) for link in links)
        fields = {"connected": bool(links), "sessions": sessions}
        if links and role == GATEWAY:
            fields |= self.nodes.gateway_fields(links[0])
        return fields

    def leave(self, role: str, name: str, leaving: bool) -> int:
        """A node gets no new sessions, or does again; how many it has, or connections of a gateway.

        :param role: as its certificate says it
        """
        self.nodes.set_leaving(role, name, leaving)
        if role == GATEWAY:
            return sum(self.nodes.connections_at(link) for link in self.nodes.named(role, name))
        taking = [live for link in self.nodes.named(role, name) for live in self.sessions.at(link)]
        for live in taking if leaving else ():
            live.move_on(live.session, False, f"the provider's {role} {name} is about to stop")
        return len(taking)
