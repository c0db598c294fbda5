"""An attacker on the way: a TCP proxy on loopback between a tenant and its provider's gateway.

It sees what anybody there sees. From the first bytes it knows what a connection is, and it follows
the fields that go in clear (``docs/protocol.rst``, sections 1, 4, 5 and 6), so that a rule can say
where to strike: at an offset, in a field, in the record that holds a byte of the payload. Every
byte is recorded, as it came and as it went on.
"""

from __future__ import annotations

import enum
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IListeningPort
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

LOOPBACK = "127.0.0.1"


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


# --- where to strike -----------------------------------------------------------------------------

#: Says which byte of a piece is meant, or None.
Where = Callable[[Piece], int | None]


def at_offset(offset: int) -> Where:
    """The byte at this offset on the connection."""

    def where(piece: Piece) -> int | None:
        index = offset - piece.start
        return index if 0 <= index < piece.size else None

    return where


def in_field(part: Part, index: int = 0, number: int = -1, type: int = 0) -> Where:
    """Byte ``index`` of a field; of the record or message ``number``, or the first of ``type``.

    A negative index counts from the end of the field.
    """

    def where(piece: Piece) -> int | None:
        field = piece.field
        if field.part is not part or (type and field.type != type):
            return None
        if number >= 0 and field.number != number:
            return None
        at = (index if index >= 0 else field.size + index) - piece.index
        return at if 0 <= at < piece.size else None

    return where


def at_payload(offset: int) -> Where:
    """The byte of ciphertext that hides byte ``offset`` of the stream's payload."""

    def where(piece: Piece) -> int | None:
        field = piece.field
        if field.part is not Part.BODY or field.type != DATA:
            return None
        index = offset - field.payload - piece.index
        return index if 0 <= index < piece.size else None

    return where


def in_tag_behind(offset: int) -> Where:
    """The first byte of the tag of the record that holds byte ``offset`` of the payload."""
    holds: list[int] = []

    def where(piece: Piece) -> int | None:
        field = piece.field
        is_data = field.part is Part.BODY and field.type == DATA
        if is_data and field.payload <= offset < field.payload + field.size:
            holds.append(field.number)
        return 0 if field.part is Part.TAG and field.number in holds and not piece.index else None

    return where


# --- what to do ----------------------------------------------------------------------------------


@attrs.define(eq=False)
class Rule:
    """Does something, once, to the first connection of its kind that shows its place.

    :ivar hit: the piece that it struck
    :ivar at: the offset on the connection that it struck
    :ivar happened: fires behind that
    """

    line: Line
    way: Way
    where: Where
    hit: Piece | None = attrs.field(default=None, init=False)
    at: int = attrs.field(default=-1, init=False)
    happened: Deferred[None] = attrs.field(factory=Deferred, init=False, repr=False)
    _told: bool = attrs.field(default=False, init=False)

    def finds(self, line: Line, way: Way, piece: Piece) -> int | None:
        """The index in ``piece`` to strike at, or None."""
        if self.hit is not None or line is not self.line or way is not self.way:
            return None
        index = self.where(piece)
        if index is not None:
            self.hit, self.at = piece, piece.start + index
        return index

    def tell(self, reactor: Any) -> None:
        """Have :attr:`happened` fired, once, after what is done now."""
        if not self._told:
            self._told = True
            reactor.callLater(0, self.happened.callback, None)


@attrs.define(eq=False)
class Flip(Rule):
    """Changes bits of one byte."""

    mask: int = 0x01


@attrs.define(eq=False)
class Insert(Rule):
    """Puts bytes of the attacker's in front of the byte.

    :ivar octets: makes them, of what has been seen of the connection
    :ivar behind: behind the byte, and not in front of it
    """

    octets: Callable[[Relayed], bytes] = lambda relayed: b"\x00"
    behind: bool = False


@attrs.define(eq=False)
class Omit(Rule):
    """Takes away the whole record or tunnel message of the byte; its place is in a first field."""

    def finds(self, line: Line, way: Way, piece: Piece) -> int | None:
        index = super().finds(line, way, piece)
        if index is None and self.hit is not None and (line, way) == (self.line, self.way):
            return 0 if piece.field.number == self.hit.field.number else None
        return index


@attrs.define(eq=False)
class Cut(Rule):
    """Lets everything before the byte pass, then closes both sides.

    :ivar reset: by RST in the place of FIN
    """

    reset: bool = False


@attrs.define(eq=False)
class Stall(Rule):
    """Lets everything before the byte pass; the rest waits for :meth:`Proxy.release`."""


