"""Layer 2, transports: a stream transport in memory, for tests and for roles in one process.

Behaves as a TCP connection between two processes does, as far as a protocol can tell: bytes arrive
in a later turn of the clock, cut in other places than they were written; a writer whose reader has
paused is paused at a high-water mark; closing waits for what was written; aborting drops it; one
direction may end before the other. Twisted's own in-memory transports do none of these.

Source: Twisted's ``ITransport``, ``IConsumer`` and ``IPushProducer``, and what TCP does (RFC 9293).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.shown import Shown
from cloudconnect.transports.closing import IHalfCloseTransport, as_failure
from cloudconnect.transports.flow import ProducerSlot

#: Bytes that one direction takes before its writer holds any: what kernels' socket buffers do.
CAPACITY = 64 << 10
#: A writer that holds more than this many bytes pauses its producer, as Twisted's TCP does.
WRITER_HIGH_WATER = 64 << 10
#: Most bytes in one ``dataReceived``, as in Twisted's TCP.
PIECE = 64 << 10
#: Most pieces that a transport delivers in one turn before others have theirs.
PIECES_IN_A_TURN = 8


@implementer(IAddress)
@attrs.frozen(repr=False)
class MemoryAddress(Shown):
    """Where an end of a connection in memory is.

    :ivar name: any text
    """

    name: str


class _Direction:
    """The bytes on their way in one direction."""

    def __init__(self) -> None:
        self.parts: deque[bytes] = deque()
        self.size = 0
        self._offset = 0  # of what was taken of the first part
        self.ended = False

    def put(self, part: bytes) -> None:
        self.parts.append(part)
        self.size += len(part)

    def take(self, limit: int) -> bytes:
        """The next piece, of at most ``limit`` bytes; writes are joined and cut as need be."""
        piece: list[bytes] = []
        room = limit
        while self.parts and room:
            part = self.parts[0]
            taken = part[self._offset : self._offset + room]
            self._offset += len(taken)
            if self._offset == len(part):
                self.parts.popleft()
                self._offset = 0
            room -= len(taken)
            piece.append(taken)
        self.size -= limit - room
        return b"".join(piece)

    def clear(self) -> None:
        self.parts.clear()
        self.size = self._offset = 0


@implementer(IHalfCloseTransport, IConsumer, IPushProducer)
class MemoryTransport:
    """One end of a connection in memory; :class:`MemoryPair` makes two.

    :param clock: delivers
    :param host: the address of this end
    :param peer: the address of the other end
    :param high_water: bytes that a writer may hold before its producer is paused
    :param piece: most bytes of one delivery, asked before each one
    :ivar protocol: who receives; may be exchanged for another one
    :ivar connected: whether the connection is there
    :ivar disconnecting: whether :meth:`loseConnection` was called
    :ivar disconnected: whether the protocol was told that the connection is gone
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        host: IAddress,
        peer: IAddress,
        high_water: int,
        piece: Callable[[], int],
    ) -> None:
        self._clock = clock
        self._host = host
        self._peer = peer
        self._high_water = high_water
        self._piece = piece
        self._full = False
        self._turn: IDelayedCall | None = None
        self._out = _Direction()
        self._other = self
        self._paused = False
        self._write_closing = False
        self._read_ended = False
        self._aborting = False
        self._reset = False
        self._producer = ProducerSlot(clock, self.unregisterProducer)
        self.protocol: Any = None
        self.connected = True
        self.disconnecting = False
        self.disconnected = False

    def __repr__(self) -> str:
        return f"<MemoryTransport {self._host} to {self._peer}>"

    @property
    def held(self) -> int:
        """Bytes that were written and not delivered yet."""
        return self._out.size

    def _wake(self) -> None:
        """See to both directions in the next turn."""
        if self._turn is None and not self.disconnected:
            self._turn = self._clock.callLater(0, self._take_turn)

    # --- writing --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send ``data``.

        :raises TypeError: not ``bytes``
        """
        if not isinstance(data, bytes):
            raise TypeError(f"a transport takes bytes, not {type(data).__name__}")
        if not data or self.disconnected or self._aborting or self._out.ended:
            return
        if self._other.disconnected:  # as a kernel answers bytes for a closed socket
            self._reset = True
            self._wake()
            return
        self._out.put(data)
        self._other._wake()
        self._update_producer()

    def writeSequence(self, data: Any) -> None:
        """Send every part of ``data``."""
        for part in data:
            self.write(part)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let ``producer`` write; pause it while more than the high-water mark is held.

        :param streaming: False for a pull producer, which is asked once a turn of the clock
        :raises RuntimeError: there is one already
        """
        if self._producer.register(producer, streaming, self.disconnected):
            self._wake()

    def unregisterProducer(self) -> None:
        """The producer has written its last."""
        self._producer.unregister()
        self._wake()

    def _update_producer(self) -> None:
        if self._out.size <= CAPACITY:
            self._full = False
        elif self._out.size > CAPACITY + self._high_water:
            self._full = True
        self._producer.pause(self._full)

    def loseWriteConnection(self) -> None:
        """End our direction once everything was sent."""
        self._write_closing = True
        self._wake()

    def loseConnection(self) -> None:
        """Close once everything was sent and no producer is registered; stop reading now."""
        self.disconnecting = True
        self._wake()

    def abortConnection(self) -> None:
        """Close at once; what is on its way in either direction is dropped."""
        if self.disconnected or self._aborting:
            return
        self._aborting = True
        self._out.clear()
        self._other._out.clear()
        self._clock.callLater(0, self._close, as_failure(ConnectionAborted()))
        self._other._reset = True
        self._other._wake()

    # --- reading --------------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Deliver nothing."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Deliver again, from the next turn on."""
        self._paused = False
        self._wake()

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()

    def getPeer(self) -> IAddress:
        """The other end's address."""
        return self._peer

    def getHost(self) -> IAddress:
        """This end's address."""
        return self._host

    # --- turns ----------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        self._turn = None
        if self.disconnected or self._aborting:
            return
        if self._reset and not self._other._out.parts:
            self._close(as_failure(ConnectionLost()))
            return
        if not self.disconnecting:
            self._settle_reading()
        if not (self.disconnected or self._aborting):
            self._settle_writing()

    def _settle_writing(self) -> None:
        self._update_producer()
        if self._out.size > CAPACITY or self._producer.registered or self._aborting:
            return
        if self.disconnecting:
            self._close(as_failure(ConnectionDone()))
        elif self._write_closing and not self._out.ended:
            self._out.ended = True
            self._other._wake()
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self._call(self.protocol.writeConnectionLost)

    def _settle_reading(self) -> None:
        into = self._other._out
        for _ in range(PIECES_IN_A_TURN):
            if self._paused or not into.parts:
                break
            piece = into.take(self._piece())
            if into.size <= CAPACITY:
                self._other._wake()
            self._call(self.protocol.dataReceived, piece)
            if self.disconnected or self._aborting or self.disconnecting:
                return
        if (into.parts and not self._paused) or (self._reset and not into.parts):
            self._wake()
        elif into.ended and not (into.parts or self._paused or self._read_ended):
            self._read_ended = True
            if not self._other.disconnected and IHalfCloseableProtocol.providedBy(self.protocol):
                self._call(self.protocol.readConnectionLost)
            else:
                self._close(as_failure(ConnectionDone()))

    def _call(self, call: Any, *arguments: Any) -> None:
        """Call the protocol; what it raises is logged and ends the connection."""
        try:
            call(*arguments)
        except Exception:
            failure = as_failure()
            self._log.failure("unhandled error in {protocol}", failure, protocol=self.protocol)
            self._close(failure)

    def _close(self, reason: Failure) -> None:
        """The socket's end: whoever is at the other one finds out by reading or writing."""
        if self.disconnected:
            return
        self.disconnected = True
        self.connected = False
        self._other._out.clear()  # nobody reads it any more
        self._out.ended = True
        self._other._wake()
        self._producer.stop()
        self.connectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone; the protocol hears of it.

        :param reason: why
        """
        self.protocol.connectionLost(reason)


class MemoryPair:
    """Two joined transports.

    :param clock: delivers; without one, :meth:`pump` does
    :param high_water: bytes that a writer may hold before its producer is paused
    :param piece: most bytes of one delivery, 1 or more, asked before each one
    :param left_address: address of the left end
    :param right_address: address of the right end
    :ivar left: one end, by custom the one that opened the connection
    :ivar right: the other
    """

    def __init__(
        self,
        clock: IReactorTime | None = None,
        high_water: int = WRITER_HIGH_WATER,
        piece: Callable[[], int] = lambda: PIECE,
        left_address: IAddress = MemoryAddress("left"),
        right_address: IAddress = MemoryAddress("right"),
    ) -> None:
        self.clock: IReactorTime = Clock() if clock is None else clock
        self.left = MemoryTransport(self.clock, left_address, right_address, high_water, piece)
        self.right = MemoryTransport(self.clock, right_address, left_address, high_water, piece)
        self.left._other = self.right
        self.right._other = self.left

    def connect(self, left: IProtocol, right: IProtocol) -> None:
        """Connect a protocol to each end, the accepting one (``right``) first.

        :param left: for the end :attr:`left`
        """
        self.left.protocol, self.right.protocol = left, right
        right.makeConnection(self.right)
        left.makeConnection(self.left)

    def pump(self) -> None:
        """Run what is due now on the pair's ``Clock``, and what that makes due."""
        assert isinstance(self.clock, Clock)
        self.clock.advance(0)


