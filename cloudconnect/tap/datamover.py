"""Layer 6: what ``twist cloudconnect-datamover`` starts: a target data mover in its own process.

It registers with the Cloud Connect service; gateways relay to it the connections of tenants, and
accelerators connect to it by themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloudconnect.config.bounds import TENDING, intervals_of
from cloudconnect.config.mover import CONFIGURATION, MoverSettings, load
from cloudconnect.errors import UsageError
from cloudconnect.provider.data_mover.mover import TargetDataMover
from cloudconnect.provider.data_mover.reserve import Reserve
from cloudconnect.provider.data_mover.storage import host_name, storage_of
from cloudconnect.provider.nodes.registrations import MoverRegistration
from cloudconnect.sessions.acceptance import RoleTarget
from cloudconnect.tap.processes import listening_endpoint
from cloudconnect.tap.separate import RoleOptions, RoleProcess, make_process, role_parameters
from cloudconnect.transports.listening import Listener
from cloudconnect.transports.proxied import ProxiedEndpoint
from cloudconnect.transports.switch import FirstBytesFactory


class Options(RoleOptions):
    """The options of ``twist cloudconnect-datamover``."""

    role = "mover"
    file = CONFIGURATION
    optParameters = role_parameters(role, "cloudconnect node join", file)

    def load(self, directory: Path) -> MoverSettings:
        """See :meth:`RoleOptions.load`."""
        return load(directory)


class MoverProcess(RoleProcess):
    """A target data mover while its process runs.

    :param listen: endpoint string of its port
    :raises UsageError: something in its directory cannot be used
    """

    used = frozenset(TENDING)

    def __init__(self, reactor: Any, settings: MoverSettings, listen: str) -> None:
        super().__init__(reactor)
        repositories = settings.directory / settings.repositories
        try:
            storage = storage_of(repositories)
        except (OSError, ValueError) as error:
            raise UsageError(f"the repositories cannot be used: {error}") from None
        self._mover = mover = TargetDataMover(
            reactor,
            repositories,
            settings.directory / settings.keys,
            Reserve(repositories.parent / "reserve"),
            intervals_of(settings),
        )
        registration = MoverRegistration(
            reactor, self.to_service(settings), mover, settings.backend, storage, host_name()
        )
        taking = RoleTarget(mover)
        factory = FirstBytesFactory(
            lambda route: taking if mover.by_route(route) else None, None, reactor
        )
        # The peer's real address comes in front, in a PROXY protocol header.
        place = ProxiedEndpoint(listening_endpoint(reactor, listen))
        self.consist_of(mover, Listener(place, factory, "data mover"), registration)

    def use(self, settings: MoverSettings) -> None:
        """See :meth:`.NodeProcess.use`: how often what is stored is tended."""
        self._mover.maintenance.change(intervals_of(settings))


def makeService(options: Options) -> MoverProcess:
    """The service of ``twist cloudconnect-datamover``."""
    return make_process(options, MoverProcess, "cloudconnect-datamover", "target-mover")
