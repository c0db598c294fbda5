"""Layer 5: the directory of a gateway that runs in a process of its own.

``provider gateway enroll`` writes it: ``gateway.toml``, the node certificate with its key, and the
authority that the service is checked against. The admin carries it to the gateway's host.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from cloudconnect.config.bounds import BOUNDS, bounds_of
from cloudconnect.config.node_certificates import issue_node_certificate
from cloudconnect.config.provider import ProviderSettings, quoted
from cloudconnect.config.reading import read_settings
from cloudconnect.errors import UsageError
from cloudconnect.provider.gateway.gateway import Bounds
from cloudconnect.settings import (
    ADDRESS_CONNECTIONS_MAX,
    CONNECTIONS_MAX,
    DEFAULT_POOL,
    PUBLIC_PORT,
    TENANT_CONNECTIONS_MAX,
)
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
    :ivar pool: the tenants of which pool it is for
    :ivar line_rate: bytes a second of its line in each direction, that tenants share; 0: no limit
    :ivar connections: most connections, 1 to 1,000,000
    :ivar address_connections: most connections of one address, likewise
    :ivar tenant_connections: most data connections of one tenant, likewise
    """

    directory: Path
    listen: str = f"tcp:{PUBLIC_PORT}"
    advertise: str = ""
    service: str
    pool: str = DEFAULT_POOL
    line_rate: int = 0
    connections: int = CONNECTIONS_MAX
    address_connections: int = ADDRESS_CONNECTIONS_MAX
    tenant_connections: int = TENANT_CONNECTIONS_MAX

    @property
    def bounds(self) -> Bounds:
        """What it lets in."""
        return bounds_of(self)

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
    pool: str = DEFAULT_POOL,
) -> GatewaySettings:
    """Make a gateway's directory.

    :param name: the gateway's name in the provider's LAN
    :param pool: the tenants of which pool it is for
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
        directory=directory, listen=listen, advertise=advertise, service=service, pool=pool
    )
    keys = ("listen", "advertise", "service", "pool")
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
        BOUNDS,
    )
    try:
        return GatewaySettings(directory=directory, **values)
    except TypeError:
        raise UsageError(f"{directory / CONFIGURATION}: service is missing") from None