@implementer(IStreamClientEndpoint, IStreamServerEndpoint, IListeningPort)
class MemoryEndpoint:
    """A place in memory to listen at and to connect to: endpoint for both sides, and its port.

    :param clock: delivers the bytes
    :param name: its address
    """

    def __init__(self, clock: IReactorTime, name: str) -> None:
        self._clock = clock
        self._address = MemoryAddress(name)
        self._factory: Any = None
        self._clients = 0

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Accept connections for ``protocolFactory``; the result is the listening port."""
        self._factory = protocolFactory
        self.startListening()
        return succeed(self)

    def startListening(self) -> None:
        """Start the factory."""
        self._factory.doStart()

    def stopListening(self) -> Deferred[None]:
        """Accept no more connections; those that are there go on."""
        factory, self._factory = self._factory, None
        if factory is not None:
            factory.doStop()
        return succeed(None)

    def getHost(self) -> IAddress:
        """Where we listen."""
        return self._address

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Connect to whoever listens here; the result is the client's protocol.

        Fails with ``ConnectionRefusedError`` when nobody does, or when either factory refuses.

        :param protocolFactory: builds the client's protocol
        """
        self._clients += 1
        address = MemoryAddress(f"{self._address.name}/client-{self._clients}")
        server = self._factory.buildProtocol(address) if self._factory is not None else None
        client = protocolFactory.buildProtocol(self._address) if server is not None else None
        if server is None or client is None:
            return fail(ConnectionRefusedError())
        pair = MemoryPair(self._clock, left_address=address, right_address=self._address)
        pair.connect(client, server)
        return succeed(client)
