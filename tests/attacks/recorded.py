"""A session recorded in memory, and what a receiver makes of the recording once it is changed.

Every random choice of the two ends is kept, so that a fresh receiver with the same keys takes the
recording for the session that it is in: an attacker can have no better starting point. There are
the tunnels of both roles, and the streams of every hop (``docs/protocol.rst``, sections 1, 4 to 7),
without accelerators and with them.
"""

from __future__ import annotations

import enum
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from cloudconnect.commands.tunnel import prologue
from cloudconnect.errors import CloudConnectError, ProtocolViolation, Truncated
from cloudconnect.keys import IntegrityKey, KeyA, KeyB, frame_key, key_b_context
from cloudconnect.wire.frames import FrameKind, FrameReader, FrameWriter, encode_body
from cloudconnect.wire.noise import NoiseHandshake
from cloudconnect.wire.preamble import ConnectionKind, FirstBytes, Preamble, decide
from cloudconnect.wire.records import DataReceived, RecordConnection, RecordHandshake
from tests.attacks.fields import Line, Way

UP, DOWN = Way.UP, Way.DOWN
TENANT: Final = "acme"
#: Hops without and with accelerators; frames go over those that end at a mover.
HOPS: Final = (
    "source-mover>target-mover",
    "source-mover>source-wan",
    "source-wan>target-wan",
    "target-wan>target-mover",
)
ROLES: Final = ("target-mover", "target-wan")


class Judgement(enum.Enum):
    """What a receiver said of the bytes it got."""

    CLEAN = "clean"
    REFUSED = "refused"  # an error of a change
    TRUNCATED = "truncated"
    #: No session was found for it: a stranger's connection, which ends and says nothing.
    STRANGER = "stranger"


@attrs.frozen
class Verdict:
    """What a receiver made of a recording.

    :ivar delivered: what the protocol above got
    :ivar error: what it failed with
    """

    judgement: Judgement
    delivered: bytes = attrs.field(repr=False)
    error: CloudConnectError | None


@attrs.frozen(eq=False)
class Leg:
    """One connection of a recorded session.

    :ivar name: hop or role, and number
    :ivar sent: what each side sent, by direction; the preamble is in it
    :ivar clear: what the protocols above sent
    :ivar receive: a receiver of a direction, given all of its bytes and the end of them; with
        ``fresh`` it makes its own random choices, as the next one does
    """

    name: str
    line: Line
    sent: dict[Way, bytes] = attrs.field(repr=False)
    clear: dict[Way, bytes] = attrs.field(repr=False)
    receive: Callable[..., Verdict] = attrs.field(repr=False)

    def judge(self, way: Way, octets: bytes, verdict: Verdict) -> list[str]:
        """What is wrong with how ``octets``, which are not what was sent, were received."""
        found = []
        if verdict.judgement is Judgement.CLEAN:
            found.append(f"{self.name} {way.value}: accepted as a whole")
        if not self.clear[way].startswith(verdict.delivered):
            found.append(f"{self.name} {way.value}: bytes were delivered that nobody sent")
        return found


