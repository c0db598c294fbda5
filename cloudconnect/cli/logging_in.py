"""Layer 6: how a command gets to its provider: who is dialled and trusted, and the first log-in.

Where a provider has announced that it would move, it is looked for at its new address too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.internet.interfaces import IStreamClientEndpoint

from cloudconnect.cli.console import local_time
from cloudconnect.cli.dialled_endpoint import DialledEndpoint
from cloudconnect.cli.dialling import Dialled
from cloudconnect.cli.following import say
from cloudconnect.cli.running import Interrupt
from cloudconnect.cli.tenant import TenantSettings
from cloudconnect.config.known_gateways import remember_gateways, remembered_gateways
from cloudconnect.errors import ContextMismatch, NotReachable
from cloudconnect.keys import Password
from cloudconnect.settings import CONNECT_SECONDS
from cloudconnect.tenant.control import Account
from cloudconnect.tenant.early import Foreseen
from cloudconnect.tenant.jobmanager import JobManager
from cloudconnect.tenant.retrying import Interruption, Journey, Retrying
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.trust import TrustPolicy

#: From so many days before its end on, every command says when this machine's certificate ends.
OWN_END_DAYS: Final = 14
#: A first log-in that breaks off is tried again for so long, in seconds, and not longer than
#: ``--retry`` says: by then a provider is up again, and somebody may be waiting at a terminal.
LOG_IN_SECONDS: Final = 60.0


def dial(
    reactor: Any,
    settings: TenantSettings,
    identity: ServerIdentity | None,
    interrupt: Interrupt,
    dialled: Dialled | None = None,
) -> JobManager:
    """A job manager for the provider that settings name.

    :param identity: the certificate to log in with, where it is not a password
    :param interrupt: ends what the job manager does
    :param dialled: a connection that was opened ahead of time, wherever it leads
    """
    made = JobManager(
        reactor,
        *settings.address,
        trust_of(settings),
        identity=identity,
        gateways=remembered_gateways(os.environ, settings.address),
        learned=lambda told: remember_gateways(os.environ, settings.address, told),
        happened=settings.console.happened,
        warned=settings.console.warned,
        dial=lambda host, port: _endpoint(reactor, dialled, host, port),
    )
    interrupt.call = made.cancel
    return made


def dial_next(
    reactor: Any, settings: TenantSettings, identity: ServerIdentity | None, interrupt: Interrupt
) -> tuple[TenantSettings, JobManager]:
    """As :func:`dial`, for the address to which the provider has announced to move; the settings
    that name it."""
    profile = settings.profile
    there = attrs.evolve(settings, profile=attrs.evolve(profile, provider=profile.next_provider))
    return there, dial(reactor, there, identity, interrupt)


async def log_in_there(
    settings: TenantSettings, manager: JobManager, password: Password | None
) -> Account:
    """The log-in at that address.

    :raises ContextMismatch: another provider answers there
    """
    account = await manager.log_in(settings.tenant, password)
    if account.provider.hex() != settings.profile.provider_id:
        raise ContextMismatch(f"another provider answers at {settings.profile.provider}") from None
    return account


def _endpoint(reactor: Any, dialled: Dialled | None, host: str, port: int) -> IStreamClientEndpoint:
    """How to connect: by the connection that was opened ahead of time, or as the reactor does."""

    def anew() -> IStreamClientEndpoint:
        from twisted.internet.endpoints import HostnameEndpoint  # with every kind that there is

        return HostnameEndpoint(reactor, host, port, timeout=CONNECT_SECONDS)

    if dialled is None or dialled.place != (host, port):
        return anew()
    return DialledEndpoint(reactor, dialled, anew)


async def log_in(
    reactor: Any,
    settings: TenantSettings,
    manager: JobManager,
    password: Password | None,
    interrupt: Interrupt,
    foresee: Callable[[], Foreseen | None] = lambda: None,
) -> Account:
    """The first log-in: where the provider has answered and the line broke then, because it is just
    being restarted, it is tried again for a while.

    :param foresee: as :meth:`JobManager.log_in` has it
    :raises CloudConnectError: it did not succeed
    """
    try:
        return await manager.log_in(settings.tenant, password, foresee)
    except NotReachable:
        limit = min(settings.retry, LOG_IN_SECONDS)
        if not manager.answered or limit <= 0:
            raise

    def told(interruption: Interruption) -> None:
        settings.console.note(f"log-in interrupted: {interruption.error}; trying again")

    async def nothing() -> None:
        """Each attempt connects by itself."""

    retrying = Retrying(reactor, limit, told, lambda: interrupt.happened)

    def stop() -> None:
        retrying.interrupt()
        manager.cancel()

    interrupt.call = stop
    return await retrying.run(Journey(), lambda: manager.log_in(settings.tenant, password), nothing)


def note_end(settings: TenantSettings, ends: float) -> None:
    """Say when this machine's certificate ends, where that is near: the provider will refuse it."""
    now = time.time()
    if ends - now < OWN_END_DAYS * 86400:
        verb = "expires" if ends > now else "has expired, or the clock is wrong: it ended"
        text = f"the certificate of this machine {verb} on {local_time(ends)}"
        say(settings, "own_certificate_expires", text)


def trust_of(settings: TenantSettings) -> TrustPolicy:
    """How the provider that settings name is known.

    :raises UsageError: what they say of it cannot be used
    """
    profile = settings.profile
    return TrustPolicy(
        settings.address[0],
        ca_file=profile.ca or None,
        fingerprints=profile.fingerprints,
        accept_expired=settings.accept_expired,
    )
