"""Layer 6: what ``twist cloudconnect-wan`` starts: a WAN accelerator in a process of its own.

At the provider it registers with the Cloud Connect service, and gateways relay to it what comes
from source accelerators. At a tenant it serves several machines: one port takes both the lines of
their job managers, which begin with TLS, and the streams of their movers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError as OptionError

from cloudconnect.accelerator.managers import ManagerFactory
from cloudconnect.accelerator.registration import AcceleratorRegistration
from cloudconnect.accelerator.source import SourceAccelerator
from cloudconnect.accelerator.target import TargetAccelerator
from cloudconnect.config.wan import AcceleratorSettings, Side, load
from cloudconnect.errors import NotReachable, UsageError
from cloudconnect.provider.relay import PROXY_LOCAL
from cloudconnect.sessions.acceptance import RoleTarget
from cloudconnect.settings import CONNECT_SECONDS
from cloudconnect.tap.accelerators import GIB, caches_in
from cloudconnect.tap.metrics import METRICS_OPTION, add_metrics
from cloudconnect.tap.processes import harden, listening_endpoint, stop_with
from cloudconnect.tap.renewing import keep_certificate, own_keeper, watch_ends
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.listening import Listener
from cloudconnect.transports.nodes import ACCELERATOR, NodeName
from cloudconnect.transports.proxied import ProxiedEndpoint
from cloudconnect.transports.switch import FactoryTarget, FirstBytesFactory, SayingEndpoint


class Options(UsageOptions):
    """The options of ``twist cloudconnect-wan``."""

    synopsis = "--directory DIR [--listen ENDPOINT]"
    optParameters = [
        ["directory", "d", None, "The accelerator's directory (provider wan enroll, or wan init)."],
        ["listen", "l", None, "Endpoint string of its port, in place of wan.toml's."],
        METRICS_OPTION,
    ]

    def postOptions(self) -> None:
        """A directory is needed, and an accelerator in it."""
        if not self["directory"]:
            raise OptionError("name the accelerator's directory with --directory")
        try:
            self.settings = load(Path(self["directory"]))
        except UsageError as error:
            raise OptionError(str(error)) from None


class AcceleratorProcess(MultiService):
    """An accelerator of either side while its process runs.

    :param listen: endpoint string of its port
    :raises UsageError: something in its directory cannot be used
    """

    _log = Logger()

    def __init__(self, reactor: Any, settings: AcceleratorSettings, listen: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        caches = caches_in(
            reactor,
            settings.directory / settings.caches,
            settings.directory / settings.key,
            settings.cache_gb * GIB,
            settings.caches_gb * GIB,
        )
        port = listening_endpoint(reactor, listen)
        self._registration: AcceleratorRegistration | None = None
        if settings.side is Side.TARGET:
            target = TargetAccelerator(reactor, caches, self._mover)
            target.setServiceParent(self)  # type: ignore[no-untyped-call]
            self._registration = self._line_of(target, settings)
            taking = RoleTarget(target)
            factory: Factory = FirstBytesFactory(
                lambda route: taking if target.by_route(route) else None, None, reactor
            )
            # The peer's real address comes in front, in a PROXY protocol header.
            port = ProxiedEndpoint(port)
        else:
            source = SourceAccelerator(reactor, caches, self._endpoint)
            source.setServiceParent(self)  # type: ignore[no-untyped-call]
            lines = settings.tls.server_factory(ManagerFactory(reactor, source), reactor)
            node = NodeName(ACCELERATOR, ACCELERATOR)  # it has the tenant's authority itself
            own_keeper(
                reactor, settings.authority, settings.directory, node, lines.reload
            ).setServiceParent(self)  # type: ignore[no-untyped-call]
            source.factory.tls = FactoryTarget(lines, "the lines of job managers")
            factory = source.factory
        self._listener = Listener(port, factory, "WAN accelerator")
        self._listener.setServiceParent(self)  # type: ignore[no-untyped-call]

    def _line_of(
        self, accelerator: TargetAccelerator, settings: AcceleratorSettings
    ) -> AcceleratorRegistration:
        return AcceleratorRegistration(
            self._reactor,
            wrap_client_endpoint(
                settings.tls, self._endpoint(*settings.service_address), self._reactor
            ),
            accelerator,
            settings.backend,
        )

    def _endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        return HostnameEndpoint(self._reactor, host, port, CONNECT_SECONDS)

    def _mover(self, backend: str) -> IStreamClientEndpoint:
        """The way to the mover: as gateways have it, but the connection is this process's own."""
        try:
            host, port = split_host_port(backend)
        except UsageError:
            raise NotReachable("the provider has no back-end port for accelerators") from None
        return SayingEndpoint(self._endpoint(host, port), PROXY_LOCAL)

    def startService(self) -> None:
        """Begin."""
        harden()
        super().startService()  # type: ignore[no-untyped-call]
        listening: Deferred[IListeningPort] = self._listener.listen()
        listening.addCallbacks(
            lambda _: self._announce(),
            lambda failure: stop_with(self._reactor, self._log, failure),
        )

    def stopService(self) -> Deferred[Any]:
        """End the sessions, and what they need."""
        if not self.running:
            return succeed(None)
        stopped: Deferred[Any] = super().stopService()  # type: ignore[no-untyped-call]
        return stopped

    def _announce(self) -> None:
        """It listens: gateways may be told."""
        if self._registration is not None and self.running:
            self._registration.setServiceParent(self)  # type: ignore[no-untyped-call]


def makeService(options: Options) -> AcceleratorProcess:
    """The service of ``twist cloudconnect-wan``."""
    from twisted.internet import reactor

    settings = options.settings
    try:
        process = AcceleratorProcess(reactor, settings, options["listen"] or settings.listen)
        if settings.side is Side.TARGET:
            keep_certificate(reactor, process, settings.directory, settings.service_address)
        watch_ends(reactor, process, settings.directory)
        add_metrics(reactor, process, options["metrics"], "wan", settings.directory)
        return process
    except UsageError as error:
        raise SystemExit(f"cloudconnect-wan: {error}") from None
