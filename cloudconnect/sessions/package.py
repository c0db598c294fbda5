"""Below the roles: the Key A package, what the service tells a target role of a session."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class KeyAPackage:
    """What the service tells a target role of a session (``docs/protocol.rst``, section 3).

    :ivar session: 16 bytes
    :ivar route: 16 bytes, the connections that belong to this session and role begin with it
    :ivar exporter: 32 bytes, binds the tunnel to the control channel
    :ivar agreed: 32 bytes, SHA-256 of the plan entry and of what Start asked
    :ivar job: 16 bytes, the same over all sessions of one job run
    :ivar repository: 16 bytes
    :ivar quota: bytes that the repository may hold, or None
    :ivar hops: at an accelerator the hop that comes in and the one that goes on; at a mover the one
        that comes in
    :ivar streams: connections of the hop that comes in
    :ivar wan: whether the session goes through accelerators
    :ivar next_backend: at an accelerator, where the mover takes what goes on, as the service calls
        it; else empty
    :ivar next_route: the mover's route, or empty
    """

    version: int
    session: bytes
    tenant: str
    role: str
    route: bytes
    exporter: bytes
    agreed: bytes
    lifetime_ms: int
    kind: str
    job: bytes
    host: str
    name: str
    repository: bytes
    quota: int | None
    mode: str
    capabilities: tuple[str, ...]
    hops: tuple[str, ...]
    streams: int
    wan: bool
    next_backend: str
    next_route: bytes

    def as_map(self) -> dict[str, Any]:
        """The fields as CBOR values."""
        return attrs.asdict(self, value_serializer=_as_cbor)

    @classmethod
    def from_map(cls, values: dict[str, Any]) -> KeyAPackage:
        """The other way round.

        :raises TypeError, KeyError: fields missing or too many
        """
        lists: dict[str, Any] = {k: tuple(values[k]) for k in ("capabilities", "hops")}
        return cls(**{**values, **lists})


def _as_cbor(_owner: object, _field: object, value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
