"""What the package makes of a vector's bytes, in the words of the vectors.

Both sides of the conversation are here, as far as they read: what one side sends is fed to the
other one's parser. Keys of a side's own that are random otherwise stand in the vector.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.commands.tunnel import prologue
from cloudconnect.errors import Aborted, CloudConnectError, Refused, Truncated
from cloudconnect.keys import IntegrityKey, KeyA, KeyB, Secret, frame_key, key_b_context
from cloudconnect.transports import stream, tunnel
from cloudconnect.transports.recipe import Recipe
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import (
    FLAG_PART,
    Frame,
    FrameKind,
    FrameReader,
    FrameWriter,
    decode_body,
    split_ids,
    unpack_bitmap,
    unpack_chunk,
)
from cloudconnect.wire.noise import NoiseHandshake
from cloudconnect.wire.preamble import PREAMBLE_SIZE, ConnectionKind, FirstBytes, Preamble, decide
from cloudconnect.wire.records import (
    AbortReceived,
    DataReceived,
    EndReceived,
    PingReceived,
    RecordConnection,
    RecordEvent,
    RecordHandshake,
    RecordOpener,
    RecordSealer,
)
from cloudconnect.wire.schedule import TrafficSecret

SIDES = ("initiator", "responder")
Vector = dict[str, Any]
Events = list[list[Any]]


def given(vector: Vector) -> dict[str, Any]:
    """The secrets and inputs of a vector, with octets as bytes."""
    values = {**vector["test_secrets"], **vector["inputs"]}
    return {
        name: bytes.fromhex(value) if isinstance(value, str) else value
        for name, value in values.items()
    }


class Reader:
    """Reads both directions of a conversation; a protocol's reader overrides :meth:`take`."""

    def __init__(self, values: dict[str, Any], events: Events) -> None:
        self.given = values
        self.events = events
        self.data = [b"", b""]
        self._first = b""

    def tell(self, side: int, event: str, *values: Any) -> None:
        """Add an event of the direction from ``side``."""
        self.events.append([SIDES[side], event, *values])

    def tell_data(self, side: int, data: bytes) -> None:
        """Add data, and keep it for what may be in it."""
        self.data[side] += data
        self.tell(side, "data", data.hex())

    def take(self, side: int, octets: bytes) -> None:
        """Read bytes that ``side`` has sent."""
        raise NotImplementedError

    def finish(self, side: int) -> None:
        """``side`` sends no more.

        :raises CloudConnectError: it has not ended as it should
        """
        raise NotImplementedError

    def preamble(self, octets: bytes, kind: ConnectionKind) -> tuple[bytes, bytes] | None:
        """The preamble and what is behind it, once it is complete."""
        self._first += octets
        decision = decide(self._first)
        if decision is None:
            return None
        if not isinstance(decision, Preamble) or decision.kind is not kind:
            raise Refused("there is no key for this kind of connection")
        return self._first[:PREAMBLE_SIZE], self._first[PREAMBLE_SIZE:]


