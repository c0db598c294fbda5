"""Below the roles: connections to a session that have not proved its key.

Anybody who saw a route can open them. They are few, and none of them can keep the owner out.
"""

from __future__ import annotations

from typing import Any, Final

#: Connections on one route that have not proved their key; the oldest makes way for a new one. Who
#: sees the route id and wants to keep its owner out must open as many within one round trip.
UNPROVED_MAX: Final = 64


class Unproved(list[Any]):
    """The protocols of such connections, the oldest first."""

    def make_room(self) -> None:
        """Close the oldest, where there are too many of them.

        To refuse the new one in its place would let a stranger keep the tenant's own connection
        out.
        """
        while len(self) >= UNPROVED_MAX:
            self.pop(0).transport.abortConnection()

    def settled(self, protocol: Any) -> None:
        """``protocol`` has proved its key, or is gone; it may be known already."""
        if protocol in self:
            self.remove(protocol)
