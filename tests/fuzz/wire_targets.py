"""Fuzz targets: what comes from the line, below the frames."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from cloudconnect.errors import CloudConnectError, LoginRefused, ProtocolViolation
from cloudconnect.keys import KeyA, KeyB, Password
from cloudconnect.testing import MemoryPair, Recorder
from cloudconnect.transports.proxied import ProxiedFactory
from cloudconnect.transports.stream import RecordStream
from cloudconnect.transports.tunnel import NoiseTunnel, framed
from cloudconnect.wire.login import Verifier
from cloudconnect.wire.noise import NoiseHandshake
from cloudconnect.wire.preamble import PREAMBLE_SIZE, ConnectionKind, Preamble, decide
from cloudconnect.wire.protection import HEADER, RecordCipher
from cloudconnect.wire.records import RecordHandshake
from cloudconnect.wire.schedule import FROM_INITIATOR, TrafficSecret
from cloudconnect.wire.scram import ScramServer
from cloudconnect.wire.scram_client import ScramClient
from cloudconnect.wire.striping import HEADER_SIZE, Joiner
from tests.fuzz.target import Acts, Target, act, cut

SALT = bytes(range(32))
ROUTE = b"r" * 16


def closed(pair: MemoryPair, clock: Clock) -> None:
    """Let every timer of a connection run out: nothing may be left, or raise."""
    pair.left.loseConnection()
    for _ in range(20):
        clock.advance(10)


# --- preamble ------------------------------------------------------------------------------------


def preamble(data: bytes) -> None:
    """What is decided early must not be decided otherwise when more bytes come."""
    decided: Any = None
    for size in range(1, min(len(data), PREAMBLE_SIZE + 2) + 1):
        try:
            found: Any = decide(data[:size])
        except ProtocolViolation:
            found = ProtocolViolation
        assert decided is None or found == decided, (decided, found)
        decided = found
    if isinstance(decided, Preamble):
        assert decided.encode() == data[:PREAMBLE_SIZE]


def preambles() -> Iterable[bytes]:
    for kind in ConnectionKind:
        yield Preamble(kind, ROUTE).encode() + b"more"
    yield b"\x16\x03\x01\x02\x00"
    yield b"GET / HTTP/1.1\r\n"


# --- PROXY header --------------------------------------------------------------------------------


def proxy(data: bytes) -> None:
    """A gateway's header in front of a connection: nothing escapes, and nothing waits for ever."""
    clock = Clock()
    above = Factory.forProtocol(Recorder)
    above.noisy = False
    pair = MemoryPair(clock)
    wrapped = ProxiedFactory(above).buildProtocol(pair.right.getPeer())
    pair.connect(Recorder(), wrapped)
    acts = Acts(data)
    by = acts.number()
    for piece in cut(acts.rest(), by):
        pair.left.write(piece)
        clock.advance(0)
    closed(pair, clock)


def proxies() -> Iterable[bytes]:
    signature = b"\r\n\r\n\x00\r\nQUIT\n"
    yield b"\x00" + signature + b"\x20\x00\x00\x00more"
    yield b"\x00" + signature + b"\x21\x11\x00\x0c" + bytes(8) + b"\x01\x02\x18\x24more"
    yield b"\x01" + signature + b"\x21\x21\x00\x24" + bytes(36) + b"more"
    yield b"\x00PROXY TCP4 127.0.0.1 127.0.0.2 1000 6180\r\nmore"
    yield b"\x00PROXY UNKNOWN\r\n"


# --- tunnel --------------------------------------------------------------------------------------


