"""Layer 2, transports: a transport as a blocking pipe, for code that runs in a worker thread.

A :class:`BlockingPipe` is a protocol on the reactor's side and an
:class:`~cloudconnect.interfaces.IBytePipe` on the worker's. Between the two stand two bounded
queues under one lock. The worker never touches the transport: what it wants of the reactor's
thread (bytes to send, reading to go on, an end, an abort) is noted, and one call into that thread,
of which at most one is under way, sees to everything noted. Nobody polls.

Source: :class:`~cloudconnect.interfaces.IBytePipe`; Twisted's ``IPushProducer`` and ``IConsumer``.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IProtocol,
    IReactorFromThreads,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.errors import CloudConnectError, LocalError, SecurityError, Truncated
from cloudconnect.interfaces import IBytePipe
from cloudconnect.settings import HIGH_WATER
from cloudconnect.transports.flow import WriteGate
from cloudconnect.transports.layer import IHalfCloseTransport, Layer, Octets

#: More received bytes than this wait for the worker: the transport is paused, until half are read.
#: A few records of the largest size, so that the worker does not run dry between two turns.
READ_HIGH_WATER = 4 << 20


@implementer(IProtocol, IHalfCloseableProtocol, IBytePipe)
class BlockingPipe:
    """One connection as a blocking pipe.

    Use it over a layer with an authenticated end: over plain TCP the end of the bytes is whatever
    TCP says, and can be forged.

    :param reactor: an ``IReactorFromThreads``: where the transport lives
    :param high_water: bytes that wait for the reactor before :meth:`write` blocks
    :param read_high_water: bytes that wait for the worker before the transport is paused
    :ivar transport: the transport, for the reactor's thread only
    :ivar bytes_written: bytes accepted by :meth:`write`
    :ivar bytes_read: bytes returned by :meth:`read`
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        high_water: int = HIGH_WATER,
        read_high_water: int = READ_HIGH_WATER,
    ) -> None:
        self._reactor = reactor
        self._high_water = high_water
        self._read_high_water = read_high_water
        self.transport: Any = None
        self.bytes_written = 0
        self.bytes_read = 0
        # Under the lock:
        self._changed = threading.Condition()
        self._visit_due = False  # a call into the reactor's thread is under way
        self._out: deque[Octets] = deque()
        self._out_size = 0
        self._in: deque[bytes] = deque()
        self._in_size = 0
        self._finishing = False
        self._failure: BaseException | None = None
        self._aborted = False
        self._ended = False  # the peer's end has come
        self._lost = False
        self._reading_paused = False  # written by the reactor's thread only
        # The reactor's thread only:
        self._gate = WriteGate(self._visit, lambda: None)
        self._visiting = self._visit_again = False
        self._abort_done = False
        self._finish_done = False
        self._waiters: list[Deferred[BaseException | None]] = []

    # --- the worker's side ----------------------------------------------------------------------

    def write(self, *parts: Octets) -> bool:
        """Hand over ``parts`` in order; block while the high-water mark is reached.

        :return: whether it was
        :raises LocalError: after :meth:`finish`
        :raises CloudConnectError: the connection has ended
        """
        with self._changed:
            full = self._out_size >= self._high_water
            self._changed.wait_for(
                lambda: self._out_size < self._high_water or self._failure or self._lost
            )
            if self._failure is not None:
                raise self._failure
            if self._finishing:
                raise LocalError("write after finish on this pipe")
            if self._lost:
                raise Truncated("the connection was closed before everything was sent")
            for part in parts:
                size = part.nbytes if isinstance(part, memoryview) else len(part)
                if size:
                    self._out.append(part)
                    self._out_size += size
                    self.bytes_written += size
            self._ask_for_visit()
        return full

    def read(self) -> bytes:
        """The next bytes, at least one; ``b""`` when the peer has ended its direction.

        What had arrived before a line broke is returned first; a security error comes at once.

        :raises CloudConnectError: the connection has ended in another way
        """
        with self._changed:
            self._changed.wait_for(lambda: self._in or self._failure or self._ended or self._lost)
            failure = self._failure
            if failure is not None and (self._aborted or isinstance(failure, SecurityError)):
                raise failure
            if not self._in:
                if failure is None or self._ended:
                    return b""
                raise failure
            data = self._in.popleft()
            self._in_size -= len(data)
            self.bytes_read += len(data)
            if self._reading_paused and self._in_size <= self._read_high_water // 2:
                self._ask_for_visit()
            return data

    def finish(self) -> None:
        """End our direction once everything written has been sent; returns at once."""
        with self._changed:
            if self._failure is not None:
                raise self._failure
            self._finishing = True
            self._ask_for_visit()

    def abort(self, reason: Exception) -> None:
        """End both directions at once; ``reason`` is what later calls, and waiting ones, raise.

        The first reason counts. May be called in any thread.
        """
        with self._changed:
            if self._aborted:
                return
            self._aborted = True
            self._failure = self._failure or reason
            self._drop()
            self._ask_for_visit()
            self._changed.notify_all()

    def _drop(self) -> None:
        self._in.clear()
        self._out.clear()
        self._in_size = self._out_size = 0

    def _ask_for_visit(self) -> None:
        """Have :meth:`_visit` called in the reactor's thread, unless it will be anyway."""
        if not self._visit_due and not self._lost:
            self._visit_due = True
            self._reactor.callFromThread(self._visit)

    # --- the reactor's side ---------------------------------------------------------------------

    def _visit(self) -> None:
        """See to the worker's wishes; also called when the transport is full or is not any more."""
        self._visit_again = True
        if self._visiting:  # called from inside a write: the bytes of that one come first
            return
        self._visiting = True
        try:
            while self._visit_again:
                self._visit_again = False
                self._serve()
        finally:
            self._visiting = False

    def _serve(self) -> None:
        """Do what the worker has noted."""
        parts: list[Octets] = []
        with self._changed:
            self._visit_due = False
            if self.transport is None or self._lost:
                return
            aborted = self._aborted
            if not (self._gate.paused or aborted):
                parts.extend(self._out)
                self._out.clear()
                self._out_size = 0
                self._changed.notify_all()
            resume = self._reading_paused and self._in_size <= self._read_high_water // 2
            self._reading_paused = self._reading_paused and not resume
            finish = self._finishing and not (self._out or self._finish_done)
        if aborted:
            if not self._abort_done:
                self._abort_done = True
                self._abort_transport()
            return
        if parts:
            self._send(parts)
        if resume:
            self.transport.resumeProducing()
        if finish:
            self._finish_done = True
            self._end_direction()

    def _abort_transport(self) -> None:
        """Say so to the peer where the layer below can, by a record stream's ABORT.

        So the peer does not take our giving up for a cut line. After a security error nothing more
        is sent.
        """
        give_up = getattr(self.transport, "give_up", None)
        if give_up is None or isinstance(self._failure, SecurityError):
            self.transport.abortConnection()
        else:
            give_up(0)

    def _send(self, parts: list[Octets]) -> None:
        if not isinstance(self.transport, Layer):  # other transports take nothing but bytes
            parts = [part if isinstance(part, bytes) else bytes(part) for part in parts]
        self.transport.writeSequence(parts)

    def _end_direction(self) -> None:
        self.transport.unregisterProducer()
        if self._ended or not can_half_close(self.transport):
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def makeConnection(self, transport: Any) -> None:
        """The connection is there; bytes written before go out.

        :param transport: any stream transport
        """
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        """Register as the transport's producer and send what waits."""
        self.transport.registerProducer(self._gate, True)
        self._visit()

    def dataReceived(self, data: bytes) -> None:
        """Queue ``data`` for the worker; pause the transport when it falls behind."""
        with self._changed:
            if self._aborted:
                return
            self._in.append(data)
            self._in_size += len(data)
            pause = self._in_size > self._read_high_water and not self._reading_paused
            self._reading_paused = self._reading_paused or pause
            self._changed.notify_all()
        if pause:
            self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        """The peer has ended its direction."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._finish_done:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Our direction has ended; nothing to do."""

    def connectionLost(self, reason: Failure) -> None:
        """Tell the worker how the connection ended.

        :param reason: raised by what the worker calls from now on, as an error of ours
        """
        with self._changed:
            self._lost = True
            if isinstance(reason.value, ConnectionDone):
                self._ended = True
            elif self._failure is None:
                self._failure = as_error(reason)
            self._out.clear()
            self._out_size = 0
            failure = self._failure
            self._changed.notify_all()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(failure)

    def when_lost(self) -> Deferred[BaseException | None]:
        """Fires, in the reactor's thread, when the connection is gone: None, or what went wrong."""
        waiter: Deferred[BaseException | None] = Deferred()
        if self._lost:
            waiter.callback(self._failure)
        else:
            self._waiters.append(waiter)
        return waiter


def can_half_close(transport: Any) -> bool:
    """Whether ``transport`` itself, not one below it, ends one direction and goes on reading.

    Twisted's TLS hands ``loseWriteConnection`` on to the socket below it, past its own end.
    """
    return isinstance(transport, FileDescriptor) or IHalfCloseTransport.providedBy(transport)


def as_error(reason: Failure) -> BaseException:
    """What a blocking call raises for a connection that was lost for ``reason``."""
    error = reason.value
    if isinstance(error, CloudConnectError):
        return error
    return Truncated(f"the connection was lost: {error}")
