"""Layer 5: what a machine remembers of its provider's gateways, for when the first one is away.

One small file for each address that a tenant was given, under ``$XDG_STATE_HOME``. It is a hint and
no more: whoever answers at such a place must show the provider's certificate like any other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cloudconnect.config.profile import state_folder, write_private
from cloudconnect.errors import UsageError
from cloudconnect.transports.hosts import join_host_port, split_host_port

#: Largest file that is read, in bytes, and most gateways of it.
_SIZE_MAX: Final = 16 << 10
_GATEWAYS_MAX: Final = 64


def _path(environment: Mapping[str, str], address: tuple[str, int]) -> Path:
    top = state_folder(environment, b"", b"")
    return top / "gateways" / quote(join_host_port(*address), safe="")


def remembered_gateways(environment: Mapping[str, str], address: tuple[str, int]) -> list[str]:
    """The gateways, as ``HOST:PORT``, that the provider told when it was reached there last.

    :param address: host and port that the tenant was given; what cannot be read is nothing
    """
    try:
        with _path(environment, address).open("rb") as file:
            lines = file.read(_SIZE_MAX).decode("ascii").split()
        for line in lines:
            split_host_port(line)
    except (OSError, UnicodeDecodeError, UsageError):
        return []
    return lines[:_GATEWAYS_MAX]


def remember_gateways(
    environment: Mapping[str, str], address: tuple[str, int], gateways: list[str]
) -> None:
    """Keep them; where they cannot be written nothing happens."""
    with contextlib.suppress(OSError, UsageError, UnicodeEncodeError):
        text = "".join(f"{gateway}\n" for gateway in gateways[:_GATEWAYS_MAX])
        write_private(_path(environment, address), text.encode("ascii"))
