"""Layer 4: what a gateway has to do, as one number to compare gateways by."""

from __future__ import annotations

from typing import Final

import attrs

#: What a connection counts for beside what it moves, in bytes a second: an idle one costs little.
CONNECTION_WEIGHT: Final = 16 << 10
#: What a session counts for from its plan to the gateway's next report, in bytes a second.
SESSION_WEIGHT: Final = 4 << 20


@attrs.define(eq=False)
class Load:
    """What a gateway has to do.

    :ivar connections: that are open there
    :ivar up: bytes a second from tenants
    :ivar down: bytes a second to them
    :ivar groups: relays of each tenant's group, by its 16 bytes
    :ivar planned: sessions that were sent there since it reported last
    """

    connections: int = 0
    up: int = 0
    down: int = 0
    groups: dict[bytes, int] = attrs.field(factory=dict)
    planned: int = 0

    @property
    def weight(self) -> int:
        """One number to compare gateways by."""
        return (
            self.up
            + self.down
            + self.connections * CONNECTION_WEIGHT
            + self.planned * SESSION_WEIGHT
        )
