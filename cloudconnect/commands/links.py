"""Layer 3: the LAN link inside one process: two command protocols over the in-memory transport.

The same bytes flow as between hosts, so that what works embedded works apart.
"""

from __future__ import annotations

from typing import Any

from twisted.protocols.amp import CommandLocator

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.transports.memory import MemoryPair


def link_in_process(
    reactor: Any, left: CommandLocator | None, right: CommandLocator | None
) -> tuple[BoundedAMP, BoundedAMP]:
    """Connect two roles of one process.

    :param left: answers what the right end calls, or None where it calls nothing
    :param right: the other way round
    :return: the left role's end and the right role's end
    """
    ends = BoundedAMP(reactor, locator=left), BoundedAMP(reactor, locator=right)
    MemoryPair(reactor).connect(ends[0], ends[1])
    return ends
