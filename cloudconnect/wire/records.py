"""Layer 1: both directions of a record stream (``docs/protocol.rst``, sections 5 and 6).

:class:`RecordConnection` is the conversation after the handshake, for callers that take bytes and
events. A caller with buffers of its own uses the sealer and the opener directly. The names of
:mod:`cloudconnect.wire.agreement` (the handshake) and of :mod:`cloudconnect.wire.protection` (one
direction) are exported here too.
"""

from __future__ import annotations

import attrs

from cloudconnect.errors import CloudConnectError, Truncated
from cloudconnect.settings import RECORD_PAYLOAD_MAX, RECORD_PAYLOAD_PLAIN
from cloudconnect.shown import Shown
from cloudconnect.wire.agreement import BEGIN_SIZE, HELLO_SIZE, WELCOME_SIZE, RecordHandshake
from cloudconnect.wire.protection import (
    HEADER_SIZE,
    TAG_SIZE,
    Buffer,
    RecordOpener,
    RecordSealer,
    RecordType,
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


@attrs.frozen(repr=False)
class DataReceived(Shown):
    """Verified payload, never empty."""

    data: bytes = attrs.field(repr=False)


@attrs.frozen(repr=False)
class EndReceived(Shown):
    """The peer has sent all its data, and all of it has been received."""


@attrs.frozen(repr=False)
class AbortReceived(Shown):
    """The peer gives up; ``code`` is its reason, 0 to 65535. Nothing it sends later is read."""

    code: int


@attrs.frozen(repr=False)
class PingReceived(Shown):
    """The peer wants the 8 bytes back in a PONG."""

    octets: bytes


@attrs.frozen(repr=False)
class PongReceived(Shown):
    """The answer to a PING of ours."""

    octets: bytes


RecordEvent = DataReceived | EndReceived | AbortReceived | PingReceived | PongReceived


class RecordConnection:
    """Both directions of a stream of records, as bytes in, events out, and the other way round.

    :param sealer: from a finished handshake
    :param opener: from the same
    :param payload_max: most payload bytes of one DATA record that this side makes
    :ivar error: why nothing more is parsed, or None
    :raises ValueError: ``payload_max`` out of bounds
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

        :param data: any number of them, cut anywhere
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
        """ABORT with a reason code, 0 to 65535; nothing may follow.

        :param code: why (``docs/protocol.rst``, section 6)
        """
        return self.sealer.seal(RecordType.ABORT, code.to_bytes(2, "big"))

    def ping(self, octets: bytes) -> bytes:
        """PING with 8 bytes that the peer sends back.

        :param octets: 8 of them
        """
        return self.sealer.seal(RecordType.PING, octets)

    def pong(self, octets: bytes) -> bytes:
        """PONG with the 8 bytes of a PING.

        :param octets: the same 8
        """
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
        if self.opener.abort_code is not None:
            position = len(self._buffer)
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
