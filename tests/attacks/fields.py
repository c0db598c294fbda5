"""The fields of a connection that go in clear, as anybody on the way can follow them.

``docs/protocol.rst``, sections 1 (preamble), 4 (tunnel), 5 and 6 (stream).
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Generator, Iterator

import attrs


class Line(enum.Enum):
    """What a connection is."""

    CONTROL = "control"
    TUNNEL = "tunnel"
    STREAM = "stream"
    OTHER = "other"


class Way(enum.Enum):
    """A direction."""

    UP = "up"  # to the provider
    DOWN = "down"  # to the tenant


class Part(enum.Enum):
    """A field of a data connection."""

    TLS = "tls"
    PREAMBLE = "preamble"
    HELLO = "hello"
    WELCOME = "welcome"
    BEGIN = "begin"
    LENGTH = "length"
    MESSAGE = "message"
    TYPE = "type"
    FLAGS = "flags"
    EPOCH = "epoch"
    BODY = "body"
    TAG = "tag"


DATA, END = 1, 3


@attrs.frozen
class Field:
    """Where a byte stands.

    :ivar number: of the record or tunnel message, from 0; -1 before the first
    :ivar type: of the record
    :ivar payload: payload bytes of DATA that came before this field
    """

    part: Part
    size: int
    number: int = -1
    type: int = 0
    payload: int = 0


@attrs.frozen
class Piece:
    """Some bytes of one field, as they pass.

    :ivar start: offset of the first of them on the connection, in this direction
    :ivar index: offset of the first of them in the field
    """

    field: Field
    start: int
    index: int
    size: int


_Fields = Generator[Field, bytes, None]


def _opaque() -> _Fields:
    while True:
        yield Field(Part.TLS, 1 << 40)


def _tunnel(way: Way) -> _Fields:
    if way is Way.UP:
        yield Field(Part.PREAMBLE, 21)
    for number in itertools.count():
        size = yield Field(Part.LENGTH, 2, number)
        yield Field(Part.MESSAGE, int.from_bytes(size, "big"), number)


def _stream(way: Way) -> _Fields:
    if way is Way.UP:
        yield Field(Part.PREAMBLE, 21)
        yield Field(Part.HELLO, 36)
        yield Field(Part.BEGIN, 32)
    else:
        yield Field(Part.WELCOME, 64)
    payload = 0
    for number in itertools.count():
        kind = (yield Field(Part.TYPE, 1, number))[0]
        yield Field(Part.FLAGS, 1, number, kind)
        yield Field(Part.EPOCH, 2, number, kind)
        size = int.from_bytes((yield Field(Part.LENGTH, 4, number, kind)), "big") - 16
        yield Field(Part.BODY, size, number, kind, payload)
        yield Field(Part.TAG, 16, number, kind, payload)
        if kind == DATA:
            payload += size


class Dissector:
    """Follows the fields of one direction of one connection.

    :ivar offset: bytes that have passed
    """

    def __init__(self, line: Line, way: Way) -> None:
        fields = {Line.TUNNEL: _tunnel, Line.STREAM: _stream}
        self._fields = fields[line](way) if line in fields else _opaque()
        self._field = next(self._fields)
        self._value = bytearray()  # of a short field
        self._index = 0
        self.offset = 0

    def feed(self, data: bytes) -> Iterator[Piece]:
        """The pieces of ``data``, in order."""
        position = 0
        while position < len(data):
            field = self._field
            size = min(field.size - self._index, len(data) - position)
            if size:
                yield Piece(field, self.offset, self._index, size)
                if field.size <= 4:
                    self._value += data[position : position + size]
                position += size
                self.offset += size
                self._index += size
            if self._index == field.size:
                self._field = self._fields.send(bytes(self._value))
                self._value.clear()
                self._index = 0


def record_of(line: Line, way: Way, data: bytes, number: int) -> bytes:
    """The whole record, or tunnel message, of this number in a recording."""
    pieces = [p for p in Dissector(line, way).feed(data) if p.field.number == number]
    return data[pieces[0].start : pieces[-1].start + pieces[-1].size]
