"""A second decoder of ``docs/protocol.rst``, on the standard library and ``cryptography`` only.

It shares no code with the package. :func:`outcome` says what it makes of a vector.
"""

import contextlib
import functools
import hashlib
import hmac
import io
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SIDES = ["initiator", "responder"]
#: Fewest and most payload bytes of each type of record.
RECORDS = {1: (1, 1 << 20), 2: (0, 0), 3: (16, 16), 4: (2, 2), 5: (8, 8), 6: (8, 8)}
#: Fewest and most bytes in the body of a frame, and what their number is a multiple of.
IDS, LARGE, SMALL = (32, 8192 * 32, 32), (1, 8 << 20, 1), (1, 16 << 10, 1)
BODIES = {3: IDS, 4: (1, 1024, 1), 5: (70, 69 + (4 << 20), 1), 6: IDS, 9: IDS}
BODIES |= {16: (32, 256 * 32, 32)} | dict.fromkeys((7, 11, 15), LARGE)
#: BLAKE3: its constants, which words are mixed with each other, the order of the next round.
IV = [int(prime**0.5 % 1 * 2**32) for prime in (2, 3, 5, 7, 11, 13, 17, 19)]
MIX = [[4 * row + (i + n * row) % 4 for row in range(4)] for n in (0, 1) for i in range(4)]
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
START, END, PARENT, ROOT, KEYED, WORD = 1, 2, 4, 8, 16, 0xFFFFFFFF
RECORD = b"cloudconnect/1 record"


class Bad(Exception):
    """The bytes are wrong; the text is the error word."""


def need(condition, word="protocol_violation"):
    if not condition:
        raise Bad(word)


