"""Layer 4: taking in a target mover's connections: Key A tunnels and Key B streams.

A connection begins with the preamble that names a session's route. What follows must prove the
session's key; until it has, a failure closes that connection and nothing else, because anybody who
saw the route id can send junk to it (``docs/protocol.rst``, section 3).
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.interfaces import IHandshakeListener, IProtocol, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.tunnel import DeliverKeyB, prologue
from cloudconnect.errors import (
    CloudConnectError,
    ContextMismatch,
    Downgrade,
    KeyARejected,
    Replayed,
    SecurityError,
)
from cloudconnect.interfaces import IRelayTarget
from cloudconnect.keys import IntegrityKey, KeyB, key_b_confirmation, key_b_context
from cloudconnect.provider.mover import UNPROVED_MAX, MoverSession, TargetDataMover
from cloudconnect.provider.session import KeyAPackage, SessionState
from cloudconnect.settings import PROTOCOL_VERSIONS
from cloudconnect.transports.blocking import BlockingPipe
from cloudconnect.transports.stream import RecordStream
from cloudconnect.transports.switch import hand_over
from cloudconnect.transports.tunnel import NoiseTunnel
from cloudconnect.wire import canonical
from cloudconnect.wire.preamble import PREAMBLE_SIZE, ConnectionKind, Preamble


@implementer(IRelayTarget)
class MoverTarget:
    """Where a gateway hands a connection to the mover in this process."""

    description = "the target data mover in this process"
    _log = Logger()

    def __init__(self, mover: TargetDataMover) -> None:
        self._mover = mover

    def connect(self, transport: object, data: bytes) -> None:
        """Begin the layer that the preamble at the head of ``data`` asks for."""
        accepted = cast(ITCPTransport, transport)
        octets = data[:PREAMBLE_SIZE]
        preamble = Preamble.decode(octets)
        session = self._mover.by_route(preamble.route)
        protocol: Any = None
        if session is not None:
            _make_room(session)
            if preamble.kind is ConnectionKind.KEY_A_TUNNEL:
                protocol = self._tunnel(session, octets, accepted)
            else:
                protocol = self._stream(session, octets, accepted)
        if protocol is None:
            self._log.warn("no session for a connection from {peer}", peer=accepted.getPeer())
            accepted.abortConnection()
            return
        hand_over(accepted, protocol, data[PREAMBLE_SIZE:])

    def _tunnel(self, session: MoverSession, octets: bytes, transport: Any) -> IProtocol | None:
        core, package = session.core, session.package
        if core.key_a is None or not self._mover.key_a_usable(session):
            return None
        responder = TunnelResponder(self._mover, session, _address(transport))
        recipe = NoiseTunnel(
            psk=core.key_a,
            prologue=prologue(
                preamble=octets,
                session=package.session,
                tenant=package.tenant,
                role=package.role,
                exporter=package.exporter,
                agreed=package.agreed,
            ),
            payload=canonical.encode({"versions": list(PROTOCOL_VERSIONS), "limits": {}}),
            psk_taken=responder.proved,
        )
        return recipe.layer(False, responder, self._mover.reactor)

    def _stream(self, session: MoverSession, octets: bytes, transport: Any) -> IProtocol | None:
        core, package = session.core, session.package
        if core.key_b is None:
            return None
        pipe = StreamPipe(self._mover, session, _address(transport))
        hop = package.hops[0]
        recipe = RecordStream(
            secret=core.key_b,
            context=key_b_context(octets, package.session, package.tenant, hop),
            allow=pipe.allowed,
        )
        return recipe.layer(False, pipe, self._mover.reactor)


class TunnelResponder(BoundedAMP):
    """The mover's end of a Key A tunnel: receives Key B.

    :param address: the peer's address as text
    """

    def __init__(self, mover: TargetDataMover, session: MoverSession, address: str) -> None:
        super().__init__(mover.reactor)
        self._mover = mover
        self._session = session
        self._address = address
        self._proved = False
        session.unproved.append(self)

    def proved(self) -> None:
        """The first handshake message verified under Key A, which is used up by that."""
        if not self._mover.key_a_usable(self._session):
            raise KeyARejected("Key A was used before")
        self._proved = True
        _is_proved_or_gone(self._session, self)
        self._mover.key_a_proved(self._session, self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Before the proof this is one connection less; after it, the end of the session."""
        error = reason.value
        if self._proved:
            known = error if isinstance(error, CloudConnectError) else None
            self._mover.tunnel_lost(self._session, known)
        else:
            _is_proved_or_gone(self._session, self)
            if isinstance(error, SecurityError):
                self._mover.warn(self._session, error, "key-a-tunnel", 0, self._address)
        super().connectionLost(reason)

    @DeliverKeyB.responder
    def deliver(
        self,
        key_b: KeyB,
        integrity_key: IntegrityKey | None,
        hops: Any,
        versions: Any,
        version: int,
    ) -> dict[str, Any]:
        """Check what comes with Key B against the package, then confirm."""
        package = self._session.package
        try:
            if self._session.core.state is not SessionState.PROVED:
                raise Replayed("Key B was delivered before")
            _check_delivery(package, integrity_key, hops, versions, version)
        except SecurityError as error:
            # Once the answer, which says why, has gone out.
            self._mover.reactor.callLater(
                0, self._mover.failed, self._session, error, "key-a-tunnel", 0, self._address
            )
            raise
        assert integrity_key is not None
        digest = self.digest_of_current_box()
        handshake_hash = self.transport.handshake_hash  # type: ignore[union-attr]
        confirmation = key_b_confirmation(key_b, handshake_hash, package.role, digest)
        self._mover.key_b_delivered(self._session, key_b=key_b, integrity_key=integrity_key)
        return {"confirmation": confirmation}


