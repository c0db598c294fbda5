"""Layer 5: the directory of a target data mover that runs in a process of its own.

``mover.toml``, the node certificate with its key, and the authority that the service is checked
against. Its repositories lie below it, or where another mover on the same host has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs

from cloudconnect.config.bounds import TENDING
from cloudconnect.config.gateway import lan_tls
from cloudconnect.config.provider import quoted
from cloudconnect.config.reading import read_settings
from cloudconnect.errors import UsageError
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.nodes import SERVICE
from cloudconnect.transports.tls import MutualTLS

CONFIGURATION: Final = "mover.toml"
#: Port that a data mover listens on, where nothing else is said.
MOVER_PORT: Final = 6184


@attrs.frozen(kw_only=True)
class MoverSettings:
    """What ``mover.toml`` says.

    :ivar directory: the mover's directory
    :ivar listen: endpoint string for what gateways and accelerators send
    :ivar service: ``HOST:PORT`` of the service's LAN port
    :ivar backend: ``HOST:PORT`` of what ``listen`` says, as they connect to it
    :ivar repositories: folder of the repositories
    :ivar keys: folder of the provider's own keys of repositories in encryption mode ``provider``
    :ivar maintenance_hours: hours from one round of maintenance to the next, 1 to 24
    :ivar gc_hours: hours from one collection of garbage to the next, 1 to 720
    :ivar scrub_days: days in which all that is stored is read and compared once, 1 to 365
    """

    directory: Path
    listen: str = f"tcp:{MOVER_PORT}"
    service: str
    backend: str
    repositories: str = "repositories"
    keys: str = "keys"
    maintenance_hours: int = 1
    gc_hours: int = 24
    scrub_days: int = 30

    @property
    def tls(self) -> MutualTLS:
        """How this mover and the service know each other."""
        return lan_tls(self.directory, SERVICE)

    @property
    def service_address(self) -> tuple[str, int]:
        """Host and port of the service's LAN port.

        :raises UsageError: not an address
        """
        return split_host_port(self.service)

    def to_toml(self) -> str:
        """As it is written."""
        lines = [
            "# A data mover's settings. Paths are relative to this folder.",
            f"listen = {quoted(self.listen)}",
            "# The provider's LAN port; where gateways and accelerators connect to this mover.",
            f"service = {quoted(self.service)}",
            f"backend = {quoted(self.backend)}",
            "# Where the repositories lie, and best on another disk, the provider's keys of them:",
            "# movers on one host may share both.",
            f"repositories = {quoted(self.repositories)}",
            f"keys = {quoted(self.keys)}",
            "# How often it tends what is stored: hours from one round to the next and from one",
            "# collection of garbage to the next, days in which all of it is read once.",
            *(f"{name} = {getattr(self, name)}" for name in TENDING),
        ]
        return "\n".join(lines) + "\n"


def load(directory: Path) -> MoverSettings:
    """The settings of the mover in ``directory``.

    :raises UsageError: there is none, or its configuration cannot be used
    """
    directory = directory.absolute()
    path = directory / CONFIGURATION
    values = read_settings(
        path,
        MoverSettings,
        f"there is no data mover in {directory}: make it with cloudconnect node join",
        TENDING,
    )
    try:
        settings = MoverSettings(directory=directory, **values)
    except TypeError:
        raise UsageError(f"{path}: service or backend is missing") from None
    split_host_port(settings.service)
    split_host_port(settings.backend)
    return settings
