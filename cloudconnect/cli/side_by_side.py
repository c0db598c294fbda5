"""Layer 6: the first of a host's addresses that answers, without waiting for those that do not.

A host with an IPv6 and an IPv4 address, of which one leads nowhere, would cost the whole time in
which a connection may come up. So the next address is tried when the one before has not answered
for a moment, beside it, and the first that answers is used (RFC 8305, sections 4 and 5, in small).
Blocks: for a thread of its own, before the reactor is there.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

#: Seconds that an address has before the next one is tried beside it (RFC 8305, section 5).
NEXT_SECONDS: Final = 0.25
#: More of a host's addresses are not tried.
ADDRESSES_MAX: Final = 8

#: As ``getaddrinfo`` gives it: family, kind, protocol, canonical name, socket address.
Address = tuple[int, int, int, str, Any]


def in_turn(addresses: Iterable[Address]) -> list[Address]:
    """The addresses, at most :data:`ADDRESSES_MAX`, in the system's order, but with families in
    turn: the first of the other one stands second."""
    families: dict[int, deque[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], deque()).append(address)
    ordered: list[Address] = []
    while families and len(ordered) < ADDRESSES_MAX:
        for family, waiting in list(families.items()):
            ordered.append(waiting.popleft())
            if not waiting:
                del families[family]
    return ordered[:ADDRESSES_MAX]


def connect_first(
    place: tuple[str, int], seconds: float, wanted: Callable[[], bool] = lambda: True
) -> socket.socket:
    """A connection to the first address of a host that answers; it does not block.

    :param place: host and port
    :param seconds: after which nothing is waited for any more
    :param wanted: asked now and then whether it still is
    :raises OSError: no address answers, or there is none
    """
    ends = time.monotonic() + seconds
    found = socket.getaddrinfo(*place, 0, socket.SOCK_STREAM)
    waiting = deque(in_turn(found))
    open_ones: list[socket.socket] = []
    error: OSError = TimeoutError(errno.ETIMEDOUT, "no address answers in time")
    try:
        while waiting or open_ones:
            if waiting:
                try:
                    open_ones.append(_begin(waiting.popleft()))
                except OSError as refused:
                    error = refused
                    continue
            next_one = time.monotonic() + NEXT_SECONDS if waiting else ends
            failed = False
            while open_ones and not failed:
                rest = min(next_one, ends) - time.monotonic()
                if rest <= 0:
                    break
                _, ready, _ = select.select([], open_ones, [], min(rest, NEXT_SECONDS))
                if not ready and not wanted():
                    raise error
                for one in ready:
                    code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not code:
                        open_ones.remove(one)
                        return one
                    error = OSError(code, "connecting failed")
                    open_ones.remove(one)
                    one.close()
                    failed = True  # the next one need not wait
            if time.monotonic() >= ends:
                raise error
        raise error
    finally:
        for one in open_ones:
            one.close()


def _begin(address: Address) -> socket.socket:
    """A socket that connects.

    :raises OSError: that cannot even begin
    """
    family, kind, protocol, _, where = address
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        code = made.connect_ex(where)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, "connecting failed")
    except BaseException:
        made.close()
        raise
    return made
