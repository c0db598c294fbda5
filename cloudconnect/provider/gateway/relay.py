"""Layer 4: moving the bytes of one accepted connection to a back end, blindly.

The relay reads nothing and holds no key. Between two sockets it moves bytes inside the kernel
(:mod:`cloudconnect.transports.splice`); where one side is something else, or the system has no
``splice``, :class:`RelayProtocol` passes them on. A PROXY protocol v2 header, written before the
first bytes, tells the back end who the peer really is
(https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from typing import cast

import attrs
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.interfaces import IRelayTarget
from cloudconnect.transports.memory import MemoryPair
from cloudconnect.transports.pipes import PipePool
from cloudconnect.transports.splice import IAllowance, SplicedPair, Traffic, can_splice
from cloudconnect.transports.switch import hand_over

_PROXY_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
#: The header of a connection that is its sender's own, and nobody else's that it relays.
PROXY_LOCAL = _PROXY_SIGNATURE + b"\x20\x00\x00\x00"


def proxy_header(peer: IAddress, host: IAddress) -> bytes:
    """The PROXY protocol v2 header for a TCP connection from ``peer`` to ``host``.

    Addresses that are not IP addresses give the command LOCAL, which says nothing of the peer.
    """
    try:
        source = ipaddress.ip_address(getattr(peer, "host", ""))
        target = ipaddress.ip_address(getattr(host, "host", ""))
    except ValueError:
        return PROXY_LOCAL
    if source.version != target.version:
        return PROXY_LOCAL
    family = 0x11 if source.version == 4 else 0x21
    ports = struct.pack(">HH", getattr(peer, "port", 0), getattr(host, "port", 0))
    addresses = source.packed + target.packed + ports
    return _PROXY_SIGNATURE + struct.pack(">BBH", 0x21, family, len(addresses)) + addresses


@implementer(IPushProducer)
class _Valve:
    """Reads from a transport while neither the other side nor its allowance is against it."""

    def __init__(self, transport: IPushProducer) -> None:
        self._transport = transport
        self._against: set[str] = set()

    def close(self, why: str) -> None:
        if not self._against:
            self._transport.pauseProducing()
        self._against.add(why)

    def open(self, why: str) -> None:
        if self._against:
            self._against.discard(why)
            if not self._against:
                self._transport.resumeProducing()

    def pauseProducing(self) -> None:
        self.close("sink")

    def resumeProducing(self) -> None:
        self.open("sink")

    def stopProducing(self) -> None:
        self._transport.stopProducing()


@implementer(IHalfCloseableProtocol)
class RelayProtocol(Protocol):
    """One side of a relayed pair: what it receives, the other side writes.

    The two transports are each other's producers, so that a slow side pauses the fast one.
    """

    _other: RelayProtocol | None = None
    _read_ended = False
    _write_ended = False
    _valve: _Valve
    _grant: IAllowance | None = None
    _traffic: Traffic | None = None
    _is_near = False
    _over: Callable[[], None] | None = None

    def pair(
        self,
        other: RelayProtocol,
        traffic: Traffic | None = None,
        grants: Grants | None = None,
        over: Callable[[], None] | None = None,
    ) -> None:
        """Begin relaying between this side, of who connected, and ``other``, both connected.

        :param traffic: counts
        :param grants: what each direction may move; None: no limit
        :param over: called once, when this side is gone
        """
        self._other, other._other = other, self
        self._is_near, self._over = True, over
        if traffic is not None:
            traffic.pairs += 1
        for place, (here, there) in enumerate(((self, other), (other, self))):
            here._traffic = traffic
            here._grant = None if grants is None else grants[place]
            here._valve = _Valve(cast(IPushProducer, here.transport))
            if here._grant is not None:
                here._wait_for_grant()
            assert there.transport is not None
            cast(IConsumer, there.transport).registerProducer(here._valve, True)

    def _wait_for_grant(self) -> None:
        if self._grant is not None and self._grant.left <= 0:
            self._valve.close("grant")
            self._grant.ask(lambda: self._valve.open("grant"))

    def dataReceived(self, data: bytes) -> None:
        """Pass it on."""
        if self._other is None or self._other.transport is None:
            return
        self._other.transport.write(data)
        if self._traffic is not None:
            if self._is_near:
                self._traffic.up += len(data)
            else:
                self._traffic.down += len(data)
        if self._grant is not None:
            self._grant.spend(len(data))
            self._wait_for_grant()

    def readConnectionLost(self) -> None:
        """This side will send no more: neither will the other side be written to any more."""
        self._read_ended = True
        other = self._other
        if other is not None and other.transport is not None:
            cast(IConsumer, other.transport).unregisterProducer()
            lose = getattr(other.transport, "loseWriteConnection", None)
            if lose is None:
                other.transport.loseConnection()
            else:
                lose()
        self._close_when_over()

    def writeConnectionLost(self) -> None:
        """The other side has said all, and it is written here."""
        self._write_ended = True
        self._close_when_over()

    def _close_when_over(self) -> None:
        """No reactor closes a connection by itself because both of its directions have ended."""
        if self._read_ended and self._write_ended and self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the other side too, after what it still has to send."""
        if self._grant is not None:
            self._grant.close()
        if self._is_near:
            self._is_near = False
            if self._traffic is not None:
                self._traffic.pairs -= 1
            if self._over is not None:
                self._over()
        other, self._other = self._other, None
        if other is not None and other.transport is not None:
            other._other = None
            cast(IConsumer, other.transport).unregisterProducer()
            other.transport.loseConnection()


