"""Layer 2, transports: how many connections there may be, in all and from one address.

A stranger who opens connections and says nothing costs memory and descriptors. Nobody gets more of
them than is set for one address, and all together no more than the process can have open; who is
refused can come again.

Source: RFC 4291 for what belongs to one holder of IPv6 addresses.
"""

from __future__ import annotations

import ipaddress
import resource
from collections import Counter
from typing import Any, Final

#: Descriptors that are kept for everything but connections: logs, data bases, pipes of relays.
RESERVED_DESCRIPTORS: Final = 640
#: Who holds an IPv6 address has at least this many bits of them to choose from.
IPV6_PREFIX: Final = 64


def descriptors_for(wanted: int, each: int) -> int:
    """How many connections this process can have open.

    :param wanted: as many as are wanted at most
    :param each: descriptors that one costs
    :return: at least 1
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (most - RESERVED_DESCRIPTORS) // each))


def holder_of(address: Any) -> str:
    """What connections of one holder have in common: its IPv4 address, or its IPv6 network.

    :param address: an ``IAddress``; of what is no IP address nothing can be said: ``""``
    """
    try:
        found = ipaddress.ip_address(str(getattr(address, "host", "")).partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, IPV6_PREFIX), strict=False))
    return str(found)


class Admission:
    """Counts connections.

    :param most: that there may be
    :param most_of_one: that there may be of one address
    """

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._all = 0
        self._of: Counter[str] = Counter()

    def change(self, most: int, most_of_one: int) -> None:
        """Let in no more than this from now on; who is there stays.

        :param most: connections that there may be
        :param most_of_one: that there may be of one address
        """
        self._most, self._most_of_one = most, most_of_one

    @property
    def count(self) -> int:
        """How many there are."""
        return self._all

    def enter(self, holder: str) -> bool:
        """Another one; whether it may be. If it may, it has to :meth:`leave`.

        :param holder: whose (:func:`holder_of`); ``""`` counts for nobody
        """
        if self._all >= self._most or (holder and self._of[holder] >= self._most_of_one):
            return False
        self._all += 1
        self._of[holder] += 1
        return True

    def leave(self, holder: str) -> None:
        """One of the connections of ``holder`` is gone."""
        self._all -= 1
        self._of[holder] -= 1
        if not self._of[holder]:
            del self._of[holder]
