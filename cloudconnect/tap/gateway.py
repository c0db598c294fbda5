"""Layer 6: what ``twist cloudconnect-gateway`` starts: a gateway in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint
from twisted.logger import Logger

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.config.bounds import BOUNDS
from cloudconnect.config.gateway import CONFIGURATION, GatewaySettings, load
from cloudconnect.errors import Refused, UsageError
from cloudconnect.interfaces import IRelayTarget
from cloudconnect.provider.gateway.gateway import Gateway
from cloudconnect.provider.gateway.relay import Relays, RelayTo
from cloudconnect.provider.nodes.registrations import GatewayRegistration
from cloudconnect.settings import CONNECT_SECONDS
from cloudconnect.tap.processes import harden, listening_endpoint, stop_with
from cloudconnect.tap.separate import NodeProcess, RoleOptions, make_process, role_parameters
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.hosts import split_host_port


class Options(RoleOptions):
    """The options of ``twist cloudconnect-gateway``."""

    role = "gateway"
    file = CONFIGURATION
    optParameters = role_parameters(role, "provider gateway enroll", file)

    def load(self, directory: Path) -> GatewaySettings:
        """See :meth:`RoleOptions.load`."""
        return load(directory)


class GatewayProcess(NodeProcess):
    """A gateway and its line to the service."""

    used = frozenset({*BOUNDS, "advertise", "pool"})

    _log = Logger()

    def __init__(self, reactor: Any, settings: GatewaySettings, listen: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._relays = Relays(reactor)
        self._gateway = Gateway(
            reactor,
            listening_endpoint(reactor, listen),
            self._resolve,
            relays=self._relays,
            bounds=settings.bounds,
        )
        self._gateway.setServiceParent(self)  # type: ignore[no-untyped-call]
        host, port = settings.service_address
        self._registration = registration = GatewayRegistration(
            reactor,
            wrap_client_endpoint(
                settings.tls, HostnameEndpoint(reactor, host, port, CONNECT_SECONDS), reactor
            ),
            self._gateway,
            settings.advertise,
            self._registered,
            settings.pool,
        )
        registration.setServiceParent(self)  # type: ignore[no-untyped-call]

    def use(self, settings: GatewaySettings) -> None:
        """See :meth:`.NodeProcess.use`: what is let in, and for whom."""
        if settings.advertise:
            split_host_port(settings.advertise)
        self._gateway.change(settings.bounds)
        self._registration.change(settings.advertise, settings.pool)

    def _registered(self, service: str, line: BoundedAMP) -> None:
        self._gateway.serve_tls_from(service)
        self._gateway.report_to(line)

    def _resolve(self, backend: str) -> IRelayTarget:
        """Back ends are named by the service alone, over the LAN link."""
        try:
            host, port = split_host_port(backend)
        except UsageError:
            raise Refused(f"{backend!r} is not a back end of a separate gateway") from None
        endpoint = HostnameEndpoint(self._reactor, host, port, CONNECT_SECONDS)
        return RelayTo(endpoint, backend, self._relays)

    def startService(self) -> None:
        """Begin."""
        harden()
        super().startService()  # type: ignore[no-untyped-call]
        self._gateway.listen().addErrback(
            lambda failure: stop_with(self._reactor, self._log, failure)
        )


def makeService(options: Options) -> GatewayProcess:
    """The service of ``twist cloudconnect-gateway``."""
    return make_process(options, GatewayProcess, "cloudconnect-gateway", "gateway")
