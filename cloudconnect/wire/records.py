"""Layer 1: a record stream from its first byte to its last (``docs/protocol.rst``, 5 and 6).

:class:`RecordHandshake` proves to each side that the other one holds the same secret and context,
and makes the keys. :class:`RecordConnection` is the conversation after it, for callers that take
bytes and events; a caller with buffers of its own uses the sealer and the opener directly
(:mod:`cloudconnect.wire.protection`, whose names are exported here too).
"""

from __future__ import annotations

import enum
import hmac
import os
from collections.abc import Callable
from typing import Final

import attrs

from cloudconnect.errors import CloudConnectError, Replayed, Tampered, Truncated
from cloudconnect.keys import Secret
from cloudconnect.settings import RECORD_PAYLOAD_MAX, RECORD_PAYLOAD_PLAIN
from cloudconnect.wire.protection import (
    HEADER_SIZE,
    TAG_SIZE,
    Buffer,
    RecordOpener,
    RecordSealer,
    RecordType,
)
from cloudconnect.wire.schedule import (
    COMMITMENT_SIZE,
    FROM_INITIATOR,
    FROM_RESPONDER,
    SALT_SIZE,
    TrafficSecret,
)

__all__ = [
    "BEGIN_SIZE",
    "HEADER_SIZE",
    "HELLO_SIZE",
    "TAG_SIZE",
    "WELCOME_SIZE",
    "AbortReceived",
    "DataReceived",
    "EndReceived",
    "PingReceived",
    "PongReceived",
    "RecordConnection",
    "RecordEvent",
    "RecordHandshake",
    "RecordOpener",
    "RecordSealer",
    "RecordType",
]

#: The initiator's first message: its salt and the connection's number (u32).
HELLO_SIZE: Final = SALT_SIZE + 4
#: The responder's message: its salt and its commitment.
WELCOME_SIZE: Final = SALT_SIZE + COMMITMENT_SIZE
#: The initiator's second message: its commitment.
BEGIN_SIZE: Final = COMMITMENT_SIZE


class _Step(enum.Enum):
    """Which message a handshake waits for; the value is its size in bytes."""

    HELLO = HELLO_SIZE
    WELCOME = WELCOME_SIZE
    BEGIN = BEGIN_SIZE
    DONE = 0


