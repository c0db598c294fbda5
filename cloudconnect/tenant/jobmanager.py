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
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from cloudconnect.commands.control import (
    Finish,
    SessionKind,
    Start,
)
from cloudconnect.commands.links import link_in_process
from cloudconnect.errors import (
    Cancelled,
    CloudConnectError,
    ControlTampered,
    LocalError,
    MovedOn,
    NotReachable,
    SecurityError,
)
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.keys import Password
from cloudconnect.tenant.accelerated import OwnAccelerator, Reports, added
from cloudconnect.tenant.ahead import Ahead
from cloudconnect.tenant.asking import AskingLine
from cloudconnect.tenant.control import Account
from cloudconnect.tenant.early import EarlyStart, Foreseen
from cloudconnect.tenant.gateways import Place
from cloudconnect.tenant.lines import ControlClient
from cloudconnect.tenant.mover import UNLIMITED, Rates, SourceDataMover
from cloudconnect.tenant.shared import SharedAccelerator
from cloudconnect.tenant.verdict import TAMPERING, security_error
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.trust import TrustPolicy
from cloudconnect.wire.channel import FrameChannel

if TYPE_CHECKING:
    from cloudconnect.tenant.run import SessionRun

_T = TypeVar("_T")

#: An early session that nobody wanted is given back for so long at the end, in seconds.
GIVE_BACK_SECONDS = 2.0
#: Characters that are shown of why the provider wants a session to move on.
MOVE_TEXT_MAX = 200


class JobManager(AskingLine):
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
        super().__init__(reactor, host, port, trust, gateways, learned, happened, dial, identity)
        self._warned = warned
        self._current: SessionRun | None = None
        self._movable: Callable[[], bool] = lambda: False
        self._broken: set[str] = set()
        self._found: SecurityError | None = None
        self._ahead: Ahead | None = None
        self._foresee: Callable[[], Foreseen | None] = lambda: None
        self._early: EarlyStart | None = None
        self._accelerator: OwnAccelerator | SharedAccelerator | None = None
        self.saved: dict[str, int] = {}
        self.notes: list[str] = []
        self.reports = Reports(self._happened, self.provider_warned)
        self._mover = SourceDataMover(reactor)
        self._lan, self._lan_far = link_in_process(reactor, None, self._mover)

    async def log_in(
        self,
        tenant: str,
        password: Password | None,
        foresee: Callable[[], Foreseen | None] = lambda: None,
    ) -> Account:
        """See :meth:`ControlLine.log_in`.

        :param foresee: asked once the line is up, which session the first will be; it is asked for
            together with the log-in where the provider takes that, and is known by a fingerprint.
            None: that is not known
        """
        self._mover.start()
        self._refuse_early()  # that of the channel before
        self._foresee = foresee
        try:
            return await super().log_in(tenant, password)
        except Exception:
            self._refuse_early()
            raise

    def _refuse_early(self) -> None:
        early, self._early = self._early, None
        if early is not None:
            early.refuse()

    def proof_sent(self, control: ControlClient) -> None:
        """See :meth:`ControlLine.proof_sent`."""
        foreseen = None
        with contextlib.suppress(CloudConnectError):  # the log-in will meet it too
            foreseen = self._foresee()
        if foreseen is not None:
            ahead = self._connect_ahead(foreseen.streams)
            self._early = EarlyStart(self._reactor, control, foreseen.asked, ahead)

    def _connect_ahead(self, streams: int) -> Ahead:
        """Connections for a session.

        :param streams: of an own accelerator in this process, or 0
        """
        # To the mover: tunnel and stream; or tunnels to it and to the accelerator.
        first = self._gateways.first_for_data(self._place)
        return Ahead(self._endpoint, *first, 2 + streams)

    async def close(self) -> None:
        """End the control channel and the worker thread."""
        early, self._early = self._early, None
        if early is not None:
            given_back = early.drop()
            given_back.addTimeout(GIVE_BACK_SECONDS, self._reactor, lambda *_: None)
            await given_back
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
        # Here, as it is wanted only behind the log-in.
        from cloudconnect.tenant.run import SessionRun, Surroundings

        if wan and self._accelerator is None:
            raise LocalError("there is no own accelerator for this session")
        own = await self._accelerator.ready() if wan and self._accelerator is not None else None
        streams = 0 if own is None else own.streams
        asked = Foreseen(kind, repository, job_id, host, job, streams).asked
        control = self.control
        early, self._early = self._early, None
        if early is not None and not early.fits(control, asked):
            early.drop()
            early = None
        here = own is not None and own.here
        ahead = self._connect_ahead(streams if here else 0) if early is None else early.ahead
        self._ahead = ahead
        try:
            answer = await (control.call(Start, **asked) if early is None else early.answer())
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
            if early is not None and early.moved is not None:
                self.move_on(*early.moved)
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

    def control_lost(self, error: BaseException | None) -> None:
        """See :meth:`ControlLine.control_lost`."""
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

    def leave(self, places: Sequence[Place]) -> None:
        """See :meth:`ControlLine.leave`."""
        if self._current is not None and self._movable():
            self._current.leave(places)

    def provider_warned(self, warning: SecurityWarning) -> None:
        """See :meth:`ControlLine.provider_warned`."""
        current = self._current
        if current is not None and warning.session == current.identifier.hex():
            current.provider_warned(warning)
            return
        self._warned(warning)
        if warning.session in self._broken and warning.kind in TAMPERING:
            # The line of an earlier session of ours broke: somebody had changed it.
            self._found = security_error(warning)
            self._mover.abort(self._found)

    def move_on(self, session: bytes, lost: bool, text: str) -> None:
        """See :meth:`ControlLine.move_on`."""
        if self._early is not None:
            self._early.moved = (session, lost, text)
            return
        current = self._current
        if current is None or current.identifier != session or not (lost or self._movable()):
            return
        current.move_on(MovedOn(text[:MOVE_TEXT_MAX]))

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
