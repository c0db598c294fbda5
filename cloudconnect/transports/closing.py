"""Layer 2, transports: how the connection of a layer ends, and what its application is told.

:class:`Closing` is the half of a :class:`~cloudconnect.transports.layer.Layer` that knows no byte:
the two closings of a transport, half-closing, the timers of handshake and closing, what a failure
does, and the reason that counts. The order is always the same: what was written, our authenticated
end, the peer's (waited for ``CLOSE_SECONDS``), and only then the transport below. Whoever finds
that transport gone before both ends were seen has been cut off.

A peer that is paused cannot read our end: one that does not read for ``CLOSE_SECONDS`` after a
``loseConnection`` is given up. An application whose peer may take its time closes one direction
(``loseWriteConnection``) and waits for the other, for which there is no limit.

Source: ``docs/howto/wrapper.rst``, items 6 to 8 and 11.
"""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IReactorTime,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.errors import CloudConnectError, HandshakeTimeout, SecurityError, Truncated
from cloudconnect.interfaces import IEndsListener
from cloudconnect.settings import CLOSE_SECONDS, HANDSHAKE_SECONDS, HIGH_WATER, SILENCE_SECONDS
from cloudconnect.transports.flow import WriteGate

#: A closing connection whose transport below is full is given one second for each so many bytes.
CLOSE_RATE = 16 << 10


def as_failure(error: BaseException | None = None) -> Failure:
    """``error``, or the exception that is being handled, as Twisted passes reasons."""
    return Failure(error)


class IHalfCloseTransport(ITransport):
    """A stream transport that can end its own direction and go on reading."""

    def loseWriteConnection() -> None:
        """End our direction once everything was sent; the peer's goes on."""


