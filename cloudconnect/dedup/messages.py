"""Layer 1: the messages that two accelerators exchange, both ways (``docs/wan.rst``).

Each is a type (u8), the length of its body (u32) and the body; integers are big-endian. What is
impossible to see without a cache is refused here.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from cloudconnect.dedup.instructions import VarintReader, pack_ranges, put_varint, unpack_ranges
from cloudconnect.dedup.limits import (
    BATCH_MAX,
    BLOCK_MAX,
    BODY_MAX,
    CONTROL_MAX,
    NAME_SIZE,
    NAMES_MAX,
    PIECES_MAX,
    WINDOW_MAX,
    WINDOW_MIN,
    coded_max,
)
from cloudconnect.errors import ProtocolViolation

#: The version of this grammar.
VERSION: Final = 1

_HEAD: Final = struct.Struct(">BI")
_HELLO: Final = struct.Struct(">BBI")
_BATCH: Final = struct.Struct(">QI32sBIIIIII16s")
_RESEND: Final = struct.Struct(">QBI")
_NUMBER: Final = struct.Struct(">Q")
_END: Final = struct.Struct(">QQ")


class MessageKind(enum.IntEnum):
    """What a message is for. BATCH, RESEND and END are of one direction, ACK and MISS answer."""

    HELLO = 1
    BATCH = 2
    RESEND = 3
    END = 4
    ACK = 5
    MISS = 6


class Coding(enum.IntEnum):
    """How the stream section of a batch, or a resend, is compressed."""

    RAW = 0
    #: It goes on with the compressed stream.
    ON = 1
    #: A compressed stream begins; for a resend: a Zstandard frame.
    ANEW = 2


_BODY_MAX: Final = {
    MessageKind.HELLO: _HELLO.size,
    MessageKind.BATCH: BODY_MAX,
    MessageKind.RESEND: _RESEND.size + 10 * PIECES_MAX + BATCH_MAX,
    MessageKind.END: _END.size,
    MessageKind.ACK: _NUMBER.size,
    MessageKind.MISS: _NUMBER.size + 10 * PIECES_MAX,
}


@attrs.frozen
class Hello:
    """The first message each way.

    :ivar window: bytes of plain stream that may be under way to its sender
    :ivar cold: its sender's cache is empty
    """

    window: int
    cold: bool

    def encode(self) -> list[bytes | memoryview]:
        """Its bytes."""
        return _message(MessageKind.HELLO, _HELLO.pack(VERSION, self.cold, self.window))

    @classmethod
    def decode(cls, body: memoryview) -> Hello:
        """The other way round.

        :raises ProtocolViolation: another version or size, or an impossible window
        """
        if len(body) != _HELLO.size:
            raise ProtocolViolation("a greeting between accelerators has another size")
        version, cold, window = _HELLO.unpack(body)
        if version != VERSION or cold > 1 or not WINDOW_MIN <= window <= WINDOW_MAX:
            raise ProtocolViolation("a greeting between accelerators has impossible values")
        return cls(window, bool(cold))


@attrs.frozen
class Batch:
    """A part of the stream.

    :ivar number: 0 for the first, then one more each
    :ivar plain: its bytes
    :ivar digest: BLAKE3-256 over the BLAKE3-256 of each of its pieces, in order
    :ivar names: of the bases and of the blocks that are named, in the order of their use
    :ivar coding: how the stream section is compressed
    :ivar control: bytes of control, at the beginning of the stream section
    :ivar stream_plain: bytes of the stream section before compression
    :ivar stream: the stream section
    :ivar delta_plain: bytes of the delta section before compression
    :ivar delta: the delta section: a Zstandard frame made with a prefix, or nothing
    :ivar check: the first 16 bytes of the prefix's BLAKE3, or zeros
    """

    number: int
    plain: int
    digest: bytes
    names: Sequence[bytes]
    coding: Coding
    control: int
    stream_plain: int
    stream: bytes | memoryview
    delta_plain: int = 0
    delta: bytes | memoryview = b""
    check: bytes = bytes(16)

    def encode(self) -> list[bytes | memoryview]:
        """Its bytes, as parts to be written in order."""
        head = _BATCH.pack(
            self.number,
            self.plain,
            self.digest,
            self.coding,
            len(self.names),
            self.control,
            self.stream_plain,
            len(self.stream),
            self.delta_plain,
            len(self.delta),
            self.check,
        )
        return _message(MessageKind.BATCH, head, *self.names, self.stream, self.delta)

    @classmethod
    def decode(cls, body: memoryview) -> Batch:
        """The other way round; lengths are held against the limits.

        :raises ProtocolViolation: they are impossible
        """
        if len(body) < _BATCH.size:
            raise ProtocolViolation("a batch is too short")
        fields = _BATCH.unpack_from(body)
        number, plain, digest, coding, names, control, stream_plain, stream = fields[:8]
        delta_plain, delta, check = fields[8:]
        possible = (
            1 <= plain <= BATCH_MAX
            and names <= NAMES_MAX
            and 1 <= control <= CONTROL_MAX
            and control <= stream_plain
            and stream_plain - control + delta_plain <= plain
            and (delta_plain > 0) is (delta > 0)
            and stream <= coded_max(stream_plain)
            and delta <= coded_max(delta_plain)
            and len(body) == _BATCH.size + names * NAME_SIZE + stream + delta
            and coding <= Coding.ANEW
            and (coding != Coding.RAW or stream == stream_plain)
        )
        if not possible:
            raise ProtocolViolation("a batch has impossible lengths")
        at = _BATCH.size
        end = at + names * NAME_SIZE
        found = [bytes(body[i : i + NAME_SIZE]) for i in range(at, end, NAME_SIZE)]
        return cls(
            number,
            plain,
            digest,
            found,
            Coding(coding),
            control,
            stream_plain,
            body[end : end + stream],
            delta_plain,
            body[end + stream :],
            check,
        )


@attrs.frozen
class Resend:
    """Pieces that the far end did not have.

    :ivar number: of the batch
    :ivar pieces: index and length in bytes of each
    :ivar coding: RAW or ANEW
    :ivar data: their bytes, joined, perhaps compressed
    """

    number: int
    pieces: Sequence[tuple[int, int]]
    coding: Coding
    data: bytes | memoryview

    def encode(self) -> list[bytes | memoryview]:
        """Its bytes, as parts to be written in order."""
        listed = bytearray(pack_ranges(index for index, _ in self.pieces))
        lengths = bytearray()
        for _, length in self.pieces:
            put_varint(lengths, length)
        head = _RESEND.pack(self.number, self.coding, len(listed))
        return _message(MessageKind.RESEND, head, bytes(listed + lengths), self.data)

    @classmethod
    def decode(cls, body: memoryview) -> Resend:
        """The other way round.

        :raises ProtocolViolation: impossible lengths
        """
        if len(body) < _RESEND.size:
            raise ProtocolViolation("a resend is too short")
        number, coding, listed = _RESEND.unpack_from(body)
        rest = body[_RESEND.size :]
        if listed > len(rest) or coding not in (Coding.RAW, Coding.ANEW):
            raise ProtocolViolation("a resend has impossible lengths")
        indexes = unpack_ranges(rest[:listed])
        reader = VarintReader(rest[listed:])
        pieces = [(index, reader.next()) for index in indexes]
        if not all(1 <= length <= BATCH_MAX for _, length in pieces):
            raise ProtocolViolation("a resend has a piece of an impossible length")
        if sum(length for _, length in pieces) > BATCH_MAX:
            raise ProtocolViolation("a resend is longer than a batch")
        return cls(number, pieces, Coding(coding), rest[listed + reader.at :])


@attrs.frozen
class End:
    """The last message of a direction, but for answers.

    :ivar batches: how many there were
    :ivar plain: bytes of the stream
    """

    batches: int
    plain: int

    def encode(self) -> list[bytes | memoryview]:
        """Its bytes."""
        return _message(MessageKind.END, _END.pack(self.batches, self.plain))

    @classmethod
    def decode(cls, body: memoryview) -> End:
        """The other way round.

        :raises ProtocolViolation: another size
        """
        if len(body) != _END.size:
            raise ProtocolViolation("an end between accelerators has another size")
        return cls(*_END.unpack(body))


@attrs.frozen
class Ack:
    """Batch ``number`` and all before it were verified and passed on."""

    number: int

    def encode(self) -> list[bytes | memoryview]:
        """Its bytes."""
        return _message(MessageKind.ACK, _NUMBER.pack(self.number))

    @classmethod
    def decode(cls, body: memoryview) -> Ack:
        """The other way round.

        :raises ProtocolViolation: another size
        """
        if len(body) != _NUMBER.size:
            raise ProtocolViolation("an acknowledgement has another size")
        return cls(*_NUMBER.unpack(body))


@attrs.frozen
class Miss:
    """Pieces of batch ``number`` that are needed, by their indexes, ascending."""

    number: int
    pieces: Sequence[int]

    def encode(self) -> list[bytes | memoryview]:
        """Its bytes."""
        return _message(MessageKind.MISS, _NUMBER.pack(self.number), pack_ranges(self.pieces))

    @classmethod
    def decode(cls, body: memoryview) -> Miss:
        """The other way round.

        :raises ProtocolViolation: an impossible list
        """
        if len(body) < _NUMBER.size:
            raise ProtocolViolation("a request for pieces is too short")
        return cls(_NUMBER.unpack_from(body)[0], unpack_ranges(body[_NUMBER.size :]))


Message = Hello | Batch | Resend | End | Ack | Miss

_CLASSES: Final[dict[MessageKind, type[Message]]] = {
    MessageKind.HELLO: Hello,
    MessageKind.BATCH: Batch,
    MessageKind.RESEND: Resend,
    MessageKind.END: End,
    MessageKind.ACK: Ack,
    MessageKind.MISS: Miss,
}
#: Largest block that a message can name a length of; larger pieces lie between blocks.
assert BLOCK_MAX <= BATCH_MAX


def _message(kind: MessageKind, *parts: bytes | memoryview) -> list[bytes | memoryview]:
    head = _HEAD.pack(kind, sum(map(len, parts)))
    return [head, *(part for part in parts if len(part))]


class MessageReader:
    """Takes the bytes of one direction, cut anywhere, and returns its messages."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def receive(self, data: bytes | memoryview) -> Iterator[Message]:
        """The messages that ``data`` completes; exhausted before the next call.

        :raises ProtocolViolation: a message is malformed; nothing is to be read any more
        """
        view = memoryview(data)
        while len(view):
            waiting = self._waiting
            if not waiting and len(view) >= _HEAD.size:
                kind, length = self._head(view)
                end = _HEAD.size + length
                if len(view) >= end:
                    yield _CLASSES[kind].decode(view[_HEAD.size : end])
                    view = view[end:]
                    continue
            missing = _HEAD.size - len(waiting)
            if missing > 0:
                waiting += view[:missing]
                view = view[missing:]
                if len(waiting) < _HEAD.size:
                    return
            kind, length = self._head(waiting)
            missing = _HEAD.size + length - len(waiting)
            waiting += view[:missing]
            view = view[missing:]
            if len(waiting) == _HEAD.size + length:
                self._waiting = bytearray()
                yield _CLASSES[kind].decode(memoryview(waiting)[_HEAD.size :].toreadonly())

    @staticmethod
    def _head(octets: bytearray | memoryview) -> tuple[MessageKind, int]:
        number, length = _HEAD.unpack_from(octets)
        try:
            kind = MessageKind(number)
        except ValueError:
            raise ProtocolViolation(f"accelerators exchange no message {number}") from None
        if length > _BODY_MAX[kind]:
            raise ProtocolViolation(f"a {kind.name} of {length} bytes came")
        return kind, length

    @property
    def inside(self) -> bool:
        """Whether a message has begun and is not complete."""
        return bool(self._waiting)
