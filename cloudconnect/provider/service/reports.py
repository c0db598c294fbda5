"""Layer 4: what happened: steps of sessions and security warnings, written down and passed on.

Each goes into the accounts data base and to whoever looks on, and a warning to the tenant whose
session it is of (``docs/protocol.rst``, sections 2 and 10).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.commands.control import TENANT_ROLES, Role
from cloudconnect.errors import NoSpace
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.service.earlier import EarlierWarnings
from cloudconnect.provider.service.live import LiveSession, LiveSessions
from cloudconnect.provider.watching import Watchers
from cloudconnect.sessions.role import TUNNEL_LOST

#: A session that has lost its tunnel, and then its control channel, is over so many seconds later.
BROKEN_SECONDS = 0.0
#: Warnings of one session that are taken from its tenant.
REPORTED_MAX: Final = 64


class Reports:
    """Takes reports of the service itself, of the provider's roles and of tenants.

    :param accounts: the accounts data base; used only in the accounts thread
    :param in_accounts_thread: runs a blocking call there and fires with its result
    :param sessions: those that run
    :param earlier: keeps warnings for the tenant until it has them
    :param watchers: who is told what happens
    """

    _log = Logger()

    def __init__(
        self,
        accounts: Accounts,
        in_accounts_thread: Callable[..., Deferred[Any]],
        sessions: LiveSessions,
        earlier: EarlierWarnings,
        watchers: Watchers,
    ) -> None:
        self._accounts = accounts
        self._run = in_accounts_thread
        self._sessions = sessions
        self._earlier = earlier
        self._watchers = watchers

    def warned(self, warning: SecurityWarning, kept: bool = True) -> Deferred[None]:
        """A role or a tenant raised a warning: keep it, log it, tell the session's tenant.

        :param kept: False: there were many of the kind, and it does not go into the accounts
        """
        self._log.warn(
            "security warning {kind} from {reporter}: {text}",
            kind=warning.kind.value,
            reporter=warning.role,
            session=warning.session,
            tenant=warning.tenant,
            hop=warning.hop,
            peer=warning.peer,
            text=warning.text,
        )
        live = self._sessions.named(warning.session)
        if live is not None and warning.role not in TENANT_ROLES:
            warning.add_to(live.seen)
            self._earlier.keep(live.tenant, live.label, live.job, [warning])
            live.notify(warning).addCallback(self._told, live, warning)
        self._watchers.tell(lambda watcher: watcher.warned(warning))
        if not kept:
            return succeed(None)
        return self.keep(self._accounts.keep_warning, warning, warning.role)

    def _told(self, has: bool, live: LiveSession, warning: SecurityWarning) -> None:
        if has:
            live.told.append(warning)
            self._earlier.has(live.tenant, warning)

    def warned_by_tenant(self, live: LiveSession, warning: SecurityWarning) -> Deferred[None]:
        """A tenant reports a warning: of its own session only, whatever it wrote, and not without
        end: the first ones are kept."""
        live.reported += 1
        if live.reported > REPORTED_MAX:
            return succeed(None)
        told = attrs.evolve(
            warning,
            session=live.identifier,
            tenant=live.tenant,
            role=warning.role if warning.role in TENANT_ROLES else Role.SOURCE_MOVER.value,
        )
        return self.warned(told)

    def happened(self, event: SessionEvent, reported_by: str) -> Deferred[None]:
        """A role saw one step of a session: keep it."""
        live = self._sessions.named(event.session)
        if live is not None and event.name == TUNNEL_LOST and reported_by != "service":
            live.broken = True
            if live.orphaned is not None and live.orphaned.active():
                live.orphaned.reset(BROKEN_SECONDS)  # nobody is left who could end it
        tenant = live.tenant if live is not None else str(event.fields.get("tenant", ""))
        self._watchers.tell(lambda watcher: watcher.happened(event, tenant, reported_by))
        return self.keep(self._accounts.keep_event, event, tenant, reported_by)

    def note(self, name: str, session: str, text: str, **fields: Any) -> Deferred[None]:
        """The service itself took one step: keep it."""
        event = SessionEvent(time=time.time(), name=name, session=session, text=text, fields=fields)
        return self.happened(event, "service")

    def keep(self, call: Callable[..., None], *arguments: Any, **values: Any) -> Deferred[None]:
        """Write something down that nobody waits for: where the disk is full or read-only it is
        only logged, and a restore goes on.

        :param call: a blocking method of the accounts data base
        """

        def unwritten(failure: Failure) -> None:
            failure.trap(NoSpace)
            self._log.warn("not written down: {why}", why=failure.getErrorMessage())

        return self._run(call, *arguments, **values).addErrback(unwritten)
