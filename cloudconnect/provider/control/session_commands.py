"""Layer 4: the sessions that a tenant begins and ends on its control channel.

``docs/protocol.rst``, section 2.
"""

from __future__ import annotations

import json
import time
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.protocols.amp import CommandLocator

from cloudconnect.commands.control import (
    BINDING_SIZE,
    KEY_A_LABEL,
    STREAMS_MAX,
    Finish,
    MoveOn,
    SessionKind,
    Start,
    Warn,
    key_a_context,
)
from cloudconnect.content.points import LABEL_MAX
from cloudconnect.errors import (
    ContextMismatch,
    ControlTampered,
    NotReachable,
    ProtocolViolation,
    Refused,
)
from cloudconnect.events import SecurityWarning
from cloudconnect.keys import KeyA
from cloudconnect.provider.control.channel import TenantChannel
from cloudconnect.provider.service.access import SESSIONS
from cloudconnect.provider.service.ending import GOOD_OUTCOMES
from cloudconnect.provider.service.live import LiveSession
from cloudconnect.provider.service.planning import Ask
from cloudconnect.sessions.role import FAILURES
from cloudconnect.settings import SUMMARY_MAX


class SessionCommands(CommandLocator):
    """Answers the commands of sessions, and tells the tenant what becomes of them.

    :param channel: who asks
    """

    def __init__(self, channel: TenantChannel) -> None:
        super().__init__()
        self._channel = channel
        self._service = channel.service
        self._sessions: set[bytes] = set()
        self._finished: LiveSession | None = None

    def lost(self, error: BaseException | None) -> None:
        """The channel is gone: leave the sessions to finish by themselves for a while, unless
        something was changed.

        :param error: why it is gone
        """
        if isinstance(error, ControlTampered) and self._channel.login is not None:
            for session in self._sessions or {b""}:
                self._service.reports.warned(self._warning(session, error))
            self._service.endings.spoil(self._sessions)
        else:
            self._service.endings.orphan(self._sessions)

    def _warning(self, session: bytes, error: ControlTampered) -> SecurityWarning:
        return SecurityWarning(
            time=time.time(),
            kind=error.kind,
            session=session.hex(),
            tenant="" if self._channel.login is None else self._channel.login.tenant,
            role="service",
            hop="control",
            peer=self._channel.address(),
            text=str(error),
        )

    @Start.responder
    def start(self, **asked: Any) -> Deferred[dict[str, Any]]:
        """Begin a session."""
        return Deferred.fromCoroutine(self._start(**asked))

    async def _start(self, kind: str, streams: int, wan: bool, **asked: Any) -> dict[str, Any]:
        await self._channel.once_judged()  # it may come behind the proof of the log-in
        self._channel.logged_in()
        try:
            wanted = Ask(kind=SessionKind(kind), streams=streams, wan=wan, **asked)
        except ValueError:
            raise ProtocolViolation("that is not a kind of session") from None
        if not 1 <= streams <= (STREAMS_MAX if wan else 1):
            raise Refused(
                f"between accelerators there are 1 to {STREAMS_MAX} connections, without them one"
            )
        for label in (wanted.host, wanted.name):  # as those of a restore point
            if not 0 < len(label) <= LABEL_MAX or not label.isprintable():
                raise ProtocolViolation(
                    f"host and job labels have 1 to {LABEL_MAX} printable characters"
                )
        tenant = await self._channel.may(SESSIONS[wanted.kind])
        session, plan, keys = await self._service.starts.start(
            tenant,
            wanted,
            self._key_a_exporter,
            self._channel.address(),
            self._tell,
            self._move_on,
            self._channel.login,
        )
        # The tenant has gone meanwhile, or has to: nobody else will end this session.
        if not self._channel.is_up or self._channel.login is None:
            _forget(keys)
            await self._service.endings.abandon(session)
            raise NotReachable("the control channel is gone")
        if len(self._sessions) >= ENDED_MAX:  # those that ended without their tenant's word
            self._sessions = {one for one in self._sessions if one in self._service.sessions}
        self._sessions.add(session)
        self._service.reactor.callLater(0, _forget, keys)
        return {"session": session, "plan": plan, "keys_a": keys, "amend": True}

    def _key_a_exporter(self, session: bytes, role: str) -> bytes:
        return self._channel.exporter(KEY_A_LABEL, key_a_context(session, role), BINDING_SIZE)

    def _tell(self, warning: SecurityWarning) -> Deferred[bool]:
        """Tell the tenant of a warning; fires with whether it has it."""
        if self._channel.transport is None:
            return succeed(False)
        told = self._channel.call(Warn, warning=warning.as_dict())
        # A lost channel is noticed by connectionLost.
        return told.addCallbacks(lambda _: True, lambda _: False)

    def _move_on(self, session: bytes, lost: bool, text: str) -> None:
        """Ask the tenant to go on with a session's job in a new one."""
        if self._channel.transport is not None:
            asked = self._channel.call(MoveOn, session=session, lost=lost, text=text)
            asked.addErrback(lambda _: None)  # an older tenant notices it by its line

    @Finish.responder
    def finish(
        self, session: bytes, outcome: str, summary: Any, warnings: Any
    ) -> Deferred[dict[str, Any]]:
        """End a session."""
        return Deferred.fromCoroutine(self._finish(session, outcome, summary, warnings))

    async def _finish(
        self, session: bytes, outcome: str, summary: Any, warnings: Any
    ) -> dict[str, Any]:
        tenant = self._channel.logged_in().tenant
        finished = self._amendable(session, outcome)
        if finished is not None:
            await self._service.endings.amend(finished, outcome, read_warnings(warnings))
            return {"warnings": [], "notes": []}
        live = self._service.sessions.of(tenant, session)
        if session not in self._sessions:
            # Its point is listed a moment before its own line says that all is well.
            raise ContextMismatch("the session was not started on this connection")
        check_summary(summary)
        self._sessions.discard(session)
        found = await self._service.endings.finish(live, outcome, summary, read_warnings(warnings))
        if outcome in GOOD_OUTCOMES:
            self._finished = live
        notes = []
        if live.kind is SessionKind.BACKUP and outcome in GOOD_OUTCOMES:
            notes = await self._service.keeping.quota_notes(live.tenant)
        return {"warnings": [warning.as_dict() for warning in found], "notes": notes}

    def _amendable(self, session: bytes, outcome: str) -> LiveSession | None:
        """The session that was said here to be good last, where it is this one, that was lately,
        and now it is said to have left nothing."""
        live = self._finished
        if live is None or live.session != session or outcome not in FAILURES:
            return None
        return live if self._service.endings.good.has(live) else None

    @Warn.responder
    def warn(self, warning: Any) -> Deferred[dict[str, Any]]:
        """The tenant saw something on the way."""
        (told,) = read_warnings([warning])
        login = self._channel.logged_in()
        live = self._service.sessions.of(login.tenant, bytes.fromhex(told.session))
        if live.label != login.label:  # it could also use up what is taken of that session
            raise ContextMismatch("the session was started with another credential")
        return self._service.reports.warned_by_tenant(live, told).addCallback(lambda _: {})


