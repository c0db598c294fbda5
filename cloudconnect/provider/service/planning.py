"""Layer 4: the plan of a session: which target role takes part, on which route, with which Key A.

Pure: from what the tenant asked and what the service knows to the plan that the tenant is told and
the Key A packages that the roles are (``docs/protocol.rst``, sections 2 and 3).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable
from typing import Any

import attrs

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import TARGET_HOPS, Role, SessionKind
from cloudconnect.commands.tunnel import agreed_digest
from cloudconnect.keys import KeyA
from cloudconnect.provider.accounts import Tenant
from cloudconnect.provider.accounts.credentials import CAPABILITIES as CAPABILITIES_ALL
from cloudconnect.sessions.package import KeyAPackage
from cloudconnect.settings import DEFAULT_POOL, KEY_A_SECONDS, PROTOCOL_VERSIONS

#: What a session of each kind may do at the mover.
CAPABILITIES = {
    SessionKind.BACKUP: ("write", "read"),
    SessionKind.RESTORE: ("read",),
    SessionKind.READ: ("read",),
    SessionKind.CHECK: ("read",),
}
#: A back end inside the gateway's own process.
HERE = "here"


@attrs.frozen(kw_only=True)
class Ask:
    """What a tenant asks of Start, checked."""

    kind: SessionKind
    job: bytes
    host: str
    name: str
    repository: bytes
    wan: bool
    streams: int

    def as_map(self) -> dict[str, Any]:
        """As both ends hash it into the tunnel's prologue."""
        return {**attrs.asdict(self), "kind": self.kind.value}


@attrs.frozen
class GatewayPlace:
    """Where a gateway stands.

    :ivar backend: what the gateway calls the place of this process: ``here`` inside it, else
        ``HOST:PORT`` on the provider's LAN
    :ivar advertise: ``HOST:PORT`` that tenants reach it at, or empty
    :ivar name: as its certificate says; ``here`` in this process
    :ivar pool: the tenants of which pool it is for
    :ivar public: whether tenants reach it at all; the one that only sends on does not count
    """

    backend: str = HERE
    advertise: str = ""
    name: str = HERE
    pool: str = DEFAULT_POOL
    public: bool = True


@attrs.frozen(eq=False)
class Part:
    """One target role's part in a session.

    :ivar role: which role
    :ivar link: the line to it
    :ivar backend: where gateways find it: ``here`` for the service's own process, else
        ``HOST:PORT``
    :ivar route: 16 random bytes that its connections begin with
    :ivar key_a: its own Key A
    """

    role: Role
    link: BoundedAMP
    backend: str
    route: bytes = attrs.field(factory=lambda: os.urandom(16))
    key_a: KeyA = attrs.field(factory=KeyA.generate, repr=False)

    def backend_for(self, gateway: GatewayPlace) -> str:
        """What a gateway is told of where this part is."""
        return gateway.backend if self.backend == HERE else self.backend


def plan_of(parts: Iterable[Part], ask: Ask, gateways: list[str]) -> list[dict[str, Any]]:
    """The plan that the tenant is told: for each part an entry, without its key."""
    return [
        {
            "role": part.role.value,
            "route": part.route,
            "gateways": gateways,
            "versions": list(PROTOCOL_VERSIONS),
            "limits": {
                "lifetime_ms": int(KEY_A_SECONDS * 1000),
                "streams": streams_of(part.role, ask),
            },
        }
        for part in parts
    ]


def streams_of(role: Role, ask: Ask) -> int:
    """Connections of the hop that comes in at a role: between accelerators as many as were asked
    for, elsewhere one."""
    return ask.streams if role is Role.TARGET_WAN or not ask.wan else 1


def packages(
    parts: list[Part],
    plan: list[dict[str, Any]],
    ask: Ask,
    session: bytes,
    record: Tenant,
    exporter: Callable[[bytes, str], bytes],
    mover_backend: str,
    allowed: Collection[str] = CAPABILITIES_ALL,
) -> list[KeyAPackage]:
    """What each part is told.

    :param allowed: what the tenant's credential can: the session can no more than that
    :param exporter: the control channel's TLS exporter for a session and a role, 32 bytes
    :param mover_backend: where accelerators find the mover
    """
    mover = next(part for part in parts if part.role is Role.TARGET_MOVER)
    agreed = agreed_digest(plan, ask.as_map())
    made: list[KeyAPackage] = []
    for part in parts:
        ends_here = part.role is Role.TARGET_MOVER
        made.append(
            KeyAPackage(
                version=PROTOCOL_VERSIONS[-1],
                session=session,
                tenant=record.name,
                role=part.role.value,
                route=part.route,
                exporter=hashlib.sha256(exporter(session, part.role.value)).digest(),
                agreed=agreed,
                lifetime_ms=int(KEY_A_SECONDS * 1000),
                kind=ask.kind.value,
                job=ask.job,
                host=ask.host,
                name=ask.name,
                repository=ask.repository,
                quota=record.quota,
                mode=record.mode,
                capabilities=tuple(c for c in CAPABILITIES[ask.kind] if c in allowed),
                hops=TARGET_HOPS[ask.wan][part.role],
                streams=streams_of(part.role, ask),
                wan=ask.wan,
                next_backend="" if ends_here else mover_backend,
                next_route=b"" if ends_here else mover.route,
            )
        )
    return made