class RecordHandshake:
    """Makes the keys of one connection and checks that the peer makes the same ones.

    :param initiator: this side opened the connection
    :param secret: the shared secret; the reference is dropped when the handshake is over
    :param context: what the keys are bound to; both sides give the same bytes
    :param connection: the connection's number, 0 to 2**32 - 1; a responder learns it instead
    :param allow: a responder's question whether this number may be used (now, and not again);
        asked once, and only after the peer has proved that it holds the secret
    :param salt: 32 bytes, for tests only
    :ivar done: both sides have proved themselves; :attr:`sealer` and :attr:`opener` are there
    :ivar peer_proved: the peer has proved that it holds the secret, even where an error followed
    :ivar leftover: bytes that came behind the handshake, to be taken as records
    """

    def __init__(
        self,
        initiator: bool,
        secret: Secret,
        context: bytes,
        connection: int = 0,
        allow: Callable[[int], bool] | None = None,
        salt: bytes | None = None,
    ) -> None:
        salt = os.urandom(SALT_SIZE) if salt is None else salt
        if len(salt) != SALT_SIZE or not 0 <= connection < 1 << 32:
            raise ValueError("a salt has 32 bytes, a connection's number 32 bits")
        self._initiator = initiator
        self._secret: Secret | None = secret
        self._context = context
        self._allow = allow
        self._salt = salt
        self._buffer = bytearray()
        self._step = _Step.WELCOME if initiator else _Step.HELLO
        self._sealer: RecordSealer | None = None
        self._opener: RecordOpener | None = None
        self.connection = connection
        self.peer_proved = False
        self.leftover = b""
        self.failure: CloudConnectError | None = None

    @property
    def done(self) -> bool:
        """Whether records may follow."""
        return self._step is _Step.DONE

    @property
    def sealer(self) -> RecordSealer:
        """Seals what this side sends, once :attr:`done`."""
        if self._sealer is None or not self.done:
            raise RuntimeError("the handshake is not over")
        return self._sealer

    @property
    def opener(self) -> RecordOpener:
        """Opens what the peer sends, once :attr:`done`."""
        if self._opener is None or not self.done:
            raise RuntimeError("the handshake is not over")
        return self._opener

    def start(self) -> bytes:
        """The hello, 36 bytes, to be sent at once.

        :raises RuntimeError: on the responder's side
        """
        if not self._initiator:
            raise RuntimeError("a responder waits for the hello")
        return self._salt + self.connection.to_bytes(4, "big")

    def receive(self, data: Buffer) -> bytes:
        """Take bytes of the peer.

        :return: what to send now, may be empty
        :raises Tampered: the peer's commitment is not the one of this secret, context, connection
            number and direction
        :raises Replayed: the peer has proved itself, and ``allow`` refused the connection's number
        :raises KeyForgotten: the secret has been forgotten meanwhile
        :raises RuntimeError: called after :attr:`done`
        """
        if self.failure is not None:
            raise self.failure
        if self.done:
            raise RuntimeError("the handshake is over")
        self._buffer += data
        answer = b""
        try:
            while not self.done and len(self._buffer) >= self._step.value:
                message = bytes(self._buffer[: self._step.value])
                del self._buffer[: self._step.value]
                answer += self._take(message)
        except CloudConnectError as error:
            self._fail(error)
            raise
        self._clean_up()
        return answer

    def _clean_up(self) -> None:
        if self.done:
            self.leftover = bytes(self._buffer)
            self._buffer.clear()
            self._secret = None

    def _take(self, message: bytes) -> bytes:
        if self._step is _Step.HELLO:
            self.connection = int.from_bytes(message[SALT_SIZE:], "big")
            sealer = self._make_keys(message[:SALT_SIZE], self._salt)
            self._step = _Step.BEGIN
            return self._salt + sealer.commitment
        if self._step is _Step.WELCOME:
            sealer = self._make_keys(self._salt, message[:SALT_SIZE])
            self._check(message[SALT_SIZE:])
            self._step = _Step.DONE
            return sealer.commitment
        self._check(message)
        if self._allow is not None and not self._allow(self.connection):
            raise Replayed(f"connection {self.connection} of this hop was used before")
        self._step = _Step.DONE
        return b""

    def _make_keys(self, salt_i: bytes, salt_r: bytes) -> RecordSealer:
        assert self._secret is not None
        there, back = (
            TrafficSecret(self._secret, self._context, self.connection, direction, salt_i + salt_r)
            for direction in (FROM_INITIATOR, FROM_RESPONDER)
        )
        ours, theirs = (there, back) if self._initiator else (back, there)
        self._sealer, self._opener = RecordSealer(ours), RecordOpener(theirs)
        return self._sealer

    def _check(self, commitment: bytes) -> None:
        assert self._opener is not None
        if not hmac.compare_digest(commitment, self._opener.commitment):
            raise Tampered(
                "the peer's commitment is not that of this session's key: another key or context, "
                "or the handshake was changed on the way"
            )
        self.peer_proved = True

    def _fail(self, error: CloudConnectError) -> None:
        self.failure = error
        self._secret = None
        self._buffer.clear()
        for direction in (self._sealer, self._opener):
            if direction is not None:
                direction.forget()


@attrs.frozen
class DataReceived:
    """Verified payload, never empty."""

    data: bytes = attrs.field(repr=False)


@attrs.frozen
class EndReceived:
    """The peer has sent all its data, and all of it has been received."""


@attrs.frozen
class AbortReceived:
    """The peer gives up; ``code`` is its reason, 0 to 65535. Nothing it sends later is read."""

    code: int


@attrs.frozen
class PingReceived:
    """The peer wants the 8 bytes back in a PONG."""

    octets: bytes


@attrs.frozen
class PongReceived:
    """The answer to a PING of ours."""

    octets: bytes


RecordEvent = DataReceived | EndReceived | AbortReceived | PingReceived | PongReceived