class Gateway(Reader):
    """Looks at first bytes only."""

    def take(self, side: int, octets: bytes) -> None:
        """Decide as the switch does."""
        self._first += octets
        decision = decide(self._first)
        if decision is FirstBytes.TLS:
            self.tell(side, "tls")
        elif decision is not None:
            raise Refused("there is nobody behind this gateway")

    def finish(self, side: int) -> None:
        """Only TLS is content with so few bytes."""
        if not self.events:
            raise Truncated("the connection ended before it was known what it is")


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class Application(Protocol):
    """Above one layer: tells what the other side has sent, and closes nothing."""

    reason: CloudConnectError | None = None

    def __init__(self, reader: Layers, peer: int) -> None:
        self._reader = reader
        self._peer = peer

    def handshakeCompleted(self) -> None:
        """The peer has proved itself."""
        self._reader.tell_handshake(self._peer, self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Verified."""
        self._reader.tell_data(self._peer, data)

    def readConnectionLost(self) -> None:
        """The authenticated end."""
        self._reader.tell(self._peer, "end")

    def writeConnectionLost(self) -> None:
        """Never: we end nothing."""

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Over."""
        assert reason is not None
        if isinstance(reason.value, CloudConnectError):
            self.reason = reason.value


class Transport(StringTransport):
    """Below one layer; aborting it is heard at once."""

    protocol: Any

    def abortConnection(self) -> None:
        """As sockets do, but now."""
        self.protocol.connectionLost(Failure(ConnectionDone()))


class Layers(Reader):
    """Two transport layers, the initiator's and the responder's, that never meet.

    A concrete one says of which kind they are, and how they come to the vector's random numbers.
    """

    kind: ConnectionKind

    def __init__(self, values: dict[str, Any], events: Events) -> None:
        super().__init__(values, events)
        self._ends: dict[int, tuple[Any, Application]] = {}
        self._begin(0, Preamble(self.kind, values.get("route", bytes(16))).encode())
        if "context" in values:
            self._begin(1, b"")

    def recipe(self, preamble: bytes) -> Recipe:
        """The recipe of a side that has seen, or sent, this preamble."""
        raise NotImplementedError

    def fix(self, side: int) -> AbstractContextManager[None]:
        """While in it, a layer takes its random numbers from the vector."""
        raise NotImplementedError

    def tell_handshake(self, peer: int, layer: Any) -> None:
        """``peer`` has proved itself."""
        raise NotImplementedError

    def _begin(self, side: int, preamble: bytes) -> None:
        application = Application(self, 1 - side)
        transport = Transport()
        with self.fix(side):
            layer = self.recipe(preamble).layer(side == 0, application, Clock())
            transport.protocol = layer
            layer.makeConnection(transport)
        self._ends[side] = layer, application

    def take(self, side: int, octets: bytes) -> None:
        """Feed the other side."""
        if 1 - side not in self._ends:
            found = self.preamble(octets, self.kind)
            if found is None:
                return
            self._begin(1, found[0])
            octets = found[1]
        layer, application = self._ends[1 - side]
        layer.dataReceived(octets)
        if application.reason is not None:
            raise application.reason

    def finish(self, side: int) -> None:
        """We have ended too, and then the transport below goes."""
        if 1 - side not in self._ends:
            raise Truncated("the connection ended within its preamble")
        layer, application = self._ends[1 - side]
        layer.loseWriteConnection()
        layer.connectionLost(Failure(ConnectionDone()))
        if application.reason is not None:
            raise application.reason


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """While in it, ``name`` of ``module`` is ``value``."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


class Tunnel(Layers):
    """Two ends of a NoiseTunnel."""

    kind = ConnectionKind.KEY_A_TUNNEL

    def recipe(self, preamble: bytes) -> Recipe:
        """Key A, and the prologue."""
        values = self.given
        bound = prologue(
            preamble=preamble,
            session=values["session"],
            tenant=values["tenant"].decode(),
            role=values["role"].decode(),
            exporter=values["exporter"],
            agreed=values["agreed"],
        )
        return tunnel.NoiseTunnel(KeyA(values["key_a"]), bound, refused=lambda error: None)

    def fix(self, side: int) -> AbstractContextManager[None]:
        """The ephemeral key of the vector."""
        ephemeral = self.given["ephemeral_" + "ir"[side]]
        return replaced(tunnel, "NoiseHandshake", partial(NoiseHandshake, ephemeral=ephemeral))

    def tell_handshake(self, peer: int, layer: Any) -> None:
        """The second message is good."""
        if peer == 1:
            self.tell(1, "handshake", layer.payload.hex(), layer.handshake_hash.hex())


class StreamLayers(Layers):
    """Two ends of a RecordStream, as a program has them; it sees less than :class:`Stream`."""

    kind = ConnectionKind.KEY_B_STREAM

    def recipe(self, preamble: bytes) -> Recipe:
        """Key B, and the context."""
        values = self.given
        used = values.get("used_connections", ())
        return stream.RecordStream(
            KeyB(values["key_b"]),
            context_of(values, preamble),
            connection=int.from_bytes(values["connection"], "big"),
            allow=lambda number: number.to_bytes(4, "big").hex() not in used,
        )

    def fix(self, side: int) -> AbstractContextManager[None]:
        """The salt of the vector."""
        salt = self.given["salt_" + "ir"[side]]
        return replaced(stream, "RecordHandshake", partial(RecordHandshake, salt=salt))

    def tell_handshake(self, peer: int, layer: Any) -> None:
        """The initiator has begun."""
        if peer == 0:
            self.tell(0, "begin", layer.connection.to_bytes(4, "big").hex())


def context_of(values: dict[str, Any], preamble: bytes) -> bytes:
    """What a stream's keys are bound to."""
    if "context" in values:
        context: bytes = values["context"]
        return context
    tenant, hop = values["tenant"].decode(), values["hop"].decode()
    return key_b_context(preamble, values["session"], tenant, hop)


class Stream(Reader):
    """Both handshakes, and then both connections, of a record stream."""

    def __init__(self, values: dict[str, Any], events: Events) -> None:
        super().__init__(values, events)
        self._shaking: dict[int, RecordHandshake] = {}
        self._connections: dict[int, RecordConnection] = {}
        preamble = Preamble(ConnectionKind.KEY_B_STREAM, values.get("route", bytes(16))).encode()
        self._shaking[0] = self._handshake(0, preamble)
        if "context" in values:
            self._shaking[1] = self._handshake(1, b"")

    def _handshake(self, side: int, preamble: bytes) -> RecordHandshake:
        values, secret = self.given, KeyB(self.given["key_b"])
        context = context_of(values, preamble)
        if side == 0:
            number = int.from_bytes(values["connection"], "big")
            return RecordHandshake(True, secret, context, number, salt=values["salt_i"])
        used = values.get("used_connections", ())
        return RecordHandshake(
            False,
            secret,
            context,
            allow=lambda number: number.to_bytes(4, "big").hex() not in used,
            salt=values["salt_r"],
        )

    def take(self, side: int, octets: bytes) -> None:
        """Feed the other side."""
        reader = 1 - side
        if reader not in self._shaking:
            found = self.preamble(octets, ConnectionKind.KEY_B_STREAM)
            if found is None:
                return
            self._shaking[1] = self._handshake(1, found[0])
            octets = found[1]
        if reader not in self._connections:
            handshake = self._shaking[reader]
            handshake.receive(octets)
            if not handshake.done:
                return
            if side == 0:
                self.tell(0, "begin", handshake.connection.to_bytes(4, "big").hex())
            self._connections[reader] = RecordConnection(handshake.sealer, handshake.opener)
            octets = handshake.leftover
        self._records(side, self._connections[reader], octets)

    def _records(self, side: int, connection: RecordConnection, octets: bytes) -> None:
        for event in connection.receive(octets):
            self._tell_record(side, connection, event)
        if connection.error is not None:
            raise connection.error

    def _tell_record(self, side: int, connection: RecordConnection, event: RecordEvent) -> None:
        if isinstance(event, DataReceived):
            self.tell_data(side, event.data)
        elif isinstance(event, EndReceived):
            opener = connection.opener
            totals = struct.pack(">QQ", opener.data_bytes, opener.data_records)
            self.tell(side, "end", totals.hex())
        elif isinstance(event, AbortReceived):
            self.tell(side, "abort", event.code.to_bytes(2, "big").hex())
            raise Aborted(code=event.code)
        else:
            name = "ping" if isinstance(event, PingReceived) else "pong"
            self.tell(side, name, event.octets.hex())

    def finish(self, side: int) -> None:
        """No more bytes."""
        if 1 - side not in self._connections:
            raise Truncated("the connection ended within its handshake")
        self._connections[1 - side].end_of_input()


class Records(Stream):
    """One direction from the initiator, taken up in the middle."""

    def __init__(self, values: dict[str, Any], events: Events) -> None:
        Reader.__init__(self, values, events)
        epoch, sequence, epoch_bytes, data_bytes, data_records = values["state"]
        traffic = TrafficSecret(Secret(bytes(32)), b"", 0, 0, bytes(64))
        traffic._secret, traffic.epoch = values["traffic"], epoch
        opener = RecordOpener(traffic)
        opener._sequence, opener._epoch_bytes = sequence, epoch_bytes
        opener.data_bytes, opener.data_records = data_bytes, data_records
        sealer = RecordSealer(TrafficSecret(Secret(bytes(32)), b"", 0, 1, bytes(64)))
        self._shaking = {1: None}  # type: ignore[dict-item]
        self._connections = {1: RecordConnection(sealer, opener)}


class Nothing(Exception):
    """There are no bytes at the moment."""


class Pipe:
    """The bytes below a frame channel."""

    def __init__(self) -> None:
        self.octets = b""
        self.ended = False

    def read(self) -> bytes:
        """What came, or b"" at the end."""
        octets, self.octets = self.octets, b""
        if not octets and not self.ended:
            raise Nothing
        return octets


class Frames(Reader):
    """Two frame channels, one for each direction."""

    def __init__(self, values: dict[str, Any], events: Events) -> None:
        super().__init__(values, events)
        number = int.from_bytes(values["stream"], "big")
        integrity = IntegrityKey(values["integrity_key"])
        keys = [frame_key(integrity, values["session"], number, side) for side in (0, 1)]
        self._pipes = [Pipe(), Pipe()]
        self._channels = [
            FrameChannel(
                self._pipes[side],  # type: ignore[arg-type]
                FrameWriter(keys[1 - side], number),
                FrameReader(keys[side], number),
            )
            for side in (0, 1)
        ]
        self._totals = [False, False]
        self._asked: dict[int, int] = {}

    def take(self, side: int, octets: bytes) -> None:
        """Feed the other side."""
        self._pipes[side].octets += octets
        self._receive(side)

    def finish(self, side: int) -> None:
        """The stream has ended with its authenticated end."""
        self._pipes[side].ended = True
        if self._totals[side]:
            self._channels[side].expect_end()
        else:
            self._receive(side)

    def _receive(self, side: int) -> None:
        try:
            while True:
                frame = self._channels[side].receive()
                value = self._value(frame)
                self.tell(side, "frame", int(frame.kind), frame.flags, frame.request, value)
                self._totals[side] |= frame.kind is FrameKind.TOTALS
        except Nothing:
            pass

    def _value(self, frame: Frame) -> Any:
        kind = frame.kind
        part = kind is FrameKind.POINT and frame.flags & FLAG_PART
        if part or kind in (FrameKind.HAVE, FrameKind.GET, FrameKind.STORED, FrameKind.VERIFY):
            ids = split_ids(frame.body)
            if kind is FrameKind.HAVE:
                self._asked[frame.request] = len(ids)
            return [name.hex() for name in ids]
        if kind is FrameKind.WANT:
            wanted = unpack_bitmap(frame.body, self._asked.get(frame.request, 0))
            return [index for index, bit in enumerate(wanted) if bit]
        if kind is FrameKind.CHUNK:
            blob = unpack_chunk(frame.body)
            return [blob.id.hex(), blob.plain_length, int(blob.coding), bytes(blob.data).hex()]
        return as_json(decode_body(frame))


def as_json(value: Any) -> Any:
    """``value`` with {"bytes": hexadecimal} in the place of byte strings."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, dict):
        return {key: as_json(member) for key, member in value.items()}
    return [as_json(member) for member in value] if isinstance(value, list) else value


READERS: dict[str, Callable[[dict[str, Any], Events], Reader]] = {
    "gateway": Gateway,
    "tunnel": Tunnel,
    "stream": Stream,
    "records": Records,
    "frames": Frames,
}


def outcome(
    vector: Vector, make: Callable[[dict[str, Any], Events], Reader] | None = None
) -> dict[str, Any]:
    """The events up to the first error, and its word, or None where both sides are content.

    :param make: another reader than that of the vector's protocol
    """
    events: Events = []
    values = given(vector)
    try:
        reader = (make or READERS[vector["protocol"]])(values, events)
        read(reader, [(SIDES.index(name), octets) for name, octets in vector["bytes"]])
        if any(reader.data) and "integrity_key" in values:
            carried = [octets.hex() for octets in reader.data]
            read(Frames(values, events), [(0, carried[0]), (1, carried[1])])
    except CloudConnectError as error:
        return {"events": events, "error": error.reason}
    return {"events": events, "error": None}


def read(reader: Reader, transcript: list[tuple[int, str]]) -> None:
    """Have ``reader`` read it all, and then the end of whoever has sent anything."""
    for side, octets in transcript:
        reader.take(side, bytes.fromhex(octets))
    for side in sorted({side for side, _ in transcript}):
        reader.finish(side)
