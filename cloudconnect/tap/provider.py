"""Layer 6: what ``twist cloudconnect-provider`` starts: all roles of a provider in one process."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError as OptionError

from cloudconnect.commands.notice import Notice
from cloudconnect.config.bounds import BOUNDS, TENDING, bounds_of, intervals_of
from cloudconnect.config.endings import endings
from cloudconnect.config.gateway import lan_tls
from cloudconnect.config.history import KEPT, keep_of
from cloudconnect.config.node_certificates import sign_node_request
from cloudconnect.config.provider import (
    CONFIGURATION,
    ProviderSettings,
    check_roles,
    load,
    running,
)
from cloudconnect.config.renewal import next_pin
from cloudconnect.errors import UsageError
from cloudconnect.provider.alarms.expiry import Ending, ExpiryWatch
from cloudconnect.provider.assembly import EmbeddedProvider
from cloudconnect.provider.places import Places
from cloudconnect.tap.accelerators import accelerator_of
from cloudconnect.tap.alarming import SETTINGS as ALARM_SETTINGS
from cloudconnect.tap.alarming import Alarming
from cloudconnect.tap.inheriting import inherited_endpoint
from cloudconnect.tap.metrics import MetricsPort, provider_registry
from cloudconnect.tap.processes import endpoint_from, harden, listening_endpoint, stop_with
from cloudconnect.tap.reloading import ChangeWatch, changed_settings, tell_late
from cloudconnect.tap.renewing import begin_with_own, own_keeper
from cloudconnect.transports.nodes import ACCELERATOR, GATEWAY, MOVER, SERVICE, NodeName

#: Settings that are used without a new start.
RELOADED = frozenset(
    {"hosts", "advertise", "moving_to", "certificate", "key", "grace_days", "removed_days"}
).union(KEPT, BOUNDS, TENDING, ALARM_SETTINGS)
#: The service as a node of the provider's LAN.
OWN = NodeName(SERVICE, "service")


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
        self._metrics: MetricsPort | None = None
        self._expiry: ExpiryWatch | None = None
        self._children: list[Service] = []
        self._read_again = False
        self._alarming: Alarming | None = None

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
        if not read_only:
            authority = settings.node_authority
            begin_with_own(authority, authority / "service", OWN)
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
                audit=None if read_only else settings.audit,
                roles=frozenset(settings.roles),
                accelerator=accelerator_of(self._reactor, settings),
                grace_days=settings.grace_days,
                removed_days=settings.removed_days,
                keep=keep_of(settings),
                intervals=intervals_of(settings),
            ),
        )
        port = await self._provider.listen()
        self._begin_watching(self._provider)
        if settings.metrics_listen:
            self._show_metrics(self._provider, settings.metrics_listen)
        self._log.info("provider is ready on {where}", where=port.getHost())

    def _begin_watching(self, provider: EmbeddedProvider) -> None:
        """From now on changed files, SIGHUP and certificates that end are noticed."""
        settings = self._settings
        provider.service.reload = self.reload

        def ending(name: str, days: int, text: str) -> None:
            self._log.warn("{text}", text=text)
            provider.service.reports.note("certificate_expires", "", text, which=name, days=days)

        self._expiry = ExpiryWatch(self._reactor, self._endings, ending)
        if not settings.read_only:
            lan = settings.node_authority
            self._children.append(own_keeper(self._reactor, lan, lan / "service", OWN, self.reload))
        files = [CONFIGURATION, settings.certificate, settings.key, "tls/next-key.pem"]
        files += ["lan/service/certificate.pem", "lan/service/key.pem", "lan/service/ca.pem"]
        watch = ChangeWatch(self._reactor, [settings.directory / f for f in files], self.reload)
        self._alarming = alarming = Alarming(self._reactor, provider.service)
        provider.health.endings = self._endings
        provider.health.deliveries = lambda: alarming.deliveries
        self._children += [self._expiry, watch, self._alarming]
        self.reload()
        for child in self._children:
            child.startService()

    def _endings(self) -> list[Ending]:
        """The certificates of this directory, and those of nodes as they were seen last."""
        found = list(endings(self._settings))
        return found + list(self._provider.service.node_certificates if self._provider else ())

    def reload(self) -> None:
        """Read certificates and settings again; sessions that run are not touched.

        What cannot be used is logged and changes nothing. Ports, and what belongs to a start, need
        one.
        """
        before = self._settings
        try:
            settings = load(before.directory)
            pin = next_pin(settings)
        except UsageError as error:
            self._log.error("not read again: {why}", why=str(error))
            return
        if self._provider is None:
            return
        notice = Notice(pins=() if pin is None else (pin,), address=settings.moving_to)
        for wrong in self._provider.reload(settings.identity, settings.advertise, notice):
            self._log.error("not used: {why}", why=str(wrong))
        self._provider.use(
            bounds_of(settings),
            intervals_of(settings),
            keep_of(settings),
            settings.grace_days,
            settings.removed_days,
        )
        if self._alarming is not None:
            self._alarming.apply(settings)
        if self._read_again:  # else it is what the command line says in their place
            tell_late(self._log, changed_settings(before, settings), RELOADED)
            self._log.info("certificates and settings were read again")
        self._settings, self._read_again = settings, True
        if self._expiry is not None and self._expiry.running:
            self._expiry.look()

    def _show_metrics(self, provider: EmbeddedProvider, where: str) -> None:
        alarming = self._alarming
        registry = provider_registry(
            provider, self._endings, lambda: () if alarming is None else alarming.deliveries
        )
        self._metrics = MetricsPort(self._reactor, where, registry, provider.readiness)
        self._metrics.startService()
        provider.listening["metrics"] = where

    def stopService(self) -> Deferred[Any]:
        """End the sessions, then let go of the directory."""
        super().stopService()  # type: ignore[no-untyped-call]
        for child in (*self._children, self._metrics):
            if child is not None and child.running:
                maybeDeferred(child.stopService)
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
    listen = options["listen"] or inherited_endpoint(partial(serverFromString, reactor))
    listen = listen or settings.listen
    return ProviderProcess(reactor, settings, listen)