class RecordConnection:
    """Both directions of a stream of records, as bytes in, events out, and the other way round.

    :param sealer: from a finished handshake
    :param opener: from the same
    :param payload_max: most payload bytes of one DATA record that this side makes
    :ivar error: why nothing more is parsed, or None
    """

    def __init__(
        self,
        sealer: RecordSealer,
        opener: RecordOpener,
        payload_max: int = RECORD_PAYLOAD_PLAIN,
    ) -> None:
        if not 0 < payload_max <= RECORD_PAYLOAD_MAX:
            raise ValueError(f"a record has 1 to {RECORD_PAYLOAD_MAX} bytes of payload")
        self.sealer = sealer
        self.opener = opener
        self._payload_max = payload_max
        self._buffer = bytearray()
        self._needed = HEADER_SIZE
        self.error: CloudConnectError | None = None

    @property
    def ended(self) -> bool:
        """Whether the peer's END has been received."""
        return self.opener.ended

    @property
    def clean(self) -> bool:
        """Whether END has been sent and received: only now may the layer below close."""
        return self.sealer.ended and self.opener.ended

    @property
    def aborted(self) -> bool:
        """Whether either side has given up."""
        return self.sealer.abort_code is not None or self.opener.abort_code is not None

    @property
    def mid_record(self) -> bool:
        """Whether a record has begun and is not complete."""
        return bool(self._buffer)

    def receive(self, data: Buffer) -> list[RecordEvent]:
        """Take bytes of the peer.

        The events before a bad record of the same call are still returned; look at :attr:`error`
        after them. Nothing of the bad record, and nothing after it, ever is.

        :raises Tampered: a record is not the one that the peer sent next
        :raises ProtocolViolation: the peer does not keep to its limits
        """
        if self.error is not None:
            raise self.error
        events: list[RecordEvent] = []
        if self.opener.abort_code is not None:
            return events
        self._buffer += data
        try:
            self._parse(events)
        except CloudConnectError as error:
            self.error = error
            self._buffer = bytearray()  # the traceback still holds views of the old one
            if not events:
                raise
        return events

    def end_of_input(self) -> None:
        """The layer below says that no more bytes will come.

        :raises Truncated: they stopped before the peer's authenticated end, or within a record
        :raises CloudConnectError: :attr:`error`, where there is one
        """
        if self.error is not None:
            raise self.error
        if self.opener.abort_code is not None or (self.ended and not self.mid_record):
            return
        where = "within a record" if self.mid_record else "before the authenticated end"
        self.error = Truncated(f"the bytes stopped {where}, after {self.opener.records} records")
        raise self.error

    def send(self, data: Buffer, now: float | None = None) -> bytes:
        """Records that carry ``data``, with a REKEY among them where one is due.

        :param now: monotonic clock in seconds; without it keys change by their bytes only
        :raises RuntimeError: after :meth:`end` or :meth:`abort`
        :raises NonceExhausted: the last epoch is used up: :meth:`end`, and open a new connection
        """
        payload = memoryview(data).cast("B")
        records = []
        for start in range(0, len(payload), self._payload_max):
            if self.sealer.rekey_due(now):
                records.append(self.sealer.rekey())
            piece = payload[start : start + self._payload_max]
            records.append(self.sealer.seal(RecordType.DATA, piece))
        return b"".join(records)

    def end(self) -> bytes:
        """END: this side has sent all its data."""
        return self.sealer.end()

    def abort(self, code: int) -> bytes:
        """ABORT with a reason code, 0 to 65535; nothing may follow."""
        return self.sealer.seal(RecordType.ABORT, code.to_bytes(2, "big"))

    def ping(self, octets: bytes) -> bytes:
        """PING with 8 bytes that the peer sends back."""
        return self.sealer.seal(RecordType.PING, octets)

    def pong(self, octets: bytes) -> bytes:
        """PONG with the 8 bytes of a PING."""
        return self.sealer.seal(RecordType.PONG, octets)

    def forget(self) -> None:
        """Drop the keys of both directions and what has been buffered."""
        self.sealer.forget()
        self.opener.forget()
        self._buffer.clear()

    def _parse(self, events: list[RecordEvent]) -> None:
        position = 0
        with memoryview(self._buffer) as received:
            while self.opener.abort_code is None and len(received) - position >= self._needed:
                header = bytes(received[position : position + HEADER_SIZE])
                kind, length = self.opener.header(header)
                self._needed = HEADER_SIZE + length
                if len(received) - position < self._needed:
                    break
                sealed = received[position + HEADER_SIZE : position + self._needed]
                event = _event(kind, self.opener.open(header, sealed))
                sealed.release()
                if event is not None:
                    events.append(event)
                position += self._needed
                self._needed = HEADER_SIZE
        del self._buffer[:position]


def _event(kind: RecordType, payload: bytes) -> RecordEvent | None:
    match kind:
        case RecordType.DATA:
            return DataReceived(payload)
        case RecordType.END:
            return EndReceived()
        case RecordType.ABORT:
            return AbortReceived(int.from_bytes(payload, "big"))
        case RecordType.PING:
            return PingReceived(payload)
        case RecordType.PONG:
            return PongReceived(payload)
        case RecordType.REKEY:
            return None
