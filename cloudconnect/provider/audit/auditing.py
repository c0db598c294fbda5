"""Layer 4: writes down in the audit log what the service sees, and what its admins do.

Entries are collected for a moment, and while the thread writes, so that a burst of them costs one
fsync; no session waits for that. Where they cannot be written (a full disk), sessions go on: how
many were lost is the first thing that the log says when it can be written again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.errors import CloudConnectError
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.keys import Secret
from cloudconnect.provider.audit.chain import Entry
from cloudconnect.provider.audit.log import AuditLog
from cloudconnect.provider.watching import SessionEnd, Watcher

#: Entries are collected for so many seconds before they are written: the steps of one Start.
COLLECT_SECONDS: Final = 0.05
#: Entries that may wait to be written; more are counted as lost.
WAITING_MAX: Final = 10_000
#: What a field is called that no log may hold, whatever type it has.
_SECRET_NAMES: Final = ("password", "token", "secret", "passphrase", "private")


def without_secrets(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, with ``(secret)`` in the place of each password, token and key."""
    return {name: _without_secret(name, value) for name, value in arguments.items()}


def _without_secret(name: str, value: Any) -> Any:
    if isinstance(value, Secret):
        return "(secret)"
    if isinstance(value, dict):
        return without_secrets(value)
    named = any(word in name for word in _SECRET_NAMES)
    return "(secret)" if named and isinstance(value, str | bytes) and value else value


class Auditor(Service, Watcher):
    """Appends to the audit log in a thread.

    :param log: where to
    :param in_thread: runs a blocking call there and fires with its result
    :param clock: measures how long entries are collected; None: not at all
    :ivar lost: entries that could not be written since the last that could
    """

    _log = Logger()

    def __init__(
        self,
        log: AuditLog,
        in_thread: Callable[..., Deferred[Any]],
        clock: IReactorTime | None = None,
    ) -> None:
        self._clock = clock
        self._next: IDelayedCall | None = None
        self._audit = log
        self._in_thread = in_thread
        self._waiting: list[Entry] = []
        self._writing: Deferred[None] | None = None
        self.lost = 0

    def stopService(self) -> Deferred[None]:
        """Write what waits."""
        super().stopService()  # type: ignore[no-untyped-call]
        return self.written()

    def written(self) -> Deferred[None]:
        """Fires when everything until now was written, or is lost."""
        if self._next is not None and self._next.active():
            self._next.cancel()
            self._write()
        if self._writing is None:
            return succeed(None)
        done: Deferred[None] = Deferred()

        def over(result: Any) -> Any:
            self.written().chainDeferred(done)
            return result

        self._writing.addBoth(over)
        return done

    # --- what there is to write down -------------------------------------------------------------

    def happened(self, event: SessionEvent, tenant: str, reported_by: str) -> None:
        """A step of the key exchange, or an act of a tenant."""
        fields = {**event.fields, "session": event.session, "tenant": tenant}
        self._add(Entry(actor=reported_by, act=event.name, time=event.time, fields=fields))

    def warned(self, warning: SecurityWarning) -> None:
        """A security warning."""
        self._add(
            Entry(
                actor=warning.role or "service",
                act="security_warning",
                time=warning.time,
                fields=warning.as_dict(),
            )
        )

    def logged_in(self, tenant: str, peer: str) -> None:
        """A log-in."""
        self._add(Entry(actor="tenant", act="logged_in", fields={"tenant": tenant, "peer": peer}))

    def session_started(self, session: str, tenant: str, kind: str) -> None:
        """A session's begin."""
        fields = {"session": session, "tenant": tenant, "kind": kind}
        self._add(Entry(actor="service", act="session_started", fields=fields))

    def session_ended(self, end: SessionEnd) -> None:
        """A session's end."""
        fields = {"session": end.session, "tenant": end.tenant, "kind": end.kind}
        fields |= {"host": end.host, "job": end.job, "state": end.state}
        self._add(Entry(actor="service", act="session_ended", fields=fields))

    def administered(self, act: str, fields: dict[str, Any], outcome: str) -> None:
        """An admin's act."""
        self._add(admin_entry(act, fields, outcome))

    # --- writing ---------------------------------------------------------------------------------

    def _add(self, entry: Entry) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self.lost += 1
            return
        self._waiting.append(entry)
        if self._writing is not None or (self._next is not None and self._next.active()):
            return
        if self._clock is not None and self.running:
            self._next = self._clock.callLater(COLLECT_SECONDS, self._write)
        else:
            self._write()

    def _write(self) -> None:
        entries, self._waiting = self._waiting, []
        lost, self.lost = self.lost, 0
        if lost:
            entries.insert(0, Entry(actor="service", act="audit_lost", fields={"entries": lost}))
        self._writing = done = self._in_thread(self._audit.append, entries)
        done.addErrback(self._not_written, lost + len(entries) - bool(lost))
        done.addCallback(lambda _: self._over(done))

    def _not_written(self, failure: Failure, count: int) -> None:
        self.lost += count
        if failure.check(OSError, CloudConnectError):
            self._log.error(
                "{count} lines of the audit log were not written: {why}",
                count=count,
                why=failure.getErrorMessage(),
            )
        else:
            self._log.failure(
                "{count} lines of the audit log were not written", failure, count=count
            )

    def _over(self, done: Deferred[None]) -> None:
        if self._writing is done or self._writing is None:
            self._writing = None
            if self._waiting:
                self._write()


def admin_entry(act: str, fields: Mapping[str, Any], outcome: str) -> Entry:
    """The entry of an admin's act.

    :param fields: what was asked for; secrets do not get into the entry
    :param outcome: ``done``, or the ``reason`` of the error
    """
    return Entry(actor="admin", act=act, fields={**without_secrets(fields), "outcome": outcome})


def act_name(command: str) -> str:
    """A command's name as the word of an act: ``SetTenant`` is ``set_tenant``."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in command).lstrip("_")


def is_act(command: type[Any]) -> bool:
    """Whether an admin's command does something; what only looks is not written down."""
    return not command.__name__.startswith(("List", "Show", "Get"))


def append_now(log: AuditLog, entries: Sequence[Entry]) -> None:
    """Write entries where no provider runs; what goes wrong is logged."""
    try:
        log.append(entries)
    except (OSError, CloudConnectError) as error:
        Logger().error("the audit log was not written: {why}", why=str(error))
