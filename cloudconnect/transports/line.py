"""Layer 2, transports: what a connection over a long line wants of the kernel.

Where several connections carry one stream, what one of them holds keeps the others' bytes waiting
at the far end: so the kernel is asked to hold little that it has not sent yet
(``TCP_NOTSENT_LOWAT``), and to send small writes at once (``TCP_NODELAY``). BBR keeps a long line
full where CUBIC takes each lost packet for a full one; not every system has it, or allows it.

Nothing here is needed: where an option cannot be set, the connection works without it.

Source: tcp(7) of Linux; N. Cardwell and others, "BBR: Congestion-Based Congestion Control", 2016.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any, Final

from cloudconnect.settings import PING_SECONDS

#: Bytes that the kernel holds of one connection and has not sent: 1 ms on a line of 1 Gbit/s.
NOT_SENT: Final = 128 << 10
#: Probes of an idle connection that are not answered before it counts as lost.
PROBES: Final = 3
#: Layers that are looked through for the socket below them.
DEPTH_MAX: Final = 16
#: ``tcpi_rtt``, microseconds, in ``struct tcp_info`` of Linux: behind 8 bytes and 15 numbers.
_RTT: Final = struct.Struct("=68xI")


def socket_below(transport: Any) -> socket.socket | None:
    """The socket under ``transport``, through the layers between; None where there is none."""
    for _ in range(DEPTH_MAX):
        handle = getattr(transport, "getHandle", None)
        found = handle() if handle is not None else None
        if isinstance(found, socket.socket):
            return found
        transport = getattr(transport, "transport", None)
        if transport is None:
            return None
    return None


def round_trip(transport: Any) -> float | None:
    """Seconds of a way there and back, as the kernel has measured it on the TCP socket below.

    :param transport: any transport, layers upon it included
    :return: None where there is no such socket, or the system does not say
    """
    below = socket_below(transport)
    if below is None or not hasattr(socket, "TCP_INFO"):
        return None
    try:
        info = below.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT.size)
        return float(_RTT.unpack(info)[0]) / 1e6
    except (OSError, struct.error):
        return None


def keep_alive(transport: Any) -> bool:
    """Have the kernel notice when the other end of a connection that is mostly idle has vanished.

    That takes PING_SECONDS, and as many more for each of PROBES. For lines whose protocol sends
    nothing of its own: else who only listens never learns that a host was switched off.

    :param transport: any transport, layers upon it included
    :return: whether there is a TCP socket below
    """
    below = socket_below(transport)
    if below is None or below.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    with contextlib.suppress(OSError):
        below.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            below.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(PING_SECONDS))
            below.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, int(PING_SECONDS))
            below.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # the same where something is under way
            milliseconds = int(PING_SECONDS * (1 + PROBES) * 1000)
            below.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    return True


def tune(transport: Any, several: bool) -> bool:
    """Set the options on the TCP socket under ``transport``, if there is one.

    :param several: whether it is one of several that carry one stream
    :return: whether there is one
    """
    below = socket_below(transport)
    if below is None or below.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    with contextlib.suppress(OSError):
        below.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if several and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            below.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT)
        same_machine = below.getsockname()[0] == below.getpeername()[0]
        if hasattr(socket, "TCP_CONGESTION") and not same_machine:
            below.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
    return True
