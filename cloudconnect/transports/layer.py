"""Layer 2, transports: what every layer of the transport stack has in common.

A :class:`Layer` is an ``IProtocol`` for the transport below it, any Twisted stream transport, and a
full ``ITransport``, ``IConsumer`` and ``IPushProducer`` for the protocol above it. A concrete layer
adds the bytes: it overrides the hooks :meth:`Layer._opened`, :meth:`Layer._received`,
:meth:`Layer._seal`, :meth:`Layer._seal_end` and :meth:`Layer._forget_keys`, and calls
:meth:`Layer._ready` when its handshake is over. All else stands here once: back-pressure in both
directions, both closings, timers, the reason of the end, and what happens when the application
closes, aborts or pauses inside a delivery.

**Reading.** The transport below is paused while the application is, or while bytes wait here for
it; never during the handshake, which needs both directions. Waiting bytes are delivered in a turn
of their own after the application has resumed.

**Writing.** The layer stays registered as the push producer of the transport below for as long as
the connection lives, and merges two reasons to pause the application's producer: the transport
below is full, or more than ``HIGH_WATER`` bytes wait here for the end of the handshake.

**Ending** stands in :mod:`cloudconnect.transports.closing`.

Source: the list in ``docs/howto/wrapper.rst``.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IHandshakeListener,
    ILoggingContext,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.errors import Truncated
from cloudconnect.interfaces import IBufferReceiver
from cloudconnect.settings import HIGH_WATER
from cloudconnect.transports.closing import (
    CLOSE_RATE,
    Closing,
    IHalfCloseTransport,
    as_failure,
)
from cloudconnect.transports.flow import ProducerSlot

__all__ = [
    "CLOSE_RATE",
    "EndingLayer",
    "IHalfCloseTransport",
    "Layer",
    "Octets",
    "as_failure",
    "log_prefix",
]

#: Bytes that a layer may answer of its own accord while the transport below is full, before it
#: stops reading: bounds what a peer that asks and never reads can make us hold.
ANSWERS_MAX = 64 << 10

#: Methods of TCP transports that a layer offers where the transport below has them.
FORWARDED = ("setTcpNoDelay", "getTcpNoDelay", "setTcpKeepAlive", "getTcpKeepAlive")

Octets = bytes | bytearray | memoryview


def log_prefix(wrapped: object, name: str) -> str:
    """``wrapped``'s log prefix, followed by the name of the layer below it.

    :param name: of the layer
    """
    if ILoggingContext.providedBy(wrapped):
        prefix: str = wrapped.logPrefix()
    else:
        prefix = type(wrapped).__name__
    return f"{prefix} ({name})"


class _End:
    """Stands in the queue of waiting pieces for the peer's authenticated end."""


_END = _End()


