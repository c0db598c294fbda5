"""Layer 6: the tenant's own WAN accelerator where it is a process of its own, as settings say."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from cloudconnect.cli.console import printable
from cloudconnect.cli.line import Line
from cloudconnect.errors import CloudConnectError, UsageError
from cloudconnect.settings import CONNECT_SECONDS
from cloudconnect.tenant.shared import SharedAccelerator
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.nodes import ACCELERATOR


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
    # Here, with all that certificates take, as few need it.
    from twisted.internet.endpoints import HostnameEndpoint

    from cloudconnect.config.wan import client_tls

    folder = Path(profile.wan_node)
    for name in ("certificate.pem", "key.pem", "ca.pem"):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} has no {name}: make it with cloudconnect wan client")
    host, port = split_host_port(profile.wan_accelerator)
    renew = _renewal(line, folder, (host, port))
    if renew is None:
        _tell_end(line, folder)
    return SharedAccelerator(
        line.reactor,
        HostnameEndpoint(line.reactor, host, port, CONNECT_SECONDS),
        client_tls(folder),
        line.manager.reports,
        profile.wan_accelerator,
        cache,
        streams,
        renew,
    )


def _renewal(
    line: Line, folder: Path, place: tuple[str, int]
) -> Callable[[], Awaitable[None]] | None:
    """What renews this machine's certificate for the accelerator; None where it is not due, or who
    runs this command may not change it."""
    from cloudconnect.config.certificates import load_certificate
    from cloudconnect.config.node_renewal import adopt_next, is_due

    if not os.access(folder, os.W_OK):
        return None
    adopt_next(folder)  # a command before this one may have died amid it

    def due() -> bool:
        return is_due(load_certificate(folder / "certificate.pem"), time.time())

    async def renew() -> None:
        from cloudconnect.tap.renewing import renew_over_lan

        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if due():
                await renew_over_lan(line.reactor, folder, place, ACCELERATOR)
        except BlockingIOError:
            pass  # another command does it
        except (CloudConnectError, OSError):
            _tell_end(line, folder)
        finally:
            os.close(descriptor)

    return renew if due() else None


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
