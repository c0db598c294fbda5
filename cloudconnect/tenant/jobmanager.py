"""Layer 4: the job manager: logs in, starts sessions, delivers Key B, judges how they ended.

It holds the tenant's login and, for a moment, each session's keys; never an at-rest key. One job
manager has one control channel at a time, which :meth:`JobManager.log_in` makes; each
:meth:`JobManager.session` is one session on it (``docs/architecture.rst``, the story, steps 1 to
8).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs
from OpenSSL.crypto import X509
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from cloudconnect.commands.box import BoundedCommand
from cloudconnect.commands.control import (
    BINDING_LABEL,
    AcceptInvitation,
    AcceptWithCertificate,
    AuthenticateCertificate,
    AuthenticateFinal,
    AuthenticateFirst,
    CreateRepository,
    DeletePoints,
    Finish,
    GetRetention,
    ListHistory,
    ListPoints,
    LockPoints,
    NoticeTaken,
    Ping,
    PreviewRetention,
    ReplaceDescription,
    SessionKind,
    SetRetention,
    Start,
    UndeletePoints,
)
from cloudconnect.commands.links import link_in_process
from cloudconnect.commands.notice import Notice
from cloudconnect.content.heads import SignedHead
from cloudconnect.errors import (
    Cancelled,
    CloudConnectError,
    ControlTampered,
    Downgrade,
    HandshakeTimeout,
    LocalError,
    MovedOn,
    NotReachable,
    ProtocolViolation,
    SecurityError,
    Truncated,
)
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.keys import Password
from cloudconnect.settings import (
    CONNECT_SECONDS,
    CONTROL_HANDSHAKE_SECONDS,
    PAGE_ROWS_MAX,
    PROTOCOL_VERSIONS,
)
from cloudconnect.tenant.accelerated import OwnAccelerator, Reports, added
from cloudconnect.tenant.ahead import Ahead
from cloudconnect.tenant.gateways import KnownGateways, Place, read_gateways
from cloudconnect.tenant.lines import ControlClient
from cloudconnect.tenant.mover import UNLIMITED, Rates, SourceDataMover
from cloudconnect.tenant.run import SessionRun, Surroundings
from cloudconnect.tenant.shared import SharedAccelerator
from cloudconnect.tenant.verdict import TAMPERING, security_error
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.line import round_trip
from cloudconnect.transports.tls import PinnedTLS
from cloudconnect.transports.trust import TrustPolicy
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.scram import ScramClient, Verifier, split_login

_T = TypeVar("_T")

#: Points of one act, of the 256 that it may name: each is some fsyncs at the provider, and the
#: answer must come before the line is taken for dead.
ACT_POINTS = 64
#: Characters that are shown of why the provider wants a session to move on.
MOVE_TEXT_MAX = 200
#: A control channel on which nothing comes back for so many seconds is not used any more.
PROBE_SECONDS = 5.0


@attrs.frozen
class Account:
    """What the provider says after the log-in.

    :ivar provider: the provider's 16 bytes, which caches hang on
    :ivar repository: the encoded repository description, or ``b""`` before ``connect``
    :ivar modes: at-rest modes that may be chosen
    :ivar wan: whether the provider offers WAN acceleration
    :ivar notice: what will hold from some day on
    """

    provider: bytes
    repository: bytes
    modes: tuple[str, ...]
    wan: bool = False
    notice: Notice = attrs.field(factory=Notice)


class JobManager:
    """A tenant's line to its provider.

    :param reactor: clock, connections and threads
    :param host: the provider's host name or address
    :param port: its TCP port
    :param trust: how its certificate is judged
    :param identity: the certificate to log in with in the place of a password, or None
    :param gateways: ``HOST:PORT`` of gateways that the provider told of in an earlier command
    :param learned: takes them when it tells of others
    :param happened: takes each :class:`SessionEvent` of this side, for timeline and log
    :param warned: takes each :class:`SecurityWarning`, of either side, once
    :param dial: makes the endpoint of a host and port, for those who do not connect directly
    :ivar answered: the provider has once shown a certificate that holds
    :ivar saved: what the own accelerator has saved in all sessions, as counts
    :ivar notes: what else the provider had to say at the end of the last session
    :ivar reports: what it reports to, at our end of its LAN link
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        trust: TrustPolicy,
        *,
        identity: ServerIdentity | None = None,
        gateways: Sequence[str] = (),
        learned: Callable[[list[str]], None] = lambda gateways: None,
        happened: Callable[[SessionEvent], None] = lambda event: None,
        warned: Callable[[SecurityWarning], None] = lambda warning: None,
        dial: Callable[[str, int], IStreamClientEndpoint] | None = None,
    ) -> None:
        self._reactor = reactor
        self._dial = dial
        self._host, self._port = host, port
        self._gateways = KnownGateways(reactor, (host, port), gateways, learned)
        self._place = (host, port)
        self._to_leave = False
        self._trust = trust
        self._identity = identity
        self._happened = happened
        self._warned = warned
        self._tenant = ""
        self._connecting: Deferred[ControlClient] | None = None
        self._control: ControlClient | None = None
        self._dialled: ControlClient | None = None
        self._control_error: BaseException | None = None
        self._current: SessionRun | None = None
        self._movable: Callable[[], bool] = lambda: False
        self._broken: set[str] = set()
        self._found: SecurityError | None = None
        self.answered = False
        self._ahead: Ahead | None = None
        self._accelerator: OwnAccelerator | SharedAccelerator | None = None
        self.saved: dict[str, int] = {}
        self.notes: list[str] = []
        self.reports = Reports(self._happened, self._provider_warned)
        self._mover = SourceDataMover(reactor)
        self._lan, self._lan_far = link_in_process(reactor, None, self._mover)

    # --- log in ----------------------------------------------------------------------------------

    async def log_in(self, tenant: str, password: Password | None) -> Account:
        """Connect, check the provider, authenticate both ways.

        :param tenant: the log-in name: the tenant's, or ``TENANT/LABEL``
        :param password: None: this machine's certificate proves who it is

        May be called again, between two sessions: what is left of the control channel before is
        cut.

        :raises ProviderNotTrusted: no credential was sent
        :raises LoginRefused: by either side
        :raises NotReachable: within 15 s
        """
        self._mover.start()
        self._tenant, _ = split_login(tenant)
        self._drop_control()
        self._control = control = await self._connect()
        try:
            return await self._authenticate(control, tenant, password)
        except Exception:
            self._drop_control()  # nobody is logged in on it, though it may stand
            raise

    async def _authenticate(
        self, control: ControlClient, tenant: str, password: Password | None
    ) -> Account:
        self.answered = True
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
        versions = list(PROTOCOL_VERSIONS)
        if password is None:
            final = await control.call(AuthenticateCertificate, login=tenant, versions=versions)
            how = "with its certificate"
        else:
            scram = ScramClient(tenant, password, control.exporter(BINDING_LABEL, b""))
            first = await control.call(AuthenticateFirst, message=scram.first(), versions=versions)
            final = await control.call(AuthenticateFinal, message=scram.final(first["message"]))
            scram.verify(final["message"])
            how = "and the provider proved itself"
        if final["version"] != PROTOCOL_VERSIONS[-1]:
            # With one version in the world there is nothing else to choose; see protocol.rst.
            raise Downgrade(f"the provider chose protocol version {final['version']}")
        self._step("logged_in", f"tenant {tenant} logged in, {how}")
        control.keep_alive()
        self._gateways.learn(final.get("gateways"))
        return Account(
            final["provider"],
            final["repository"],
            tuple(final["modes"]),
            bool(final.get("wan")),
            _notice(final.get("notice")),
        )

    async def _connect(self) -> ControlClient:
        """A new control channel, through the first gateway that leads to the provider.

        :raises NotReachable: none does; why the one that the tenant was told does not
        """
        places = self._gateways.for_control()
        errors: dict[Place, NotReachable] = {}
        for place in places:
            try:
                made = await self._connect_to(*place)
            except NotReachable as error:
                self._gateways.suspect(place)
                errors[place] = error
            else:
                self._place, self._to_leave = place, False
                return made
        raise errors.get((self._host, self._port), errors[places[0]])

    async def _connect_to(self, host: str, port: int) -> ControlClient:
        control = ControlClient(
            self._reactor,
            self._provider_warned,
            lambda error: self._control_lost(control, error),
            self._move_on,
            lambda gateways, leaving: self._gateways_changed(control, gateways, leaving),
        )
        self._dialled, self._control_error = control, None
        endpoint = wrap_client_endpoint(
            PinnedTLS(
                trust=self._trust,
                identity=self._identity,
                handshake_seconds=CONTROL_HANDSHAKE_SECONDS,
            ),
            self._endpoint(host, port),
            self._reactor,
        )
        try:
            self._connecting = connectProtocol(endpoint, control)
            await self._connecting
        except CancelledError:
            raise Cancelled("interrupted while connecting") from None
        except (ConnectError, DNSLookupError) as error:
            why = str(error).rstrip(".")
            raise NotReachable(
                f"{host} port {port} is not reachable: {why}. Check the address, the "
                "network and whether the provider runs"
            ) from None
        except (Truncated, HandshakeTimeout) as error:
            raise NotReachable(
                f"{host} port {port} answered, but not as a provider does: {error}"
            ) from None
        return control

    def _drop_control(self) -> None:
        before, self._control = self._control, None
        self._dialled = self._control_error = None
        if before is not None and before.transport is not None:
            before.transport.abortConnection()  # type: ignore[attr-defined]

    async def answers(self) -> bool:
        """Whether there is a control channel, through a gateway that stays, and the provider still
        answers on it.

        :raises ControlTampered: it was changed
        """
        if isinstance(self._control_error, ControlTampered):
            raise self._control_error
        if self._to_leave:
            return False
        try:
            await self.control.call(Ping, timeout=PROBE_SECONDS)
        except NotReachable:
            return False
        return True

    def _endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        if self._dial is not None:
            return self._dial(host, port)
        return HostnameEndpoint(self._reactor, host, port, timeout=CONNECT_SECONDS)

    @property
    def presented(self) -> str:
        """The ``SPKI-SHA256:`` fingerprint of the certificate that the provider has shown."""
        return str(self.control.transport.facts.peer_spki)  # type: ignore[union-attr]

    @property
    def certificate_ends(self) -> float:
        """When the certificate that the provider has shown ends, in seconds since 1970."""
        shown: X509 | None = self.control.transport.getPeerCertificate()  # type: ignore[union-attr]
        if shown is None:
            raise NotReachable("the control channel to the provider is lost")
        return shown.to_cryptography().not_valid_after_utc.timestamp()

    async def history(self, what: str, session: str = "") -> list[dict[str, Any]]:
        """What the provider has kept of the tenant's sessions, oldest first, as maps.

        :param what: ``event`` or ``session``
        :param session: only this one's events, as hexadecimal digits
        """
        rows: list[dict[str, Any]] = []
        more = True
        while more:
            page = await self.control.call(
                ListHistory,
                what=what,
                session=session,
                after=rows[-1]["cursor"] if rows else 0,
                limit=PAGE_ROWS_MAX,
            )
            rows.extend(page["rows"])
            more = page["more"] and bool(page["rows"])
        return rows

    async def notice_taken(self, host: str, pins: Sequence[str]) -> None:
        """Tell the provider which pins of its next keys this machine knows."""
        await self.control.call(NoticeTaken, host=host, pins=list(pins))

    @property
    def round_trip(self) -> float | None:
        """Seconds of a way to the provider and back, where the system says."""
        return round_trip(self.control.transport)

    @property
    def control(self) -> ControlClient:
        """The control channel.

        :raises NotReachable: it is lost
        """
        if self._control is None or self._control_error is not None:
            raise NotReachable("the control channel to the provider is lost")
        return self._control

    async def accept_invitation(self, verifier: Verifier) -> str:
        """Spend the invitation that was logged in with; the label of the credential made of it.

        :param verifier: of a login password that was made here
        """
        answer = await self.control.call(AcceptInvitation, **attrs.asdict(verifier))
        label: str = answer["label"]
        return label

    async def accept_with_certificate(self) -> str:
        """Spend the invitation that was logged in with for the certificate of this job manager; the
        label of the credential made of it."""
        label: str = (await self.control.call(AcceptWithCertificate))["label"]
        return label

    async def create_repository(self, description: bytes) -> None:
        """Store the description of the tenant's new repository at the provider."""
        await self.control.call(CreateRepository, description=description)

    async def replace_description(self, description: bytes, head: SignedHead) -> None:
        """Replace the description of the tenant's repository.

        :param head: its entry in the chain of heads, signed by the key before it
        :raises HeadMoved: another machine was faster
        """
        await self.control.call(
            ReplaceDescription,
            description=description,
            head=head.encoded,
            head_signature=head.signature,
        )

    async def points(
        self,
        host: str = "",
        job: str = "",
        tag: str = "",
        states: tuple[str, ...] = ("published",),
    ) -> list[dict[str, Any]]:
        """All restore points with these labels, oldest first, as maps.

        :param states: of ``published``, ``deleted`` (in the bin), ``removed`` and ``withdrawn``
        """
        asked: dict[str, Any] = {"host": host, "job": job, "tag": tag, "states": list(states)}
        return await self._pages(ListPoints, "points", **asked)

    # --- how points are kept ---------------------------------------------------------------------

    async def delete_points(self, points: Sequence[bytes]) -> list[dict[str, Any]]:
        """Put restore points into the bin; what became of each.

        :param points: ids, 16 bytes each; more than fit into one act are done act by act
        """
        return await self._act(DeletePoints, points)

    async def undelete_points(self, points: Sequence[bytes]) -> list[dict[str, Any]]:
        """Take restore points out of the bin; what became of each."""
        return await self._act(UndeletePoints, points)

    async def lock_points(self, points: Sequence[bytes], until: int) -> list[dict[str, Any]]:
        """Lock restore points until a moment, in seconds since 1970; what became of each."""
        return await self._act(LockPoints, points, until=until)

    async def retention(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Every retention policy, and what the provider demands and allows."""
        found: list[dict[str, Any]] = []
        while True:
            page = await self.control.call(GetRetention, after=len(found), limit=PAGE_ROWS_MAX)
            found.extend(page["policies"])
            if not page["more"] or not page["policies"]:
                return found, page["rules"]

    async def set_retention(
        self, host: str, job: str, policy: dict[str, int] | None
    ) -> dict[str, Any]:
        """Set what is kept of a host and a job (empty: of every one); how it stands now."""
        answer = await self.control.call(SetRetention, host=host, job=job, policy=policy)
        row: dict[str, Any] = answer["policy"]
        return row

    async def preview_retention(
        self, proposed: tuple[str, str, dict[str, int] | None] | None = None
    ) -> list[dict[str, Any]]:
        """What retention would keep and remove, and why.

        :param proposed: host, job and policy as if they were set
        """
        host, job, policy = proposed or ("", "", None)
        asked: dict[str, Any] = {"host": host, "job": job, "policy": policy}
        return await self._pages(
            PreviewRetention, "decisions", proposed=proposed is not None, **asked
        )

    async def _act(
        self, command: type[BoundedCommand], points: Sequence[bytes], **values: Any
    ) -> list[dict[str, Any]]:
        done: list[dict[str, Any]] = []
        for at in range(0, len(points), ACT_POINTS):
            part = list(points[at : at + ACT_POINTS])
            answer = await self.control.call(command, points=part, **values)
            done.extend(answer["points"])
        return done

    async def _pages(
        self, command: type[BoundedCommand], field: str, **asked: Any
    ) -> list[dict[str, Any]]:
        """All rows of a listing whose pages go on behind an arrival number."""
        found: list[dict[str, Any]] = []
        after = 0
        while True:
            page = await self.control.call(command, after=after, limit=PAGE_ROWS_MAX, **asked)
            found.extend(page[field])
            if not page["more"] or not page[field]:
                return found
            after = page[field][-1]["arrival"]

    async def close(self) -> None:
        """End the control channel and the worker thread."""
        for link in (self._lan, self._lan_far):
            if link.transport is not None:
                link.transport.loseConnection()
        if self._control is not None and self._control.transport is not None:
            self._control.transport.loseConnection()
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
        wan: bool = False,
        movable: Callable[[], bool] = lambda: False,
    ) -> _T:
        """Run one session from Start to Finish.

        :param job_id: 16 bytes, the same over all sessions of one job run
        :param host: label of this machine; with ``job`` what points belong to
        :param dialogue: what the movers do, in a worker thread; takes the channel and the session
        :param summarize: what of the result the provider may keep
        :param rates: how fast the stream may use the line
        :param wan: whether it goes through the accelerators; :meth:`use_accelerator` was called
        :param movable: asked whether the dialogue may be broken off where a role of the provider is
            about to stop, and had again in a new session
        :raises NoAccelerator: of the accelerators one is not there
        :raises SecurityError: something was changed on the way; nothing was published
        :raises CloudConnectError: anything else by name
        """
        if wan and self._accelerator is None:
            raise LocalError("there is no own accelerator for this session")
        own = await self._accelerator.ready() if wan and self._accelerator is not None else None
        asked: dict[str, Any] = {
            "kind": kind.value,
            "job": job_id,
            "host": host,
            "name": job,
            "repository": repository,
            "wan": wan,
            "streams": own.streams if own is not None else 1,
        }
        control = self.control
        connections = 2  # to the mover: tunnel and stream; or tunnels to it and to the accelerator
        if own is not None and own.here:
            connections += own.streams
        first = self._gateways.first_for_data(self._place)
        self._ahead = ahead = Ahead(self._endpoint, *first, connections)
        try:
            answer = await control.call(Start, **asked)
            await self._check_earlier(control, answer["session"])
            around = Surroundings(
                reactor=self._reactor,
                control=control,
                lan=self._lan,
                mover=self._mover,
                tenant=self._tenant,
                address=self._place,
                gateways=self._gateways,
                ahead=ahead,
                accelerator=own,
                happened=self._happened,
                warned=self._warned,
            )
            self._current = run = SessionRun(around, asked, answer)
            if run.gateways:
                self._gateways.learn(list(run.gateways))
            self._movable = movable
            try:
                return await run.run(dialogue, summarize, rates)
            except NotReachable:
                self._broken.add(run.identifier.hex())
                if self._found is not None:
                    raise self._found from None
                raise
            finally:
                self.notes = run.notes
                if wan or self.saved:  # what went over the line is known in any case
                    self.saved = added(self.saved, run.counts or run.moved)
        finally:
            self._current = self._ahead = None
            ahead.close()

    async def _check_earlier(self, control: ControlClient, session: bytes) -> None:
        """With the answer to Start it is known what was seen of the job's broken sessions.

        :raises SecurityError: something was changed on the way
        """
        found = self._found
        if found is not None:
            with contextlib.suppress(CloudConnectError):
                await control.call(
                    Finish, session=session, outcome="security_warning", summary={}, warnings=[]
                )
            raise found

    # --- the own accelerator ---------------------------------------------------------------------

    def use_accelerator(self, accelerator: OwnAccelerator | SharedAccelerator | None) -> None:
        """Sessions with ``wan`` go through this one; None: there are none from now on."""
        self._accelerator = accelerator

    def far_endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        """Where an own accelerator in this process connects to: to what is connected already."""
        ahead = self._ahead
        return self._endpoint(host, port) if ahead is None else ahead.endpoint(host, port)

    # --- what is heard on the control channel ----------------------------------------------------

    def _control_lost(self, control: ControlClient, error: BaseException | None) -> None:
        if control is not self._dialled:
            return  # one that was cut for a new one
        self._control_error = error
        if self._current is not None:
            self._current.control_lost(error)
        elif isinstance(error, ControlTampered):
            self._warned(
                SecurityWarning(
                    time=time.time(),
                    kind=error.kind,
                    tenant=self._tenant,
                    role="job-manager",
                    hop="control",
                    peer=self._host,
                    text=str(error),
                )
            )

    def _gateways_changed(self, control: ControlClient, gateways: Any, leaving: Any) -> None:
        """Some of the provider's gateways are to stop, or come back."""
        if control is not self._dialled:
            return
        left = read_gateways(leaving)
        self._gateways.learn(gateways)
        for place in left:
            self._gateways.suspect(place)
        self._to_leave = self._to_leave or self._place in left
        if self._current is not None and self._movable():
            self._current.leave(left)

    def _provider_warned(self, warning: SecurityWarning) -> None:
        current = self._current
        if current is not None and warning.session == current.identifier.hex():
            current.provider_warned(warning)
            return
        self._warned(warning)
        if warning.session in self._broken and warning.kind in TAMPERING:
            # The line of an earlier session of ours broke: somebody had changed it.
            self._found = security_error(warning)
            self._mover.abort(self._found)

    def _move_on(self, session: bytes, lost: bool, text: str) -> None:
        current = self._current
        if current is None or current.identifier != session or not (lost or self._movable()):
            return
        current.move_on(MovedOn(text[:MOVE_TEXT_MAX]))

    def _step(self, name: str, text: str, **fields: Any) -> None:
        self._happened(
            SessionEvent(time=time.time(), name=name, session="", text=text, fields=fields)
        )

    def cancel(self) -> None:
        """The user wants to stop: end the dialogue; what is durable stays.

        Where there is no session that would have to be ended properly, the line is cut.
        """
        self._mover.abort(Cancelled("interrupted; run the same command again to go on"))
        if self._current is None:
            if self._control is not None and self._control.transport is not None:
                self._control.transport.abortConnection()  # type: ignore[attr-defined]
            elif self._connecting is not None:
                self._connecting.cancel()


def new_job_id() -> bytes:
    """16 random bytes that name one job run over all its sessions."""
    return os.urandom(16)


def _notice(values: Any) -> Notice:
    """What the provider tells that will hold one day; one that cannot be read is none."""
    try:
        return Notice() if values is None else Notice.from_map(values)
    except ProtocolViolation:
        return Notice()
