"""Layer 6: what ``twist cloudconnect-wan`` starts: a WAN accelerator in a process of its own.

At the provider it registers with the Cloud Connect service, and gateways relay to it what comes
from source accelerators. At a tenant it serves several machines: one port takes both the lines of
their job managers, which begin with TLS, and the streams of their movers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint

from cloudconnect.accelerator.managers import ManagerFactory
from cloudconnect.accelerator.registration import AcceleratorRegistration
from cloudconnect.accelerator.source import SourceAccelerator
from cloudconnect.accelerator.target import TargetAccelerator
from cloudconnect.config.wan import CONFIGURATION, AcceleratorSettings, Side, load
from cloudconnect.errors import NotReachable, UsageError
from cloudconnect.provider.gateway.relay import PROXY_LOCAL
from cloudconnect.sessions.acceptance import RoleTarget
from cloudconnect.tap.accelerators import GIB, caches_in
from cloudconnect.tap.processes import listening_endpoint
from cloudconnect.tap.renewing import begin_with_own, own_keeper
from cloudconnect.tap.separate import RoleOptions, RoleProcess, make_process, role_parameters
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.listening import Listener
from cloudconnect.transports.nodes import ACCELERATOR, NodeName
from cloudconnect.transports.proxied import ProxiedEndpoint
from cloudconnect.transports.switch import FactoryTarget, FirstBytesFactory, SayingEndpoint
from cloudconnect.transports.tls import TLSServerFactory


class Options(RoleOptions):
    """The options of ``twist cloudconnect-wan``."""

    role = "accelerator"
    file = CONFIGURATION
    optParameters = role_parameters(role, "provider wan enroll, or wan init", file)

    def load(self, directory: Path) -> AcceleratorSettings:
        """See :meth:`RoleOptions.load`."""
        return load(directory)


class AcceleratorProcess(RoleProcess):
    """An accelerator of either side while its process runs.

    :param listen: endpoint string of its port
    :raises UsageError: something in its directory cannot be used
    """

    def __init__(self, reactor: Any, settings: AcceleratorSettings, listen: str) -> None:
        super().__init__(reactor)
        caches = caches_in(
            reactor,
            settings.directory / settings.caches,
            settings.directory / settings.key,
            settings.cache_gb * GIB,
            settings.caches_gb * GIB,
        )
        port = listening_endpoint(reactor, listen)
        self._lines: TLSServerFactory | None = None
        if settings.side is Side.TARGET:
            target = TargetAccelerator(reactor, caches, self._mover)
            registration = AcceleratorRegistration(
                reactor, self.to_service(settings), target, settings.backend
            )
            taking = RoleTarget(target)
            factory = FirstBytesFactory(
                lambda route: taking if target.by_route(route) else None, None, reactor
            )
            # The peer's real address comes in front, in a PROXY protocol header.
            place = ProxiedEndpoint(port)
            self.consist_of(target, Listener(place, factory, "WAN accelerator"), registration)
        else:
            source = SourceAccelerator(reactor, caches, self.endpoint)
            node = NodeName(ACCELERATOR, ACCELERATOR)  # it has the tenant's authority itself
            begin_with_own(settings.authority, settings.directory, node)
            managers = ManagerFactory(reactor, source, settings.machines)
            lines = settings.tls.server_factory(managers, reactor)
            self._lines = lines
            own_keeper(
                reactor, settings.authority, settings.directory, node, lines.reload
            ).setServiceParent(self)  # type: ignore[no-untyped-call]
            source.factory.tls = FactoryTarget(lines, "the lines of job managers")
            self.consist_of(source, Listener(port, source.factory, "WAN accelerator"))

    def reread(self) -> None:
        """See :meth:`RoleProcess.reread`: those that job managers are shown."""
        if self._lines is not None:
            self._lines.reload()

    def _mover(self, backend: str) -> IStreamClientEndpoint:
        """The way to the mover: as gateways have it, but the connection is this process's own."""
        try:
            host, port = split_host_port(backend)
        except UsageError:
            raise NotReachable("the provider has no back-end port for accelerators") from None
        return SayingEndpoint(self.endpoint(host, port), PROXY_LOCAL)


def makeService(options: Options) -> AcceleratorProcess:
    """The service of ``twist cloudconnect-wan``."""
    at_provider = options.settings.side is Side.TARGET
    return make_process(options, AcceleratorProcess, "cloudconnect-wan", "wan", at_provider)
