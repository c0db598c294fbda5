"""Layer 5: a host joins the provider's LAN: the directory of a gateway, a mover, an accelerator.

The node's key is made here and never leaves. Everything that can be wrong is found before the token
is spent; a directory whose token was refused is left as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import attrs

from cloudconnect.commands.enrolling import NodeInvitation
from cloudconnect.config import gateway, mover, wan
from cloudconnect.config.node_certificates import install_node_certificate, make_node_request
from cloudconnect.config.provider import quoted
from cloudconnect.errors import UsageError
from cloudconnect.settings import PUBLIC_PORT
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.nodes import ACCELERATOR, GATEWAY, MOVER

#: What people call the roles of nodes, and certificates.
SPOKEN: Final = {"gateway": GATEWAY, "mover": MOVER, "wan": ACCELERATOR}
#: What ``twist`` calls them.
PROCESSES: Final = {
    GATEWAY: "cloudconnect-gateway",
    MOVER: "cloudconnect-datamover",
    ACCELERATOR: "cloudconnect-wan",
}
_PORTS: Final = {GATEWAY: PUBLIC_PORT, MOVER: mover.MOVER_PORT, ACCELERATOR: wan.WAN_PORT}


@attrs.frozen(kw_only=True)
class NodePlace:
    """Where a new node stands, as its admin says it.

    :ivar listen: endpoint string; empty: the usual port of its role
    :ivar backend: of a mover or an accelerator: ``HOST:PORT`` that gateways reach it at
    :ivar advertise: of a gateway: ``HOST:PORT`` that tenants reach it at, or empty
    :ivar repositories: of a mover: folder of the repositories; empty: below its own
    :ivar keys: of a mover: folder of the provider's keys of them; empty: below its own
    """

    listen: str = ""
    backend: str = ""
    advertise: str = ""
    repositories: str = ""
    keys: str = ""


def configuration(invitation: NodeInvitation, directory: Path, place: NodePlace) -> tuple[str, str]:
    """Name and text of the file of settings that a node gets.

    :raises UsageError: something is missing, or cannot be used
    """
    role, service = invitation.role, invitation.service
    if role not in _PORTS:
        raise UsageError(f"this release knows no nodes of role {role}")
    listen = place.listen or f"tcp:{_PORTS[role]}"
    if role == GATEWAY:
        if place.advertise:
            split_host_port(place.advertise)
        values = {"listen": listen, "advertise": place.advertise, "service": service}
        lines = [f"{key} = {quoted(value)}" for key, value in values.items()]
        return gateway.CONFIGURATION, "\n".join(lines) + "\n"
    if not place.backend:
        raise UsageError("say with --backend HOST:PORT where gateways reach this node")
    split_host_port(place.backend)
    if role == ACCELERATOR:
        accelerator = wan.AcceleratorSettings(
            directory=directory,
            side=wan.Side.TARGET,
            listen=listen,
            service=service,
            backend=place.backend,
        )
        return wan.CONFIGURATION, accelerator.to_toml()
    made = mover.MoverSettings(
        directory=directory, listen=listen, service=service, backend=place.backend
    )
    if place.repositories:
        made = attrs.evolve(made, repositories=str(Path(place.repositories).absolute()))
    if place.keys:
        made = attrs.evolve(made, keys=str(Path(place.keys).absolute()))
    return mover.CONFIGURATION, made.to_toml()


def service_of(directory: Path, role: str) -> tuple[str, int]:
    """Host and port of the service's LAN port, as a node's own settings say it.

    :param role: the node's
    :raises UsageError: there is no such node in ``directory``, or it belongs to no provider
    """
    if role == GATEWAY:
        return gateway.load(directory).service_address
    if role == MOVER:
        return mover.load(directory).service_address
    if role == ACCELERATOR and (found := wan.load(directory)).side is wan.Side.TARGET:
        return found.service_address
    raise UsageError(f"{directory} is not the directory of a provider's node")


async def join(
    invitation: NodeInvitation,
    directory: Path,
    place: NodePlace,
    ask: Callable[[bytes], Awaitable[tuple[bytes, bytes]]],
) -> None:
    """Make a node's directory, with a certificate for a key that is made here.

    :param directory: empty, or not there yet
    :param ask: asks the provider for the certificate of a request (PKCS #10, DER): certificate and
        authority, PEM
    :raises UsageError: something cannot be used; the token is not spent
    :raises CloudConnectError: the provider does not give a certificate
    """
    directory = directory.absolute()
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty: choose a new folder for the node")
    name, text = configuration(invitation, directory, place)
    was_there = directory.exists()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    role = invitation.role
    try:
        request = make_node_request(directory, role, invitation.name)
        (directory / name).write_text(text, "utf-8")
        certificate, authority = await ask(request)
        install_node_certificate(directory, role, invitation.name, certificate, authority)
    except BaseException:
        if was_there:
            for path in list(directory.iterdir()):
                path.unlink()
        else:
            shutil.rmtree(directory, ignore_errors=True)
        raise