#: Sessions of one control channel that may have ended without ``Finish`` before they are forgotten.
ENDED_MAX = 64
#: Most warnings that one report may carry.
WARNINGS_MAX = 64


def check_summary(summary: Any) -> None:
    """Whether the service keeps what a tenant says of its session.

    :raises ProtocolViolation: it is no map of what JSON can hold, or too long
    """
    try:
        text = json.dumps(summary)
    except (TypeError, ValueError, RecursionError):
        text = ""
    if not isinstance(summary, dict) or not text:
        raise ProtocolViolation("a summary is a map of what JSON can hold")
    if len(text) > SUMMARY_MAX:
        raise ProtocolViolation(f"a summary has at most {SUMMARY_MAX} bytes")


def read_warnings(values: Any) -> list[SecurityWarning]:
    """Warnings from the maps that a peer sent.

    :raises ProtocolViolation: too many, or not warnings
    """
    if not isinstance(values, list) or len(values) > WARNINGS_MAX:
        raise ProtocolViolation(f"warnings is not a list of at most {WARNINGS_MAX}")
    found = []
    for value in values:
        try:
            warning = SecurityWarning.from_dict(value)
            bytes.fromhex(warning.session)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ProtocolViolation("a warning cannot be read") from None
        if len(warning.text) > 1000 or len(str(warning.as_dict())) > 4000:
            raise ProtocolViolation("a warning is too long")
        found.append(warning)
    return found


def _forget(keys: list[KeyA]) -> None:
    """Key A has been handed over: the service's copy goes (the answer is in the TLS layer)."""
    for key in keys:
        key.forget()
