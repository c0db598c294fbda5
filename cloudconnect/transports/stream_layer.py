"""Layer 2, transports: one connection of a record stream.

Records go one of two ways. Over any Twisted transport they go through its ``write`` and
``dataReceived`` (the plain path). Where the layer below *is* a reactor's TCP or UNIX transport, the
stream takes the socket over once the handshake is done
(:mod:`cloudconnect.transports.owned_socket`), and ciphers between buffers that were allocated once
(the fast path). Both use the same reader and writer (:mod:`cloudconnect.transports.buffers`);
nothing differs for the application, nor on the wire but the size of the records.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.python.failure import Failure

from cloudconnect.errors import Aborted
from cloudconnect.settings import HIGH_WATER, RECORD_PAYLOAD_FAST, RECORD_PAYLOAD_PLAIN
from cloudconnect.transports.buffers import RecordReader, RecordWriter
from cloudconnect.transports.closing import CLOSE_RATE, as_failure
from cloudconnect.transports.descriptor import can_own
from cloudconnect.transports.layer import EndingLayer, Octets
from cloudconnect.transports.liveness import Liveness
from cloudconnect.transports.owned_socket import OwnedSocket
from cloudconnect.wire.records import RecordHandshake, RecordOpener, RecordSealer, RecordType


class _Session:
    """What a stream has once its handshake is over."""

    def __init__(self, sealer: RecordSealer, opener: RecordOpener, payload: int) -> None:
        self.sealer = sealer
        self.opener = opener
        self.reader = RecordReader(opener)
        self.writer = RecordWriter(sealer, payload)


class RecordStreamLayer(EndingLayer):
    """One connection of a :class:`RecordStream`.

    The reason of its end is ``ConnectionDone`` after the authenticated end of both directions,
    :class:`~cloudconnect.errors.Tampered` when a byte was changed, moved or repeated,
    :class:`~cloudconnect.errors.Truncated` when the bytes stopped,
    :class:`~cloudconnect.errors.Aborted` when the peer gave up and said so. A failure looks the
    same from outside whatever it was: the connection is reset.

    :param protocol: the protocol above
    :param clock: the reactor, or a ``Clock``
    :param handshake: a fresh one
    :param initiator: whether this side opened the connection
    :param payload: most payload bytes of one record, or None for what the path deserves
    :param own_socket: whether the fast path may be used
    :ivar connection: the connection's number; a server's side learns it in the handshake
    :ivar peer_proved: whether the peer has proved that it holds the secret, even where an error
        followed
    """

    name: ClassVar[str] = "record stream"

    def __init__(
        self,
        protocol: IProtocol,
        clock: IReactorTime,
        handshake: RecordHandshake,
        initiator: bool,
        payload: int | None = None,
        own_socket: bool = True,
    ) -> None:
        super().__init__(protocol, clock)
        self._handshake: RecordHandshake | None = handshake
        self._initiator = initiator
        self._payload = payload
        self._may_own = own_socket
        self._queue_limit = HIGH_WATER
        self._session: _Session | None = None
        self._socket: OwnedSocket | None = None
        self._liveness = Liveness(clock, self._ping, self._look, self._fail)
        self.connection = handshake.connection
        self.peer_proved = False

    @property
    def owns_socket(self) -> bool:
        """Whether this connection is on the fast path."""
        return self._socket is not None

    @property
    def waiting(self) -> int:
        """Bytes that were written and wait here, sealed or not."""
        session = self._session
        return super().waiting + (session.writer.held if session is not None else 0)

    def unsent(self) -> int:
        """The same, and where the stream owns its socket what the peer has not acknowledged yet."""
        in_kernel = self._socket.unsent() if self._socket is not None else self.waiting
        return max(in_kernel, self.waiting)

    def limit_queue(self, size: int) -> None:
        """Pause the producer above earlier, where the stream owns its socket.

        :param size: bytes that wait here at most before it is paused, in the place of
            ``HIGH_WATER``
        """
        self._queue_limit = size
        if self._socket is not None:
            self._socket.high_water = size

    def give_up(self, code: int) -> None:
        """Drop what is queued, tell the peer ABORT, close.

        :param code: reason, 0 to 65535 (``docs/protocol.rst``, section 6)
        :raises OverflowError: another number
        """
        octets = code.to_bytes(2, "big")
        if not self._is_ready or self._below_lost or self._closed_below or self._over:
            self.abortConnection()
            return
        record = self._control_record(RecordType.ABORT, octets)
        self._finish(as_failure(ConnectionAborted()))
        self.transport.write(record)
        self._release_below()
        self._set_timer(self.close_seconds, self._abort_below)
        self.transport.loseConnection()

    # --- the handshake --------------------------------------------------------------------------

    def _opened(self) -> None:
        if self._initiator:
            assert self._handshake is not None
            self._write_below(self._handshake.start())

    def _received(self, data: bytes) -> Iterator[Octets]:
        handshake = self._handshake
        if handshake is not None:
            self._write_below(handshake.receive(data))
            if not handshake.done:
                return
            self._leave_handshake()
            owns = self._may_own and can_own(self.transport)
            payload = self._payload or (RECORD_PAYLOAD_FAST if owns else RECORD_PAYLOAD_PLAIN)
            self._session = _Session(handshake.sealer, handshake.opener, payload)
            data = handshake.leftover
            if owns:
                self._take_over(data)
                return
            self._begin()
        yield from self._records(data)

    def _leave_handshake(self) -> None:
        if self._handshake is not None:
            self.connection = self._handshake.connection
            self.peer_proved = self._handshake.peer_proved
            self._handshake = None

    def _take_over(self, leftover: bytes) -> None:
        """Own the socket; only then is the handshake over, so that nothing is written twice."""
        if self._closed_below:
            return
        self._release_below()
        assert self._session is not None
        owned = OwnedSocket(self.transport, _SocketSide(self, self._session))
        owned.high_water = self._queue_limit

        def taken() -> None:
            if self._over or self._below_lost or self._closed_below:
                return
            self._socket = owned
            self._replace_below(owned)
            self._begin()
            if leftover:
                self.dataReceived(leftover)
            if not self._paused_below:
                owned.resumeProducing()

        owned.take_over(taken)

    def _begin(self) -> None:
        self._liveness.start()
        self._ready()

    # --- reading --------------------------------------------------------------------------------

    def _records(self, data: bytes) -> Iterator[Octets]:
        """Open what is complete with ``data``; on the fast path they are in the reader already."""
        session = self._session
        if session is None:
            return
        reader, view = session.reader, memoryview(data)
        while True:
            if view:
                view = view[reader.feed(view) :]
            for kind, payload in reader.records(self._takes_buffers):
                if kind is RecordType.DATA:
                    yield payload
                else:
                    self._take_control(kind, payload)
            if not view:
                break
        self._heard()

    def _heard(self) -> None:
        assert self._session is not None
        reader = self._session.reader
        self._liveness.heard(reader.count, self._session.opener.records, reader.waiting > 0)

    def _take_control(self, kind: RecordType, payload: Octets) -> None:
        if kind is RecordType.PING:
            self._answer(self._control_record(RecordType.PONG, payload))
        elif kind is RecordType.END:
            self._end_came()
        elif kind is RecordType.ABORT:
            raise Aborted(code=int.from_bytes(payload, "big"))

    def _look(self) -> None:
        if self._socket is not None:
            self._socket.look()

    def _update_reading(self) -> None:
        super()._update_reading()
        self._liveness.reading(not self._paused_below)

    # --- writing --------------------------------------------------------------------------------

    def _transmit(self, parts: list[Octets]) -> None:
        assert self._session is not None
        self._session.writer.put(parts)
        self._send_records()

    def _send_end(self) -> None:
        assert self._session is not None
        self._session.writer.put_end()
        self._end_sent = True
        self._send_records()

    def _gate_changed(self) -> None:
        # What waits goes first, and may fill the transport again, before the producer is resumed.
        if self._session is not None and self._is_ready and self._socket is None:
            self._send_records()
        super()._gate_changed()

    def _send_records(self, whatever: bool = False) -> None:
        """Send what the writer holds: the socket takes it; another transport, as much as it wants.

        :param whatever: write all of it below, now
        """
        if self._socket is not None:
            self._socket.wake()
            return
        assert self._session is not None
        while (whatever or not self._gate.paused) and (out := self._outgoing()):
            self._session.writer.sent(len(out))
            self._write_below(bytes(out))

    def _outgoing(self) -> memoryview:
        """The next sealed bytes; empty when there are none, or the connection has failed."""
        assert self._session is not None
        writer = self._session.writer
        out = writer.outgoing()
        if not out:
            self._call_core(writer.seal, self._clock.seconds())
            out = writer.outgoing()
            if out:
                self._liveness.sent()
        return out

    def _control_record(self, kind: RecordType, payload: Octets) -> bytes:
        """A record of the layer's own, and a change of key before it where one is due."""
        assert self._session is not None
        sealer = self._session.sealer
        rekey = sealer.rekey() if sealer.rekey_due(self._clock.seconds()) else b""
        return rekey + sealer.seal(kind, payload)

    def _ping(self) -> None:
        self._call_core(
            lambda: self._write_below(self._control_record(RecordType.PING, os.urandom(8)))
        )

    # --- the end --------------------------------------------------------------------------------

    def _close_limit(self) -> float:
        unsent = 0
        if self._socket is not None:
            unsent = self._socket.unsent()
        elif self._session is not None:
            unsent = self._session.writer.held
        return super()._close_limit() + unsent / CLOSE_RATE

    def _lose_below(self) -> None:
        if self._session is not None and self._is_ready:
            self._send_records(whatever=True)
        super()._lose_below()

    def connectionLost(self, reason: Failure) -> None:
        """The transport below has gone.

        :param reason: why
        """
        self._liveness.stop()
        if self._socket is not None:
            self._socket.gone()
        super().connectionLost(reason)

    def _forget_keys(self) -> None:
        self._liveness.stop()
        self._leave_handshake()
        if self._session is not None:
            self._session.sealer.forget()
            self._session.opener.forget()
            self._session.writer.drop()


class _SocketSide:
    """The stream's buffers, as an owned socket uses them."""

    def __init__(self, stream: RecordStreamLayer, session: _Session) -> None:
        self._stream = stream
        self._reader = session.reader
        self._writer = session.writer
        self.room = session.reader.room
        self.sent = session.writer.sent
        self.put_sealed = session.writer.put_sealed

    @property
    def held(self) -> int:
        return self._writer.held

    @property
    def wanted(self) -> int:
        return self._reader.wanted

    def came(self, count: int) -> None:
        self._reader.came(count)
        if self._reader.ready():
            self._stream.dataReceived(b"")
        else:
            self._stream._heard()

    def outgoing(self) -> memoryview:
        return self._stream._outgoing()