class Recorded:
    """A session, with all of its connections.

    :param draw: where every key and content comes from
    :param size: bytes of payload of each direction of each stream
    :param record: bytes of payload of one record
    :ivar legs: the connections
    """

    def __init__(self, draw: random.Random, size: int = 12_000, record: int = 900) -> None:
        self._draw = draw
        self._size = size
        self._record = record
        self.session = draw.randbytes(16)
        self._key_b = KeyB(draw.randbytes(32))
        self._integrity = draw.randbytes(32)
        self.legs = [self._tunnel(role) for role in ROLES]
        for hop in HOPS:
            route = draw.randbytes(16)
            count = 2 if hop == "source-wan>target-wan" else 1
            self.legs += [self._stream(hop, route, number) for number in range(count)]

    def positions(self) -> Iterator[tuple[Leg, Way, int]]:
        """Every byte that passed."""
        for leg in self.legs:
            for way in Way:
                for at in range(len(leg.sent[way])):
                    yield leg, way, at

    # --- tunnels ---------------------------------------------------------------------------------

    def _tunnel(self, role: str) -> Leg:
        draw = self._draw
        first = Preamble(ConnectionKind.KEY_A_TUNNEL, draw.randbytes(16))
        key_a = KeyA(draw.randbytes(32))
        private = {way: draw.randbytes(32) for way in Way}
        bound = {
            "session": self.session,
            "tenant": TENANT,
            "role": role,
            "exporter": draw.randbytes(32),
            "agreed": draw.randbytes(32),
        }

        def shake(way: Way, preamble: bytes, fresh: bool = False) -> NoiseHandshake:
            """The handshake of the side that sends in this direction."""
            spoken = prologue(preamble=preamble, **bound)  # type: ignore[arg-type]
            chosen = None if fresh else private[way]
            return NoiseHandshake(way is UP, key_a.reveal(), spoken, chosen)

        ours, theirs = shake(UP, first.encode()), shake(DOWN, first.encode())
        one = ours.write_message()
        theirs.read_message(one)
        two = theirs.write_message(b"limits")
        ours.read_message(two)
        clear = {UP: draw.randbytes(300), DOWN: draw.randbytes(40)}
        sent = {}
        for way, handshake, message in ((UP, ours, one), (DOWN, theirs, two)):
            cipher = handshake.split()[0]
            parts = [message, cipher.encrypt(b"", clear[way]), cipher.encrypt(b"", b"")]
            sent[way] = b"".join(len(part).to_bytes(2, "big") + part for part in parts)
        sent[UP] = first.encode() + sent[UP]

        def receive(way: Way, octets: bytes, fresh: bool = False) -> Verdict:
            if way is UP:
                found = _preamble(octets, first)
                if isinstance(found, Verdict):
                    return found
                octets = octets[len(found.encode()) :]
                handshake = shake(DOWN, found.encode(), fresh)
            else:
                handshake = shake(UP, first.encode(), fresh)
                handshake.write_message()
            return _from_tunnel(handshake, way, octets)

        return Leg(f"tunnel of {role}", Line.TUNNEL, sent, clear, receive)

    # --- streams ---------------------------------------------------------------------------------

    def _stream(self, hop: str, route: bytes, number: int) -> Leg:
        first = Preamble(ConnectionKind.KEY_B_STREAM, route)
        salts = {way: self._draw.randbytes(32) for way in Way}
        framed = hop.endswith("mover")
        clear = {way: self._frames(way) if framed else self._noise() for way in Way}

        def shake(way: Way, preamble: bytes, fresh: bool = False) -> RecordHandshake:
            """The handshake of the side that sends in this direction."""
            context = key_b_context(preamble, self.session, TENANT, hop)
            key_b = KeyB(self._key_b.reveal())
            return RecordHandshake(
                way is UP,
                key_b,
                context,
                number if way is UP else 0,
                lambda claimed: claimed == number,
                None if fresh else salts[way],
            )

        ours, theirs = shake(UP, first.encode()), shake(DOWN, first.encode())
        hello = ours.start()
        welcome = theirs.receive(hello)
        begin = ours.receive(welcome)
        theirs.receive(begin)
        sent = {UP: first.encode() + hello + begin, DOWN: welcome}
        for way, handshake in ((UP, ours), (DOWN, theirs)):
            made = RecordConnection(handshake.sealer, handshake.opener, self._record)
            half = len(clear[way]) // 2
            sent[way] += made.send(clear[way][:half]) + made.ping(b"12345678")
            sent[way] += made.sealer.rekey() + made.send(clear[way][half:]) + made.end()

        def receive(way: Way, octets: bytes, fresh: bool = False) -> Verdict:
            if way is UP:
                found = _preamble(octets, first)
                if isinstance(found, Verdict):
                    return found
                octets = octets[len(found.encode()) :]
                handshake = shake(DOWN, found.encode(), fresh)
            else:
                handshake = shake(UP, first.encode(), fresh)
                handshake.start()
            verdict = _from_stream(handshake, octets)
            return self._through_frames(way, verdict) if framed else verdict

        return Leg(f"{hop} {number}", Line.STREAM, sent, clear, receive)

    def _noise(self) -> bytes:
        return self._draw.randbytes(self._size)

    def _frames(self, way: Way) -> bytes:
        key = frame_key(IntegrityKey(self._integrity), self.session, 0, int(way is DOWN))
        writer = FrameWriter(key, 0)
        parts: list[Any] = writer.encode(FrameKind.HELLO, 0, encode_body(versions=[1]))
        for request in itertools.count(1):
            if writer.bytes >= self._size:
                break
            size = 32 * self._draw.randint(1, 60)
            parts += writer.encode(FrameKind.HAVE, request, self._draw.randbytes(size))
        parts += writer.encode(FrameKind.POINT, request, encode_body(point=b"p" * 16))
        parts += writer.encode(FrameKind.TOTALS, 0, encode_body(bytes=writer.bytes))
        return b"".join(parts)

    def _through_frames(self, way: Way, verdict: Verdict) -> Verdict:
        """What the mover's reader takes of what the stream delivered: whole frames."""
        key = frame_key(IntegrityKey(self._integrity), self.session, 0, int(way is DOWN))
        reader = FrameReader(key, 0)
        try:
            reader.receive(verdict.delivered)
            if verdict.error is None:
                reader.eof()
        except CloudConnectError as error:
            raise AssertionError("the stream passed on what the frames had to find") from error
        return attrs.evolve(verdict, delivered=verdict.delivered[: reader.bytes])


