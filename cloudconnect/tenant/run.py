"""Layer 4: one session, from the answer to Start to Finish: Key A in, Key B out, the stream.

The steps are those of ``docs/architecture.rst``, 3 to 7. Their order is held by the machine of
:mod:`cloudconnect.tenant.session`; :mod:`cloudconnect.tenant.verdict` judges how it ended.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import DIRECT_HOP, KEY_A_LABEL, Finish, Role
from cloudconnect.commands.lan import HandKeyB
from cloudconnect.commands.tunnel import DeliverKeyB, agreed_digest, prologue
from cloudconnect.errors import (
    CloudConnectError,
    ControlTampered,
    Downgrade,
    KeyBUnconfirmed,
    NotReachable,
    ProtocolViolation,
    SecurityError,
    Truncated,
)
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.keys import KeyA, key_b_confirmation
from cloudconnect.settings import PROTOCOL_VERSIONS
from cloudconnect.tenant.ahead import ConnectedAhead
from cloudconnect.tenant.lines import ControlClient, TunnelClient
from cloudconnect.tenant.mover import Rates, SourceDataMover
from cloudconnect.tenant.session import TenantSession, require_keys, session_machine
from cloudconnect.tenant.verdict import outcome_of, worse_than
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.switch import PreambleEndpoint
from cloudconnect.transports.tunnel import NoiseTunnel
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.preamble import ConnectionKind, Preamble

_T = TypeVar("_T")


@attrs.frozen(kw_only=True)
class Surroundings:
    """What a session takes from its job manager.

    :ivar control: the control channel
    :ivar lan: the line to the source data mover
    :ivar mover: the source data mover
    :ivar tenant: the tenant's name
    :ivar address: host and port that the control channel was opened to
    :ivar endpoint: makes a client endpoint of a host and a port
    :ivar happened: takes each step
    :ivar warned: takes each warning, once
    """

    reactor: Any
    control: ControlClient
    lan: BoundedAMP
    mover: SourceDataMover
    tenant: str
    address: tuple[str, int]
    endpoint: Callable[[str, int], IStreamClientEndpoint]
    happened: Callable[[SessionEvent], None]
    warned: Callable[[SecurityWarning], None]


class SessionRun:
    """One session.

    :param around: the job manager's lines and observers
    :param asked: what Start asked
    :param answer: what it answered
    :raises ProtocolViolation: the answer cannot be used
    """

    _log = Logger()

    def __init__(self, around: Surroundings, asked: dict[str, Any], answer: dict[str, Any]) -> None:
        self._around = around
        self._asked = asked
        self._entry = entry = read_plan(answer["plan"], len(answer["keys_a"]))
        key_a: KeyA = answer["keys_a"][0]
        self._session = TenantSession(answer["session"], entry["route"], key_a, self._tell)
        self._steps = session_machine(self._session)
        self._control_error: ControlTampered | None = None
        self._over = False
        self._tell("started", f"session {self.identifier.hex()} started")
        self._tell(
            "key_a_received",
            f"Key A {key_a.identifier} for the {entry['role']} received over TLS",
            key=key_a.identifier,
            role=entry["role"],
        )

    @property
    def identifier(self) -> bytes:
        """The session's 16 bytes."""
        return self._session.identifier

    async def run(
        self,
        ahead: list[ConnectedAhead],
        dialogue: Callable[[FrameChannel, bytes], _T],
        summarize: Callable[[_T], dict[str, Any]],
        rates: Rates,
    ) -> _T:
        """Tunnel, Key B, stream, dialogue, Finish; see :meth:`JobManager.session`.

        :param ahead: two connections to where the control channel was opened to
        """
        mover, steps = self._around.mover, self._steps
        try:
            tunnel_end, stream_end = self._data_endpoints(ahead)
            tunnel = await self._open_tunnel(tunnel_end)
            await self._deliver(tunnel)
            channel = await self._open_stream(stream_end, rates)
            result = await mover.run(lambda c: dialogue(c, self.identifier), channel)
            # Before the end is reported: a tunnel that was changed spoils the session to the last.
            await tunnel.end()
        except Exception as error:
            mover.abort(error)
            verdict = await self._finish(error, {})
            if verdict is not None:
                raise verdict from error
            raise
        finally:
            steps.end()
            mover.forget(self.identifier)
        verdict = await self._finish(None, summarize(result))
        if verdict is not None:
            raise verdict
        return result

    def _data_endpoints(self, ahead: list[ConnectedAhead]) -> list[IStreamClientEndpoint]:
        """Where the tunnel and the stream go: the first gateway advertised, or where we connected.

        :param ahead: connections to where we connected
        """
        gateways = self._entry["gateways"]
        if not gateways:
            return list(ahead)
        name, _, number = str(gateways[0]).rpartition(":")
        if not name or not number.isdigit() or not 0 < int(number) < 65536:
            raise ProtocolViolation("the provider advertises a gateway that is no HOST:PORT")
        host, port = name.strip("[]"), int(number)
        if (host, port) == self._around.address:
            return list(ahead)
        return [self._around.endpoint(host, port)] * 2

    async def _open_tunnel(self, endpoint: IStreamClientEndpoint) -> TunnelClient:
        session, around = self._session, self._around
        assert session.key_a is not None
        preamble = Preamble(ConnectionKind.KEY_A_TUNNEL, session.route)
        exporter = around.control.exporter(KEY_A_LABEL, session.identifier)
        recipe = NoiseTunnel(
            psk=session.key_a,
            prologue=prologue(
                preamble=preamble.encode(),
                session=session.identifier,
                tenant=around.tenant,
                role=self._entry["role"],
                exporter=hashlib.sha256(exporter).digest(),
                agreed=agreed_digest(self._entry, self._asked),
            ),
        )
        tunnel = TunnelClient(around.reactor, self._tunnel_lost)
        layered = wrap_client_endpoint(recipe, PreambleEndpoint(endpoint, preamble), around.reactor)
        try:
            await connectProtocol(layered, tunnel)
        except (ConnectError, DNSLookupError) as error:
            raise NotReachable(f"the provider's gateway is not reachable: {error}") from None
        self._tell("tunnel_up", "Key A tunnel to the target data mover is up")
        self._steps.tunnel_up()
        return tunnel

    async def _deliver(self, tunnel: TunnelClient) -> None:
        """Key B to the target; and to our own mover only once the target has confirmed."""
        session, steps, entry = self._session, self._steps, self._entry
        key_b, integrity_key = require_keys(session)
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
        self._tell(
            "key_b_confirmed",
            f"the target data mover confirmed Key B {key_b.identifier}",
            key=key_b.identifier,
        )
        await self._around.lan.call(
            HandKeyB,
            session=session.identifier,
            tenant=self._around.tenant,
            route=session.route,
            hop=DIRECT_HOP,
            key_b=key_b,
            integrity_key=integrity_key,
        )
        self._tell(
            "key_b_delivered",
            f"Key B {key_b.identifier} delivered to the source data mover",
            key=key_b.identifier,
        )

    async def _open_stream(self, endpoint: IStreamClientEndpoint, rates: Rates) -> FrameChannel:
        try:
            channel = await self._around.mover.open(self.identifier, endpoint, rates)
        except (ConnectError, DNSLookupError) as error:
            raise NotReachable(f"the provider's gateway is not reachable: {error}") from None
        self._steps.stream_up()
        self._tell("stream_up", f"Key B stream {DIRECT_HOP} is up")
        return channel

    # --- how it ends -----------------------------------------------------------------------------

    async def _finish(
        self, error: Exception | None, summary: dict[str, Any]
    ) -> CloudConnectError | None:
        """Tell the provider, hear what it saw, and judge: the worst of both sides' words."""
        session = self._session
        if error is not None:
            self._note(error)
        told = [w.as_dict() for w in session.warnings if w.role == Role.SOURCE_MOVER.value]
        try:
            answer = await self._around.control.call(
                Finish,
                session=session.identifier,
                outcome=outcome_of(error, summary),
                summary=summary,
                warnings=told,
            )
            for values in answer["warnings"]:
                self.provider_warned(SecurityWarning.from_dict(values))
        except (CloudConnectError, ValueError, KeyError, TypeError) as lost:
            if error is None and isinstance(lost, SecurityError):
                return lost
            self._log.warn("the end of a session could not be reported: {why}", why=str(lost))
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
                hop=DIRECT_HOP,
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


def read_plan(plan: Any, keys: int) -> dict[str, Any]:
    """The one entry of Start's plan, checked.

    :param keys: how many Key A came with it
    :raises ProtocolViolation: it is not a plan for a target mover alone
    """
    if not (isinstance(plan, list) and len(plan) == keys == 1):
        raise ProtocolViolation("the plan does not name one target")
    entry = plan[0]
    fields = {"role": str, "route": bytes, "gateways": list, "versions": list, "limits": dict}
    if not isinstance(entry, dict) or set(entry) != set(fields):
        raise ProtocolViolation("the plan cannot be read")
    if not all(isinstance(entry[name], kind) for name, kind in fields.items()):
        raise ProtocolViolation("the plan cannot be read")
    if entry["role"] != Role.TARGET_MOVER.value or len(entry["route"]) != 16:
        raise ProtocolViolation("the plan does not name the target mover")
    return entry