class Closing:
    """How one connection ends; see the module, and :class:`~cloudconnect.transports.layer.Layer`.

    :param clock: the reactor, or a ``Clock``: all times are its seconds
    :cvar name: what the log calls the layer
    :cvar handshake_seconds: the handshake must be over by then
    :cvar close_seconds: the peer's end must have come by then, after ours was sent
    :ivar transport: the transport below
    :ivar wrappedProtocol: the protocol above
    :ivar disconnecting: whether :meth:`loseConnection` was called, or the peer's end closes us
    :ivar connected: whether bytes may still arrive or leave
    """

    name: ClassVar[str] = "layer"
    handshake_seconds: float = HANDSHAKE_SECONDS
    close_seconds: float = CLOSE_SECONDS
    _log = Logger()

    transport: Any = None
    wrappedProtocol: Any
    _paused_below: bool  # by us: the layer is not read for now

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._gate = WriteGate(self._gate_changed, self._stop_producer)
        self.connected = False
        self.disconnecting = False
        self._is_ready = False  # the handshake is over
        self._waiters: list[Deferred[Any]] = []
        self._timer: IDelayedCall | None = None
        self._deadline = 0.0  # of the whole closing, on the clock
        self._over = False  # failed or aborted: nothing goes in or out any more
        self._closed_below = False  # by us
        self._below_lost = False
        self._told = False  # the application knows
        self._reason: Failure | None = None  # this layer's own
        self._reason_below: Failure | None = None
        self._keys_forgotten = False
        self._half_closing = False
        self._left_early = False  # closed by the application before the handshake was over
        self._end_sent = False
        self._end_received = False
        self._ends_told = False
        self._written_full = 0  # bytes written below while it was full

    # --- hooks ----------------------------------------------------------------------------------

    def _seal_end(self) -> bytes:
        """The authenticated end of our direction; ``b""`` where the layer has none."""
        return b""

    def _forget_keys(self) -> None:
        """Drop every key; called once, at the end. No other hook is called after it."""

    def _judge_loss(self, below: Failure) -> Failure:
        """The reason when the transport below went and nobody has said why."""
        return below

    def _gate_changed(self) -> None:
        """The transport below is full, or is not any more."""
        raise NotImplementedError

    def _stop_producer(self) -> None:
        """Stop the application's producer, if there is one."""
        raise NotImplementedError

    def _unsent(self) -> bool:
        """Whether something stands before our end: bytes that are held, or a producer."""
        raise NotImplementedError

    def _holds_verified_end(self) -> bool:
        """Whether received bytes wait for the application that reach up to the peer's end."""
        raise NotImplementedError

    def _drop_bytes(self) -> None:
        """Drop what is held in both directions."""
        raise NotImplementedError

    def _write_below(self, octets: bytes) -> None:
        """Write to the transport below, if it is still there."""
        if octets and not (self._over or self._below_lost or self._closed_below):
            if self._gate.paused:
                self._written_full += len(octets)
            self.transport.write(octets)

    def _log_failure(self, error: Exception) -> None:
        """Log once that the layer has failed because of its peer, or of the way to it."""
        self._log.warn(
            "{layer} with {peer} failed: {kind}: {error}",
            layer=self.name,
            peer=self.transport.getPeer(),
            kind=type(error).__name__,
            error=str(error),
        )

    # --- closing --------------------------------------------------------------------------------

    def loseConnection(self) -> None:
        """Close once everything was sent and the application's producer has unregistered."""
        if self._over or self._told or self.disconnecting:
            return
        self.disconnecting = True
        if self._below_lost:  # what waits for a paused application is not wanted any more
            self._drop_and_tell_later()
        elif self._end_sent:  # half closed before
            self._ends_meet()
        elif not (self._is_ready or self._unsent()):
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

    def _try_end(self) -> None:
        """Send our authenticated end when it is due and nothing stands before it."""
        due = self.disconnecting or self._half_closing
        if not due or self._end_sent or not self._is_ready or self._unsent():
            return
        if self._over or self._below_lost or self._closed_below:
            return
        self._call_core(self._send_end)
        self._end_went()

    def _send_end(self) -> None:
        """Seal and send the end; a faster way may override this."""
        end = self._seal_end()
        self._end_sent = True  # first: the write may fill the transport, and that brings us here
        if not end:
            self._end_received = True  # there is none to wait for
        self._write_below(end)

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
            self._tell_ends_met()
        elif self.disconnecting:
            self._deadline = self._clock.seconds() + SILENCE_SECONDS
            self._arm_close()

    def _tell_ends_met(self) -> None:
        """Nothing is due any more but that the transport below closes: tell who wants to know."""
        if self._over or self._told or self._ends_told:
            return
        self._ends_told = True
        if IEndsListener.providedBy(self.wrappedProtocol):
            self._guarded(self.wrappedProtocol.endsMet)

    def _lose_below(self) -> None:
        if not (self._closed_below or self._below_lost):
            self._release_below()
            self._closed_below = True
            self._set_timer(self._close_limit(), self._abort_below)
            if self._paused_below:  # a layer below has an end of its own to read
                self._paused_below = False
                self.transport.resumeProducing()
            self.transport.loseConnection()

    def _abort_below(self) -> None:
        """Close the transport below at once."""
        if not self._below_lost:
            self._closed_below = True
            if hasattr(self.transport, "abortConnection"):
                self.transport.abortConnection()
            else:
                self.transport.loseConnection()

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

    # --- timers ---------------------------------------------------------------------------------

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
        self._drop_bytes()
        if not self._keys_forgotten:
            self._keys_forgotten = True
            self._forget_keys()

    def _drop_and_tell_later(self) -> None:
        self._over = True
        self._drop()
        self._clock.callLater(0, self._tell)

    def _release_below(self) -> None:
        """Take our producer away from the transport below."""
        if not (self._closed_below or self._below_lost):
            self.transport.unregisterProducer()

    def connectionLost(self, reason: Failure) -> None:
        """The transport below has gone; tell the application, once, with the reason that counts.

        :param reason: the one of the transport below, which counts only when nobody knows a
            better one
        """
        if self._below_lost:
            return
        self._below_lost = True
        self._reason_below = reason
        self._set_timer(None)
        self._stop_producer()
        if self._over or not self._holds_verified_end():
            self._tell()
        # else what waits was verified up to the peer's end: it is delivered first

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