def _preamble(octets: bytes, wanted: Preamble) -> Preamble | Verdict:
    """What the one port makes of the first bytes: a live route, or a stranger."""
    try:
        found = decide(octets)
    except ProtocolViolation:
        found = None
    if not isinstance(found, Preamble) or found is FirstBytes.TLS or found.route != wanted.route:
        return Verdict(Judgement.STRANGER, b"", None)
    return found


def _failed(error: CloudConnectError, delivered: bytes) -> Verdict:
    what = Judgement.TRUNCATED if isinstance(error, Truncated) else Judgement.REFUSED
    return Verdict(what, delivered, error)


def _from_stream(handshake: RecordHandshake, octets: bytes) -> Verdict:
    delivered = bytearray()
    connection: RecordConnection | None = None
    try:
        handshake.receive(octets)
        if not handshake.done:
            raise Truncated("in the handshake")
        connection = RecordConnection(handshake.sealer, handshake.opener)
        for event in connection.receive(handshake.leftover):
            if isinstance(event, DataReceived):
                delivered += event.data
        connection.end_of_input()
    except CloudConnectError as error:
        return _failed(error, bytes(delivered))
    return Verdict(Judgement.CLEAN, bytes(delivered), None)


def _from_tunnel(handshake: NoiseHandshake, way: Way, octets: bytes) -> Verdict:
    """As :class:`~cloudconnect.transports.tunnel.NoiseTunnelLayer` does, without its timers."""
    delivered = bytearray()
    cipher: Any = None
    ended = False
    try:
        at = 0
        while at < len(octets):
            if ended:
                raise ProtocolViolation("bytes came after the end")
            size = int.from_bytes(octets[at : at + 2], "big")
            message = octets[at + 2 : at + 2 + size]
            if at + 2 + size > len(octets):
                raise Truncated("inside a message")
            at += 2 + size
            if cipher is None:
                handshake.read_message(message)
                if way is UP:
                    handshake.write_message(b"limits")
                cipher = handshake.split()[1]
                continue
            part = cipher.decrypt(b"", message)
            delivered += part
            ended = not part
        if not ended:
            raise Truncated("before the end")
    except CloudConnectError as error:
        return _failed(error, bytes(delivered))
    return Verdict(Judgement.CLEAN, bytes(delivered), None)
