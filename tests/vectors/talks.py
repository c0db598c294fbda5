"""The speaking sides of a conversation, for :mod:`tests.vectors.generate`.

Each class here makes bytes with the package and keeps, beside them, the events that whoever reads
them must see. What no speaker of the protocol would say is *forged*: properly protected, and wrong.
"""

from __future__ import annotations

import struct
from typing import Any

from blake3 import blake3

from cloudconnect.commands.tunnel import prologue
from cloudconnect.keys import IntegrityKey, KeyB, Secret, frame_key, key_b_context
from cloudconnect.wire.frames import FrameKind, FrameWriter, StoredBlob, encode_body, pack_chunk
from cloudconnect.wire.noise import CipherState, NoiseHandshake
from cloudconnect.wire.preamble import ConnectionKind, Preamble
from cloudconnect.wire.records import RecordSealer, RecordType
from cloudconnect.wire.schedule import TrafficSecret
from tests.vectors.package import SIDES, as_json

INITIATOR, RESPONDER = 0, 1

#: Published, and so nobody's secret: test values, never to be used.
KEY_A = bytes(range(64, 96))
KEY_B = bytes(range(32))
INTEGRITY_KEY = bytes(range(32, 64))
TRAFFIC = bytes(range(96, 128))
EPHEMERALS = (b"\x33" * 32, b"\x44" * 32)
#: What is not secret.
SALTS = (b"\x69" * 32, b"\x72" * 32)
SESSION, ROUTE, TENANT = b"\x53" * 16, b"\x52" * 16, b"alice"
ROLE, HOP = b"target-mover", b"source-mover>target-mover"
EXPORTER, AGREED = b"\x65" * 32, b"\x61" * 32


class Talk:
    """What was said, and what is to be read."""

    protocol = ""

    def __init__(self) -> None:
        self.bytes: list[list[str]] = []
        self.events: list[list[Any]] = []

    @property
    def secrets(self) -> dict[str, bytes]:
        """The secrets that the readers hold."""
        return {}

    @property
    def inputs(self) -> dict[str, Any]:
        """What else they know."""
        return {}

    def say(self, side: int, *octets: bytes) -> None:
        """Bytes of ``side``, of which nobody expects anything."""
        self.bytes += [[SIDES[side], part.hex()] for part in octets]

    def told(self, side: int, event: str, *values: Any) -> None:
        """Expect an event."""
        self.events.append([SIDES[side], event, *values])


class GatewayTalk(Talk):
    """First bytes."""

    protocol = "gateway"


