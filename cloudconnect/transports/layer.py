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

**Ending.** ``loseConnection`` waits for the application's producer to unregister and for what is
held, sends the authenticated end, waits for the peer's (``CLOSE_SECONDS``) and then closes below.
The transport below is closed first only by failure or abort, so an end without the authenticated
end is :class:`~cloudconnect.errors.Truncated`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.errors import (
    CloudConnectError,
    HandshakeTimeout,
    SecurityError,
    Truncated,
)
from cloudconnect.interfaces import IBufferReceiver
from cloudconnect.settings import CLOSE_SECONDS, HANDSHAKE_SECONDS, HIGH_WATER, SILENCE_SECONDS
from cloudconnect.transports.flow import PullAdapter, WriteGate

#: Bytes that a layer may answer of its own accord while the transport below is full, before it
#: stops reading: bounds what a peer that asks and never reads can make us hold.
ANSWERS_MAX = 64 << 10

#: A closing connection whose transport below is full is given one second for each so many bytes.
CLOSE_RATE = 16 << 10

#: Methods of TCP transports that a layer offers where the transport below has them.
FORWARDED = ("setTcpNoDelay", "getTcpNoDelay", "setTcpKeepAlive", "getTcpKeepAlive")

Octets = bytes | bytearray | memoryview


def log_prefix(wrapped: object, name: str) -> str:
    """``wrapped``'s log prefix, followed by the name of the layer below it."""
    if ILoggingContext.providedBy(wrapped):
        prefix: str = wrapped.logPrefix()
    else:
        prefix = type(wrapped).__name__
    return f"{prefix} ({name})"


def as_failure(error: BaseException | None = None) -> Failure:
    """``error``, or the exception that is being handled, as Twisted passes reasons."""
    return Failure(error)


class _End:
    """Stands in the queue of waiting pieces for the peer's authenticated end."""


_END = _End()


