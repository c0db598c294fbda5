"""Layer 6: what the processes of separate roles have in common: options, start and end.

A gateway, a data mover and a WAN accelerator each have a directory with settings, a port, and most
of them a line to the Cloud Connect service, which is told of the port once it is open.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError as OptionError

from cloudconnect.errors import UsageError
from cloudconnect.metrics.roles import GatewayLoad, RoleSessions
from cloudconnect.provider.gateway.gateway import Gateway
from cloudconnect.sessions.role import TargetRole
from cloudconnect.settings import CONNECT_SECONDS
from cloudconnect.tap.metrics import METRICS_OPTION, add_metrics
from cloudconnect.tap.processes import harden, stop_with
from cloudconnect.tap.reloading import SettingsFile
from cloudconnect.tap.renewing import keep_certificate, watch_files
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.listening import Listener

_P = TypeVar("_P", bound="NodeProcess")

#: How such a process is started.
SYNOPSIS: Final = "--directory DIR [--listen ENDPOINT]"


def role_parameters(role: str, made: str, file: str) -> list[list[str | None]]:
    """The options of such a process, as :class:`RoleOptions` has them.

    :param role: what it is called
    :param made: the command that makes its directory
    :param file: of its settings
    """
    return [
        ["directory", "d", None, f"The {role}'s directory ({made})."],
        ["listen", "l", None, f"Endpoint string of its port, in place of {file}'s."],
        list(METRICS_OPTION),
    ]


class RoleOptions(UsageOptions):
    """The options of one role's process.

    :cvar role: what it is called
    :cvar file: of its settings
    :ivar settings: what lies there
    """

    synopsis = SYNOPSIS
    role: ClassVar[str]
    file: ClassVar[str]

    def load(self, directory: Path) -> Any:
        """The settings in a directory.

        :raises UsageError: there are none that can be used
        """
        raise NotImplementedError

    def postOptions(self) -> None:
        """A directory is needed, and such a role in it."""
        if not self["directory"]:
            raise OptionError(f"name the {self.role}'s directory with --directory")
        try:
            self.settings = self.load(Path(self["directory"]))
        except UsageError as error:
            raise OptionError(str(error)) from None


class NodeProcess(MultiService):
    """A process whose files may change while it runs.

    :cvar used: names of the settings that are used without a new start
    """

    used: ClassVar[Collection[str]] = ()

    def use(self, settings: Any) -> None:
        """Use other settings from now on, as far as they are among :attr:`used`."""

    def reread(self) -> None:
        """Read certificates again, where that is not done for each line.

        :raises UsageError: they cannot be used; the old ones stay
        """


class RoleProcess(NodeProcess):
    """A role while its process runs.

    :param reactor: clock and connections
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._order: list[Service] = []

    def consist_of(
        self, role: Service, listener: Listener, registration: Service | None = None
    ) -> None:
        """Say what runs here.

        :param role: the role itself
        :param listener: its port
        :param registration: its line to the service, which begins when the port is open
        """
        self._listener, self._registration = listener, registration
        for child in (role, listener):
            child.setServiceParent(self)
        self._order = [listener, role, *([] if registration is None else [registration])]

    def endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        """The way to somebody of the own LAN."""
        return HostnameEndpoint(self._reactor, host, port, CONNECT_SECONDS)

    def to_service(self, settings: Any) -> IStreamClientEndpoint:
        """The way to the service that ``settings`` name, over mutually authenticated TLS."""
        return wrap_client_endpoint(
            settings.tls, self.endpoint(*settings.service_address), self._reactor
        )

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
        if self._registration is not None and self.running:
            self._registration.setServiceParent(self)

    def stopService(self) -> Deferred[Any]:
        """End the sessions while the service still hears of them, then the line to it."""
        if not self.running:
            return succeed(None)
        self.running = False
        return Deferred.fromCoroutine(self._stop_in_order())

    async def _stop_in_order(self) -> None:
        for child in (*self._order, *self):
            if child.running:
                await maybeDeferred(child.stopService)


def make_process(
    options: Any,
    make: Callable[[Any, Any, str], _P],
    program: str,
    role: str,
    at_provider: bool = True,
) -> _P:
    """Make the service that ``twist`` starts.

    :param options: of the program
    :param make: makes it, of the reactor, the settings and the endpoint string of its port
    :param program: its name
    :param role: as metrics name it
    :param at_provider: whether it is a node of a provider, whose service renews its certificate
    :raises SystemExit: it cannot be made
    """
    from twisted.internet import reactor

    settings = options.settings
    try:
        process = make(reactor, settings, options["listen"] or settings.listen)
        if at_provider:
            keep_certificate(reactor, process, settings.directory, settings.service_address)
        again = SettingsFile(
            settings, lambda: options.load(settings.directory), process.used, process.use
        )
        watch_files(reactor, process, settings.directory, process.reread, options.file, again)
        shown = [GatewayLoad(child) for child in process if isinstance(child, Gateway)]
        roles = [child for child in process if isinstance(child, TargetRole)]
        add_metrics(
            reactor,
            process,
            options["metrics"],
            role,
            settings.directory,
            [*shown, *([RoleSessions(roles)] if roles else [])],
        )
        return process
    except UsageError as error:
        raise SystemExit(f"{program}: {error}") from None
