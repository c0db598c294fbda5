"""Layer 4: the job manager: logs in, starts sessions, delivers Key B, judges how they ended.

It holds the tenant's login and, for a moment, each session's keys; never an at-rest key. One job
manager has one control channel; each :meth:`JobManager.session` is one session on it
(``docs/architecture.rst``, the story, steps 1 to 8).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import (
    DIRECT_HOP,
    AuthenticateFinal,
    AuthenticateFirst,
    CreateRepository,
    Finish,
    ListPoints,
    Ping,
    Role,
    SessionKind,
    Start,
    Warn,
)
from cloudconnect.commands.lan import HandKeyB
from cloudconnect.commands.links import link_in_process
from cloudconnect.commands.tunnel import DeliverKeyB, agreed_digest, prologue
from cloudconnect.errors import (
    Cancelled,
    CloudConnectError,
    ControlTampered,
    Downgrade,
    HandshakeTimeout,
    KeyBUnconfirmed,
    NotReachable,
    ProtocolViolation,
    SecurityError,
    StoredDataDamaged,
    Truncated,
    WarningKind,
)
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.keys import KeyA, Password, key_b_confirmation
from cloudconnect.settings import (
    CONNECT_SECONDS,
    PAGE_ROWS_MAX,
    PING_SECONDS,
    PROTOCOL_VERSIONS,
    SILENCE_SECONDS,
)
from cloudconnect.tenant.ahead import ConnectedAhead
from cloudconnect.tenant.mover import UNLIMITED, Rates, SourceDataMover
from cloudconnect.tenant.session import (
    SessionSteps,
    TenantSession,
    require_keys,
    session_machine,
)
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.switch import PreambleEndpoint
from cloudconnect.transports.tls import PinnedTLS
from cloudconnect.transports.trust import TrustPolicy
from cloudconnect.transports.tunnel import NoiseTunnel
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.preamble import ConnectionKind, Preamble
from cloudconnect.wire.scram import ScramClient

_T = TypeVar("_T")

#: Channel binding of the log-in (RFC 9266) and of Key A's tunnels.
BINDING_LABEL = b"EXPORTER-Channel-Binding"
KEY_A_LABEL = b"EXPORTER-cloudconnect-key-a"
BINDING_SIZE = 32


@attrs.frozen
class Account:
    """What the provider says after the log-in.

    :ivar provider: the provider's 16 bytes, which caches hang on
    :ivar repository: the encoded repository description, or ``b""`` before ``connect``
    :ivar modes: at-rest modes that may be chosen
    """

    provider: bytes
    repository: bytes
    modes: tuple[str, ...]


class ControlClient(BoundedAMP):
    """The tenant's end of the control channel.

    :param warned: takes the provider's security warnings
    :param lost: takes the error when the channel ends
    """

    def __init__(
        self,
        reactor: Any,
        warned: Callable[[SecurityWarning], None],
        lost: Callable[[BaseException | None], None],
    ) -> None:
        super().__init__(reactor)
        self._reactor = reactor
        self._warned = warned
        self._lost = lost
        self._pinging: IDelayedCall | None = None

    @Warn.responder
    def warn(self, warning: Any) -> dict[str, Any]:
        """The provider saw something."""
        try:
            self._warned(SecurityWarning.from_dict(warning))
        except (ValueError, KeyError, TypeError):
            raise ProtocolViolation("a warning cannot be read") from None
        return {}

    @Ping.responder
    def ping(self) -> dict[str, Any]:
        """Alive."""
        return {}

    def keep_alive(self) -> None:
        """Notice within :data:`SILENCE_SECONDS` when the provider is gone."""
        self._pinging = self._reactor.callLater(PING_SECONDS, self._ping)

    def _ping(self) -> None:
        pinged = self.call(Ping, timeout=SILENCE_SECONDS)
        pinged.addCallbacks(lambda _: self.keep_alive(), lambda _: self._abort())

    def _abort(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Pending calls fail, and the job manager hears why."""
        if self._pinging is not None and self._pinging.active():
            self._pinging.cancel()
        super().connectionLost(reason)
        self._lost(reason.value)

    def exporter(self, label: bytes, context: bytes) -> bytes:
        """Keying material of the TLS connection, 32 bytes."""
        return bytes(self.transport.exporter(label, context, BINDING_SIZE))  # type: ignore