#: What the two directions of a relay may move: up from who connected, and down.
Grants = tuple[IAllowance, IAllowance]


@attrs.define(eq=False)
class Relays:
    """What the relays of one process share.

    :ivar clock: of their idle limits
    :ivar pool: lends pipes
    :ivar traffic: what they have moved
    :ivar in_kernel: whether sockets are joined inside the kernel where that can be
    """

    clock: IReactorTime
    pool: PipePool = attrs.field(factory=PipePool)
    traffic: Traffic = attrs.field(factory=Traffic)
    in_kernel: bool = True


@implementer(IRelayTarget)
class RelayTo:
    """Takes connections to a back end at another address.

    :param endpoint: where the back end listens
    :param description: what the log calls it
    :param relays: what it shares with others
    """

    _log = Logger()

    def __init__(self, endpoint: IStreamClientEndpoint, description: str, relays: Relays) -> None:
        self._endpoint = endpoint
        self._relays = relays
        self.description = description

    def connect(self, transport: object, data: bytes) -> None:
        """Connect to the back end and relay; the peer is closed when that fails."""
        self.relay(transport, data)

    def relay(
        self,
        transport: object,
        data: bytes,
        grants: Grants | None = None,
        over: Callable[[], None] = lambda: None,
    ) -> None:
        """As :meth:`connect`, with what each direction may move.

        :param grants: up and down; None: no limit
        :param over: called once, when it is over, or did not come about
        """
        accepted = cast(ITransport, transport)
        near = RelayProtocol()
        accepted.pauseProducing()  # type: ignore[attr-defined]
        hand_over(accepted, near, b"")
        header = proxy_header(accepted.getPeer(), accepted.getHost())
        connecting = self._endpoint.connect(Factory.forProtocol(RelayProtocol))

        def connected(far: RelayProtocol) -> None:
            assert far.transport is not None
            if near.transport is None or not getattr(near.transport, "connected", True):
                far.transport.loseConnection()
                over()
                return
            far.transport.write(header + data)
            relays = self._relays
            if relays.in_kernel and can_splice(accepted, far.transport):
                up, down = (None, None) if grants is None else grants
                SplicedPair(
                    relays.clock,
                    accepted,
                    far.transport,
                    relays.pool,
                    relays.traffic,
                    up,
                    down,
                    over,
                ).begin()
                return
            accepted.resumeProducing()  # type: ignore[attr-defined]
            near.pair(far, relays.traffic, grants, over)

        def failed(reason: Failure) -> None:
            self._log.warn(
                "gateway cannot reach back end {backend}: {reason}",
                backend=self.description,
                reason=reason.getErrorMessage(),
            )
            accepted.loseConnection()
            over()

        connecting.addCallbacks(connected, failed)


def join_in_memory(
    relays: Relays,
    target: IRelayTarget,
    transport: object,
    data: bytes,
    grants: Grants,
    over: Callable[[], None],
) -> None:
    """Hand a connection to a target of this process, with what each direction may move.

    What belongs to the target is then not the socket, but an end of a connection in memory that is
    relayed to it.

    :param grants: up and down
    :param over: called once, when it is over
    """
    accepted = cast(ITransport, transport)
    pair = MemoryPair(
        relays.clock, left_address=accepted.getPeer(), right_address=accepted.getHost()
    )
    near, far = RelayProtocol(), RelayProtocol()
    accepted.pauseProducing()  # type: ignore[attr-defined]
    hand_over(accepted, near, b"")
    pair.connect(far, Protocol())
    target.connect(pair.right, data)
    accepted.resumeProducing()  # type: ignore[attr-defined]
    near.pair(far, relays.traffic, grants, over)