def compress(value, words, counter, size, flags):
    v = [*value, *IV[:4], counter & WORD, counter >> 32, size, flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(MIX):
            for word, one, two in ((words[2 * i], 16, 12), (words[2 * i + 1], 8, 7)):
                v[a] = (v[a] + v[b] + word) & WORD
                v[d] = ((v[d] ^ v[a]) * 0x100000001 >> one) & WORD  # rotates
                v[c] = (v[c] + v[d]) & WORD
                v[b] = ((v[b] ^ v[c]) * 0x100000001 >> two) & WORD
        words = [words[i] for i in ORDER]
    return [v[i] ^ v[i + 8] for i in range(8)]


@functools.lru_cache(4096)
def blake3(data, key=b""):
    first, mode = (struct.unpack("<8I", key), KEYED) if key else (IV, 0)

    def tree(start, end, root):
        if (chunks := (end - start - 1) // 1024) > 0:
            middle = start + (1024 << chunks.bit_length() - 1)
            words = tree(start, middle, 0) + tree(middle, end, 0)
            return compress(first, words, 0, 64, mode | PARENT | root)
        value = first
        for at in range(start, max(end, 1), 64):
            block = data[at : min(at + 64, end)]
            flags = mode | START * (at == start) | (END | root) * (at + 64 >= end)
            words = struct.unpack("<16I", block.ljust(64, b"\0"))
            value = compress(value, words, start // 1024, len(block), flags)
        return value

    return struct.pack("<8I", *tree(0, len(data), ROOT))


def expand(secret, info, size=32):
    found = block = b""
    for n in range(-(-size // 32)):
        block = hmac.digest(secret, block + info + bytes((n + 1,)), "sha256")
        found += block
    return found[:size]


def unseal(word, key, nonce, sealed, header=b""):
    with contextlib.suppress(InvalidTag):
        return AESGCM(key).decrypt(nonce.to_bytes(12, "big"), sealed, header)
    raise Bad(word)


class Cbor(io.BytesIO):
    """Canonical CBOR, read as JSON would have it: byte strings become {"bytes": hex}."""

    items = 0

    def take(self, size):
        need(size <= len(self.getvalue()) - self.tell())
        return self.read(size)

    def value(self, depth=0):
        self.items += 1
        major, low = divmod(self.take(1)[0], 32)
        need(self.items <= 4096 and low < 28 and major != 6)
        raw = self.take(1 << low - 24) if low > 23 else b""
        number = int.from_bytes(raw, "big") if raw else low
        if major == 7:
            need(low in (20, 21, 22, 25, 26, 27))
            if not raw:
                return (False, True, None)[low - 20]
            found, shorter = struct.unpack(">" + " efd"[low - 24], raw), "eef"[low - 25]
            with contextlib.suppress(OverflowError):  # it does not fit into fewer bytes
                need(low == 25 or struct.unpack(shorter, struct.pack(shorter, *found)) != found)
            return found[0]
        need(not raw or number >= (24 if len(raw) == 1 else 1 << 4 * len(raw)))
        if major < 2:
            return -1 - number if major else number
        if major < 4:
            octets = self.take(number)
            with contextlib.suppress(UnicodeDecodeError):
                return octets.decode() if major == 3 else {"bytes": octets.hex()}
        need(major > 3 and depth < 8 and number <= 4096)
        if major == 4:
            return [self.value(depth + 1) for _ in range(number)]
        pairs = [(self.value(depth + 1), self.value(depth + 1)) for _ in range(number)]
        keys = [(len(key.encode()), key.encode()) for key, _ in pairs if isinstance(key, str)]
        need(len(keys) == number and keys == sorted(set(keys)))
        return dict(pairs)


class Conversation:
    """What both sides read. A direction is a generator that asks for so many bytes."""

    def __init__(self, given):
        self.given = {k: bytes.fromhex(v) if isinstance(v, str) else v for k, v in given.items()}
        self.events, self.data, self.asked = [], [b"", b""], {}
        self.context, self.traffic = self.given.get("context"), [self.given.get("traffic")]

    def run(self, protocol, transcript):
        self.ended, readers = [False, False], {}
        for name, octets in transcript:
            if (side := SIDES.index(name)) not in readers:
                readers[side] = [reader := protocol(self, side), next(reader), b""]
            state = readers[side]
            state[2] += bytes.fromhex(octets)
            while len(state[2]) >= state[1]:
                taken, state[2] = state[2][: state[1]], state[2][state[1] :]
                state[1] = state[0].send(taken)
        need(all(self.ended[n] and not state[2] for n, state in readers.items()), "truncated")

    def tell(self, side, event, *values):
        self.ended[side] |= event in ("end", "tls")
        self.data[side] += values[0] if event == "data" else b""
        values = [value.hex() if isinstance(value, bytes) else value for value in values]
        self.events.append([SIDES[side], event, *values])

    def gateway(self, side, kind=None):  # section 1
        octets = b""
        while len(octets) < 5:
            octets += yield 1
            if octets == b"\x16":
                need(kind is None, "refused")
                self.tell(side, "tls")
                yield 1
            need(octets[:4] == b"CCN1"[: len(octets)] and octets[4:] in (b"", b"\1", b"\2"))
        octets += yield 16
        need(octets[4] == kind, "refused")
        return octets

    def bound(self, label, *names):
        parts = [self.given[name] for name in names]
        return label + b"".join(bytes((len(part),)) + part for part in parts)

    def mix_key(self, material, count=2):
        octets = expand(hmac.digest(self.chain, material, "sha256"), b"", 32 * count)
        self.chain, self.key = octets[:32], octets[-32:]
        return octets[32:64]

    def tunnel(self, side):  # section 4
        given, counter = self.given, 0
        if side == 0:
            preamble = yield from self.gateway(0, 1)
            self.hash = self.chain = b"Noise_NNpsk0_25519_AESGCM_SHA256"
            label = b"cloudconnect/1 key-a" + preamble + given["session"]
            prologue = self.bound(label, "tenant", "role") + given["exporter"] + given["agreed"]
            self.hash = hashlib.sha256(self.hash + prologue).digest()
            self.hash = hashlib.sha256(self.hash + self.mix_key(given["key_a"], 3)).digest()
        need(48 <= (size := int.from_bytes((yield 2), "big")) <= 48 + 4096 * side, "key_a_rejected")
        message = yield size
        self.hash = hashlib.sha256(self.hash + message[:32]).digest()
        self.mix_key(message[:32])
        try:
            key = X25519PrivateKey.from_private_bytes(given["ephemeral_" + "ri"[side]])
            shared = key.exchange(X25519PublicKey.from_public_bytes(message[:32]))
        except ValueError:
            raise Bad("key_a_rejected") from None
        if side == 1:
            self.mix_key(shared)
        payload = unseal("key_a_rejected", self.key, 0, message[32:], self.hash)
        self.hash = hashlib.sha256(self.hash + message[32:]).digest()
        if side == 1:
            self.tell(1, "handshake", payload, self.hash)
            self.mix_key(b"")
        while True:
            size = int.from_bytes((yield 2), "big")
            need(size >= 16 and not self.ended[side], "tampered")
            payload = unseal("tampered", (self.chain, self.key)[side], counter, (yield size))
            counter += 1
            self.tell(side, "data", payload) if payload else self.tell(side, "end")

    def stream(self, side):  # section 5
        if side == 0:
            if self.context is None:
                preamble = yield from self.gateway(0, 2)
                where = self.bound(preamble + self.given["session"], "tenant")
                label = b"cloudconnect/1 key-b" + hashlib.sha256(where).digest()
                self.context = self.bound(label, "hop")
            self.hello = yield 36
            commitment = yield 32
        else:
            secret = hmac.digest(self.hello[:32] + (yield 32), self.given["key_b"], "sha256")
            info = self.context + self.hello[32:]
            self.traffic = [expand(secret, info + bytes((d,))) for d in (0, 1)]
            commitment = yield 32
        need(commitment == expand(self.traffic[side], RECORD, 76)[44:], "tampered")
        if side == 0:
            need(self.hello[32:].hex() not in self.given.get("used_connections", ()), "replayed")
            self.tell(0, "begin", self.hello[32:])
        yield from self.records(side)

    def records(self, side):  # section 6; "used" is payload bytes in this epoch
        epoch, sequence, used, octets, number = self.given.get("state", (0, 0, 0, 0, 0))
        while True:
            kind, flags, of, size = struct.unpack(">BBHI", header := (yield 8))
            low, high = RECORDS.get(kind, (1, 0))
            late = (self.ended[side] and kind in (1, 3)) or (kind, epoch) == (2, 65535)
            need(not (late or flags) and low + 16 <= size <= high + 16 and of == epoch, "tampered")
            key = expand(self.traffic[side], RECORD, 76)
            nonce = int.from_bytes(key[32:44], "big") ^ sequence
            payload = unseal("tampered", key[:32], nonce, (yield size), header)
            sequence += 1
            if kind == 1:
                used, octets, number = used + len(payload), octets + len(payload), number + 1
                need(used <= 64 << 30)
            elif kind == 2:
                self.traffic[side] = expand(self.traffic[side], b"cloudconnect/1 rekey")
                epoch, sequence, used = epoch + 1, 0, 0
            elif kind == 3:
                need(struct.unpack(">QQ", payload) == (octets, number), "tampered")
            if kind != 2:
                self.tell(side, ("data", "", "end", "abort", "ping", "pong")[kind - 1], payload)
            need(kind != 4, "aborted")

    def frames(self, side):  # section 7
        stream, at, counter = self.given["stream"], 0, 0
        info = b"cloudconnect/1 frame" + self.given["session"] + stream + bytes((side,))
        key = expand(hmac.digest(b"", self.given["integrity_key"], "sha256"), info)
        while True:
            kind, flags, request, size = struct.unpack(">BBxxII", header := (yield 12))
            part = kind == 7 and flags == 1
            low, high, step = (32, 8 << 20, 32) if part else BODIES.get(kind, SMALL)
            good = low <= size <= high and size % step == 0 and header[2:4] == stream
            need(good and 1 <= kind <= 17 and flags <= (kind in (5, 7)), "frame_mismatch")
            body, tag = (yield size), (yield 16)
            covered = counter.to_bytes(8, "big") + header + (body[:69] if kind == 5 else body)
            need(blake3(covered, key)[:16] == tag, "frame_mismatch")
            need(kind != 5 or blake3(body[69:]) == body[37:69], "frame_mismatch")
            need(not self.ended[side])
            value = self.body(3 if part else kind, request, body)
            if kind == 12:
                need(value.keys() == {"bytes", "frames"})
                need(value == {"bytes": at, "frames": counter}, "frame_mismatch")
            self.ended[side] = kind == 12
            at, counter = at + 28 + size, counter + 1
            self.tell(side, "frame", kind, flags, request, value)

    def body(self, kind, request, body):
        if kind in (3, 6, 9, 16):
            self.asked[request] = len(body) // 32
            return [body[i : i + 32].hex() for i in range(0, len(body), 32)]
        if kind == 4:
            count, bits = self.asked.get(request, 0), int.from_bytes(body, "little")
            need(len(body) == (count + 7) // 8 and not bits >> count)
            return [i for i in range(count) if bits >> i & 1]
        if kind == 5:
            length, coding = struct.unpack(">IB", body[32:37])
            need(1 <= length <= 4 << 20 and coding in (0, 1, 16, 17))
            return [body[:32].hex(), length, coding, body[69:].hex()]
        need(isinstance(found := (reader := Cbor(body)).value(), dict) and not reader.read())
        return found


def outcome(vector):
    """The events up to the first error, and its word, or None where both sides are content."""
    conversation, error = Conversation(vector["test_secrets"] | vector["inputs"]), None
    try:
        conversation.run(getattr(Conversation, vector["protocol"]), vector["bytes"])
        if any(conversation.data) and "integrity_key" in conversation.given:
            data = map(bytes.hex, conversation.data)
            conversation.run(Conversation.frames, zip(SIDES, data, strict=True))
    except Bad as bad:
        error = str(bad)
    return {"events": conversation.events, "error": error}
