"""Layer 4: where a provider's process keeps and finds things, and which roles run in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)

from cloudconnect.provider.admin.tenant_acts import REMOVED_DAYS
from cloudconnect.provider.data_mover.maintenance import Intervals
from cloudconnect.provider.data_mover.seeding import FillCache
from cloudconnect.provider.gateway.gateway import Bounds
from cloudconnect.provider.history.keep import Keep
from cloudconnect.provider.nodes.enrolment import Signer
from cloudconnect.provider.service.access import GRACE_DAYS
from cloudconnect.sessions.role import TargetRole
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.tls import MutualTLS

#: The roles that a provider's process may have beside the service, which it always has.
ROLES = ("gateway", "mover", "wan")
#: Makes the endpoint of what the service calls a role's place.
Dial = Callable[[str], IStreamClientEndpoint]


@attrs.frozen(kw_only=True)
class Places:
    """Where an embedded provider keeps and finds things.

    :ivar accounts_url: SQLAlchemy URL of the accounts data base
    :ivar repositories: folder of the repositories
    :ivar keys: folder of the provider's own keys of them; ``keys`` beside it where it is None
    :ivar reserve: file that keeps room for when the disk is full, or None
    :ivar intervals: how often the mover does what it does by itself
    :ivar identity: what the control channel shows
    :ivar admin_socket: path of the admin socket, or None on a read-only file system
    :ivar public: where the gateway listens
    :ivar lan: where gateways and accelerators of their own process register, with the TLS of the
        LAN, or None
    :ivar sign: issues the certificates of nodes that join with a token, or None
    :ivar backend: where what they send on arrives, or None; nobody else may reach it, because who
        connects there says himself what the peer's address is
    :ivar backend_address: ``HOST:PORT`` of ``backend`` as they connect to it
    :ivar advertise: ``HOST:PORT`` of gateways that tenants are told, where the admin set them
    :ivar audit: folder of the audit log, or None for none
    :ivar roles: which roles run in this process beside the service, of :data:`ROLES`
    :ivar grace_days: days after the end of a lease in which its tenant may restore
    :ivar removed_days: days that a removed tenant stays in the bin
    :ivar accelerator: makes the target WAN accelerator of this process, with what fills its caches,
        or None for none
    :ivar keep: how long what happened is kept
    :ivar bounds: what the gateway of this process lets in
    """

    accounts_url: str
    repositories: Path
    identity: ServerIdentity
    admin_socket: Path | None
    public: IStreamServerEndpoint
    lan: tuple[IStreamServerEndpoint, MutualTLS] | None = None
    sign: Signer | None = None
    backend: IStreamServerEndpoint | None = None
    backend_address: str = ""
    advertise: tuple[str, ...] = ()
    keys: Path | None = None
    reserve: Path | None = None
    intervals: Intervals | None = None
    audit: Path | None = None
    roles: frozenset[str] = frozenset(ROLES)
    grace_days: int = GRACE_DAYS
    removed_days: int = REMOVED_DAYS
    accelerator: Callable[[Dial], tuple[TargetRole, FillCache]] | None = None
    keep: Keep = attrs.field(factory=Keep)
    bounds: Bounds = attrs.field(factory=Bounds)
