"""Below the roles: what a target role is to the service and to the tenant, whatever it then does.

A target data mover and a target WAN accelerator are both offered sessions with a Key A of their
own, take Key B through a tunnel of their own, accept streams under it, and report. What they do
with a stream differs, and is in the hooks at the end of :class:`TargetRole`. Connections come in
through :mod:`cloudconnect.sessions.acceptance`.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar, Protocol

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.protocols.amp import CommandLocator

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.lan import EndSession, OfferKeyA, ReportEvent, ReportWarning
from cloudconnect.errors import Aborted, CloudConnectError, Refused, SecurityError, Truncated
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.keys import IntegrityKey, KeyA, KeyB
from cloudconnect.sessions.machine import (
    SessionCore,
    SessionInputs,
    SessionState,
    session_machine,
)
from cloudconnect.sessions.package import KeyAPackage
from cloudconnect.sessions.unproved import Unproved
from cloudconnect.settings import CLOSE_SECONDS, KEY_B_SECONDS, PROTOCOL_VERSIONS

#: The event by which the service hears that a session cannot go on.
TUNNEL_LOST = "tunnel_lost"
#: Outcomes at which the tenant itself says that it has no new restore point; then there is none.
FAILURES = ("failed", "interrupted", "security_warning")


class Running(Protocol):
    """Something of a session that goes on until it ends, or is ended."""

    def abort(self, reason: Exception) -> None:
        """End it at once."""


@attrs.define(eq=False)
class RoleSession:
    """A session at a role: its machine, and what belongs to it in this process.

    :ivar running: what goes on for it
    :ivar workers: fire when that has ended
    :ivar unproved: connections that have not proved their key
    """

    core: SessionCore
    inputs: SessionInputs
    key_a_ends: float
    expiry: IDelayedCall
    tunnel: BoundedAMP | None = None
    running: list[Running] = attrs.field(factory=list)
    workers: list[Deferred[None]] = attrs.field(factory=list)
    unproved: Unproved = attrs.field(factory=Unproved)

    @property
    def package(self) -> KeyAPackage:
        """What the service said of it."""
        return self.core.package


class TargetRole(Service, CommandLocator):
    """Expects sessions, keeps them until their end, and says what it saw.

    :param reactor: clock and threads
    :cvar role: its name, as plans and packages say it
    :cvar holds_integrity_key: whether Key B comes with the integrity key; if not, it must not
    :ivar link: the role's end of its LAN link to the service
    """

    _log = Logger()
    role: ClassVar[str]
    holds_integrity_key: ClassVar[bool]

    def __init__(self, reactor: Any) -> None:
        CommandLocator.__init__(self)
        self.reactor = reactor
        self.link: BoundedAMP | None = None
        self._by_route: dict[bytes, RoleSession] = {}
        self._by_session: dict[bytes, RoleSession] = {}

    @property
    def session_count(self) -> int:
        """In how many sessions it takes part."""
        return len(self._by_session)

    def end_all(self, reason: Exception) -> list[Deferred[Any]]:
        """Abort every session; fire when each has ended."""
        for session in list(self._by_session.values()):
            self._abort(session, reason)
        return [worker for s in self._by_session.values() for worker in s.workers]

    def drop_all(self) -> None:
        """Forget every session: nobody will ask for it any more."""
        for session in self._by_session.values():
            if session.expiry.active():
                session.expiry.cancel()

    # --- from the service ------------------------------------------------------------------------

    @OfferKeyA.responder
    def offer(self, package: Any, key_a: KeyA) -> dict[str, Any]:
        """Expect a session."""
        try:
            offered = KeyAPackage.from_map(package)
        except (TypeError, KeyError, AttributeError):
            raise Refused("a Key A package cannot be read") from None
        if offered.version not in PROTOCOL_VERSIONS or offered.role != self.role:
            raise Refused(f"this {self.role} cannot take part in such a session")
        self.look_at(offered)
        if offered.session in self._by_session or offered.route in self._by_route:
            raise Refused(f"this {self.role} has that session or route already")
        lifetime = offered.lifetime_ms / 1000
        core = SessionCore(offered, key_a)
        session = RoleSession(
            core,
            session_machine(core),
            self.reactor.seconds() + lifetime,
            self.reactor.callLater(lifetime, self._key_a_over, offered.session),
        )
        self._by_route[offered.route] = self._by_session[offered.session] = session
        return {}

    @EndSession.responder
    def end_session(self, session: bytes, outcome: str) -> Deferred[dict[str, Any]]:
        """Drop the session's keys and say what was seen."""
        return Deferred.fromCoroutine(self._end_session(session, outcome))

    async def _end_session(self, identifier: bytes, outcome: str) -> dict[str, Any]:
        session = self._by_session.get(identifier)
        if session is None:
            return {"warnings": [], "points": [], "failed": False}
        if outcome in ("done", "incomplete"):
            late = self.reactor.callLater(
                CLOSE_SECONDS, self._abort, session, Truncated("the stream did not end in time")
            )
        else:
            late = None
            self._abort(session, Aborted("the session has ended"))
        seen = 0
        while seen < len(session.workers):  # a failure adds one
            seen = len(session.workers)
            await DeferredList(list(session.workers))
        if late is not None and late.active():
            late.cancel()
        core = session.core
        if outcome in FAILURES or core.error is not None:
            await self.take_back(session)
        self._by_session.pop(identifier, None)
        self._over(session)
        if session.expiry.active():
            session.expiry.cancel()
        return {
            "warnings": [w.as_dict() for w in core.warnings],
            "points": core.points,
            "failed": core.error is not None,
        }

    # --- from connections (see acceptance) -------------------------------------------------------

    def by_route(self, route: bytes) -> RoleSession | None:
        """The session that connections with this route id belong to."""
        return self._by_route.get(route)

    def key_a_usable(self, session: RoleSession) -> bool:
        """Whether a tunnel may still be opened."""
        return session.core.key_a is not None and self.reactor.seconds() < session.key_a_ends

    def key_a_proved(self, session: RoleSession, tunnel: BoundedAMP) -> None:
        """The peer holds Key A: it is gone from here on, and this is the session's tunnel."""
        session.tunnel = tunnel
        session.inputs.key_a_proved()
        self._expire_in(session, KEY_B_SECONDS)

    def key_b_delivered(
        self, session: RoleSession, key_b: KeyB, integrity_key: IntegrityKey | None
    ) -> None:
        """Key B is here, and at a mover the integrity key."""
        session.inputs.key_b_delivered(key_b=key_b, integrity_key=integrity_key)
        self._expire_in(session, KEY_B_SECONDS)
        self.report(
            session,
            "key_b_received",
            f"Key B {session.core.key_b_identifier} received through the Key A tunnel",
            key=session.core.key_b_identifier,
        )

    def stream_proved(self, session: RoleSession, stream: Any) -> bool:
        """A stream has proved Key B; False where it is to be closed."""
        if session.core.key_b is None:  # the session has ended meanwhile
            return False
        session.inputs.stream_up()
        connection: int = stream.connection
        self.report(session, "stream_up", f"Key B stream {connection} is up", stream=connection)
        self.stream_up(session, stream)
        return True

    def forget_key_b(self, session: RoleSession) -> None:
        """Every connection is up: nobody needs Key B any more."""
        session.inputs.key_b_expired()
        if session.expiry.active():
            session.expiry.cancel()

    # --- ends ------------------------------------------------------------------------------------

    def tunnel_lost(self, session: RoleSession, error: BaseException | None) -> None:
        """The liveness line of the session is gone: so is the session.

        Where the tenant has ended it properly while streams were up, those are about to end too.

        :param error: None for a proper end
        """
        if session.package.session not in self._by_session:
            return
        if error is None and session.core.state is SessionState.STREAMING:
            # It stays known after that: the tenant may still tell how it ended.
            late = Truncated("the streams of this session did not end with its Key A tunnel")
            self._call_in(CLOSE_SECONDS, session, self._abort, session, late)
            return
        if isinstance(error, SecurityError):
            self.failed(session, error, "key-a-tunnel", 0)
            return
        if isinstance(error, Truncated):
            self.warn(session, error, "key-a-tunnel", 0)
        self._abort(session, Truncated("the Key A tunnel of this session was lost"))
        self.report(session, TUNNEL_LOST, "the Key A tunnel was lost, and with it the session")

    def failed(
        self,
        session: RoleSession,
        error: SecurityError,
        hop: str,
        connection: int,
        peer: str = "",
    ) -> None:
        """A peer that had proved its key, or somebody on the way to it, ends the session by this:
        warn, and take back what it has published."""
        if session.package.session not in self._by_session:
            return
        self.warn(session, error, hop, connection, peer)
        session.core.error = error
        self._abort(session, Aborted("the session has failed"))
        # Now, and not when the tenant asks: somebody may have cut its control channel too.
        workers = DeferredList(list(session.workers))
        session.workers.append(workers.addCallback(lambda _: self._taken_back(session)))

    def give_up(self, session: RoleSession) -> None:
        """What the session did here has ended, and nothing more can come: forget its keys."""
        self._over(session)

    def _taken_back(self, session: RoleSession) -> Deferred[None]:
        taken = Deferred.fromCoroutine(self.take_back(session))
        return taken.addErrback(lambda f: self._log.failure("points were not withdrawn", f))

    def _abort(self, session: RoleSession, reason: Exception) -> None:
        for running in list(session.running):
            running.abort(reason)
        self._over(session)

    def _over(self, session: RoleSession) -> None:
        """Forget everything of the session but what EndSession will ask for."""
        session.inputs.end()
        self._by_route.pop(session.package.route, None)
        if session.tunnel is not None and session.tunnel.transport is not None:
            session.tunnel.transport.loseConnection()
        if session.package.session in self._by_session and not session.expiry.active():
            self._expire_in(session, KEY_B_SECONDS)

    def _expire_in(self, session: RoleSession, seconds: float) -> None:
        self._call_in(seconds, session, self._expired, session)

    def _call_in(self, seconds: float, session: RoleSession, call: Any, *arguments: Any) -> None:
        if session.expiry.active():
            session.expiry.cancel()
        session.expiry = self.reactor.callLater(seconds, call, *arguments)

    def _key_a_over(self, identifier: bytes) -> None:
        session = self._by_session.get(identifier)
        if session is not None:
            self._expired(session)

    def _expired(self, session: RoleSession) -> None:
        """The next step did not come in time, or nobody asked after the end."""
        self._by_session.pop(session.package.session, None)
        self._abort(session, Truncated("the next step of the session did not come in time"))

    # --- reports ---------------------------------------------------------------------------------

    def warn(
        self,
        session: RoleSession,
        error: CloudConnectError,
        hop: str,
        connection: int,
        peer: str = "",
    ) -> Deferred[Any] | None:
        """Raise a security warning, once for each subject; fires when the service has it."""
        warning = SecurityWarning(
            time=time.time(),
            kind=error.kind,  # type: ignore[attr-defined]
            session=session.core.identifier,
            tenant=session.package.tenant,
            role=self.role,
            hop=hop,
            connection=connection,
            peer=peer,
            text=str(error) or type(error).__doc__ or "",
        )
        if not session.core.warn(warning):
            return None
        return self.tell(ReportWarning, warning=warning.as_dict())

    def report(self, session: RoleSession, name: str, text: str, **fields: Any) -> Deferred[Any]:
        """Tell the service of one step."""
        event = SessionEvent(
            time=time.time(), name=name, session=session.core.identifier, text=text, fields=fields
        )
        return self.tell(ReportEvent, event=attrs.asdict(event))

    def tell(self, command: Any, **values: Any) -> Deferred[Any]:
        """Call the service; that it was not taken is only logged."""
        if self.link is None:
            return gatherResults([])
        told = self.link.call(command, **values)
        told.addErrback(lambda f: self._log.warn("report not taken: {e}", e=f.getErrorMessage()))
        return told

    # --- what each role does in its own way ------------------------------------------------------

    def look_at(self, package: KeyAPackage) -> None:
        """Refuse a session that this role cannot serve.

        :raises CloudConnectError: why
        """

    async def prepare(self, session: RoleSession) -> None:
        """Key B is about to be confirmed: get ready what a stream will need.

        :raises CloudConnectError: the session cannot be
        """

    def stream_up(self, session: RoleSession, stream: Any) -> None:
        """A stream has proved Key B: put the protocol on it that speaks from here on.

        :param stream: a :class:`~cloudconnect.transports.stream.RecordStreamLayer`
        """
        raise NotImplementedError

    async def take_back(self, session: RoleSession) -> None:
        """The session has failed, and what it did has ended: undo what it left."""
