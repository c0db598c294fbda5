"""Layer 5: the settings that bound what a gateway lets in, in whichever file they stand."""

from __future__ import annotations

from typing import Any, Final

from cloudconnect.provider.gateway.gateway import Bounds

#: The settings that bound what a gateway lets in, with the least and the most that each may be.
BOUNDS: Final = {
    "line_rate": (0, 1 << 40),
    "connections": (1, 1_000_000),
    "address_connections": (1, 1_000_000),
    "tenant_connections": (1, 1_000_000),
}


def bounds_of(settings: Any) -> Bounds:
    """What a gateway lets in, by the settings named in :data:`BOUNDS`."""
    return Bounds(
        connections=settings.connections,
        of_address=settings.address_connections,
        of_tenant=settings.tenant_connections,
        line_rate=settings.line_rate,
    )