@attrs.define(eq=False)
class Trickle(Rule):
    """Passes this byte and all behind it on one by one, each in a turn of its own.

    :ivar count: so many bytes, then as before
    """

    count: int = 1 << 40


# --- the proxy -----------------------------------------------------------------------------------


@implementer(IHalfCloseableProtocol)
class _End(Protocol):
    """One of the two sockets of a relayed connection.

    :ivar passing: the direction of what it receives
    """

    def __init__(self, relayed: Relayed, passing: Way) -> None:
        self.relayed = relayed
        self.passing = passing
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]
        self.relayed.connected(self)

    def dataReceived(self, data: bytes) -> None:
        self.relayed.came(self.passing, data)

    def readConnectionLost(self) -> None:
        self.relayed.finished(self.passing)

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.relayed.lost(self, reason)
        self.gone.callback(None)


class Relayed:
    """One connection through the proxy.

    :ivar line: what it is, known from its first bytes
    :ivar came_in: what each side sent, by direction
    :ivar went_on: what the other side got of it
    """

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.line = Line.OTHER
        self.came_in: dict[Way, bytearray] = {way: bytearray() for way in Way}
        self.went_on: dict[Way, bytearray] = {way: bytearray() for way in Way}
        self.tenant = _End(self, Way.UP)
        self.provider = _End(self, Way.DOWN)
        self._known = False
        self._first = b""
        self._dissectors: dict[Way, Dissector] = {}
        self._over = False
        self._held: dict[Way, bytearray] = {}
        self._slow: dict[Way, int] = {}
        self._queues: dict[Way, deque[bytes]] = {way: deque() for way in Way}
        self._finished: set[Way] = set()

    def _from(self, way: Way) -> Any:
        return (self.tenant if way is Way.UP else self.provider).transport

    def _to(self, way: Way) -> Any:
        return (self.provider if way is Way.UP else self.tenant).transport

    def connected(self, end: _End) -> None:
        if end is self.tenant:
            self.tenant.transport.pauseProducing()  # type: ignore[union-attr]
            place = TCP4ClientEndpoint(
                self._proxy.reactor,
                LOOPBACK,
                self._proxy.target,
                bindAddress=(self._proxy.address, 0),
            )
            connecting = place.connect(_factory(lambda: self.provider))
            connecting.addErrback(lambda _: self.close(reset=True))
            return
        if self.tenant.transport is None or self._over:
            self.close(reset=True)
            return
        for way in Way:
            self._to(way).registerProducer(self._from(way), True)
        self._from(Way.UP).resumeProducing()

    def came(self, way: Way, data: bytes) -> None:
        self.came_in[way] += data
        if self._over:
            return
        if not self._known:
            if way is Way.UP:
                self._first += data
                data = self._first
            if not self._find_out(way, data):
                return
        self._pass(way, data)

    def _find_out(self, way: Way, data: bytes) -> bool:
        """Whether it is known what this connection is: the tenant speaks first."""
        if way is Way.UP:
            if data[:1] == b"C" and len(data) < 5:
                return False
            kinds = {1: Line.TUNNEL, 2: Line.STREAM}
            if data[:1] == b"\x16":
                self.line = Line.CONTROL
            elif data[:4] == b"CCN1":
                self.line = kinds.get(data[4], Line.OTHER)
        self._known = True
        self._dissectors = {way: Dissector(self.line, way) for way in Way}
        return True

    def _pass(self, way: Way, data: bytes) -> None:
        if way in self._held:
            self._held[way] += data
            return
        out = bytearray()
        position = 0
        for piece in self._dissectors[way].feed(data):
            octets = bytearray(data[position : position + piece.size])
            position += piece.size
            for rule in self._proxy.rules:
                index = rule.finds(self.line, way, piece)
                if index is None:
                    continue
                rule.tell(self._proxy.reactor)
                if isinstance(rule, Flip):
                    octets[index] ^= rule.mask
                elif isinstance(rule, Insert):
                    index += rule.behind
                    octets[index:index] = rule.octets(self)
                elif isinstance(rule, Omit):
                    octets.clear()
                elif isinstance(rule, Cut):
                    self._send(way, out + octets[:index])
                    self.close(rule.reset)
                    return
                elif isinstance(rule, Stall):
                    self._send(way, out + octets[:index])
                    self._held[way] = octets[index:] + data[position:]
                    self._dissectors[way] = Dissector(Line.OTHER, way)  # from here on, blindly
                    return
                elif isinstance(rule, Trickle):
                    self._slow[way] = rule.count
            out += octets
        self._send(way, out)

    def _send(self, way: Way, octets: bytes | bytearray) -> None:
        queue = self._queues[way]
        slow = min(len(octets), self._slow.get(way, 0))
        if slow or queue:
            began = not queue
            queue.extend(bytes((octet,)) for octet in octets[:slow])
            self._slow[way] = self._slow.get(way, 0) - slow
            if octets[slow:]:
                queue.append(bytes(octets[slow:]))
            if began:
                self._from(way).pauseProducing()
                self._proxy.reactor.callLater(0, self._next, way)
        else:
            self._write(way, bytes(octets))

    def _next(self, way: Way) -> None:
        queue = self._queues[way]
        if self._over or not queue:
            return
        self._write(way, queue.popleft())
        if queue:
            self._proxy.reactor.callLater(0, self._next, way)
        elif way in self._finished:
            self._to(way).loseWriteConnection()
        else:
            self._from(way).resumeProducing()

    def _write(self, way: Way, octets: bytes) -> None:
        if octets and self._to(way) is not None:
            self.went_on[way] += octets
            self._to(way).write(octets)

    def release(self) -> None:
        """Let pass on what was stalled."""
        for way in list(self._held):
            self._write(way, bytes(self._held.pop(way)))
            if way in self._finished:
                self._to(way).loseWriteConnection()

    def finished(self, way: Way) -> None:
        """One side has sent FIN."""
        self._finished.add(way)
        if not (self._over or self._held.get(way) or self._queues[way]):
            to = self._to(way)
            if to is not None:
                to.unregisterProducer()
                to.loseWriteConnection()

    def lost(self, end: _End, reason: Failure) -> None:
        """One socket is closed: so is the other, in the same manner."""
        if not self._over:
            self.close(reset=not reason.check(ConnectionDone))

    def close(self, reset: bool) -> None:
        """Close both sockets."""
        self._over = True
        for end in (self.tenant, self.provider):
            if end.transport is not None:
                end.transport.unregisterProducer()  # type: ignore[attr-defined]
                if reset:
                    end.transport.abortConnection()  # type: ignore[attr-defined]
                else:
                    end.transport.loseConnection()

    def over(self) -> Deferred[Any]:
        """Fires when both sockets are closed."""
        ends = [end.gone for end in (self.tenant, self.provider) if end.transport is not None]
        return DeferredList(ends)


