"""Layer 5: the directory of a WAN accelerator that runs in a process of its own, at either side.

``wan.toml`` says at which. For the provider's side ``provider wan enroll`` writes it, with a node
certificate of the provider's small authority. For the tenant's side ``wan init`` does, with a small
authority of its own, and ``wan client`` then writes what each machine that makes backups needs.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Final

import attrs

from cloudconnect.config.gateway import lan_tls
from cloudconnect.config.node_certificates import issue_node_certificate, make_node_ca
from cloudconnect.config.provider import ProviderSettings, quoted
from cloudconnect.config.reading import read_settings
from cloudconnect.config.wan_machines import Machines
from cloudconnect.errors import UsageError
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.nodes import ACCELERATOR, JOB_MANAGER, SERVICE
from cloudconnect.transports.tls import MutualTLS

CONFIGURATION: Final = "wan.toml"
#: Port that an accelerator listens on, where nothing else is said.
WAN_PORT: Final = 6183
#: The numbers, with the least and the most that each may be.
_NUMBERS: Final = {"cache_gb": (1, 10_000), "caches_gb": (1, 100_000)}


class Side(enum.Enum):
    """Which of the two accelerators one is."""

    TARGET = "target"
    SOURCE = "source"


@attrs.frozen(kw_only=True)
class AcceleratorSettings:
    """What ``wan.toml`` says.

    :ivar directory: the accelerator's directory
    :ivar side: ``target`` at the provider, ``source`` at the tenant
    :ivar listen: endpoint string: at the provider for what gateways relay, at the tenant for
        machines that make backups
    :ivar service: at the provider: ``HOST:PORT`` of the service's LAN port
    :ivar backend: at the provider: ``HOST:PORT`` of what ``listen`` says, as gateways connect to it
    :ivar caches: folder of the block caches
    :ivar key: file of the key that they are sealed under
    :ivar cache_gb: GiB that one tenant's cache may take, 1 to 10,000
    :ivar caches_gb: GiB that all of them may take, 1 to 100,000
    """

    directory: Path
    side: Side
    listen: str = f"tcp:{WAN_PORT}"
    service: str = ""
    backend: str = ""
    caches: str = "caches"
    key: str = "wan.key"
    cache_gb: int = 4
    caches_gb: int = 100

    @property
    def tls(self) -> MutualTLS:
        """How this accelerator and the other end of a LAN line know each other."""
        return lan_tls(self.directory, SERVICE if self.side is Side.TARGET else JOB_MANAGER)

    @property
    def service_address(self) -> tuple[str, int]:
        """Host and port of the service's LAN port.

        :raises UsageError: not an address
        """
        return split_host_port(self.service)

    @property
    def authority(self) -> Path:
        """At the tenant: folder of the small authority."""
        return self.directory / "lan"

    @property
    def machines(self) -> Machines:
        """At the tenant: who is taken, and with which certificate."""
        return Machines(self.directory, self.authority)

    def to_toml(self) -> str:
        """As it is written."""
        lines = [
            "# A WAN accelerator's settings. Paths are relative to this folder.",
            f"side = {quoted(self.side.value)}",
            f"listen = {quoted(self.listen)}",
        ]
        if self.side is Side.TARGET:
            lines += [
                "# The provider's LAN port, and what gateways connect to for this accelerator.",
                f"service = {quoted(self.service)}",
                f"backend = {quoted(self.backend)}",
            ]
        lines += [
            "# Where the block caches lie, best on another disk than their key; GiB for one",
            "# tenant's, for all of them.",
            f"caches = {quoted(self.caches)}",
            f"key = {quoted(self.key)}",
            *(f"{name} = {getattr(self, name)}" for name in _NUMBERS),
        ]
        return "\n".join(lines) + "\n"


def enroll(
    provider: ProviderSettings, name: str, directory: Path, service: str, listen: str, backend: str
) -> AcceleratorSettings:
    """Make the directory of an accelerator of the provider's.

    :param name: the accelerator's name in the provider's LAN
    :param service: ``HOST:PORT`` of the service's LAN port
    :param backend: ``HOST:PORT`` that gateways connect to
    :raises UsageError: the directory is not empty, or an address is none
    """
    split_host_port(service)
    split_host_port(backend)
    settings = AcceleratorSettings(
        directory=directory.absolute(),
        side=Side.TARGET,
        listen=listen,
        service=service,
        backend=backend,
    )
    written = settings.to_toml()
    _make(settings.directory)
    issue_node_certificate(provider.node_authority, name, ACCELERATOR, settings.directory)
    (settings.directory / CONFIGURATION).write_text(written, "utf-8")
    return settings


def initialize(directory: Path, listen: str) -> AcceleratorSettings:
    """Make the directory of an accelerator of a tenant's, with an authority of its own.

    :raises UsageError: the directory is not empty
    """
    settings = AcceleratorSettings(directory=directory.absolute(), side=Side.SOURCE, listen=listen)
    written = settings.to_toml()
    _make(settings.directory)
    settings.authority.mkdir(mode=0o700)
    make_node_ca(settings.authority, "cloudconnect tenant LAN")
    issue_node_certificate(settings.authority, ACCELERATOR, ACCELERATOR, settings.directory)
    (settings.directory / CONFIGURATION).write_text(written, "utf-8")
    return settings


def add_client(settings: AcceleratorSettings, name: str, directory: Path) -> Path:
    """Make what one machine needs to use a tenant's accelerator: certificate, key and authority.

    :param name: the machine's name in the tenant's LAN
    :returns: where it is
    :raises UsageError: it is the provider's accelerator, or the directory is not empty
    """
    if settings.side is not Side.SOURCE:
        raise UsageError(f"{settings.directory} has the provider's accelerator: it has no clients")
    directory = directory.absolute()
    _make(directory)
    identity = issue_node_certificate(settings.authority, name, JOB_MANAGER, directory)
    settings.machines.issued(name, identity.fingerprints()[0])
    return directory


def client_tls(directory: Path) -> MutualTLS:
    """How a machine that makes backups and the tenant's accelerator know each other.

    :param directory: as :func:`add_client` made it
    """
    return lan_tls(directory, ACCELERATOR)


def _make(directory: Path) -> None:
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty: choose a new folder")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)


def load(directory: Path) -> AcceleratorSettings:
    """The settings of the accelerator in ``directory``.

    :raises UsageError: there is none, or its configuration cannot be used
    """
    directory = directory.absolute()
    path = directory / CONFIGURATION
    values = read_settings(
        path,
        AcceleratorSettings,
        f"there is no WAN accelerator in {directory}: make it with cloudconnect provider wan "
        "enroll, or at a tenant with cloudconnect wan init",
        _NUMBERS,
    )
    try:
        side = Side(values.pop("side", ""))
    except ValueError:
        raise UsageError(f"{path}: side is target or source") from None
    settings = AcceleratorSettings(directory=directory, side=side, **values)
    if side is Side.TARGET:
        split_host_port(settings.service)
        split_host_port(settings.backend)
    return settings