@implementer(IProtocol, ITransport, IConsumer, IPushProducer, ILoggingContext)
class Layer:
    """One connection's worth of a transport layer; see the module for what it does.

    :param protocol: the protocol above; may be exchanged through :attr:`wrappedProtocol`
    :param clock: the reactor, or a ``Clock``
    :cvar name: what the log calls the layer
    :cvar handshake_seconds: :meth:`_ready` must have been called by then
    :cvar close_seconds: the peer's end must have come by then, after ours was sent
    :ivar transport: the transport below
    :ivar factory: the factory that built this, or None
    :ivar disconnecting: whether :meth:`loseConnection` was called, or the peer's end closes us
    :ivar connected: whether bytes may still arrive or leave
    """

    name: ClassVar[str] = "layer"
    handshake_seconds: float = HANDSHAKE_SECONDS
    close_seconds: float = CLOSE_SECONDS
    _log = Logger()

    factory: Any = None
    transport: Any = None

    def __init__(self, protocol: IProtocol, clock: IReactorTime) -> None:
        self._clock = clock
        self.wrappedProtocol = protocol
        self.connected = False
        self.disconnecting = False
        self._is_ready = False
        self._waiters: list[Deferred[Any]] = []
        self._timer: IDelayedCall | None = None
        self._deadline = 0.0  # of the whole closing, on the clock
        # the end
        self._over = False  # failed or aborted: nothing goes in or out any more
        self._below_lost = False
        self._told = False  # the application knows
        self._reason: Failure | None = None  # this layer's own
        self._reason_below: Failure | None = None
        self._keys_forgotten = False
        self._closed_below = False
        self._half_closing = False
        self._left_early = False  # closed by the application before the handshake was over
        self._end_sent = False
        self._end_received = False
        # reading
        self._paused = False  # by the application
        self._paused_below = False  # by us
        self._feeding = False
        self._arrived: deque[bytes] = deque()  # while feeding, if the transport is re-entrant
        self._queue: deque[bytes | _End] = deque()  # opened, waiting for the application
        self._turn: IDelayedCall | None = None
        self._answers = 0
        # writing
        self._gate = WriteGate(self._gate_changed, self._stop_producer)
        self._held: deque[Octets] = deque()
        self._held_size = 0
        self._transmitting = False
        self._written_full = 0  # bytes written below while it was full
        self._producer: Any = None
        self._producer_paused = False

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

    def _seal_end(self) -> bytes:
        """The authenticated end of our direction; ``b""`` where the layer has none."""
        return b""

    def _forget_keys(self) -> None:
        """Drop every key; called once, at the end. No other hook is called after it."""

    def _transmit(self, parts: list[Octets]) -> None:
        """Send ``parts`` of the application's bytes, in order; a faster way may override this."""
        sealed = self._seal(b"".join(parts))
        if isinstance(sealed, bytes):
            self._write_below(sealed)
        else:
            for octets in sealed:
                self._write_below(octets)

    def _log_failure(self, error: Exception) -> None:
        """Log once that the layer has failed because of its peer, or of the way to it."""
        self._log.warn(
            "{layer} with {peer} failed: {kind}: {error}",
            layer=self.name,
            peer=self.transport.getPeer(),
            kind=type(error).__name__,
            error=str(error),
        )

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

    def _write_below(self, octets: bytes) -> None:
        """Write to the transport below, if it is still there."""
        if octets and not (self._over or self._below_lost or self._closed_below):
            if self._gate.paused:
                self._written_full += len(octets)
            self.transport.write(octets)

    def _fail(self, error: Exception, last: bytes = b"") -> None:
        """Fail for good with ``error``: nothing more is parsed, delivered or sent.

        :param last: bytes that still go out (an alert); without them the transport is aborted
        """
        if self._over or self._told:
            return
        self._log_failure(error)
        self._finish(as_failure(error))
        if last and not self._below_lost:
            self.transport.write(last)
            self._release_below()
            self._set_timer(self.close_seconds, self._abort_below)
            self.transport.loseConnection()
        else:
            self._abort_below()

    def _release_below(self) -> None:
        """Take our producer away from the transport below."""
        if not (self._closed_below or self._below_lost):
            self.transport.unregisterProducer()

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

    def when_ready(self) -> Deferred[Any]:
        """The protocol above, once the handshake is over; the failure is the reason of the end."""
        waiter: Deferred[Any] = Deferred()
        if self._told or self._over:
            waiter.errback(self._final_reason())
        elif self._is_ready:
            waiter.callback(self.wrappedProtocol)
        else:
            self._waiters.append(waiter)
        return waiter

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
        """Connect to the transport below, connect the protocol above to us, begin the handshake."""
        self.transport = transport
        for method in FORWARDED:
            if hasattr(transport, method):
                setattr(self, method, getattr(transport, method))
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

    def _call_core(self, hook: Any, *arguments: Any) -> None:
        """Call a hook of the concrete layer; what it raises ends this connection only."""
        try:
            hook(*arguments)
        except Exception as error:
            if self._over or self._told:
                return  # it has met the keys that were dropped under it
            if not isinstance(error, CloudConnectError):
                self._log.failure("bug in {layer}", layer=self.name)
            self._fail(error)

    def connectionLost(self, reason: Failure) -> None:
        """The transport below has gone; tell the application, once, with the reason that counts."""
        if self._below_lost:
            return
        self._below_lost = True
        self._reason_below = reason
        self._set_timer(None)
        self._stop_producer()
        if self._over or _END not in self._queue:
            self._tell()
        # else what waits was verified up to the peer's end: it is delivered first

    # --- ITransport and IConsumer, for the protocol above ---------------------------------------

    def write(self, data: Octets) -> None:
        """Send ``data``; bytes-like objects other than ``bytes`` must not change afterwards.

        :raises TypeError: not bytes-like
        """
        self.writeSequence((data,))

    def writeSequence(self, data: Iterable[Octets]) -> None:
        """Send the parts of ``data`` in order; as :meth:`write`."""
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
        if (self.disconnecting or self._half_closing) and self._producer is None:
            return
        if self._is_ready and not self._held and not self._transmitting:
            self._send(parts)
            if self._held or self.disconnecting or self._half_closing:
                self._gate_changed()  # somebody wrote, or closed, from inside
        else:
            self._held.extend(parts)
            self._held_size += sum(map(len, parts))
            self._gate_changed()

    def loseConnection(self) -> None:
        """Close once everything was sent and the application's producer has unregistered."""
        if self._over or self._told or self.disconnecting:
            return
        self.disconnecting = True
        if self._below_lost:  # what waits for a paused application is not wanted any more
            self._drop_and_tell_later()
        elif self._end_sent:  # half closed before
            self._ends_meet()
        elif not self._is_ready and not self._held and self._producer is None:
            self._left_early = True
            self._lose_below()
        else:
            self._try_end()

    def abortConnection(self) -> None:
        """Close at once: drop what is held, deliver nothing more, forget the keys."""
        if self._over or self._told:
            return
        self._finish(as_failure(ConnectionAborted()))
        if self._below_lost:
            self._clock.callLater(0, self._tell)
        else:
            self._abort_below()

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
        if self._producer is not None:
            raise RuntimeError(f"{self.name}: a producer is registered already")
        if self._over or self._below_lost or self._told or self._end_sent or self.disconnecting:
            producer.stopProducing()
            return
        self._producer_paused = not streaming
        if streaming:
            self._producer = producer
        else:
            self._producer = PullAdapter(producer, self.unregisterProducer, self._clock)
        self._update_producer()

    def unregisterProducer(self) -> None:
        """The producer has written its last."""
        producer, self._producer = self._producer, None
        if isinstance(producer, PullAdapter):
            producer.pauseProducing()
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

    def _guarded(self, call: Any, *arguments: Any) -> None:
        """Call the application; what it raises ends the connection, as it does in a reactor."""
        try:
            call(*arguments)
        except Exception:
            failure = as_failure()
            self._log.failure("the protocol above {layer} raised", failure, layer=self.name)
            if not (self._over or self._told):
                self._finish(failure)
                self._abort_below()

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

    def _end_reached(self) -> None:
        """The application has had everything up to the peer's authenticated end."""
        self._end_received = True
        hears = IHalfCloseableProtocol.providedBy(self.wrappedProtocol)
        if hears and not self.disconnecting:
            self._guarded(self.wrappedProtocol.readConnectionLost)
        if self._over:
            return
        if self._end_sent:
            self._ends_meet()
        elif not (hears or self.disconnecting):
            self.disconnecting = True
            self._stop_producer()
            self._try_end()

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
        """Pause or resume the application's producer, where that has changed."""
        paused = self._gate.paused or self._held_size > HIGH_WATER
        if self._producer is not None and paused != self._producer_paused:
            self._producer_paused = paused
            if paused:
                self._producer.pauseProducing()
            else:
                self._producer.resumeProducing()

    def _stop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    # --- closing --------------------------------------------------------------------------------

    def _try_end(self) -> None:
        """Send our authenticated end when it is due and nothing stands before it."""
        due = self.disconnecting or self._half_closing
        if not due or self._end_sent or not self._is_ready or self._held or self._transmitting:
            return
        if self._producer is not None or self._over or self._below_lost or self._closed_below:
            return
        self._call_core(self._send_end)
        self._end_went()

    def _send_end(self) -> None:
        """Seal and send the end; a faster way may override this."""
        end = self._seal_end()
        self._write_below(end)
        self._end_sent = True
        if not end:
            self._end_received = True  # there is none to wait for

    def _end_went(self) -> None:
        protocol = self.wrappedProtocol
        if self._half_closing and IHalfCloseableProtocol.providedBy(protocol) and not self._over:
            self._guarded(protocol.writeConnectionLost)
        if not self._over:
            self._ends_meet()

    def _ends_meet(self) -> None:
        """Ours is sent: close below if the peer's has come, else wait for it."""
        if self._end_received:
            self.disconnecting = True
            self._lose_below()
        elif self.disconnecting:
            self._deadline = self._clock.seconds() + SILENCE_SECONDS
            self._arm_close()

    def _lose_below(self) -> None:
        if not (self._closed_below or self._below_lost):
            self._release_below()
            self._closed_below = True
            self._set_timer(self._close_limit(), self._abort_below)
            self.transport.loseConnection()

    def _abort_below(self) -> None:
        """Close the transport below at once."""
        if not self._below_lost:
            self._closed_below = True
            if hasattr(self.transport, "abortConnection"):
                self.transport.abortConnection()
            else:
                self.transport.loseConnection()

    def _close_limit(self) -> float:
        """Seconds that the other side may take to close, in view of what is still on its way."""
        if not self._gate.paused:
            return self.close_seconds
        return self.close_seconds + (HIGH_WATER + self._written_full) / CLOSE_RATE

    def _arm_close(self) -> None:
        """Wait for the peer's end; anything it sends extends the wait, but not for ever."""
        if self.disconnecting and not (self._closed_below or self._below_lost):
            limit = self._close_limit()
            if self._gate.paused:  # what we have to say comes first
                self._deadline = self._clock.seconds() + limit + SILENCE_SECONDS
            left = max(self._deadline - self._clock.seconds(), 0.0)
            self._set_timer(min(limit, left), self._close_late)

    def _close_late(self) -> None:
        self._fail(Truncated("the peer did not end the connection in time"))

    def _handshake_late(self) -> None:
        self._fail(HandshakeTimeout(f"no {self.name} handshake in {self.handshake_seconds:g} s"))

    def _set_timer(self, seconds: float | None, late: Any = None) -> None:
        """One timer serves in turn: handshake, then closing."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None if seconds is None else self._clock.callLater(seconds, late)

    # --- the end --------------------------------------------------------------------------------

    def _finish(self, reason: Failure) -> None:
        """Nothing goes in or out any more."""
        self._over = True
        if self._reason is None:
            self._reason = reason
        self.disconnecting = True
        self._set_timer(None)
        self._drop()
        self._stop_producer()

    def _drop(self) -> None:
        self._queue.clear()
        self._arrived.clear()
        self._held.clear()
        self._held_size = 0
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if not self._keys_forgotten:
            self._keys_forgotten = True
            self._forget_keys()

    def _drop_and_tell_later(self) -> None:
        self._over = True
        self._drop()
        self._clock.callLater(0, self._tell)

    def _final_reason(self) -> Failure:
        """This layer's reason, then a layer's below, then what the two ends say."""
        if self._reason is not None:
            return self._reason
        below = self._reason_below or as_failure(ConnectionDone())
        if isinstance(below.value, SecurityError):
            return below
        if (self._end_sent and self._end_received) or self._left_early:
            return as_failure(ConnectionDone())
        if isinstance(below.value, CloudConnectError):
            return below
        return self._judge_loss(below)

    def _judge_loss(self, below: Failure) -> Failure:
        """The reason when the transport below went and nobody has said why."""
        return below

    def _tell(self) -> None:
        """Tell the application and everybody who waits that it is over; once."""
        if self._told:
            return
        self._told = True
        self.connected = False
        self._drop()
        reason = self._final_reason()
        for waiter in self._take_waiters():
            waiter.errback(reason)
        self.wrappedProtocol.connectionLost(reason)

    def _take_waiters(self) -> list[Deferred[Any]]:
        waiters, self._waiters = self._waiters, []
        return waiters


class IHalfCloseTransport(ITransport):
    """A stream transport that can end its own direction and go on reading."""

    def loseWriteConnection() -> None:
        """End our direction once everything was sent; the peer's goes on."""


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