def _check_delivery(
    package: KeyAPackage,
    integrity_key: IntegrityKey | None,
    hops: Any,
    versions: Any,
    version: int,
) -> None:
    """What comes with Key B must be what the service said of the session."""
    if integrity_key is None:
        raise ContextMismatch("a mover needs the integrity key")
    if not isinstance(hops, list) or tuple(hops) != package.hops:
        raise ContextMismatch("the hops are not those of the session")
    if not isinstance(versions, list):
        raise ContextMismatch("versions is not a list")
    common = {v for v in versions if v in PROTOCOL_VERSIONS}
    if not common or version != max(common):
        raise Downgrade(f"version {version} was chosen, {max(common, default=0)} is possible")


@implementer(IHandshakeListener)
class StreamPipe(BlockingPipe):
    """The mover's end of a Key B stream: becomes the worker's pipe once Key B is proved."""

    def __init__(self, mover: TargetDataMover, session: MoverSession, address: str) -> None:
        super().__init__(mover.reactor)
        self._mover = mover
        self._session = session
        self._address = address
        self._up = False
        session.unproved.append(self)

    def allowed(self, connection: int) -> bool:
        """Asked once the peer has proved Key B: whether it may have this connection number."""
        if connection >= self._session.package.streams:
            return False
        try:
            self._session.core.take_connection(connection)
        except Replayed:
            return False
        return True

    def handshakeCompleted(self) -> None:
        """The peer holds Key B."""
        if self._session.core.key_b is None:  # the session has ended meanwhile
            self.transport.abortConnection()
            return
        self._up = True
        _is_proved_or_gone(self._session, self)
        self._mover.stream_up(self._session, self, self.transport.connection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The worker hears of it through the pipe; where there is none yet, say it here."""
        if not self._up:
            _is_proved_or_gone(self._session, self)
            error = reason.value
            if isinstance(error, SecurityError):
                hop, proved = self._session.package.hops[0], self.transport.peer_proved
                say = self._mover.failed if proved else self._mover.warn
                say(self._session, error, hop, 0, self._address)
        super().connectionLost(reason)


def _make_room(session: MoverSession) -> None:
    """Close the oldest connection that has proved nothing, where there are too many of them.

    To refuse the new one in its place would let a stranger keep the tenant's own connection out.
    """
    while len(session.unproved) >= UNPROVED_MAX:
        session.unproved.pop(0).transport.abortConnection()


def _is_proved_or_gone(session: MoverSession, protocol: Any) -> None:
    if protocol in session.unproved:
        session.unproved.remove(protocol)


def _address(transport: Any) -> str:
    return str(getattr(transport.getPeer(), "host", "") or "")