def _factory(build: Callable[[], Protocol]) -> Factory:
    factory = Factory.forProtocol(build)  # type: ignore[arg-type]
    factory.noisy = False
    return factory


class Proxy:
    """Listens on a port of its own and relays to ``target``.

    :param reactor: the reactor
    :param target: TCP port of the gateway, on loopback
    :param address: what it connects from, an address of loopback
    :ivar rules: what to do; may be exchanged at any time
    :ivar connections: every connection so far, with what was recorded of it
    """

    def __init__(self, reactor: Any, target: int, address: str = LOOPBACK) -> None:
        self.reactor = reactor
        self.target = target
        self.address = address
        self.rules: list[Rule] = []
        self.connections: list[Relayed] = []
        listening: IListeningPort = reactor.listenTCP(0, _factory(self._accept), interface=LOOPBACK)
        self._listening = listening
        #: The port that tenants connect to.
        self.port: int = listening.getHost().port  # type: ignore[attr-defined]

    def _accept(self) -> Protocol:
        relayed = Relayed(self)
        self.connections.append(relayed)
        return relayed.tenant

    def of(self, line: Line) -> list[Relayed]:
        """The connections of this kind."""
        return [relayed for relayed in self.connections if relayed.line is line]

    def recorded(self) -> Iterator[bytes]:
        """Every direction of every connection, as it was sent."""
        for relayed in self.connections:
            for octets in relayed.came_in.values():
                yield bytes(octets)

    def size(self, way: Way) -> int:
        """Bytes that were sent in this direction, on all connections."""
        return sum(len(relayed.came_in[way]) for relayed in self.connections)

    def forget(self) -> None:
        """Drop what was recorded of connections that are over, and all rules."""
        self.rules = []
        self.connections = [r for r in self.connections if not r.over().called]

    def release(self) -> None:
        """Let pass on everything that was stalled; nothing new stalls."""
        self.rules = [rule for rule in self.rules if not isinstance(rule, Stall)]
        for relayed in self.connections:
            relayed.release()

    async def close(self) -> None:
        """Stop listening and end every connection."""
        stopping = self._listening.stopListening()
        if stopping is not None:
            await stopping
        for relayed in self.connections:
            relayed.close(reset=True)
        await DeferredList([relayed.over() for relayed in self.connections])
