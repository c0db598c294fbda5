"""Layer 6: what ``twist cloudconnect-datamover`` starts: a target data mover in its own process.

It registers with the Cloud Connect service; gateways relay to it the connections of tenants, and
accelerators connect to it by themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError as OptionError

from cloudconnect.config.mover import MoverSettings, load
from cloudconnect.errors import UsageError
from cloudconnect.provider.lan import MoverRegistration
from cloudconnect.provider.maintenance import Intervals
from cloudconnect.provider.mover import TargetDataMover
from cloudconnect.provider.reserve import Reserve
from cloudconnect.provider.storage import host_name, storage_of
from cloudconnect.sessions.acceptance import RoleTarget
from cloudconnect.settings import CONNECT_SECONDS
from cloudconnect.tap.metrics import METRICS_OPTION, add_metrics
from cloudconnect.tap.processes import harden, listening_endpoint, stop_with
from cloudconnect.tap.renewing import keep_certificate, watch_ends
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.listening import Listener
from cloudconnect.transports.proxied import ProxiedEndpoint
from cloudconnect.transports.switch import FirstBytesFactory


class Options(UsageOptions):
    """The options of ``twist cloudconnect-datamover``."""

    synopsis = "--directory DIR [--listen ENDPOINT]"
    optParameters = [
        ["directory", "d", None, "The mover's directory (cloudconnect node join)."],
        ["listen", "l", None, "Endpoint string of its port, in place of mover.toml's."],
        METRICS_OPTION,
    ]

    def postOptions(self) -> None:
        """A directory is needed, and a mover in it."""
        if not self["directory"]:
            raise OptionError("name the mover's directory with --directory")
        try:
            self.settings = load(Path(self["directory"]))
        except UsageError as error:
            raise OptionError(str(error)) from None


class MoverProcess(MultiService):
    """A target data mover while its process runs.

    :param listen: endpoint string of its port
    :raises UsageError: something in its directory cannot be used
    """

    _log = Logger()

    def __init__(self, reactor: Any, settings: MoverSettings, listen: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
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
            Intervals(
                maintenance_hours=settings.maintenance_hours,
                gc_hours=settings.gc_hours,
                scrub_days=settings.scrub_days,
            ),
        )
        host, port = settings.service_address
        self._registration = MoverRegistration(
            reactor,
            wrap_client_endpoint(
                settings.tls, HostnameEndpoint(reactor, host, port, CONNECT_SECONDS), reactor
            ),
            mover,
            settings.backend,
            storage,
            host_name(),
        )
        taking = RoleTarget(mover)
        factory = FirstBytesFactory(
            lambda route: taking if mover.by_route(route) else None, None, reactor
        )
        # The peer's real address comes in front, in a PROXY protocol header.
        place = ProxiedEndpoint(listening_endpoint(reactor, listen))
        self._listener = Listener(place, factory, "data mover")
        for child in (mover, self._listener):
            child.setServiceParent(self)  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Begin."""
        harden()
        super().startService()  # type: ignore[no-untyped-call]
        listening: Deferred[IListeningPort] = self._listener.listen()
        listening.addCallbacks(
            lambda _: self._announce(),
            lambda failure: stop_with(self._reactor, self._log, failure),
        )

    def _announce(self) -> None:
        """It listens: the service may be told."""
        if self.running:
            self._registration.setServiceParent(self)  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[Any]:
        """End the sessions while the service still hears of them, then the line to it."""
        if not self.running:
            return succeed(None)
        self.running = False
        return Deferred.fromCoroutine(self._stop_in_order())

    async def _stop_in_order(self) -> None:
        in_order: list[Any] = [self._listener, self._mover, self._registration]
        for child in in_order + [other for other in self if other not in in_order]:
            if child.running:
                await maybeDeferred(child.stopService)


def makeService(options: Options) -> MoverProcess:
    """The service of ``twist cloudconnect-datamover``."""
    from twisted.internet import reactor

    settings = options.settings
    try:
        process = MoverProcess(reactor, settings, options["listen"] or settings.listen)
        keep_certificate(reactor, process, settings.directory, settings.service_address)
        watch_ends(reactor, process, settings.directory)
        add_metrics(reactor, process, options["metrics"], "target-mover", settings.directory)
        return process
    except UsageError as error:
        raise SystemExit(f"cloudconnect-datamover: {error}") from None