@implementer(IProtocol, ITransport, IConsumer, IPushProducer, ILoggingContext)
class Layer(Closing):
    """One connection's worth of a transport layer; see the module for what it does.

    :param protocol: the protocol above; may be exchanged through :attr:`wrappedProtocol`
    :param clock: the reactor, or a ``Clock``
    :ivar factory: the factory that built this, or None
    """

    factory: Any = None

    def __init__(self, protocol: IProtocol, clock: IReactorTime) -> None:
        super().__init__(clock)
        self.wrappedProtocol = protocol
        # reading
        self._paused = False  # by the application
        self._paused_below = False  # by us
        self._feeding = False
        self._arrived: deque[bytes] = deque()  # while feeding, if the transport is re-entrant
        self._queue: deque[bytes | _End] = deque()  # opened, waiting for the application
        self._turn: IDelayedCall | None = None
        self._answers = 0  # bytes of them since the transport below was full
        # writing
        self._held: deque[Octets] = deque()
        self._held_size = 0
        self._transmitting = False
        self._producer = ProducerSlot(clock, self.unregisterProducer)

    @property
    def ready(self) -> bool:
        """Whether the handshake is over."""
        return self._is_ready

    @property
    def waiting(self) -> int:
        """Bytes that were written and wait here; what is below this layer may hold more."""
        return self._held_size

    # --- hooks for the concrete layer -----------------------------------------------------------

    def _opened(self) -> None:
        """The transport below is there: send the first message, if it is ours to send.

        A layer without a handshake calls :meth:`_ready`.
        """
        raise NotImplementedError

    def _received(self, data: bytes) -> Iterable[Octets]:
        """Take ``data`` from below and yield what it holds for the application, piece by piece.

        Best a generator: each piece is delivered before the next is asked for, so a
        ``memoryview`` need only be valid until then, and what stood before a bad record is
        delivered. May call :meth:`_ready`, :meth:`_end_came`, :meth:`_answer` and :meth:`_fail` on
        the way. It is not asked for more once the layer is over.

        :raises CloudConnectError: the connection fails with this reason
        """
        raise NotImplementedError

    def _seal(self, data: bytes) -> bytes | Iterable[bytes]:
        """What goes below for ``data`` (never empty); not called before :meth:`_ready`."""
        raise NotImplementedError

    def _transmit(self, parts: list[Octets]) -> None:
        """Send ``parts`` of the application's bytes, in order; a faster way may override this."""
        sealed = self._seal(b"".join(parts))
        if isinstance(sealed, bytes):
            self._write_below(sealed)
        else:
            for octets in sealed:
                self._write_below(octets)

    # --- what the concrete layer calls ----------------------------------------------------------

    def _ready(self) -> None:
        """The handshake is over: tell the application, then send what waits."""
        if self._is_ready or self._over or self._below_lost or self._closed_below:
            return
        self._is_ready = True
        self._set_timer(None)
        protocol = self.wrappedProtocol
        if IHandshakeListener.providedBy(protocol):
            # before anything is sent: the application may look at the peer and abort
            self._guarded(protocol.handshakeCompleted)
        if not self._over:
            for waiter in self._take_waiters():
                waiter.callback(self.wrappedProtocol)
            self._update_reading()
            self._gate_changed()

    def _deliver(self, piece: Octets) -> bool:
        """Hand ``piece`` to the application, or keep a copy of it while the application is paused.

        :returns: False when the layer is over and nothing more is to be delivered
        """
        if self._over or self._told or not self._is_ready:
            return False
        if self._paused or self._queue:
            self._queue.append(bytes(piece))
            self._update_reading()
            return True
        self._hand_up(piece)
        return not self._over

    def _end_came(self) -> None:
        """The peer's authenticated end was verified: no more bytes come for the application."""
        if self._over:
            return
        if self._queue:
            self._queue.append(_END)
        else:
            self._end_reached()

    def _answer(self, octets: bytes) -> None:
        """Write bytes of the layer's own to the transport below, in answer to something read."""
        self._write_below(octets)
        if self._gate.paused:
            self._answers += len(octets)
            self._update_reading()

    def _replace_below(self, transport: Any) -> None:
        """Go on over ``transport`` in the place of the one below; after :meth:`_release_below`.

        For a layer that takes over the socket once its handshake is over. ``transport`` calls our
        ``connectionLost`` as the old one would have.
        """
        self.transport = transport
        self._gate.paused = False
        transport.registerProducer(self._gate, True)
        if self._paused_below:
            transport.pauseProducing()
        self._gate_changed()

    # --- IProtocol, for the transport below -----------------------------------------------------

    @property
    def wrappedProtocol(self) -> Any:
        """The protocol above. Setting it hands the connection over; the new one is not told."""
        return self._protocol

    @wrappedProtocol.setter
    def wrappedProtocol(self, protocol: Any) -> None:
        self._protocol = protocol
        self._takes_buffers = IBufferReceiver.providedBy(protocol)

    def makeConnection(self, transport: Any) -> None:
        """Connect to the transport below, connect the protocol above to us, begin the handshake.

        :param transport: any stream transport: a reactor's, another layer, one in memory
        """
        self.transport = transport
        for method in FORWARDED:
            if hasattr(transport, method):
                setattr(self, method, getattr(transport, method))
        no_delay = getattr(transport, "setTcpNoDelay", None)
        if no_delay is not None and ITCPTransport.providedBy(transport):
            # A turn's writes leave together anyway. To hold a message back until the peer's
            # delayed acknowledgement of the one before costs a round trip and 40 ms.
            with contextlib.suppress(OSError):  # a UNIX socket says that it is one too
                no_delay(True)
        self.connected = True
        self.connectionMade()

    def connectionMade(self) -> None:
        """The transport below is there."""
        self._set_timer(self.handshake_seconds, self._handshake_late)
        self.transport.registerProducer(self._gate, True)
        self._guarded(self.wrappedProtocol.makeConnection, self)
        if not (self._over or self._below_lost or self._closed_below):
            self._call_core(self._opened)

    def dataReceived(self, data: bytes) -> None:
        """Open ``data`` and deliver what it holds. Nothing that the peer sends makes this raise."""
        self._arrived.append(data)
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._arrived and not self._over:
                self._call_core(self._feed, self._arrived.popleft())
        finally:
            self._feeding = False
            self._arrived.clear()
        if self._end_sent and not self._end_received and not self._over:
            self._arm_close()

    def _feed(self, data: bytes) -> None:
        for piece in self._received(data):
            if not self._deliver(piece):
                return

    # --- ITransport and IConsumer, for the protocol above ---------------------------------------

    def write(self, data: Octets) -> None:
        """Send ``data``; bytes-like objects other than ``bytes`` must not change afterwards.

        :raises TypeError: not bytes-like
        """
        self.writeSequence((data,))

    def writeSequence(self, data: Iterable[Octets]) -> None:
        """Send the parts of ``data`` in order; as :meth:`write`.

        :param data: parts, bytes-like
        :raises TypeError: a part is not bytes-like; then none of them is sent
        """
        parts: list[Octets] = []
        for part in data:
            if isinstance(part, memoryview):
                part = part.cast("B")
            elif not isinstance(part, (bytes, bytearray)):
                raise TypeError(f"a transport takes bytes, not {type(part).__name__}")
            if part:
                parts.append(part)
        if not parts or self._over or self._below_lost or self._end_sent:
            return
        if (self.disconnecting or self._half_closing) and not self._producer.registered:
            return
        if self._is_ready and not self._held and not self._transmitting:
            self._send(parts)
            if self._held or self.disconnecting or self._half_closing:
                self._gate_changed()  # somebody wrote, or closed, from inside
        else:
            self._held.extend(parts)
            self._held_size += sum(map(len, parts))
            self._gate_changed()

    def getPeer(self) -> IAddress:
        """The address of the other side, from the transport below."""
        peer: IAddress = self.transport.getPeer()
        return peer

    def getHost(self) -> IAddress:
        """The address of this side, from the transport below."""
        host: IAddress = self.transport.getHost()
        return host

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let ``producer`` write; it is paused while we, or the transport below, hold too much.

        :param streaming: False for a pull producer, which is asked once a turn of the clock
        :raises RuntimeError: there is one already
        """
        gone = self._over or self._below_lost or self._told
        ending = self._end_sent or self.disconnecting or self._half_closing
        if self._producer.register(producer, streaming, gone or ending):
            self._update_producer()

    def unregisterProducer(self) -> None:
        """The producer has written its last."""
        self._producer.unregister()
        self._try_end()

    # --- IPushProducer, for the protocol above --------------------------------------------------

    def pauseProducing(self) -> None:
        """Deliver nothing until :meth:`resumeProducing`."""
        self._paused = True
        self._update_reading()

    def resumeProducing(self) -> None:
        """Deliver again, what waits here first, from the next turn of the clock on."""
        self._paused = False
        if self._queue:
            if self._turn is None:
                self._turn = self._clock.callLater(0, self._deliver_queue)
        else:
            self._update_reading()

    def stopProducing(self) -> None:
        """The consumer of what we deliver has gone: close."""
        self.loseConnection()

    def logPrefix(self) -> str:
        """The application's prefix and our name."""
        return log_prefix(self.wrappedProtocol, self.name)

    # --- reading --------------------------------------------------------------------------------

    def _hand_up(self, piece: Octets) -> None:
        if self._takes_buffers:
            self._guarded(self.wrappedProtocol.bufferReceived, memoryview(piece))
        else:
            data = piece if isinstance(piece, bytes) else bytes(piece)
            self._guarded(self.wrappedProtocol.dataReceived, data)

    def _deliver_queue(self) -> None:
        """One turn of delivering what waits; the application is looked at after each piece."""
        self._turn = None
        while self._queue and not (self._paused or self._over):
            piece = self._queue.popleft()
            if isinstance(piece, _End):
                self._end_reached()
            else:
                self._hand_up(piece)
        self._update_reading()
        if self._below_lost and not self._queue:
            self._tell()

    def _update_reading(self) -> None:
        """Pause or resume the transport below, where that has changed."""
        if self._below_lost or self._over or self._closed_below:
            return
        if not self._gate.paused:
            self._answers = 0
        waits = self._is_ready and (self._paused or bool(self._queue))
        paused = waits or self._answers > ANSWERS_MAX
        if paused != self._paused_below:
            self._paused_below = paused
            if paused:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    # --- writing --------------------------------------------------------------------------------

    def _send(self, parts: list[Octets]) -> None:
        """Seal and send; what is written from inside, by a producer that is paused, comes after."""
        self._transmitting = True
        try:
            self._call_core(self._transmit, parts)
        finally:
            self._transmitting = False

    def _gate_changed(self) -> None:
        """Send what is held, as far as the transport below takes it; then see to the producer."""
        if self._is_ready and not self._transmitting:
            while self._held and not (self._gate.paused or self._over):
                part = self._held.popleft()
                self._held_size -= len(part)
                self._send([part])
        if not self._gate.paused:
            self._written_full = 0
            if self._end_sent:
                self._arm_close()
        self._update_reading()
        self._update_producer()
        self._try_end()

    def _update_producer(self) -> None:
        self._producer.pause(self._gate.paused or self._held_size > HIGH_WATER)

    def _stop_producer(self) -> None:
        self._producer.stop()

    # --- what closing asks ----------------------------------------------------------------------

    def _unsent(self) -> bool:
        return bool(self._held) or self._transmitting or self._producer.registered

    def _holds_verified_end(self) -> bool:
        return _END in self._queue

    def _drop_bytes(self) -> None:
        self._queue.clear()
        self._arrived.clear()
        self._held.clear()
        self._held_size = 0
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None


@implementer(IHalfCloseTransport)
class EndingLayer(Layer):
    """A layer with an authenticated end in each direction.

    Tells an end from a cut: when the transport below goes before both ends were seen, the reason is
    :class:`~cloudconnect.errors.Truncated`. So it can be half closed, and an
    ``IHalfCloseableProtocol`` above it hears of the peer's end by ``readConnectionLost``; any other
    protocol is closed by it. A concrete layer overrides :meth:`Layer._seal_end` and calls
    :meth:`Layer._end_came`.
    """

    def loseWriteConnection(self) -> None:
        """End our direction once everything was sent and the producer has unregistered."""
        if not (self._over or self._told or self.disconnecting or self._half_closing):
            self._half_closing = True
            self._try_end()

    def _judge_loss(self, below: Failure) -> Failure:
        return as_failure(Truncated(f"the {self.name} stopped without its end: {below.value}"))