def tunnel(data: bytes) -> None:
    """A tunnel's responder, or initiator, with a peer that does what the input says.

    Nothing may reach the application but what was sealed for it, in order.
    """
    acts = Acts(data)
    is_server = acts.number() % 2 == 0
    clock = Clock()
    mine, peer = Recorder(), Recorder()
    recipe = NoiseTunnel(KeyA(b"a" * 32), b"prologue", payload=b"" if not is_server else b"limits")
    pair = MemoryPair(clock)
    pair.connect(peer, recipe.layer(not is_server, mine, clock))
    clock.advance(0)
    shake = NoiseHandshake(is_server, b"a" * 32, b"prologue")
    ciphers: Any = None
    sealed = bytearray()
    while acts.left:
        what = acts.number() % 4
        octets = acts.piece()
        if what == 0:
            send = octets
        elif what == 1:
            send = framed(octets)
        elif ciphers is None:
            try:
                if is_server and what == 2:
                    send = framed(shake.write_message())
                    pair.left.write(send)
                    clock.advance(0)
                    shake.read_message(bytes(peer.data[2:]))
                    send = b""
                else:
                    shake.read_message(bytes(peer.data[2:]))
                    send = framed(shake.write_message(octets[:4096]))
                ciphers = shake.split()
            except (CloudConnectError, RuntimeError):
                send = octets
        else:
            send = framed(ciphers[0].encrypt(b"" if what == 2 else b"x", octets))
            sealed += octets if what == 2 else b""
        for piece in cut(send, what):
            pair.left.write(piece)
        clock.advance(0)
        if mine.losses:
            break
    assert bytes(sealed).startswith(bytes(mine.data)), "what nobody sealed was delivered"
    closed(pair, clock)
    assert mine.losses <= 1


def tunnels() -> Iterable[bytes]:
    for side in (0, 1):
        yield bytes((side,)) + act(2) + act(2, b"hello") + act(2, b"") + act(0, b"late")
        yield bytes((side,)) + act(2) + act(3, b"forged")
        yield bytes((side,)) + act(1, bytes(48))
        yield bytes((side,)) + act(0, b"\xff\xff") + act(0, bytes(99))


# --- records -------------------------------------------------------------------------------------


def records(data: bytes) -> None:
    """A stream's responder, over the real reader, with a peer that holds Key B and breaks rules."""
    acts = Acts(data)
    clock = Clock()
    mine, peer = Recorder(), Recorder()
    recipe = RecordStream(KeyB(b"b" * 32), b"context", own_socket=False)
    pair = MemoryPair(clock)
    pair.connect(peer, recipe.layer(False, mine, clock))
    shake = RecordHandshake(True, KeyB(b"b" * 32), b"context", salt=SALT)
    cipher: RecordCipher | None = None
    traffic: TrafficSecret | None = None
    epoch = sequence = 0
    honest = bytearray()
    faithful = True
    while acts.left:
        what = acts.number() % 6
        octets = acts.piece()
        if what == 0:
            send, faithful = octets, faithful and not octets
        elif cipher is None:
            pair.left.write(shake.start())
            clock.advance(0)
            if len(peer.data) != 64:
                break
            salts = SALT + bytes(peer.data[:32])
            try:
                send = shake.receive(bytes(peer.data))
            except CloudConnectError:
                break  # something was sent before the hello
            traffic = TrafficSecret(KeyB(b"b" * 32), b"context", 0, FROM_INITIATOR, salts)
            cipher = RecordCipher(traffic.record_key())
        else:
            kind, flags = (1, 0)
            if what >= 2:
                kind = octets[0] if octets else 0
                octets = octets[1:]
            if what == 3:
                flags, faithful = 1, False
            size = len(octets) + 16 if what != 4 else acts.number(4)
            faithful = faithful and size == len(octets) + 16  # the true one can be hit by chance
            header = HEADER.pack(kind, flags, epoch & 0xFFFF, size)
            out = bytearray(len(octets) + 16)
            cipher.seal_into(sequence, header, octets, memoryview(out))
            sequence += 1
            send = header + bytes(out)
            if faithful and kind == 1:
                honest += octets
            if kind == 2 and traffic is not None and what == 5:
                traffic.advance()
                cipher, epoch, sequence = RecordCipher(traffic.record_key()), epoch + 1, 0
        for piece in cut(send, what):
            pair.left.write(piece)
        clock.advance(0)
        if mine.losses:
            break
    assert bytes(honest).startswith(bytes(mine.data)), "what nobody sealed was delivered"
    closed(pair, clock)
    assert mine.losses <= 1


