"""Layer 6: a port that the process was started with (socket activation, sd_listen_fds(3)).

The one socket of ``cloudconnect-provider.socket`` is the public port, without anybody's saying so.
Twisted takes what systemd says out of the environment as soon as it is imported: it is asked.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

#: The first descriptor that is handed over.
FIRST: Final = 3
_DOMAINS: Final = {
    socket.AF_INET: "INET",
    socket.AF_INET6: "INET6",
    socket.AF_UNIX: "UNIX",
}


def inherited_endpoint(parse: Callable[[str], object]) -> str | None:
    """The endpoint string of the first socket that was handed over to this process, or None.

    :param parse: makes an endpoint of a string, and fails where no such socket was
    """
    try:
        parse("systemd:domain=INET:index=0")
        with socket.socket(fileno=os.dup(FIRST)) as found:
            domain = _DOMAINS.get(found.family)
    except (LookupError, ValueError, OSError):
        return None
    return None if domain is None else f"systemd:domain={domain}:index=0"
