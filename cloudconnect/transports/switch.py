"""Layer 2, transports: the first bytes of a connection, on both sides of the one port.

The accepting side reads until :func:`cloudconnect.wire.preamble.decide` knows what a connection is
(at most 21 bytes) and hands the transport over, with everything read, to whoever serves it; the
connecting side writes its preamble and hands the transport over too. After that nothing stands
between the transport and the protocol that was wanted, which may even take over the socket.

Source: ``docs/protocol.rst``, section 1.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.errors import ProtocolViolation
from cloudconnect.interfaces import IRelayTarget
from cloudconnect.settings import PREAMBLE_SECONDS
from cloudconnect.shown import Shown
from cloudconnect.transports.admission import Admission, holder_of
from cloudconnect.transports.descriptor import hear_loss
from cloudconnect.transports.recipe import LayerFactory
from cloudconnect.wire.preamble import ConnectionKind, Preamble, decide

#: At most so many refused connections are logged one by one ...
REFUSALS_LOGGED = 20
#: ... in so many seconds; the others are counted and named in the next line.
REFUSALS_SECONDS = 60.0


def hand_over(transport: Any, protocol: IProtocol, data: bytes) -> None:
    """Make ``protocol`` the protocol of ``transport``, as if it had been so from the beginning.

    May be called from inside the old protocol's ``dataReceived`` or ``connectionMade``; the old one
    has no producer registered and hears nothing more.

    :param transport: a reactor's, a TLS or other layer, or one in memory
    :param data: what was read already; delivered at once when there is any
    """
    # A layer (ours, Twisted's TLS) has its protocol under another name than a socket has.
    name = "wrappedProtocol" if hasattr(transport, "wrappedProtocol") else "protocol"
    setattr(transport, name, protocol)
    protocol.makeConnection(transport)
    if data:
        protocol.dataReceived(data)


class Outcome(enum.Enum):
    """What became of a connection at the switch."""

    TLS = "tls"
    TUNNEL = "tunnel"
    STREAM = "stream"
    GARBAGE = "garbage"
    UNKNOWN_ROUTE = "unknown_route"
    TIMEOUT = "timeout"
    CROWDED = "crowded"
    GONE = "gone"


_KINDS = {
    ConnectionKind.KEY_A_TUNNEL: Outcome.TUNNEL,
    ConnectionKind.KEY_B_STREAM: Outcome.STREAM,
}


class LogLimit:
    """Lets through so many lines in so many seconds and counts the others.

    :param clock: an ``IReactorTime``
    :param lines: lines in one period
    :param seconds: length of a period
    """

    def __init__(
        self,
        clock: IReactorTime,
        lines: int = REFUSALS_LOGGED,
        seconds: float = REFUSALS_SECONDS,
    ) -> None:
        self._clock = clock
        self._lines = lines
        self._seconds = seconds
        self._began = clock.seconds()
        self._used = 0
        self._dropped = 0

    def admit(self) -> int | None:
        """None: do not log this one. Else how many were not logged since the last one that was."""
        now = self._clock.seconds()
        if now - self._began >= self._seconds:
            self._began, self._used = now, 0
        if self._used >= self._lines:
            self._dropped += 1
            return None
        self._used += 1
        dropped, self._dropped = self._dropped, 0
        return dropped


class FirstBytes(Protocol):
    """Reads until it is known what a connection is; :class:`FirstBytesFactory` builds it."""

    factory: FirstBytesFactory

    def __init__(self) -> None:
        self._buffer = b""
        self._timer: IDelayedCall | None = None
        self._decided = False

    def connectionMade(self) -> None:
        """Wait for the first bytes, not for ever."""
        factory = self.factory
        if not self._enter():
            self._refuse(Outcome.CROWDED)
            return
        self._timer = factory.clock.callLater(factory.seconds, self._late)

    def _enter(self) -> bool:
        """Whether there may be another connection; it is counted until it is gone."""
        admission, transport = self.factory.admission, self.transport
        assert transport is not None
        if admission is None:
            return True
        holder = holder_of(transport.getPeer())
        if not admission.enter(holder):
            return False
        if not hear_loss(transport, lambda: admission.leave(holder)):
            admission.leave(holder)  # a layer's end cannot be heard: it is not counted
        return True

    def dataReceived(self, data: bytes) -> None:
        """Look at what has come; less than a preamble is kept, the rest is never waited for."""
        if self._decided:
            return
        self._buffer += data
        try:
            decision = decide(self._buffer)
        except ProtocolViolation:
            self._refuse(Outcome.GARBAGE)
            return
        if decision is None:
            return
        if isinstance(decision, Preamble):
            outcome = _KINDS[decision.kind]
            target = self.factory.lookup(decision.route)
        else:
            outcome = Outcome.TLS
            target = self.factory.tls
        if target is None:
            self._refuse(Outcome.UNKNOWN_ROUTE)
            return
        buffer = self._decide(outcome)
        target.connect(self.transport, buffer)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The peer has left before it was known what it wanted."""
        if not self._decided:
            self._decide(Outcome.GONE)

    def _decide(self, outcome: Outcome) -> bytes:
        self._decided = True
        self.factory.counts[outcome] += 1
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        buffer, self._buffer = self._buffer, b""
        return buffer

    def _late(self) -> None:
        self._refuse(Outcome.TIMEOUT)

    def _refuse(self, outcome: Outcome) -> None:
        """Close, in the same way whatever the reason is."""
        self._decide(outcome)
        self.factory.log_refusal(outcome, self.transport)
        transport: Any = self.transport
        transport.abortConnection()


