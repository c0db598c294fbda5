"""Layer 4: one session, from the answer to Start to Finish: Key A in, Key B out, the stream.

The steps are those of ``docs/architecture.rst``, 3 to 7. Their order is held by the machine of
:mod:`cloudconnect.tenant.session`; :mod:`cloudconnect.tenant.verdict` judges how it ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import (
    BETWEEN_WANS,
    DIRECT_HOP,
    KEY_A_LABEL,
    TENANT_ROLES,
    TO_SOURCE_WAN,
    Finish,
    Role,
    SessionKind,
    key_a_context,
)
from cloudconnect.commands.lan import EndWAN, HandKeyB, HandWAN, PassedWAN
from cloudconnect.commands.tunnel import DeliverKeyB, agreed_digest, prologue
from cloudconnect.errors import (
    CloudConnectError,
    ControlTampered,
    Downgrade,
    KeyBUnconfirmed,
    MovedOn,
    NoAccelerator,
    NotReachable,
    ProtocolViolation,
    Refused,
    SecurityError,
    Truncated,
)
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.keys import KeyB, key_b_confirmation
from cloudconnect.settings import PROTOCOL_VERSIONS
from cloudconnect.shown import Shown
from cloudconnect.tenant.accelerated import OwnAccelerator, read_counts
from cloudconnect.tenant.ahead import Ahead
from cloudconnect.tenant.gateways import FirstThatConnects, KnownGateways, Place
from cloudconnect.tenant.gathering import all_of
from cloudconnect.tenant.lines import ControlClient, TunnelClient
from cloudconnect.tenant.mover import Rates, SourceDataMover
from cloudconnect.tenant.plan import Target, read_plan
from cloudconnect.tenant.session import TenantSession, require_keys, session_machine
from cloudconnect.tenant.verdict import outcome_of, worse_than
from cloudconnect.transports.endpoints import connect_protocol, wrap_client_endpoint
from cloudconnect.transports.hosts import join_host_port
from cloudconnect.transports.switch import PreambleEndpoint
from cloudconnect.transports.tunnel import NoiseTunnel
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.preamble import ROUTE_SIZE, ConnectionKind, Preamble

_T = TypeVar("_T")


@attrs.frozen(kw_only=True, repr=False)
class Surroundings(Shown):
    """What a session takes from its job manager.

    :ivar control: the control channel
    :ivar lan: the line to the source data mover
    :ivar mover: the source data mover
    :ivar tenant: the tenant's name
    :ivar address: host and port that the control channel was opened to
    :ivar gateways: the provider's gateways
    :ivar ahead: connections to one of them
    :ivar accelerator: the own WAN accelerator, where the session goes through one
    :ivar happened: takes each step
    :ivar warned: takes each warning, once
    """

    reactor: Any
    control: ControlClient
    lan: BoundedAMP
    mover: SourceDataMover
    tenant: str
    address: Place
    gateways: KnownGateways
    ahead: Ahead
    accelerator: OwnAccelerator | None
    happened: Callable[[SessionEvent], None]
    warned: Callable[[SecurityWarning], None]


class SessionRun:
    """One session.

    :param around: the job manager's lines and observers
    :param asked: what Start asked
    :param answer: what it answered
    :ivar notes: what else the provider had to say at the end
    :raises ProtocolViolation: the answer cannot be used
    """

    _log = Logger()

    def __init__(self, around: Surroundings, asked: dict[str, Any], answer: dict[str, Any]) -> None:
        self._around = around
        self._asked = asked
        self._amend = bool(answer.get("amend"))
        self._plan = answer["plan"]
        self._targets = read_plan(self._plan, answer["keys_a"], asked["wan"])
        keys_a = [target.key_a for target in self._targets.values()]
        self._session = TenantSession(answer["session"], keys_a, self._tell)
        self._steps = session_machine(self._session)
        self._control_error: ControlTampered | None = None
        self._moved: MovedOn | None = None
        self._over = False
        self._ending: Deferred[None] = Deferred()
        self.notes: list[str] = []
        self._hop = DIRECT_HOP if around.accelerator is None else TO_SOURCE_WAN
        self._counts: dict[str, int] = {}
        self._wan_ended = False
        self._channel: FrameChannel | None = None
        self._used: set[Place] = set()
        self._tell("started", f"session {self.identifier.hex()} started")
        for target in self._targets.values():
            self._tell(
                "key_a_received",
                f"Key A {target.key_a.identifier} for the {target.role.value} received over TLS",
                key=target.key_a.identifier,
                role=target.role.value,
            )

    @property
    def identifier(self) -> bytes:
        """The session's 16 bytes."""
        return self._session.identifier

    @property
    def gateways(self) -> tuple[str, ...]:
        """The gateways of the plan, the one with the least load first."""
        return self._targets[Role.TARGET_MOVER].gateways

    @property
    def counts(self) -> dict[str, int]:
        """What the own accelerator has saved; empty without one, or where it is lost."""
        return self._counts

    @property
    def moved(self) -> dict[str, int]:
        """What went over the stream, as an accelerator that saves nothing would count it."""
        channel = self._channel
        if channel is None:
            return {}
        return {"line_sent": channel.bytes_sent, "line_received": channel.bytes_received}

    async def run(
        self,
        dialogue: Callable[[FrameChannel, bytes], _T],
        summarize: Callable[[_T], dict[str, Any]],
        rates: Rates,
    ) -> _T:
        """Tunnels, Key B, stream, dialogue, Finish; see :meth:`JobManager.session`."""
        mover, steps = self._around.mover, self._steps
        try:
            tunnels = await self._open_tunnels()
            await self._deliver(tunnels)
            channel = await self._open_stream(rates)
            if self._moved is not None:  # while there was no stream to end
                raise self._moved
            result = await self._talk(lambda c: dialogue(c, self.identifier), channel, tunnels)
        except Exception as error:
            mover.abort(error)
            if isinstance(error, NotReachable):  # another one may do better
                for place in self._used:
                    self._around.gateways.suspect(place)
            verdict = await self._finish(error, {})
            if verdict is not None:
                raise verdict from error
            raise
        finally:
            steps.end()
            mover.forget(self.identifier)
        why = await self._finish_well(summarize(result))
        if why is not None:
            raise why
        return result

    async def _finish_well(self, summary: dict[str, Any]) -> Exception | None:
        """Report a good end, and wait beside it for what is left: the ends of the own accelerator's
        connections. Where they are not good, that is said too, and counts.

        :param summary: what the provider may keep of the result
        :return: why the session is not good
        """
        ending = Deferred.fromCoroutine(self._end_wan(False))
        ended: Deferred[Any] = ending.addErrback(lambda failure: failure.value)
        verdict = await self._finish(None, {**summary, **self._for_the_provider()})
        late: Exception | None = await ended
        if late is None:
            return verdict
        if verdict is None:
            return await self._finish(late, {}) or late
        if isinstance(verdict, SecurityError) or not isinstance(late, SecurityError):
            return verdict
        self._note(late)  # the line broke, and it cannot be reported
        return late

    async def _talk(
        self,
        dialogue: Callable[[FrameChannel], _T],
        channel: FrameChannel,
        tunnels: dict[Role, TunnelClient],
    ) -> _T:
        """The dialogue, and beside its last words the ends of all other lines.

        They end before the end is reported: a tunnel that was changed spoils the session to the
        last. Of the own accelerator's connections only the ends are left then.
        """
        mover = self._around.mover
        ended = Deferred.fromCoroutine(self._end_lines(tunnels))
        ended.addErrback(self._ended_badly)
        try:
            result = await mover.run(dialogue, channel)
        except Exception:
            ended.addErrback(lambda _: None)  # what the dialogue says of it counts
            ended.cancel()
            raise
        self._say_ending()
        await ended
        return result

    def _say_ending(self) -> None:
        if not self._ending.called:
            self._ending.callback(None)

    async def _end_lines(self, tunnels: dict[Role, TunnelClient]) -> None:
        await self._ending
        await all_of(*(tunnel.end() for tunnel in tunnels.values()), self._pass_wan())

    def _ended_badly(self, failure: Failure) -> Failure:
        if isinstance(failure.value, Exception):
            self._around.mover.abort(failure.value)
        return failure

    def _endpoint(self, target: Target) -> IStreamClientEndpoint:
        """Where a target's connections go: the first gateway that takes them."""
        around = self._around
        return FirstThatConnects(
            self._places(target), around.ahead.endpoint, around.gateways.suspect, self._used.add
        )

    def _places(self, target: Target) -> list[Place]:
        around = self._around
        return around.gateways.for_data(target.gateways, around.address, around.ahead.place)

    def leave(self, gateways: Collection[Place]) -> None:
        """These gateways are to stop: where the session uses one it ends, and another goes on."""
        if not self._over and self._used.intersection(gateways):
            self.move_on(MovedOn("the gateway is about to stop"))

    async def _open_tunnels(self) -> dict[Role, TunnelClient]:
        """A tunnel to each target, all at once."""
        targets = self._targets.values()
        opened = await all_of(*(self._open_tunnel(target) for target in targets))
        self._steps.tunnel_up()
        return dict(zip(self._targets, opened, strict=True))

    async def _open_tunnel(self, target: Target) -> TunnelClient:
        session, around = self._session, self._around
        preamble = Preamble(ConnectionKind.KEY_A_TUNNEL, target.route)
        context = key_a_context(session.identifier, target.role.value)
        exporter = around.control.exporter(KEY_A_LABEL, context)
        recipe = NoiseTunnel(
            psk=target.key_a,
            prologue=prologue(
                preamble=preamble.encode(),
                session=session.identifier,
                tenant=around.tenant,
                role=target.role.value,
                exporter=hashlib.sha256(exporter).digest(),
                agreed=agreed_digest(self._plan, self._asked),
            ),
        )
        tunnel = TunnelClient(around.reactor, self._tunnel_lost)
        endpoint = PreambleEndpoint(self._endpoint(target), preamble)
        try:
            await connect_protocol(wrap_client_endpoint(recipe, endpoint, around.reactor), tunnel)
        except (ConnectError, DNSLookupError) as error:
            raise NotReachable(f"the provider's gateway is not reachable: {error}") from None
        self._tell(
            "tunnel_up", f"Key A tunnel to the {target.spoken} is up", role=target.role.value
        )
        return tunnel

    async def _deliver(self, tunnels: dict[Role, TunnelClient]) -> None:
        """Key B to the targets; and to our own roles only once every target has confirmed."""
        await all_of(*(self._deliver_to(self._targets[role], t) for role, t in tunnels.items()))
        self._steps.confirmed()
        session, around = self._session, self._around
        key_b, integrity_key = require_keys(session)
        mover = self._targets[Role.TARGET_MOVER]
        route = mover.route
        if around.accelerator is not None:
            route = os.urandom(ROUTE_SIZE)
            await self._hand_wan(around.accelerator, route, key_b)
        await around.lan.call(
            HandKeyB,
            session=session.identifier,
            tenant=around.tenant,
            route=route,
            hop=self._hop,
            key_b=key_b,
            integrity_key=integrity_key,
        )
        self._tell(
            "key_b_delivered",
            f"Key B {key_b.identifier} delivered to the source data mover",
            key=key_b.identifier,
        )

    async def _deliver_to(self, target: Target, tunnel: TunnelClient) -> None:
        key_b, integrity_key = require_keys(self._session)
        common = set(PROTOCOL_VERSIONS) & target.versions
        if not common:
            raise Downgrade(f"the {target.spoken} speaks no protocol version of ours")
        digest, answering = tunnel.call_with_digest(
            DeliverKeyB,
            key_b=key_b,
            integrity_key=integrity_key if target.role is Role.TARGET_MOVER else None,
            hops=list(target.hops),
            versions=list(PROTOCOL_VERSIONS),
            version=max(common),
        )
        answer = await answering
        handshake_hash = tunnel.transport.handshake_hash  # type: ignore[union-attr]
        expected = key_b_confirmation(key_b, handshake_hash, target.role.value, digest)
        if not hmac.compare_digest(expected, answer["confirmation"]):
            raise KeyBUnconfirmed(f"the {target.spoken} did not confirm this session's Key B")
        self._tell(
            "key_b_confirmed",
            f"the {target.spoken} confirmed Key B {key_b.identifier}",
            key=key_b.identifier,
            role=target.role.value,
        )

    async def _hand_wan(self, own: OwnAccelerator, route: bytes, key_b: KeyB) -> None:
        around, target = self._around, self._targets[Role.TARGET_WAN]
        places = self._places(target)
        self._used.update(places)
        handed: dict[str, Any] = {
            "session": self.identifier,
            "tenant": around.tenant,
            "route": route,
            "next_route": target.route,
            "gateways": [join_host_port(*place) for place in places],
            "hops": [TO_SOURCE_WAN, BETWEEN_WANS],
            "streams": self._asked["streams"],
            "cache": own.cache,
            "key_b": key_b,
        }
        try:
            await own.link.call(HandWAN, **handed)
        except Refused as error:
            if own.again is None or isinstance(error, NoAccelerator):
                raise
            # Another command has renewed this machine's certificate since that line came up.
            own = await own.again()
            self._around = attrs.evolve(around, accelerator=own)
            await own.link.call(HandWAN, **handed)
        self._tell(
            "key_b_delivered",
            f"Key B {key_b.identifier} delivered to the source WAN accelerator",
            key=key_b.identifier,
        )

    async def _open_stream(self, rates: Rates) -> FrameChannel:
        own = self._around.accelerator
        endpoint = self._endpoint(self._targets[Role.TARGET_MOVER]) if own is None else own.endpoint
        try:
            channel = await self._around.mover.open(
                self.identifier, endpoint, rates, self._say_ending
            )
        except (ConnectError, DNSLookupError) as error:
            raise NotReachable(f"the provider's gateway is not reachable: {error}") from None
        self._channel = channel
        self._steps.stream_up()
        self._tell("stream_up", f"Key B stream {self._hop} is up")
        return channel

    async def _pass_wan(self) -> None:
        """Wait until the own accelerator has passed on everything; it says what it has saved.

        All of its part has to end here where what is found later could not be reported.
        """
        own = self._around.accelerator
        if own is not None and self._amend:
            with contextlib.suppress(ProtocolViolation):  # one that is older; or it says so again
                answer = await own.link.call(PassedWAN, session=self.identifier)
                self._counts = read_counts(answer["counts"])
                return
        await self._end_wan(False)

    async def _end_wan(self, aborted: bool) -> None:
        """Have the own accelerator end its part, and say what it has saved; once."""
        own = self._around.accelerator
        if own is None or self._wan_ended:
            return
        answer = await own.link.call(EndWAN, session=self.identifier, aborted=aborted)
        self._wan_ended = True
        self._counts = read_counts(answer["counts"]) or self._counts

    def _for_the_provider(self) -> dict[str, Any]:
        return {"wan": self._counts} if self._counts else {}

    # --- how it ends -----------------------------------------------------------------------------

    async def _finish(
        self, error: Exception | None, summary: dict[str, Any]
    ) -> CloudConnectError | None:
        """Tell the provider, hear what it saw, and judge: the worst of both sides' words."""
        session = self._session
        if error is not None:
            with contextlib.suppress(CloudConnectError):  # it tells what it saw before it answers
                await self._end_wan(True)
            self._note(error)
        told = [w.as_dict() for w in session.warnings if w.role in TENANT_ROLES]
        try:
            answer = await self._around.control.call(
                Finish,
                session=session.identifier,
                outcome=outcome_of(error, summary),
                summary=summary,
                warnings=told,
            )
            self.notes = _printable(answer.get("notes"))
            for values in answer["warnings"]:
                self.provider_warned(SecurityWarning.from_dict(values))
        except (CloudConnectError, ValueError, KeyError, TypeError) as lost:
            if error is None and isinstance(lost, SecurityError):
                return lost
            self._log.warn("the end of a session could not be reported: {why}", why=str(lost))
            if error is None and self._asked["kind"] == SessionKind.BACKUP.value:
                # A role there may have seen what nobody here could: then there is no point.
                error = NotReachable(
                    "the line broke before the provider had said that all is well with the restore "
                    "point"
                )
                self._over = True
                return self._control_error or worse_than(error, session.warnings) or error
        self._over = True
        return self._control_error or worse_than(error, session.warnings)

    def _note(self, error: Exception) -> None:
        """Where ``error`` is one to warn of, keep and show the warning."""
        if isinstance(error, (SecurityError, Truncated)):
            warning = SecurityWarning(
                time=time.time(),
                kind=error.kind,
                session=self.identifier.hex(),
                tenant=self._around.tenant,
                role=Role.SOURCE_MOVER.value,
                hop=self._hop,
                peer=self._around.address[0],
                text=str(error),
            )
            self.provider_warned(warning)

    def _tunnel_lost(self, error: BaseException | None) -> None:
        if not self._over and isinstance(error, CloudConnectError):
            if isinstance(error, SecurityError):
                self._note(error)
            self._around.mover.abort(error)

    def control_lost(self, error: BaseException | None) -> None:
        """The control channel is gone: the session may finish, unless the channel was changed."""
        if isinstance(error, ControlTampered):
            self._control_error = error
            self._note(error)
            self._around.mover.abort(error)

    def move_on(self, why: MovedOn) -> None:
        """The provider wants the job to go on in a new session: end this one."""
        self._moved = why
        self._around.mover.abort(why)

    def provider_warned(self, warning: SecurityWarning) -> None:
        """Keep a warning of either side and show it, unless it is known already."""
        if self._session.warn(warning):
            self._around.warned(warning)

    def _tell(self, name: str, text: str, **fields: Any) -> None:
        self._around.happened(
            SessionEvent(
                time=time.time(), name=name, session=self.identifier.hex(), text=text, fields=fields
            )
        )


#: Notes of the provider that are shown, and characters of each.
NOTES_MAX, NOTE_MAX = 8, 500


def _printable(notes: Any) -> list[str]:
    """The provider's notes, as they can come to a terminal."""
    if not isinstance(notes, list):
        return []
    texts = [note[:NOTE_MAX] for note in notes[:NOTES_MAX] if isinstance(note, str)]
    return ["".join(c if c.isprintable() else " " for c in text) for text in texts]
