"""Layer 5: the directory of a gateway that runs in a process of its own.

``provider gateway enroll`` writes it: ``gateway.toml``, the node certificate with its key, and the
authority that the service is checked against. The admin carries it to the gateway's host.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from cloudconnect.config.certificates import issue_node_certificate
from cloudconnect.config.provider import ProviderSettings, quoted
from cloudconnect.config.reading import read_settings
from cloudconnect.errors import UsageError
from cloudconnect.settings import PUBLIC_PORT
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.nodes import GATEWAY, SERVICE, NodeTrust
from cloudconnect.transports.tls import MutualTLS

CONFIGURATION = "gateway.toml"


@attrs.frozen(kw_only=True)
class GatewaySettings:
    """What ``gateway.toml`` says.

    :ivar directory: the gateway's directory
    :ivar listen: endpoint string of its public port
    :ivar advertise: ``HOST:PORT`` that tenants reach it at, or empty to advertise nothing
    :ivar service: ``HOST:PORT`` of the service's LAN port
    """

    directory: Path
    listen: str = f"tcp:{PUBLIC_PORT}"
    advertise: str = ""
    service: str

    @property
    def tls(self) -> MutualTLS:
        """How this gateway and the service know each other."""
        return lan_tls(self.directory, SERVICE)

    @property
    def service_address(self) -> tuple[str, int]:
        """Host and port of the service's LAN port.

        :raises UsageError: not an address
        """
        return split_host_port(self.service)


def lan_tls(directory: Path, *peer_roles: str) -> MutualTLS:
    """TLS between nodes, with the files that :func:`issue_node_certificate` wrote.

    :param peer_roles: one of which the other end must have
    """
    identity = ServerIdentity(str(directory / "certificate.pem"), str(directory / "key.pem"))
    return MutualTLS(NodeTrust(str(directory / "ca.pem"), peer_roles), identity)


def enroll(
    provider: ProviderSettings,
    name: str,
    directory: Path,
    service: str,
    listen: str,
    advertise: str,
) -> GatewaySettings:
    """Make a gateway's directory.

    :param name: the gateway's name in the provider's LAN
    :raises UsageError: the directory is not empty, or an address is none
    """
    directory = directory.absolute()
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty: choose a new folder for the gateway")
    split_host_port(service)
    if advertise:
        split_host_port(advertise)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    issue_node_certificate(provider.node_authority, name, GATEWAY, directory)
    settings = GatewaySettings(
        directory=directory, listen=listen, advertise=advertise, service=service
    )
    keys = ("listen", "advertise", "service")
    lines = [f"{key} = {quoted(getattr(settings, key))}" for key in keys]
    (directory / CONFIGURATION).write_text("\n".join(lines) + "\n", "utf-8")
    return settings


def load(directory: Path) -> GatewaySettings:
    """The settings of the gateway in ``directory``.

    :raises UsageError: there is none, or its configuration cannot be used
    """
    directory = directory.absolute()
    values = read_settings(
        directory / CONFIGURATION,
        GatewaySettings,
        f"there is no gateway in {directory}: make it with cloudconnect provider gateway enroll",
    )
    try:
        return GatewaySettings(directory=directory, **values)
    except TypeError:
        raise UsageError(f"{directory / CONFIGURATION}: service is missing") from None
