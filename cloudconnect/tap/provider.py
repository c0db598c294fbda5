"""Layer 6: what ``twist cloudconnect-provider`` starts: all roles of a provider in one process."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError as OptionError

from cloudconnect.config.bounds import bounds_of
from cloudconnect.config.certificates import sign_node_request
from cloudconnect.config.gateway import lan_tls
from cloudconnect.config.provider import ProviderSettings, check_roles, load, running
from cloudconnect.errors import UsageError
from cloudconnect.provider.assembly import EmbeddedProvider, Places
from cloudconnect.provider.maintenance import Intervals
from cloudconnect.tap.accelerators import accelerator_of
from cloudconnect.tap.processes import endpoint_from, harden, listening_endpoint, stop_with
from cloudconnect.transports.nodes import ACCELERATOR, GATEWAY, MOVER


class Options(UsageOptions):
    """The options of ``twist cloudconnect-provider``."""

    synopsis = "--directory DIR [--listen ENDPOINT] [--roles ROLE,...]"
    optParameters = [
        ["directory", "d", None, "The provider's directory (cloudconnect provider init)."],
        ["listen", "l", None, "Endpoint string of the public port, in place of provider.toml's."],
        ["roles", "r", None, "Of service,gateway,mover,wan, in place of provider.toml's."],
    ]

    def postOptions(self) -> None:
        """A directory is needed, and a provider in it."""
        if not self["directory"]:
            raise OptionError("name the provider's directory with --directory")
        try:
            settings = load(Path(self["directory"]))
            if self["roles"]:
                settings = attrs.evolve(settings, roles=check_roles(self["roles"].split(",")))
            self.settings = settings
        except UsageError as error:
            raise OptionError(str(error)) from None


class ProviderProcess(Service):
    """A provider while its process runs: holds the lock, listens, and ends when it cannot.

    :param settings: the provider's directory
    :param listen: endpoint string of the public port
    """

    _log = Logger()

    def __init__(self, reactor: Any, settings: ProviderSettings, listen: str) -> None:
        self._reactor = reactor
        self._settings = settings
        self._listen = listen
        self._held = ExitStack()
        self._provider: EmbeddedProvider | None = None

    def startService(self) -> None:
        """Begin."""
        super().startService()  # type: ignore[no-untyped-call]
        harden()
        started = Deferred.fromCoroutine(self._start())
        started.addErrback(lambda failure: stop_with(self._reactor, self._log, failure))

    async def _start(self) -> None:
        settings = self._settings
        self._held.enter_context(running(settings))
        read_only = settings.read_only
        if read_only:
            self._log.warn(
                "{where} is read-only: no backups, no admin socket", where=settings.directory
            )
        else:  # of a process that was killed; we hold the lock
            settings.admin_socket.unlink(missing_ok=True)
        lan = None
        if settings.lan_listen:
            lan = (
                endpoint_from(self._reactor, settings.lan_listen),
                lan_tls(settings.node_authority / "service", GATEWAY, ACCELERATOR, MOVER),
            )
        self._provider = EmbeddedProvider(
            self._reactor,
            Places(
                accounts_url=settings.accounts_url,
                repositories=settings.repositories,
                identity=settings.identity,
                admin_socket=None if read_only else settings.admin_socket,
                public=listening_endpoint(self._reactor, self._listen),
                lan=lan,
                sign=partial(sign_node_request, settings.node_authority),
                backend=listening_endpoint(self._reactor, settings.backend_listen)
                if settings.backend_listen
                else None,
                backend_address=settings.backend_address,
                advertise=settings.advertise,
                keys=settings.keys,
                reserve=settings.reserve,
                bounds=bounds_of(settings),
                roles=frozenset(settings.roles),
                accelerator=accelerator_of(self._reactor, settings),
                grace_days=settings.grace_days,
                removed_days=settings.removed_days,
                intervals=Intervals(
                    maintenance_hours=settings.maintenance_hours,
                    gc_hours=settings.gc_hours,
                    scrub_days=settings.scrub_days,
                ),
            ),
        )
        port = await self._provider.listen()
        self._log.info("provider is ready on {where}", where=port.getHost())

    def stopService(self) -> Deferred[Any]:
        """End the sessions, then let go of the directory."""
        super().stopService()  # type: ignore[no-untyped-call]
        stopped: Deferred[Any] = (
            maybeDeferred(self._provider.stopService)
            if self._provider is not None
            else maybeDeferred(lambda: None)
        )
        return stopped.addBoth(self._let_go)

    def _let_go(self, result: Any) -> Any:
        self._held.close()
        return result


def makeService(options: Options) -> ProviderProcess:
    """The service of ``twist cloudconnect-provider``."""
    from twisted.internet import reactor

    settings = options.settings
    return ProviderProcess(reactor, settings, options["listen"] or settings.listen)