class TunnelTalk(Talk):
    """A Key A tunnel. The initiator may be told other things than stand in the vector.

    :param payload: what the responder sends with its handshake
    """

    protocol = "tunnel"

    def __init__(self, payload: bytes = b"", key_a: bytes = KEY_A, **changed: bytes) -> None:
        super().__init__()
        self.payload = payload
        self.preamble = Preamble(ConnectionKind.KEY_A_TUNNEL, ROUTE).encode()
        self.shakers = [
            NoiseHandshake(True, key_a, self.prologue(**changed), EPHEMERALS[INITIATOR]),
            NoiseHandshake(False, KEY_A, self.prologue(), EPHEMERALS[RESPONDER]),
        ]
        self.first = self.shakers[INITIATOR].write_message()
        self.second = b""
        self.ciphers: list[CipherState] = []

    def prologue(self, **changed: bytes) -> bytes:
        """The prologue, with some of its parts changed."""
        values: dict[str, Any] = {
            "preamble": self.preamble,
            "session": SESSION,
            "tenant": TENANT,
            "role": ROLE,
            "exporter": EXPORTER,
            "agreed": AGREED,
            **changed,
        }
        texts = {name: values[name].decode() for name in ("tenant", "role")}
        return prologue(**{**values, **texts})

    @property
    def secrets(self) -> dict[str, bytes]:
        """Key A, and both private ephemeral keys."""
        return {
            "key_a": KEY_A,
            "ephemeral_i": EPHEMERALS[INITIATOR],
            "ephemeral_r": EPHEMERALS[RESPONDER],
        }

    @property
    def inputs(self) -> dict[str, Any]:
        """The parts of the prologue."""
        return {
            "route": ROUTE,
            "session": SESSION,
            "tenant": TENANT,
            "role": ROLE,
            "exporter": EXPORTER,
            "agreed": AGREED,
        }

    def with_point(self, point: bytes) -> bytes:
        """A first message with another point, whose tag is good."""
        state = NoiseHandshake(True, KEY_A, self.prologue())._state
        assert state is not None
        NoiseHandshake._mix_point(state, point)
        return point + state.encrypt_and_hash(b"")

    def answer(self) -> bytes:
        """The second message; both sides have their ciphers then."""
        self.shakers[RESPONDER].read_message(self.first)
        self.second = self.shakers[RESPONDER].write_message(self.payload)
        self.shakers[INITIATOR].read_message(self.second)
        self.hash = self.shakers[INITIATOR].handshake_hash
        self.ciphers = [shaker.split()[0] for shaker in self.shakers]
        return self.second

    def begin(self) -> TunnelTalk:
        """The whole handshake."""
        self.say(INITIATOR, self.preamble, sized(self.first))
        self.say(RESPONDER, sized(self.answer()))
        self.told(RESPONDER, "handshake", self.payload.hex(), self.hash.hex())
        return self

    def seal(self, side: int, payload: bytes, ad: bytes = b"") -> bytes:
        """The next message of ``side``, behind its length."""
        return sized(self.ciphers[side].encrypt(ad, payload))

    def data(self, side: int, *payloads: bytes) -> TunnelTalk:
        """Messages with data."""
        for payload in payloads:
            self.say(side, self.seal(side, payload))
            self.told(side, "data", payload.hex())
        return self

    def end(self, *sides: int) -> TunnelTalk:
        """The authenticated end of both directions, or some."""
        for side in sides or (INITIATOR, RESPONDER):
            self.say(side, self.seal(side, b""))
            self.told(side, "end")
        return self


def sized(message: bytes) -> bytes:
    """``message`` behind its length in two bytes."""
    return len(message).to_bytes(2, "big") + message


class RecordTalk(Talk):
    """Records of sealers that there are already."""

    sealers: list[RecordSealer]

    def record(self, side: int, kind: RecordType, payload: bytes) -> None:
        """One record that is as it should be."""
        self.say(side, self.sealers[side].seal(kind, payload))
        self.told(side, kind.name.lower(), payload.hex())

    def data(self, side: int, *payloads: bytes) -> RecordTalk:
        """DATA records."""
        for payload in payloads:
            self.record(side, RecordType.DATA, payload)
        return self

    def rekey(self, *sides: int) -> RecordTalk:
        """REKEY; no reader tells of it."""
        for side in sides:
            self.say(side, self.sealers[side].rekey())
        return self

    def end(self, *sides: int) -> RecordTalk:
        """END in both directions, or some."""
        for side in sides or (INITIATOR, RESPONDER):
            sealer = self.sealers[side]
            totals = struct.pack(">QQ", sealer.data_bytes, sealer.data_records)
            self.say(side, sealer.end())
            self.told(side, "end", totals.hex())
        return self

    def forge(
        self,
        side: int,
        kind: int,
        payload: bytes,
        *,
        flags: int = 0,
        epoch: int | None = None,
        sequence: int | None = None,
    ) -> bytes:
        """A record with a good tag, whatever else it is; it takes the place of the next one."""
        sealer = self.sealers[side]
        epoch = sealer.epoch if epoch is None else epoch
        header = struct.pack(">BBHI", kind, flags, epoch, len(payload) + 16)
        out = bytearray(len(payload) + 16)
        number = sealer._sequence if sequence is None else sequence
        sealer._usable_cipher().seal_into(number, header, payload, memoryview(out))
        sealer._sequence += 1
        return header + bytes(out)


