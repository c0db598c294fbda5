"""Layer 4: one of the two connections of an accelerated session, as queues of bytes each way.

What arrives waits here until it is taken, and the transport is paused while much waits; what is to
leave waits here until the transport has room. Neither direction waits for the other one.

Source: Twisted's ``IPushProducer`` and ``IHalfCloseableProtocol``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.errors import SecurityError
from cloudconnect.interfaces import IEndsListener
from cloudconnect.transports.blocking import as_error, can_half_close
from cloudconnect.transports.flow import WriteGate
from cloudconnect.transports.layer import Layer, Octets

#: More received bytes than this wait to be taken: the transport is paused, until half are taken.
QUEUE_HIGH: Final = 1 << 20
#: Bytes that a transport is given at once: between two such it may say that it is full.
SEND: Final = 256 << 10


@implementer(IProtocol, IHalfCloseableProtocol, IEndsListener)
class Side:
    """One connection.

    :param changed: called when something came, left or ended
    :ivar transport: the transport, or None before there is one
    :ivar queued: bytes that came and were not taken
    :ivar held: bytes that are to leave and were not handed to the transport
    :ivar left: bytes that were handed to the transport, ever
    :ivar came: bytes that came, ever
    :ivar read_ended: the peer's direction has ended; what is queued stands before that end
    :ivar finished: our direction has ended
    :ivar ended: both directions have, and the connection is only to be closed
    :ivar lost: the connection is gone
    :ivar error: why it is gone, where it was not closed
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._gate = WriteGate(self._gate_changed, lambda: None)
        self._in: deque[bytes] = deque()
        self._out: deque[Octets] = deque()
        self._reading_paused = False
        self._pumping = False
        self._closing = False
        self._aborted: BaseException | None = None
        self.transport: Any = None
        self.queued = 0
        self.held = 0
        self.left = 0
        self.came = 0
        self.read_ended = False
        self.finished = False
        self.ended = False
        self.lost = False
        self.error: BaseException | None = None

    # --- what its owner does ----------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Bytes that are to leave and did not, as far as the transport tells."""
        inside = 0 if self.lost else getattr(self.transport, "waiting", 0)
        return self.held + (inside if isinstance(inside, int) else 0)

    @property
    def unsent(self) -> int:
        """The same, and those that the peer has not acknowledged where the transport knows."""
        say = None if self.lost else getattr(self.transport, "unsent", None)
        return self.held + (say() if callable(say) else self.waiting - self.held)

    @property
    def free(self) -> bool:
        """Whether the transport would take more at once."""
        return self.transport is not None and not (self.held or self._gate.paused or self.lost)

    def take(self) -> deque[bytes]:
        """All that is queued, in order."""
        taken, self._in = self._in, deque()
        self.queued = 0
        self._look_at_reading()
        return taken

    def put_back(self, pieces: deque[bytes]) -> None:
        """Queue again what was taken and could not be used yet, before what came since."""
        pieces.extend(self._in)
        self._in = pieces
        self.queued = sum(map(len, pieces))
        self._look_at_reading()

    def send(self, parts: Iterable[Octets]) -> None:
        """Have ``parts`` leave, in order; none of them may change afterwards."""
        if self._aborted is not None or self.lost:
            return
        for part in parts:
            size = len(part)
            if size:
                self._out.append(part)
                self.held += size
        self._pump()

    def finish(self, close: bool = False) -> None:
        """End our direction, of which all was sent.

        :param close: end both directions
        """
        if self.transport is None or self.lost or self._aborted is not None:
            return
        if not self.finished:
            self.finished = True
            self.transport.unregisterProducer()
        elif not close or self._closing:
            return
        if close or self.read_ended or not can_half_close(self.transport):
            self._closing = True
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def abort(self, error: BaseException) -> None:
        """End both directions at once, and drop what waits in either.

        The peer is told that we have given up, where the transport can; after a security error
        nothing more is sent.
        """
        if self._aborted is not None:
            return
        self._aborted = error
        self._in.clear()
        self._out.clear()
        self.queued = self.held = 0
        if self.transport is not None and not self.lost:
            self._abort_transport(error)

    def _abort_transport(self, error: BaseException) -> None:
        give_up = getattr(self.transport, "give_up", None)
        if give_up is None or isinstance(error, SecurityError):
            self.transport.abortConnection()
        else:
            give_up(0)

    # --- writing ----------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Hand over what the transport has room for."""
        if self._pumping or self.transport is None:
            return
        self._pumping = True
        try:
            while self._out and not (self._gate.paused or self.lost):
                self._write(self._next_parts())
        finally:
            self._pumping = False

    def _gate_changed(self) -> None:
        self._pump()
        self._changed()

    def _next_parts(self) -> list[Octets]:
        parts: list[Octets] = []
        room = SEND
        while self._out and room:
            part = self._out[0]
            if len(part) > room:
                view = memoryview(part)
                part, self._out[0] = view[:room], view[room:]
            else:
                self._out.popleft()
            room -= len(part)
            parts.append(part)
        self.held -= SEND - room
        self.left += SEND - room
        return parts

    def _write(self, parts: list[Octets]) -> None:
        if isinstance(self.transport, Layer):
            self.transport.writeSequence(parts)
        else:  # other transports take nothing but bytes
            self.transport.write(b"".join(parts))

    # --- reading ----------------------------------------------------------------------------------

    def _look_at_reading(self) -> None:
        if self.transport is None or self.lost or self._aborted is not None:
            return
        if self.queued > QUEUE_HIGH and not self._reading_paused:
            self._reading_paused = True
            self.transport.pauseProducing()
        elif self.queued <= QUEUE_HIGH // 2 and self._reading_paused:
            self._reading_paused = False
            self.transport.resumeProducing()

    # --- what the transport does ------------------------------------------------------------------

    def makeConnection(self, transport: Any) -> None:
        """The connection is there; what waited to leave does.

        :param transport: any stream transport
        """
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        """Register as the transport's producer and send what waits."""
        if self._aborted is not None:
            self._abort_transport(self._aborted)
            return
        self.transport.registerProducer(self._gate, True)
        self._pump()
        self._changed()

    def dataReceived(self, data: bytes) -> None:
        """Queue ``data``."""
        if self._aborted is not None:
            return
        self._in.append(data)
        self.queued += len(data)
        self.came += len(data)
        self._look_at_reading()
        self._changed()

    def readConnectionLost(self) -> None:
        """The peer has ended its direction."""
        self.read_ended = True
        if self.finished:
            self.finish(close=True)
        self._changed()

    def writeConnectionLost(self) -> None:
        """Our direction has ended; nothing to do."""

    def endsMet(self) -> None:
        """Both directions have ended; the transport closes by itself."""
        self.ended = True
        self._changed()

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone.

        :param reason: ``ConnectionDone`` where both ends wanted it
        """
        self.lost = True
        if isinstance(reason.value, ConnectionDone):
            self.read_ended = True  # also where no direction can be ended alone
        else:
            self.error = as_error(reason)
        self._out.clear()
        self.held = 0
        self._changed()
