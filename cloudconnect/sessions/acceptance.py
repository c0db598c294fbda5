"""Below the roles: taking in a target role's connections: Key A tunnels and Key B streams.

A connection begins with the preamble that names a session's route. What follows must prove the
session's key; until it has, a failure closes that connection and nothing else, because anybody who
saw the route id can send junk to it (``docs/protocol.rst``, section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IProtocol, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
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
from cloudconnect.sessions.machine import SessionState
from cloudconnect.sessions.package import KeyAPackage
from cloudconnect.sessions.role import RoleSession, TargetRole
from cloudconnect.settings import PROTOCOL_VERSIONS
from cloudconnect.transports.stream import RecordStream
from cloudconnect.transports.switch import hand_over
from cloudconnect.transports.tunnel import NoiseTunnel
from cloudconnect.wire import canonical
from cloudconnect.wire.preamble import PREAMBLE_SIZE, ConnectionKind, Preamble


@implementer(IRelayTarget)
class RoleTarget:
    """Where a gateway hands a connection to a target role in this process.

    :param roles: whichever of them has the connection's route gets it
    """

    description = "the target roles in this process"
    _log = Logger()

    def __init__(self, *roles: TargetRole) -> None:
        self._roles = roles

    def connect(self, transport: object, data: bytes) -> None:
        """Begin the layer that the preamble at the head of ``data`` asks for."""
        accepted = cast(ITCPTransport, transport)
        octets = data[:PREAMBLE_SIZE]
        preamble = Preamble.decode(octets)
        protocol: Any = None
        for role in self._roles:
            session = role.by_route(preamble.route)
            if session is not None:
                session.unproved.make_room()
                if preamble.kind is ConnectionKind.KEY_A_TUNNEL:
                    protocol = tunnel_layer(role, session, octets, accepted)
                else:
                    protocol = _stream(role, session, octets, accepted)
        if protocol is None:
            self._log.warn("no session for a connection from {peer}", peer=accepted.getPeer())
            accepted.abortConnection()
            return
        hand_over(accepted, protocol, data[PREAMBLE_SIZE:])


def tunnel_layer(
    role: TargetRole, session: RoleSession, octets: bytes, transport: Any
) -> IProtocol | None:
    """The answering end of a Key A tunnel; None where Key A was used, or is too old.

    :param octets: the connection's preamble
    :param transport: the connection, for the peer's address
    """
    core, package = session.core, session.package
    if core.key_a is None or not role.key_a_usable(session):
        return None
    responder = TunnelResponder(role, session, address_of(transport))
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
    return recipe.layer(False, responder, role.reactor)


def _stream(
    role: TargetRole, session: RoleSession, octets: bytes, transport: Any
) -> IProtocol | None:
    core, package = session.core, session.package
    if core.key_b is None:
        return None
    address, hop = address_of(transport), package.hops[0]

    def allowed(connection: int) -> bool:
        if connection >= package.streams:
            return False
        try:
            core.take_connection(connection)
        except Replayed:
            return False
        return True

    def lost(end: StreamEnd, error: BaseException | None, proved: bool) -> None:
        session.unproved.settled(end)
        if isinstance(error, SecurityError):
            say = role.failed if proved else role.warn
            say(session, error, hop, 0, address)

    def proved(end: StreamEnd, stream: Any) -> bool:
        session.unproved.settled(end)
        return role.stream_proved(session, stream)

    end = StreamEnd(proved, lost)
    session.unproved.append(end)
    recipe = RecordStream(
        secret=core.key_b,
        context=key_b_context(octets, package.session, package.tenant, hop),
        allow=allowed,
    )
    return recipe.layer(False, end, role.reactor)


@implementer(IHandshakeListener)
class StreamEnd(Protocol):
    """Holds a Key B stream until its peer has proved Key B, then makes way for who speaks on it.

    :param proved: takes this and the stream once it has, and puts another protocol on the stream;
        where it gives False, the stream is closed
    :param lost: takes this, the error, and whether the peer had proved itself, where it ended first
    """

    def __init__(
        self,
        proved: Callable[[StreamEnd, Any], bool],
        lost: Callable[[StreamEnd, BaseException | None, bool], None],
    ) -> None:
        self._proved = proved
        self._lost = lost

    def handshakeCompleted(self) -> None:
        """The peer holds Key B."""
        stream: Any = self.transport
        if not self._proved(self, stream):
            stream.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It ended before the handshake was over."""
        stream: Any = self.transport
        self._lost(self, reason.value, stream.peer_proved)


class TunnelResponder(BoundedAMP):
    """A role's end of a Key A tunnel: receives Key B.

    :param address: the peer's address as text
    """

    def __init__(self, role: TargetRole, session: RoleSession, address: str) -> None:
        super().__init__(role.reactor)
        self._role = role
        self._session = session
        self._address = address
        self._proved = False
        session.unproved.append(self)

    def proved(self) -> None:
        """The first handshake message verified under Key A, which is used up by that."""
        if not self._role.key_a_usable(self._session):
            raise KeyARejected("Key A was used before")
        self._proved = True
        self._session.unproved.settled(self)
        self._role.key_a_proved(self._session, self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Before the proof this is one connection less; after it, the end of the session."""
        error = reason.value
        if self._proved:
            known = error if isinstance(error, CloudConnectError) else None
            self._role.tunnel_lost(self._session, known)
        else:
            self._session.unproved.settled(self)
            if isinstance(error, SecurityError):
                self._role.warn(self._session, error, "key-a-tunnel", 0, self._address)
        super().connectionLost(reason)

    @DeliverKeyB.responder
    def deliver(
        self,
        key_b: KeyB,
        integrity_key: IntegrityKey | None,
        hops: Any,
        versions: Any,
        version: int,
    ) -> Deferred[dict[str, Any]]:
        """Check what comes with Key B against the package, then confirm."""
        package, role = self._session.package, self._role
        try:
            if self._session.core.state is not SessionState.PROVED:
                raise Replayed("Key B was delivered before")
            if role.holds_integrity_key is not (integrity_key is not None):
                needs = "needs" if role.holds_integrity_key else "must not have"
                raise ContextMismatch(f"a {role.role} {needs} the integrity key")
            _check_delivery(package, hops, versions, version)
        except SecurityError as error:
            # Once the answer, which says why, has gone out.
            role.reactor.callLater(
                0, role.failed, self._session, error, "key-a-tunnel", 0, self._address
            )
            raise
        digest = self.digest_of_current_box()
        handshake_hash = self.transport.handshake_hash  # type: ignore[union-attr]
        confirmation = key_b_confirmation(key_b, handshake_hash, package.role, digest)
        role.key_b_delivered(self._session, key_b, integrity_key)
        ready = Deferred.fromCoroutine(role.prepare(self._session))
        return ready.addCallback(lambda _: {"confirmation": confirmation})


def _check_delivery(package: KeyAPackage, hops: Any, versions: Any, version: int) -> None:
    """What comes with Key B must be what the service said of the session."""
    if not isinstance(hops, list) or tuple(hops) != package.hops:
        raise ContextMismatch("the hops are not those of the session")
    if not isinstance(versions, list):
        raise ContextMismatch("versions is not a list")
    common = {v for v in versions if v in PROTOCOL_VERSIONS}
    if not common or version != max(common):
        raise Downgrade(f"version {version} was chosen, {max(common, default=0)} is possible")


def address_of(transport: Any) -> str:
    """The peer's address as text, where it has one."""
    return str(getattr(transport.getPeer(), "host", "") or "")