class TunnelClient(BoundedAMP):
    """The job manager's end of a Key A tunnel.

    :param lost: takes the error when the tunnel ends
    """

    def __init__(self, reactor: Any, lost: Callable[[BaseException | None], None]) -> None:
        super().__init__(reactor)
        self._lost = lost
        self._ended: Deferred[None] = Deferred()
        self._reason: BaseException | None = None

    async def end(self) -> None:
        """End it, and wait for the other side's end.

        :raises SecurityError, Truncated: it did not end properly
        """
        if self.transport is not None:
            self.transport.loseConnection()
        await self._ended
        if isinstance(self._reason, CloudConnectError):
            raise self._reason

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The liveness line of the session is gone."""
        super().connectionLost(reason)
        self._reason = reason.value
        self._lost(reason.value)
        self._ended.callback(None)


class JobManager:
    """A tenant's line to its provider.

    :param reactor: clock, connections and threads
    :param host: the provider's host name or address
    :param port: its TCP port
    :param trust: how its certificate is judged
    :param happened: takes each :class:`SessionEvent` of this side, for timeline and log
    :param warned: takes each :class:`SecurityWarning`, of either side, once
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        trust: TrustPolicy,
        *,
        happened: Callable[[SessionEvent], None] = lambda event: None,
        warned: Callable[[SecurityWarning], None] = lambda warning: None,
    ) -> None:
        self._reactor = reactor
        self._host, self._port = host, port
        self._trust = trust
        self._happened = happened
        self._warned = warned
        self._tenant = ""
        self._control: ControlClient | None = None
        self._control_error: BaseException | None = None
        self._current: TenantSession | None = None
        self._mover = SourceDataMover(reactor)
        self._lan, self._lan_far = link_in_process(reactor, None, self._mover)

    # --- log in ----------------------------------------------------------------------------------

    async def log_in(self, tenant: str, password: Password) -> Account:
        """Connect, check the provider, authenticate both ways.

        :raises ProviderNotTrusted: no credential was sent
        :raises LoginRefused: by either side
        :raises NotReachable: within 15 s
        """
        self._mover.start()
        self._tenant = tenant
        control = ControlClient(self._reactor, self._provider_warned, self._control_lost)
        endpoint = wrap_client_endpoint(
            PinnedTLS(trust=self._trust), self._endpoint(self._host, self._port), self._reactor
        )
        try:
            await connectProtocol(endpoint, control)
        except (ConnectError, DNSLookupError) as error:
            raise NotReachable(
                f"{self._host} port {self._port} is not reachable: {error}. Check the address, the "
                "network and whether the provider runs"
            ) from None
        except (Truncated, HandshakeTimeout) as error:
            raise NotReachable(
                f"{self._host} port {self._port} answered, but not as a provider does: {error}"
            ) from None
        self._control = control
        facts = control.transport.facts  # type: ignore[union-attr]
        self._step(
            "connected",
            f"TLS to {self._host}: {facts.version}, {facts.cipher}, key exchange {facts.group}",
            version=facts.version,
            cipher=facts.cipher,
            group=facts.group,
        )
        self._step(
            "certificate_checked",
            f"provider's certificate holds by {facts.checked_by}: {facts.peer_spki}",
            checked_by=facts.checked_by,
            spki=facts.peer_spki,
        )
        scram = ScramClient(tenant, password, control.exporter(BINDING_LABEL, b""))
        first = await control.call(
            AuthenticateFirst, message=scram.first(), versions=list(PROTOCOL_VERSIONS)
        )
        final = await control.call(AuthenticateFinal, message=scram.final(first["message"]))
        scram.verify(final["message"])
        if final["version"] != PROTOCOL_VERSIONS[-1]:
            # With one version in the world there is nothing else to choose; see protocol.rst.
            raise Downgrade(f"the provider chose protocol version {final['version']}")
        self._step("logged_in", f"tenant {tenant} logged in, and the provider proved itself")
        control.keep_alive()
        return Account(final["provider"], final["repository"], tuple(final["modes"]))

    def _endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        return HostnameEndpoint(self._reactor, host, port, timeout=CONNECT_SECONDS)

    @property
    def control(self) -> ControlClient:
        """The control channel.

        :raises NotReachable: it is lost
        """
        if self._control is None or self._control_error is not None:
            raise NotReachable("the control channel to the provider is lost")
        return self._control

    async def create_repository(self, description: bytes) -> None:
        """Store the description of the tenant's new repository at the provider."""
        await self.control.call(CreateRepository, description=description)

    async def points(self, host: str = "", job: str = "", tag: str = "") -> list[dict[str, Any]]:
        """All restore points with these labels, oldest first, as maps."""
        found: list[dict[str, Any]] = []
        after = 0
        while True:
            page = await self.control.call(
                ListPoints, host=host, job=job, tag=tag, after=after, limit=PAGE_ROWS_MAX
            )
            found.extend(page["points"])
            if not page["more"] or not page["points"]:
                return found
            after = page["points"][-1]["arrival"]

    async def close(self) -> None:
        """End the control channel and the worker thread."""
        for link in (self._lan, self._lan_far):
            if link.transport is not None:
                link.transport.loseConnection()
        if self._control is not None and self._control_error is None:
            self._control.transport.loseConnection()  # type: ignore[union-attr]
        self._mover.stop()

    # --- one session -----------------------------------------------------------------------------

    async def session(
        self,
        kind: SessionKind,
        repository: bytes,
        job_id: bytes,
        host: str,
        job: str,
        dialogue: Callable[[FrameChannel, bytes], _T],
        summarize: Callable[[_T], dict[str, Any]] = lambda result: {},
        rates: Rates = UNLIMITED,
    ) -> _T:
        """Run one session from Start to Finish.

        :param job_id: 16 bytes, the same over all sessions of one job run
        :param host: label of this machine; with ``job`` what points belong to
        :param dialogue: what the movers do, in a worker thread; takes the channel and the session
        :param summarize: what of the result the provider may keep
        :param rates: how fast the stream may use the line
        :raises SecurityError: something was changed on the way; nothing was published
        :raises CloudConnectError: anything else by name
        """
        asked: dict[str, Any] = {
            "kind": kind.value,
            "job": job_id,
            "host": host,
            "name": job,
            "repository": repository,
            "wan": False,
            "streams": 1,
        }
        control = self.control
        here = self._endpoint(self._host, self._port)
        ahead = [ConnectedAhead(here), ConnectedAhead(here)]
        try:
            answer = await control.call(Start, **asked)
            session, steps, entry = self._begin(answer)
            return await self._run_session(
                session, steps, entry, asked, ahead, dialogue, summarize, rates
            )
        finally:
            for endpoint in ahead:
                endpoint.close()

    async def _run_session(
        self,
        session: TenantSession,
        steps: SessionSteps,
        entry: dict[str, Any],
        asked: dict[str, Any],
        ahead: list[ConnectedAhead],
        dialogue: Callable[[FrameChannel, bytes], _T],
        summarize: Callable[[_T], dict[str, Any]],
        rates: Rates,
    ) -> _T:
        """From the answer to Start to Finish."""
        try:
            tunnel_end, stream_end = self._data_endpoints(entry, ahead)
            tunnel = await self._open_tunnel(session, steps, entry, asked, tunnel_end)
            await self._deliver(session, steps, tunnel, entry)
            channel = await self._open_stream(session, steps, stream_end, rates)
            result = await self._mover.run(lambda c: dialogue(c, session.identifier), channel)
            # Before the end is reported: a tunnel that was changed spoils the session to the last.
            await tunnel.end()
        except Exception as error:
            self._mover.abort(error)
            verdict = await self._finish(session, error, {})
            if verdict is not None:
                raise verdict from error
            raise
        finally:
            steps.end()
            self._mover.forget(session.identifier)
        verdict = await self._finish(session, None, summarize(result))
        if verdict is not None:
            raise verdict
        return result

    def _begin(self, answer: dict[str, Any]) -> tuple[TenantSession, SessionSteps, dict[str, Any]]:
        plan, keys = answer["plan"], answer["keys_a"]
        if not (isinstance(plan, list) and len(plan) == len(keys) == 1):
            raise ProtocolViolation("the plan does not name one target")
        entry = plan[0]
        fields = {"role": str, "route": bytes, "gateways": list, "versions": list, "limits": dict}
        if not isinstance(entry, dict) or set(entry) != set(fields):
            raise ProtocolViolation("the plan cannot be read")
        if not all(isinstance(entry[name], kind) for name, kind in fields.items()):
            raise ProtocolViolation("the plan cannot be read")
        if entry["role"] != Role.TARGET_MOVER.value or len(entry["route"]) != 16:
            raise ProtocolViolation("the plan does not name the target mover")
        identifier: bytes = answer["session"]
        key_a: KeyA = keys[0]

        def tell(name: str, text: str, **values: Any) -> None:
            self._step(name, text, identifier, **values)

        session = TenantSession(identifier, entry["route"], key_a, tell)
        self._current = session
        tell("started", f"session {identifier.hex()} started")
        tell(
            "key_a_received",
            f"Key A {key_a.identifier} for the {entry['role']} received over TLS",
            key=key_a.identifier,
            role=entry["role"],
        )
        return session, session_machine(session), entry

    def _data_endpoints(
        self, entry: dict[str, Any], ahead: list[ConnectedAhead]
    ) -> list[IStreamClientEndpoint]:
        """Where the tunnel and the stream go: the first gateway advertised, or where we connected.

        :param ahead: connections to where we connected
        """
        if not entry["gateways"]:
            return list(ahead)
        name, _, number = str(entry["gateways"][0]).rpartition(":")
        if not name or not number.isdigit() or not 0 < int(number) < 65536:
            raise ProtocolViolation("the provider advertises a gateway that is no HOST:PORT")
        host, port = name.strip("[]"), int(number)
        if (host, port) == (self._host, self._port):
            return list(ahead)
        return [self._endpoint(host, port)] * 2

    async def _open_tunnel(
        self,
        session: TenantSession,
        steps: SessionSteps,
        entry: dict[str, Any],
        asked: dict[str, Any],
        endpoint: IStreamClientEndpoint,
    ) -> TunnelClient:
        assert session.key_a is not None
        preamble = Preamble(ConnectionKind.KEY_A_TUNNEL, session.route)
        exporter = self.control.exporter(KEY_A_LABEL, session.identifier)
        recipe = NoiseTunnel(
            psk=session.key_a,
            prologue=prologue(
                preamble=preamble.encode(),
                session=session.identifier,
                tenant=self._tenant,
                role=entry["role"],
                exporter=hashlib.sha256(exporter).digest(),
                agreed=agreed_digest(entry, asked),
            ),
        )
        tunnel = TunnelClient(self._reactor, lambda lost: self._tunnel_lost(session, lost))
        layered = wrap_client_endpoint(recipe, PreambleEndpoint(endpoint, preamble), self._reactor)
        try:
            await connectProtocol(layered, tunnel)
        except (ConnectError, DNSLookupError) as error:
            raise NotReachable(f"the provider's gateway is not reachable: {error}") from None
        session.tell("tunnel_up", "Key A tunnel to the target data mover is up")
        steps.tunnel_up()
        return tunnel

    async def _deliver(
        self,
        session: TenantSession,
        steps: SessionSteps,
        tunnel: TunnelClient,
        entry: dict[str, Any],
    ) -> None:
        """Key B to the target; and to our own mover only once the target has confirmed."""
        key_b, integrity_key = require_keys(session)
        if not isinstance(entry["versions"], list):
            raise ProtocolViolation("the plan's versions are not a list")
        common = set(PROTOCOL_VERSIONS) & {v for v in entry["versions"] if isinstance(v, int)}
        if not common:
            raise Downgrade("the target data mover speaks no protocol version of ours")
        digest, answering = tunnel.call_with_digest(
            DeliverKeyB,
            key_b=key_b,
            integrity_key=integrity_key,
            hops=[DIRECT_HOP],
            versions=list(PROTOCOL_VERSIONS),
            version=max(common),
        )
        answer = await answering
        handshake_hash = tunnel.transport.handshake_hash  # type: ignore[union-attr]
        expected = key_b_confirmation(key_b, handshake_hash, entry["role"], digest)
        if not hmac.compare_digest(expected, answer["confirmation"]):
            raise KeyBUnconfirmed("the target data mover did not confirm this session's Key B")
        steps.confirmed()
        session.tell(
            "key_b_confirmed",
            f"the target data mover confirmed Key B {key_b.identifier}",
            key=key_b.identifier,
        )
        await self._lan.call(
            HandKeyB,
            session=session.identifier,
            tenant=self._tenant,
            route=session.route,
            hop=DIRECT_HOP,
            key_b=key_b,
            integrity_key=integrity_key,
        )
        session.tell(
            "key_b_delivered",
            f"Key B {key_b.identifier} delivered to the source data mover",
            key=key_b.identifier,
        )

    async def _open_stream(
        self,
        session: TenantSession,
        steps: SessionSteps,
        endpoint: IStreamClientEndpoint,
        rates: Rates,
    ) -> FrameChannel:
        try:
            channel = await self._mover.open(session.identifier, endpoint, rates)
        except (ConnectError, DNSLookupError) as error:
            raise NotReachable(f"the provider's gateway is not reachable: {error}") from None
        steps.stream_up()
        session.tell("stream_up", f"Key B stream {DIRECT_HOP} is up")
        return channel

    # --- how it ends -----------------------------------------------------------------------------

    async def _finish(
        self, session: TenantSession, error: Exception | None, summary: dict[str, Any]
    ) -> CloudConnectError | None:
        """Tell the provider, hear what it saw, and judge: the worst of both sides' words."""
        if error is not None:
            self._note(session, error)
        told = [w.as_dict() for w in session.warnings if w.role == Role.SOURCE_MOVER.value]
        try:
            answer = await self.control.call(
                Finish,
                session=session.identifier,
                outcome=outcome_of(error, summary),
                summary=summary,
                warnings=told,
            )
            for values in answer["warnings"]:
                self._provider_warned(SecurityWarning.from_dict(values))
        except (CloudConnectError, ValueError, KeyError, TypeError) as lost:
            if error is None and isinstance(lost, SecurityError):
                return lost
            self._log.warn("the end of a session could not be reported: {why}", why=str(lost))
        self._current = None
        if isinstance(self._control_error, ControlTampered):
            return self._control_error
        if isinstance(error, SecurityError):
            return None
        # A stranger may have sent junk to our routes: it counts only where our session failed too.
        seen = [w for w in session.warnings if w.kind in _TAMPERING]
        if seen and isinstance(error, NotReachable):
            return security_error(seen[0])
        return None

    def _note(self, session: TenantSession, error: Exception) -> None:
        if isinstance(error, (SecurityError, Truncated)):
            warning = SecurityWarning(
                time=time.time(),
                kind=error.kind,
                session=session.identifier.hex(),
                tenant=self._tenant,
                role=Role.SOURCE_MOVER.value,
                hop=DIRECT_HOP,
                peer=self._host,
                text=str(error),
            )
            if session.warn(warning):
                self._warned(warning)

    def _tunnel_lost(self, session: TenantSession, error: BaseException | None) -> None:
        if self._current is session and isinstance(error, CloudConnectError):
            if isinstance(error, SecurityError):
                self._note(session, error)
            self._mover.abort(error)

    def _control_lost(self, error: BaseException | None) -> None:
        self._control_error = error
        if isinstance(error, ControlTampered) and self._current is not None:
            self._note(self._current, error)
            self._mover.abort(error)

    def _provider_warned(self, warning: SecurityWarning) -> None:
        current = self._current
        if current is None or warning.session != current.identifier.hex() or current.warn(warning):
            self._warned(warning)

    def _step(self, name: str, text: str, session: bytes = b"", **fields: Any) -> None:
        self._happened(
            SessionEvent(
                time=time.time(), name=name, session=session.hex(), text=text, fields=fields
            )
        )

    def cancel(self) -> None:
        """The user wants to stop: end the dialogue; what is durable stays."""
        self._mover.abort(Cancelled("interrupted; what was stored is not sent again next time"))


#: Warnings that mean that something was changed, not merely that bytes stopped.
_TAMPERING = frozenset(WarningKind) - {
    WarningKind.TRUNCATED,
    WarningKind.AUTHENTICATION_FAILED,
    WarningKind.STORED_DATA_DAMAGED,
}


def security_error(warning: SecurityWarning) -> SecurityError:
    """The error of this warning's kind, with the provider's words."""
    for cls in SecurityError.__subclasses__():
        if cls.kind is warning.kind:
            return cls(f"seen by the provider's {warning.role}: {warning.text}")
    return ControlTampered(f"seen by the provider's {warning.role}: {warning.text}")


def outcome_of(error: Exception | None, summary: dict[str, Any]) -> str:
    """What Finish says of a session that ended with ``error``."""
    if error is None:
        return "incomplete" if summary.get("unreadable") else "done"
    if isinstance(error, Cancelled):
        return "interrupted"
    if isinstance(error, StoredDataDamaged):
        return "failed"
    if isinstance(error, SecurityError):
        return "security_warning"
    return "interrupted" if isinstance(error, NotReachable) else "failed"


def new_job_id() -> bytes:
    """16 random bytes that name one job run over all its sessions."""
    return os.urandom(16)