class FirstBytesFactory(Factory):
    """Builds a :class:`FirstBytes` for each connection that is accepted at the one port.

    :param lookup: the target of a route id (16 bytes), or None when there is none or no more
    :param tls: the target of connections that begin with TLS, or None to refuse them
    :param clock: the reactor
    :param seconds: how long a connection may take to say what it is
    :param admission: how many connections there may be, or None for no limit
    :ivar counts: how many connections had which :class:`Outcome`
    """

    protocol = FirstBytes  # type: ignore[assignment]
    noisy = False
    _log = Logger()

    def __init__(
        self,
        lookup: Callable[[bytes], IRelayTarget | None],
        tls: IRelayTarget | None,
        clock: IReactorTime,
        seconds: float = PREAMBLE_SECONDS,
        admission: Admission | None = None,
    ) -> None:
        self.lookup = lookup
        self.admission = admission
        self.tls = tls
        self.clock = clock
        self.seconds = seconds
        self.counts: Counter[Outcome] = Counter()
        self._limit = LogLimit(clock)

    def logPrefix(self) -> str:
        """What the log calls us."""
        return "first bytes"

    def log_refusal(self, outcome: Outcome, transport: Any) -> None:
        """Log that a connection was refused, unless there were too many of them lately.

        :param outcome: what became of it
        :param transport: its transport, for the peer's address
        """
        dropped = self._limit.admit()
        if dropped is not None:
            self._log.warn(
                "refused a connection from {peer}: {outcome} ({dropped} more not logged)",
                peer=transport.getPeer(),
                outcome=outcome.value,
                dropped=dropped,
            )


@implementer(IRelayTarget)
@attrs.frozen(repr=False)
class FactoryTarget(Shown):
    """A target in this process: protocols that a factory builds.

    :ivar factory: builds a protocol for each connection; one that builds None refuses it
    :ivar description: what the log calls it
    :ivar skip: how many of the first bytes are not handed on: 0 for TLS, ``PREAMBLE_SIZE`` for what
        begins behind a preamble
    """

    factory: IProtocolFactory
    description: str
    skip: int = 0

    def connect(self, transport: Any, data: bytes) -> None:
        """Hand the connection over to a new protocol.

        :param transport: the connection's, whose protocol the new one becomes
        :param data: bytes that were read already, given to it first
        """
        address: IAddress = transport.getPeer()
        protocol = self.factory.buildProtocol(address)
        if protocol is None:
            transport.abortConnection()
        else:
            hand_over(transport, protocol, data[self.skip :])


class _Writer(Protocol):
    """Writes the first bytes and makes way."""

    def __init__(self, protocol: IProtocol, octets: bytes) -> None:
        self.wanted = protocol
        self._octets = octets

    def connectionMade(self) -> None:
        """Write them, then be gone."""
        assert self.transport is not None
        self.transport.write(self._octets)
        hand_over(self.transport, self.wanted, b"")


@implementer(IStreamClientEndpoint)
@attrs.frozen(repr=False)
class SayingEndpoint(Shown):
    """Connects, writes some bytes, and puts the wanted protocol directly on the transport.

    :ivar endpoint: an ``IStreamClientEndpoint``
    :ivar octets: what to write first
    """

    endpoint: IStreamClientEndpoint
    octets: bytes

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """As ``IStreamClientEndpoint`` says; the result is the protocol that the factory built."""
        factory = LayerFactory(
            protocolFactory, lambda protocol: _Writer(protocol, self.octets), "first bytes"
        )
        connecting: Deferred[Any] = self.endpoint.connect(factory)
        return connecting.addCallback(
            lambda made: made.wanted if isinstance(made, _Writer) else made
        )


@implementer(IStreamClientEndpoint)
@attrs.frozen(repr=False)
class PreambleEndpoint(Shown):
    """Connects, writes a preamble, and puts the wanted protocol directly on the transport.

    :ivar endpoint: an ``IStreamClientEndpoint``
    :ivar preamble: what to say first
    """

    endpoint: IStreamClientEndpoint
    preamble: Preamble

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """As ``IStreamClientEndpoint`` says; the result is the protocol that the factory built."""
        return SayingEndpoint(self.endpoint, self.preamble.encode()).connect(protocolFactory)
