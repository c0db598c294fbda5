"""Layer 4: one tenant's control channel at the service: log in, then commands.

Before the tenant has authenticated, one small request at a time is read and only the two
authentication commands are known; there is a time limit (``docs/protocol.rst``, section 2).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import (
    BINDING_LABEL,
    BINDING_SIZE,
    KEY_A_LABEL,
    STREAMS_MAX,
    AcceptInvitation,
    AuthenticateFinal,
    AuthenticateFirst,
    CreateRepository,
    DeletePoints,
    Finish,
    GatewaysChanged,
    GetRetention,
    ListHistory,
    ListPoints,
    LockPoints,
    MoveOn,
    NoticeTaken,
    Ping,
    PreviewRetention,
    ReplaceDescription,
    SessionKind,
    SetRetention,
    Start,
    UndeletePoints,
    Warn,
    key_a_context,
)
from cloudconnect.commands.notice import read_pins
from cloudconnect.content.points import LABEL_MAX
from cloudconnect.errors import (
    CloudConnectError,
    ContextMismatch,
    ControlTampered,
    Downgrade,
    LoginRefused,
    NotReachable,
    ProtocolViolation,
    Refused,
)
from cloudconnect.events import SecurityWarning
from cloudconnect.keys import KeyA
from cloudconnect.provider.access import SESSIONS, Act, Login
from cloudconnect.provider.accounts import Tenant
from cloudconnect.provider.accounts.credentials import Credential
from cloudconnect.provider.planning import Ask
from cloudconnect.provider.service import GOOD_OUTCOMES, CloudConnectService
from cloudconnect.settings import (
    AUTHENTICATION_SECONDS,
    BOX_MAX,
    BOX_MAX_UNAUTHENTICATED,
    PAGE_ROWS_MAX,
    PASSWORD_ITERATIONS_MIN,
    PING_SECONDS,
    PROTOCOL_VERSIONS,
    REQUESTS_MAX,
    REQUESTS_MAX_UNAUTHENTICATED,
    SILENCE_SECONDS,
    TOKEN_ITERATIONS_MIN,
)
from cloudconnect.wire.scram import ScramServer, Verifier, split_login


class ControlProtocol(BoundedAMP):
    """Speaks with one tenant's job manager.

    :param service: what it asks and tells
    """

    log = Logger()

    def __init__(self, service: CloudConnectService) -> None:
        super().__init__(
            service.reactor,
            box_max=BOX_MAX_UNAUTHENTICATED,
            requests_max=REQUESTS_MAX_UNAUTHENTICATED,
        )
        self._service = service
        self._login: Login | None = None
        self._cut = False
        self._credential: Credential | None = None
        self._scram: ScramServer | None = None
        self._version = PROTOCOL_VERSIONS[-1]
        self._sessions: set[bytes] = set()
        self._deadline: IDelayedCall | None = None
        self._pinging: IDelayedCall | None = None

    # --- connection ------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Start the clock of the authentication."""
        super().connectionMade()  # type: ignore[no-untyped-call]
        self._deadline = self._service.reactor.callLater(AUTHENTICATION_SECONDS, self._too_late)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the sessions to finish by themselves for a while, unless something was changed."""
        for call in (self._deadline, self._pinging):
            if call is not None and call.active():
                call.cancel()
        self._service.nodes.unfollow(self._gateways_changed)
        error = reason.value
        if self._login is not None:
            self._service.connections.remove(self._login)
        if isinstance(error, ControlTampered) and self._login is not None:
            for session in self._sessions or {b""}:
                self._service.warned(self._warning(session, error))
            self._service.spoil(self._sessions)
        else:
            self._service.orphan(self._sessions)
        super().connectionLost(reason)

    def _warning(self, session: bytes, error: ControlTampered) -> SecurityWarning:
        return SecurityWarning(
            time=time.time(),
            kind=error.kind,
            session=session.hex(),
            tenant="" if self._login is None else self._login.tenant,
            role="service",
            hop="control",
            peer=self._address(),
            text=str(error),
        )

    def _too_late(self) -> None:
        self.log.warn("no log-in in time from {peer}", peer=self._address())
        self._abort()

    def _abort(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    def cut(self) -> None:
        """The provider wants it gone, at once: nothing more can be begun on it."""
        self._cut = True
        self._abort()

    def _address(self) -> str:
        peer: IAddress | None = None if self.transport is None else self.transport.getPeer()
        return str(getattr(peer, "host", "") or "")

    # --- log-in ----------------------------------------------------------------------------------

    @AuthenticateFirst.responder
    def authenticate_first(self, message: str, versions: Any) -> Deferred[dict[str, Any]]:
        """SCRAM's first exchange; an unknown name is answered like a known one."""
        return Deferred.fromCoroutine(self._first(message, versions))

    async def _first(self, message: str, versions: Any) -> dict[str, Any]:
        if self._login is not None or self._scram is not None:
            raise ProtocolViolation("authentication was begun before")
        if not isinstance(versions, list) or not all(isinstance(v, int) for v in versions):
            raise ProtocolViolation("versions is not a list of numbers")
        common = set(versions) & set(PROTOCOL_VERSIONS)
        if not common:
            raise Refused(
                f"the provider speaks protocol versions {list(PROTOCOL_VERSIONS)}, this tenant "
                f"{versions[:8]}: upgrade the older of the two"
            )
        self._version = max(common)
        service = self._service
        binding = self.exporter(BINDING_LABEL, b"", BINDING_SIZE)
        # A first pass only reads whose verifier is to be fetched from the data base.
        reading = ScramServer(lambda name: None, binding, service.decoy_key)
        reading.first(message)
        name = reading.tenant
        # Guesses at all machines of a tenant count together.
        tenant, _ = split_login(name)
        await deferLater(service.reactor, service.attempts.delay(tenant, self._address()))
        found: Credential | None = await service.credential(name)
        verifier = None if found is None else found.verifier
        self._credential = found
        self._scram = ScramServer(
            lambda name: verifier, binding, service.decoy_key, service.decoy_iterations(name)
        )
        return {"message": self._scram.first(message)}

    @AuthenticateFinal.responder
    def authenticate_final(self, message: str) -> Deferred[dict[str, Any]]:
        """SCRAM's second exchange."""
        return Deferred.fromCoroutine(self._final(message))

    async def _final(self, message: str) -> dict[str, Any]:
        scram, self._scram = self._scram, None
        if scram is None:
            raise ProtocolViolation("AuthenticateFinal came without AuthenticateFirst")
        service, address = self._service, self._address()
        tenant, label = split_login(scram.tenant)
        try:
            proof = scram.final(message)
        except LoginRefused as refused:
            failures = service.attempts.failed(tenant, address)
            self.log.warn(
                "log-in refused for {tenant} from {peer}, failure {failures}",
                tenant=scram.tenant,
                peer=address,
                failures=failures,
            )
            await service.warned(
                SecurityWarning(
                    time=time.time(),
                    kind=refused.kind,
                    tenant=tenant,
                    role="service",
                    hop="control",
                    peer=address,
                    text=f"log-in refused, failure {failures} of this tenant from this address",
                )
            )
            raise
        service.attempts.succeeded(tenant, address)
        credential, self._credential = self._credential, None
        assert credential is not None, "no proof fits a name without a credential"
        record, description = await self._enter(Login.by(credential))
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self.set_limits(BOX_MAX, REQUESTS_MAX)
        self.log.info(
            "tenant {tenant} logged in from {peer} as {credential}",
            tenant=tenant,
            peer=address,
            credential=label,
        )
        service.watchers.tell(lambda watcher: watcher.logged_in(tenant, address))
        self._ping_later()
        if not credential.invitation:
            service.nodes.follow(self._gateways_changed, record.pool)
        if "read" in credential.capabilities and not credential.invitation:
            # Behind the answer to the log-in, so that the command hears it in time.
            service.reactor.callLater(0, self._tell_found, tenant)
        return {
            "message": proof,
            "version": self._version,
            "provider": service.provider,
            "repository": description,
            "modes": list(record.modes),
            "wan": service.nodes.accelerates,
            "gateways": service.nodes.addresses(service.nodes.places(record.pool)),
            "notice": service.notice.as_map() if service.notice else None,
        }

    async def _enter(self, login: Login) -> tuple[Tenant, bytes]:
        """The log-in is proved: whether it may come in, and what there is for it."""
        service = self._service
        # Known before it is looked at: who is cut meanwhile is not let in.
        service.connections.add(login, self.cut)
        self._login = login
        try:
            record = await service.admit(login, Act.LOG_IN)
            if login.invitation:
                return record, b""
            await service.nodes.settled(True)  # what there is, is told once
            return await service.account(login.tenant)
        except BaseException:
            self._login = None
            service.connections.remove(login)
            raise

    @AcceptInvitation.responder
    def accept_invitation(self, **values: Any) -> Deferred[dict[str, Any]]:
        """Make the machine's own credential."""
        return Deferred.fromCoroutine(self._accept_invitation(Verifier(**values)))

    async def _accept_invitation(self, verifier: Verifier) -> dict[str, Any]:
        if verifier.iterations not in (TOKEN_ITERATIONS_MIN, PASSWORD_ITERATIONS_MIN):
            # Another number would tell that the name exists.
            raise ProtocolViolation("a verifier is not made with so many iterations")
        service, before = self._service, self._logged_in()
        made = await service.accept_invitation(before, verifier)
        service.connections.remove(before)
        if self.transport is None or self._cut:
            raise NotReachable("the control channel is gone")
        service.connections.add(made, self.cut)  # in the place of the one before
        self._login = made
        return {"label": made.label}

    def _logged_in(self) -> Login:
        if self._login is None or self._cut:
            raise LoginRefused("log in first")
        return self._login

    async def _may(self, act: Act) -> str:
        """The tenant, where it may do this now; nothing is read before that is known."""
        login = self._logged_in()
        await self._service.admit(login, act)
        self._logged_in()
        return login.tenant

    async def _doing(
        self, act: Act, call: Callable[..., Coroutine[Any, Any, Any]], *asked: Any, **named: Any
    ) -> Any:
        """Call it for the tenant, where it may do this now."""
        return await call(await self._may(act), *asked, **named)

    # --- liveness --------------------------------------------------------------------------------

    def _ping_later(self) -> None:
        self._pinging = self._service.reactor.callLater(PING_SECONDS, self._ping)

    def _ping(self) -> None:
        pinged = self.call(Ping, timeout=SILENCE_SECONDS)
        pinged.addCallbacks(lambda _: self._ping_later(), lambda _: self._abort())

    @Ping.responder
    def ping(self) -> dict[str, Any]:
        """Alive."""
        return {}

    # --- commands --------------------------------------------------------------------------------

    @ListHistory.responder
    def list_history(
        self, what: str, session: str, after: int, limit: int
    ) -> Deferred[dict[str, Any]]:
        """One page of events or sessions."""
        _check_page(after, limit)
        if what not in ("event", "session") or len(session) > 32:
            raise ProtocolViolation("there is a history of events and of sessions")
        asked = (what, session, after, limit)
        return Deferred.fromCoroutine(self._doing(Act.LIST, self._service.history, *asked))

    @NoticeTaken.responder
    def notice_taken(self, host: str, pins: Any) -> Deferred[dict[str, Any]]:
        """A machine knows what will hold from some day on."""
        if not 0 < len(host) <= LABEL_MAX or not host.isprintable():
            raise ProtocolViolation(f"a host label has 1 to {LABEL_MAX} printable characters")
        known = read_pins(pins)
        done = self._doing(Act.READ, self._service.notice_taken, host, known)
        return Deferred.fromCoroutine(done).addCallback(lambda _: {})

    @CreateRepository.responder
    def create_repository(self, description: bytes) -> Deferred[dict[str, Any]]:
        """Make the tenant's repository."""
        done = Deferred.fromCoroutine(
            self._doing(Act.CREATE, self._service.create_repository, description)
        )
        return done.addCallback(lambda _: {})

    @ReplaceDescription.responder
    def replace_description(self, **values: bytes) -> Deferred[dict[str, Any]]:
        """Take a new description of the tenant's repository."""
        done = Deferred.fromCoroutine(
            self._doing(Act.CHANGE_KEYS, self._service.replace_description, **values)
        )
        return done.addCallback(lambda _: {})

    @ListPoints.responder
    def list_points(
        self, host: str, job: str, tag: str, after: int, limit: int, states: Any
    ) -> Deferred[dict[str, Any]]:
        """One page of restore points."""
        _check_page(after, limit)
        asked = {"host": host, "job": job, "tag": tag, "after": after, "limit": limit}
        return Deferred.fromCoroutine(
            self._doing(Act.LIST, self._service.points, **asked, states=states)
        )

    @Start.responder
    def start(self, **asked: Any) -> Deferred[dict[str, Any]]:
        """Begin a session."""
        return Deferred.fromCoroutine(self._start(**asked))

    async def _start(self, kind: str, streams: int, wan: bool, **asked: Any) -> dict[str, Any]:
        self._logged_in()
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
        tenant = await self._may(SESSIONS[wanted.kind])
        session, plan, keys = await self._service.start(
            tenant,
            wanted,
            self._key_a_exporter,
            self._address(),
            self._tell,
            self._move_on,
            self._login,
        )
        # The tenant has gone meanwhile, or has to: nobody else will end this session.
        if self.transport is None or self._cut:
            _forget(keys)
            await self._service.abandon(session)
            raise NotReachable("the control channel is gone")
        self._sessions.add(session)
        self._service.reactor.callLater(0, _forget, keys)
        return {"session": session, "plan": plan, "keys_a": keys}

    def _key_a_exporter(self, session: bytes, role: str) -> bytes:
        return self.exporter(KEY_A_LABEL, key_a_context(session, role), BINDING_SIZE)

    def _tell(self, warning: SecurityWarning) -> None:
        if self.transport is not None:
            told = self.call(Warn, warning=warning.as_dict())
            told.addErrback(lambda _: None)  # a lost channel is noticed by connectionLost

    def _gateways_changed(self, gateways: list[str], leaving: list[str]) -> None:
        told = self.call(GatewaysChanged, gateways=gateways, leaving=leaving)
        told.addErrback(lambda _: None)  # an older tenant does not know this

    def _move_on(self, session: bytes, lost: bool, text: str) -> None:
        """Ask the tenant to go on with a session's job in a new one."""
        if self.transport is not None:
            asked = self.call(MoveOn, session=session, lost=lost, text=text)
            asked.addErrback(lambda _: None)  # an older tenant notices it by its line

    def _tell_found(self, tenant: str) -> None:
        """Tell a tenant that has just logged in what was found damaged since it was told last."""
        telling = Deferred.fromCoroutine(self._told_found(tenant))
        telling.addErrback(lambda f: self.log.failure("a tenant was not told of findings", f))

    async def _told_found(self, tenant: str) -> None:
        for number, warning in await self._service.untold(tenant):
            if self.transport is None:
                return
            try:
                await self.call(Warn, warning=warning.as_dict())
            except CloudConnectError:
                return  # it is told the next time
            await self._service.told(tenant, number)

    @Finish.responder
    def finish(
        self, session: bytes, outcome: str, summary: Any, warnings: Any
    ) -> Deferred[dict[str, Any]]:
        """End a session."""
        return Deferred.fromCoroutine(self._finish(session, outcome, summary, warnings))

    async def _finish(
        self, session: bytes, outcome: str, summary: Any, warnings: Any
    ) -> dict[str, Any]:
        live = self._service.live(self._logged_in().tenant, session)
        if session not in self._sessions:
            # Its point is listed a moment before its own line says that all is well.
            raise ContextMismatch("the session was not started on this connection")
        try:
            json.dumps(summary)
        except (TypeError, ValueError):
            summary = None
        if not isinstance(summary, dict):
            raise ProtocolViolation("a summary is a map of what JSON can hold")
        self._sessions.discard(session)
        found = await self._service.finish(live, outcome, summary, read_warnings(warnings))
        notes = []
        if live.kind is SessionKind.BACKUP and outcome in GOOD_OUTCOMES:
            notes = await self._service.keeping.quota_notes(live.tenant)
        return {"warnings": [warning.as_dict() for warning in found], "notes": notes}

    @Warn.responder
    def warn(self, warning: Any) -> Deferred[dict[str, Any]]:
        """The tenant saw something on the way."""
        (told,) = read_warnings([warning])
        live = self._service.live(self._logged_in().tenant, bytes.fromhex(told.session))
        return self._service.warned_by_tenant(live, told).addCallback(lambda _: {})

    # --- how points are kept ---------------------------------------------------------------------

    @DeletePoints.responder
    def delete_points(self, points: Any) -> Deferred[dict[str, Any]]:
        """Put restore points into the bin."""
        return Deferred.fromCoroutine(
            self._doing(Act.DELETE, self._service.keeping.delete_points, points)
        )

    @UndeletePoints.responder
    def undelete_points(self, points: Any) -> Deferred[dict[str, Any]]:
        """Take restore points out of the bin."""
        return Deferred.fromCoroutine(
            self._doing(Act.UNDELETE, self._service.keeping.undelete_points, points)
        )

    @LockPoints.responder
    def lock_points(self, points: Any, until: int) -> Deferred[dict[str, Any]]:
        """Lock restore points."""
        return Deferred.fromCoroutine(
            self._doing(Act.LOCK, self._service.keeping.lock_points, points, until)
        )

    @GetRetention.responder
    def get_retention(self, after: int, limit: int) -> Deferred[dict[str, Any]]:
        """One page of what is kept."""
        _check_page(after, limit)
        return Deferred.fromCoroutine(
            self._doing(Act.SHOW_RETENTION, self._service.keeping.retention, after, limit)
        )

    @SetRetention.responder
    def set_retention(self, host: str, job: str, policy: Any) -> Deferred[dict[str, Any]]:
        """Set what is kept."""
        return Deferred.fromCoroutine(
            self._doing(Act.SET_RETENTION, self._service.keeping.set_retention, host, job, policy)
        )

    @PreviewRetention.responder
    def preview_retention(
        self, proposed: bool, host: str, job: str, policy: Any, after: int, limit: int
    ) -> Deferred[dict[str, Any]]:
        """One page of what retention would do."""
        _check_page(after, limit)
        asked = {"host": host, "job": job, "policy": policy, "after": after, "limit": limit}
        return Deferred.fromCoroutine(
            self._doing(
                Act.SHOW_RETENTION,
                self._service.keeping.preview_retention,
                proposed=proposed,
                **asked,
            )
        )

    def exporter(self, label: bytes, context: bytes, length: int) -> bytes:
        """Keying material of the TLS connection below (RFC 8446, section 7.5).

        :raises Downgrade: there is no TLS below
        """
        export = getattr(self.transport, "exporter", None)
        if export is None:
            raise Downgrade("the control channel does not run over TLS")
        return bytes(export(label, context, length))


class ControlFactory(Factory):
    """Makes a :class:`ControlProtocol` for each tenant's connection."""

    noisy = False

    def __init__(self, service: CloudConnectService) -> None:
        self._service = service

    def logPrefix(self) -> str:
        """Names the role in logs."""
        return "cloud connect service"

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol:
        """One for this connection."""
        return ControlProtocol(self._service)


def _check_page(after: int, limit: int) -> None:
    if not 0 < limit <= PAGE_ROWS_MAX or not 0 <= after < 1 << 63:
        raise ProtocolViolation(f"a page has 1 to {PAGE_ROWS_MAX} rows")


#: Most warnings that one report may carry.
WARNINGS_MAX = 64


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
