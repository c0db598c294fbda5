"""Layer 6: the tenant's own WAN accelerator where it is a process of its own, as settings say."""

from __future__ import annotations

import time
from pathlib import Path

from twisted.internet.endpoints import HostnameEndpoint

from cloudconnect.cli.console import printable
from cloudconnect.cli.line import Line
from cloudconnect.errors import UsageError
from cloudconnect.settings import CONNECT_SECONDS
from cloudconnect.tenant.shared import SharedAccelerator
from cloudconnect.transports.hosts import split_host_port


def shared_accelerator(line: Line, cache: bytes, streams: int) -> SharedAccelerator | None:
    """The accelerator that this machine shares with others; None where it has one of its own.

    :param cache: names the tenant's cache there, 32 bytes
    :param streams: connections from it to the provider's
    :raises UsageError: its address, or this machine's certificate for it, cannot be used
    """
    profile = line.settings.profile
    if not profile.wan_accelerator:
        return None
    if not profile.wan_node:
        raise UsageError(
            "CLOUDCONNECT_WAN_ACCELERATOR needs CLOUDCONNECT_WAN_NODE: a folder that cloudconnect "
            "wan client has made for this machine"
        )
    from cloudconnect.config.wan import client_tls  # with all that certificates take: few need it

    folder = Path(profile.wan_node)
    for name in ("certificate.pem", "key.pem", "ca.pem"):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} has no {name}: make it with cloudconnect wan client")
    host, port = split_host_port(profile.wan_accelerator)
    _tell_end(line, folder)
    return SharedAccelerator(
        line.reactor,
        HostnameEndpoint(line.reactor, host, port, CONNECT_SECONDS),
        client_tls(folder),
        line.manager.reports,
        profile.wan_accelerator,
        cache,
        streams,
    )


def _tell_end(line: Line, folder: Path) -> None:
    """Say when this machine's certificate for the accelerator will end within 30 days."""
    from cloudconnect.config.endings import node_endings
    from cloudconnect.provider.alarms.ending import due, ending_text

    for ending in node_endings(folder):
        now = time.time()
        if due(ending.ends, now) is not None:
            text = ending_text(f"{ending.name} ({folder})", ending.ends, now)
            advice = (
                "have the machine with the accelerator make another one: cloudconnect wan client"
            )
            line.settings.console.note(printable(f"note: {text}; {advice}"))