def streams() -> Iterable[bytes]:
    end = bytes((3,)) + (5).to_bytes(8, "big") + (1).to_bytes(8, "big")
    begin = act(1)
    yield begin + act(1, b"hello") + act(2, end)
    yield begin + act(5, b"\x02") + act(1, b"again") + act(2, end)
    yield begin + act(2, b"\x05pingping") + act(2, b"\x04\x00\x07")
    yield begin + act(3, b"\x01flags") + act(0, b"raw")
    yield begin + act(4, b"\x01long") + b"\x00\x10\x00\x11"
    yield act(0, bytes(100))


# --- batches of a bundle -------------------------------------------------------------------------


def bundles(data: bytes) -> None:
    """The joining end of a bundle of 3 connections: its window is never exceeded."""
    acts = Acts(data)
    window = 2048
    joiner = Joiner(3, window)
    try:
        while acts.left:
            member = acts.number() % 3
            for _ in joiner.receive(member, acts.piece()):
                pass
            assert 0 <= joiner.waiting <= window + 3 * (1 << 18)
    except ProtocolViolation:
        joiner.drop()


def batches() -> Iterable[bytes]:
    def batch(number: int, octets: bytes) -> bytes:
        return (number.to_bytes(8, "big") + len(octets).to_bytes(4, "big"))[-HEADER_SIZE:] + octets

    yield act(0, batch(0, b"zero")) + act(2, batch(1, b"one")) + act(1, batch(2, b"two"))
    yield act(1, batch(2, b"two")) + act(0, batch(0, b"zero")) + act(1, batch(1, b"one"))
    yield act(0, batch(0, b"x")) + b"".join(act(n, batch(1, b"")) for n in range(3))


# --- log-in --------------------------------------------------------------------------------------

_PASSWORD = Password(b"cct1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")


def login(data: bytes) -> None:
    """Both sides of SCRAM with a peer that says anything."""
    acts = Acts(data)
    side = acts.number() % 2
    one = acts.piece().decode("utf-8", "replace")
    two = acts.rest().decode("utf-8", "replace")
    try:
        if side:
            server = ScramServer(lambda name: _verifier(name), bytes(32), bytes(32), 4096)
            server.first(one)
            server.final(two)
            raise AssertionError("somebody logged in without the password")
        client = ScramClient("acme", _PASSWORD, bytes(32))
        nonce = client.first().partition("r=")[2]
        iterations = one.partition("i=")[2].partition(",")[0]
        if iterations.isdecimal() and int(iterations[:12]) > 5000:
            one = one.replace(iterations, "4096")  # the work itself is bounded elsewhere
        client.final(one.replace("NONCE", nonce))
        client.verify(two)
        raise AssertionError("a server that knows no verifier was believed")
    except (LoginRefused, ProtocolViolation):
        pass


def _verifier(name: str) -> Verifier | None:
    return Verifier(bytes(16), bytes(32), bytes(32), 4096) if name == "acme" else None


def logins() -> Iterable[bytes]:
    first = b"p=tls-exporter,,n=acme,r=rOprNGfwEbeRWgbNEkqO"
    yield b"\x01" + act(0, first)[1:] + b"c=cD10bHMtZXhwb3J0ZXIs,r=x,p=AAAA"
    yield b"\x00" + act(0, b"r=NONCEmore,s=AAAAAAAAAAAAAAAAAAAAAA==,i=4096")[1:] + b"v=AAAA"
    yield b"\x00" + act(0, b"e=invalid-proof")[1:]


TARGETS = (
    Target("preamble", preamble, preambles, 64),
    Target("proxy", proxy, proxies, 600),
    Target("tunnel", tunnel, tunnels),
    Target("records", records, streams),
    Target("bundles", bundles, batches),
    Target("login", login, logins, 1024),
)