class StreamTalk(RecordTalk):
    """A Key B stream.

    :param connection: the number that the initiator chooses
    :param context: of a stream without a preamble
    :param used: numbers that the responder has seen
    :param carries_frames: the readers look at the frames in it, too
    """

    protocol = "stream"

    def __init__(
        self,
        connection: int = 3,
        context: bytes | None = None,
        used: tuple[int, ...] = (),
        carries_frames: bool = False,
    ) -> None:
        super().__init__()
        self.connection, self.context, self.used = connection, context, used
        self.carries_frames = carries_frames
        self.preamble = Preamble(ConnectionKind.KEY_B_STREAM, ROUTE).encode()
        self.hello = SALTS[INITIATOR] + connection.to_bytes(4, "big")
        self.welcome = SALTS[RESPONDER] + self.commitment(RESPONDER)
        self.sealers = [RecordSealer(self._traffic(side)) for side in (INITIATOR, RESPONDER)]

    def commitment(self, side: int, key_b: bytes = KEY_B, **changed: Any) -> bytes:
        """What ``side`` commits to, having been told other things perhaps."""
        return self._traffic(side, key_b, **changed).record_key().commitment

    def _traffic(self, side: int, key_b: bytes = KEY_B, **changed: Any) -> TrafficSecret:
        told: dict[str, Any] = {
            "preamble": self.preamble,
            "session": SESSION,
            "tenant": TENANT,
            "hop": HOP,
            "connection": self.connection,
            "salts": SALTS[INITIATOR] + SALTS[RESPONDER],
            "direction": side,
            **changed,
        }
        context = key_b_context(
            told["preamble"], told["session"], told["tenant"].decode(), told["hop"].decode()
        )
        if self.context is not None:
            context = told.get("context", self.context)
        return TrafficSecret(
            KeyB(key_b), context, told["connection"], told["direction"], told["salts"]
        )

    @property
    def secrets(self) -> dict[str, bytes]:
        """Key B, or what stands for it, and the integrity key where frames are looked at."""
        frames = {"integrity_key": INTEGRITY_KEY} if self.carries_frames else {}
        return {"key_b": KEY_B, **frames}

    @property
    def inputs(self) -> dict[str, Any]:
        """What the keys are bound to, and the choices of both sides."""
        chosen = {
            "connection": self.connection.to_bytes(4, "big"),
            "salt_i": SALTS[INITIATOR],
            "salt_r": SALTS[RESPONDER],
        }
        numbers = [number.to_bytes(4, "big").hex() for number in self.used]
        used = {"used_connections": numbers} if numbers else {}
        frames = {"session": SESSION, "stream": bytes(2)} if self.carries_frames else {}
        if self.context is not None:
            return {"context": self.context, **chosen, **used, **frames}
        bound = {"route": ROUTE, "session": SESSION, "tenant": TENANT, "hop": HOP}
        return {**bound, **chosen, **used, **frames}

    def begin(self) -> StreamTalk:
        """The preamble and the handshake."""
        if self.context is None:
            self.say(INITIATOR, self.preamble)
        self.say(INITIATOR, self.hello)
        self.say(RESPONDER, self.welcome)
        self.say(INITIATOR, self.commitment(INITIATOR))
        self.told(INITIATOR, "begin", self.hello[32:].hex())
        return self


class MiddleTalk(RecordTalk):
    """Records of the initiator from some state on.

    :param epoch: the epoch of the first one
    :param sequence: its sequence number
    :param used: bytes of payload that the epoch has carried
    :param octets: bytes of payload that the connection has carried
    :param number: in so many DATA records
    """

    protocol = "records"

    def __init__(
        self, epoch: int = 0, sequence: int = 0, used: int = 0, octets: int = 0, number: int = 0
    ) -> None:
        super().__init__()
        self.state = [epoch, sequence, used, octets, number]
        traffic = TrafficSecret(Secret(bytes(32)), b"", 0, 0, bytes(64))
        traffic._secret, traffic.epoch = TRAFFIC, epoch
        sealer = RecordSealer(traffic, epoch_bytes_max=1 << 63)
        sealer._sequence, sealer._epoch_bytes = sequence, used
        sealer.data_bytes, sealer.data_records = octets, number
        self.sealers = [sealer]

    @property
    def secrets(self) -> dict[str, bytes]:
        """The traffic secret of that epoch."""
        return {"traffic": TRAFFIC}

    @property
    def inputs(self) -> dict[str, Any]:
        """The state."""
        return {"state": self.state}


