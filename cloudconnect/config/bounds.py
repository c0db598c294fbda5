"""Layer 5: settings that stand in more than one file.

What a gateway lets in, and how often a mover tends what is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cloudconnect.provider.gateway.gateway import Bounds

if TYPE_CHECKING:
    from cloudconnect.provider.data_mover.maintenance import Intervals

#: The settings that bound what a gateway lets in, with the least and the most that each may be.
BOUNDS: Final = {
    "line_rate": (0, 1 << 40),
    "connections": (1, 1_000_000),
    "address_connections": (1, 1_000_000),
    "tenant_connections": (1, 1_000_000),
}
#: The settings that say how often a mover tends what is stored, likewise.
TENDING: Final = {"maintenance_hours": (1, 24), "gc_hours": (1, 720), "scrub_days": (1, 365)}


def bounds_of(settings: Any) -> Bounds:
    """What a gateway lets in, by the settings named in :data:`BOUNDS`."""
    return Bounds(
        connections=settings.connections,
        of_address=settings.address_connections,
        of_tenant=settings.tenant_connections,
        line_rate=settings.line_rate,
    )


def intervals_of(settings: Any) -> Intervals:
    """How often a mover tends what is stored, by the settings named in :data:`TENDING`."""
    # Here: gateways and accelerators read settings, too, and want no data base in memory.
    from cloudconnect.provider.data_mover.maintenance import Intervals

    return Intervals(**{name: getattr(settings, name) for name in TENDING})