class FrameTalk(Talk):
    """Frames, as a stream carries them that ends behind the last one.

    :param stream: number of the stream
    """

    protocol = "frames"

    def __init__(self, stream: int = 0) -> None:
        super().__init__()
        self.stream = stream
        key = IntegrityKey(INTEGRITY_KEY)
        self.keys = [frame_key(key, SESSION, stream, side) for side in (INITIATOR, RESPONDER)]
        self.writers = [FrameWriter(key, stream) for key in self.keys]

    @property
    def secrets(self) -> dict[str, bytes]:
        """The integrity key."""
        return {"integrity_key": INTEGRITY_KEY}

    @property
    def inputs(self) -> dict[str, Any]:
        """What the frame keys are made of, besides."""
        return {"session": SESSION, "stream": self.stream.to_bytes(2, "big")}

    def encode(
        self, side: int, kind: FrameKind, request: int, body: bytes, flags: int = 0
    ) -> bytes:
        """The next frame of ``side``."""
        return b"".join(self.writers[side].encode(kind, request, body, flags))

    def map(self, side: int, kind: FrameKind, request: int, **fields: Any) -> FrameTalk:
        """A frame with a map."""
        self.say(side, self.encode(side, kind, request, encode_body(**fields)))
        self.told(side, "frame", int(kind), 0, request, as_json(fields))
        return self

    def ids(
        self, side: int, kind: FrameKind, request: int, *ids: bytes, flags: int = 0
    ) -> FrameTalk:
        """A frame with ids."""
        self.say(side, self.encode(side, kind, request, b"".join(ids), flags))
        self.told(side, "frame", int(kind), flags, request, [name.hex() for name in ids])
        return self

    def want(self, side: int, request: int, body: bytes, *wanted: int) -> FrameTalk:
        """A WANT, and which ids it means."""
        self.say(side, self.encode(side, FrameKind.WANT, request, body))
        self.told(side, "frame", int(FrameKind.WANT), 0, request, list(wanted))
        return self

    def chunk(
        self,
        side: int,
        request: int,
        data: bytes,
        *,
        coding: int = 0,
        plain_length: int = 0,
        flags: int = 0,
    ) -> FrameTalk:
        """A CHUNK with these stored bytes."""
        blob = stored(data, coding, plain_length)
        self.say(side, self.encode(side, FrameKind.CHUNK, request, pack_chunk(blob), flags))
        value = [blob.id.hex(), blob.plain_length, coding, data.hex()]
        self.told(side, "frame", int(FrameKind.CHUNK), flags, request, value)
        return self

    def totals(self, *sides: int) -> FrameTalk:
        """TOTALS of both directions, or some."""
        for side in sides or (INITIATOR, RESPONDER):
            writer = self.writers[side]
            self.map(side, FrameKind.TOTALS, 0, bytes=writer.bytes, frames=writer.frames)
        return self

    def forge(
        self,
        side: int,
        kind: int,
        body: bytes,
        *,
        flags: int = 0,
        stream: int = 0,
        request: int = 1,
        size: int | None = None,
        counter: int | None = None,
        key: Secret | None = None,
    ) -> bytes:
        """A frame with a good tag, whatever else it is; it takes the place of the next one.

        :param size: another length than the body's
        """
        writer = self.writers[side]
        counter = writer.frames if counter is None else counter
        size = len(body) if size is None else size
        header = struct.pack(">BBHII", kind, flags, stream, request, size)
        covered = body[:69] if kind == FrameKind.CHUNK else body
        octets = counter.to_bytes(8, "big") + header + covered
        tag = blake3(octets, key=(key or self.keys[side]).reveal()).digest(16)
        writer.frames += 1
        writer.bytes += len(header + body + tag)
        return header + body + tag


def stored(data: bytes, coding: int = 0, plain_length: int = 0) -> StoredBlob:
    """A blob whose id says nothing of its content."""
    return StoredBlob(b"\xaa" * 32, plain_length or len(data), coding, blake3(data).digest(), data)
