"""Peers that have proved Key B and then do what no accelerator does; how much memory each costs us.

Run by itself, so that the memory is nobody else's::

    python -m tests.accelerator.hostile NAME...

says in one JSON line for each how the session ended, and by how much its process has grown at most,
in bytes, beside what the attacker itself holds.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from blake3 import blake3
from twisted.internet.protocol import Protocol

from cloudconnect.accelerator.acceleration import Acceleration
from cloudconnect.commands.control import STREAMS_MAX
from cloudconnect.dedup.exchange import Exchange
from cloudconnect.dedup.instructions import Act, Base, Instruction, pack_control
from cloudconnect.dedup.limits import BATCH_MAX, PIECE_BYTES, WINDOW_DEFAULT
from cloudconnect.dedup.literals import zstd
from cloudconnect.dedup.memory import MemoryCache
from cloudconnect.dedup.messages import Ack, Batch, Coding, End, Hello, Miss, Resend
from cloudconnect.settings import BATCH_PAYLOAD_MAX, BUNDLE_SECONDS, RECORD_PAYLOAD_MAX
from cloudconnect.testing import MemoryPair
from cloudconnect.transports.bundle import Bundle
from tests.accelerator.parts import Pool, Turns
from tests.dedup.pairs import noise

#: What an attacker does when it is over: bytes that it would still send are not made.
Attack = Callable[["Hostile"], Iterator[bytes]]

WINDOW: Final = WINDOW_DEFAULT
#: Bytes of the cache, in memory, where one on disk takes none.
CACHE: Final = 1 << 20
_STATUS: Final = Path("/proc/self/status")


def joined(message: Any) -> bytes:
    """A message as bytes."""
    return b"".join(message.encode())


def batch(number: int, pieces: list[bytes], act: Act = Act.NEW, **changes: Any) -> Batch:
    """An honest batch of pieces that are sent in full, with some fields that are not honest."""
    control = pack_control([Instruction(act, len(piece)) for piece in pieces], ())
    section = control + b"".join(pieces)
    fields: dict[str, Any] = {
        "number": number,
        "plain": sum(map(len, pieces)),
        "digest": blake3(b"".join(blake3(piece).digest() for piece in pieces)).digest(),
        "names": (),
        "coding": Coding.RAW,
        "control": len(control),
        "stream_plain": len(section),
        "stream": section,
    }
    return Batch(**{**fields, **changes})


def referring(number: int, plain: int, names: list[bytes]) -> Batch:
    """A batch that is made of blocks that are known by name."""
    control = pack_control([Instruction(Act.NAMED, 1) for _ in names], ())
    return batch(
        number,
        [bytes(256)],
        plain=plain,
        names=names,
        control=len(control),
        stream_plain=len(control),
        stream=control,
    )


def empty_blocks(count: int) -> bytes:
    """A Zstandard frame that begins with so many blocks of nothing."""
    return bytes.fromhex("28b52ffd0058") + bytes(3 * count)


class Hostile(Protocol):
    """The other end of the line.

    :param attack: gives what it sends, piece by piece
    :ivar clock: the session's
    :ivar exchange: what it attacks, for who knows more than anybody could
    :ivar got: bytes that came
    """

    def __init__(self, attack: Attack, clock: Turns, exchange: Exchange) -> None:
        self.clock = clock
        self.exchange = exchange
        self.got = 0
        self.keeps = bytearray()
        self.over = False
        self._attack = attack(self)

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.registerProducer(self, True)
        transport.write(joined(Hello(WINDOW, False)))
        self.resumeProducing()

    def resumeProducing(self) -> None:
        """Go on sending, a piece in each turn."""
        self._paused = False
        self.clock.callLater(0, self._next)

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True

    _paused = False

    def _next(self) -> None:
        if self._paused or self.over:
            return
        piece = next(self._attack, None)
        if piece is not None:
            self.transport.write(piece)  # type: ignore[union-attr]
            self.clock.callLater(0, self._next)

    def dataReceived(self, data: bytes) -> None:
        self.got += len(data)

    def connectionLost(self, *reason: Any) -> None:
        self.over = True


class Mover(Protocol):
    """Takes everything, and sends for as long as it can.

    :param sends: bytes that it sends, made as they go
    """

    def __init__(self, sends: int) -> None:
        self._left = sends
        self._paused = True

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)  # type: ignore[union-attr]
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        while self._left > 0 and not self._paused:
            self._left -= 1 << 16
            self.transport.write(noise(1 << 16, self._left))  # type: ignore[union-attr]

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True


# --- attacks -------------------------------------------------------------------------------------


def bomb(hostile: Hostile) -> Iterator[bytes]:
    """A section that decompresses to a gibibyte."""
    packer = zstd.ZstdCompressor()
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()
    honest = batch(0, [bytes(500_000)] * 8)
    yield joined(batch(0, [bytes(500_000)] * 8, coding=Coding.ANEW, stream=packed))
    assert honest


def bomb_of_a_delta(hostile: Hostile) -> Iterator[bytes]:
    """A changed block that decompresses to a gibibyte."""
    base = noise(100_000)
    yield joined(batch(0, [base]))
    options = {zstd.CompressionParameter.window_log: 23}
    likeness = zstd.ZstdDict(base, is_raw=True).as_prefix
    packer = zstd.ZstdCompressor(options=options, zstd_dict=likeness)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()
    size = 400_000
    control = pack_control([Instruction(Act.CHANGED, size)], [Base(1, False, False)])
    yield joined(
        batch(
            1,
            [bytes(256)],
            plain=size,
            names=[blake3(base).digest()],
            control=len(control),
            stream_plain=len(control),
            stream=control,
            delta_plain=size,
            delta=packed,
            check=blake3(base).digest(16),
        )
    )


def bomb_of_a_resend(hostile: Hostile) -> Iterator[bytes]:
    """Missing pieces that decompress to a gibibyte."""
    yield joined(referring(0, 300_000, [bytes(32)]))
    packer = zstd.ZstdCompressor()
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()
    yield joined(Resend(0, [(0, 300_000)], Coding.ANEW, packed))


def hollow(hostile: Hostile) -> Iterator[bytes]:
    """Batches that wait, whose sections are megabytes of nothing."""
    yield joined(referring(0, 256, [bytes(32)]))
    for number in range(1, 512):
        made = batch(number, [bytes(300)])
        stream = empty_blocks(1_000_000) + bytes.fromhex("0a0000") + made.stream
        yield joined(batch(number, [bytes(300)], coding=Coding.ANEW, stream=stream))


def hollow_deltas(hostile: Hostile) -> Iterator[bytes]:
    """Batches that wait, whose deltas nobody can look at, and which are megabytes."""
    yield joined(referring(0, 256, [bytes(32)]))
    control = pack_control([Instruction(Act.CHANGED, 256)], [Base(1, False, False)])
    for number in range(1, 512):
        yield joined(
            batch(
                number,
                [bytes(256)],
                names=[bytes(32)],
                control=len(control),
                stream_plain=len(control),
                stream=control,
                delta_plain=256,
                delta=bytes(4 << 20),
                check=b"x" * 16,
            )
        )


def crumbs(hostile: Hostile) -> Iterator[bytes]:
    """As many pieces as can wait, each as small as can be."""
    yield joined(referring(0, 256, [bytes(32)]))
    plain = 4 << 20
    left = WINDOW - 256
    for number in range(1, 1 + WINDOW // plain):
        size = min(plain, left)
        left -= size
        count = size // PIECE_BYTES
        pieces = [bytes(1) for _ in range(count - 10)]
        rest = size - len(pieces)
        pieces += [noise(400_000, n) for n in range(rest // 400_000)]
        pieces += [bytes(rest % 400_000)] if rest % 400_000 else []
        yield joined(batch(number, pieces, Act.BETWEEN))
    while not hostile.over:
        yield joined(Ack(1))


def small_blocks(hostile: Hostile) -> Iterator[bytes]:
    """As many blocks as can wait, each as small as can be."""
    yield joined(referring(0, 256, [bytes(32)]))
    left = WINDOW - 256
    number = 0
    while left >= 256:
        number += 1
        count = min(left, BATCH_MAX) // 256
        left -= count * 256
        yield joined(batch(number, [noise(256, n) for n in range(count)]))
    while not hostile.over:
        yield joined(Ack(1))


def names(hostile: Hostile) -> Iterator[bytes]:
    """As many names as can wait."""
    number = 0
    left = WINDOW
    while left >= 256:
        count = min(left, BATCH_MAX) // 256
        left -= count * 256
        yield joined(referring(number, count * 256, [noise(32, n) for n in range(count)]))
        number += 1
    while not hostile.over:
        yield joined(Ack(1))


def too_much(hostile: Hostile) -> Iterator[bytes]:
    """More than the window allows."""
    yield joined(referring(0, 256, [bytes(32)]))
    for number in range(1, 100):
        yield joined(batch(number, [noise(400_000, n) for n in range(8)]))


def too_many(hostile: Hostile) -> Iterator[bytes]:
    """More batches than may be under way."""
    yield joined(referring(0, 256, [bytes(32)]))
    for number in range(1, 1000):
        yield joined(batch(number, [b"x"], Act.BETWEEN))


def deaf(hostile: Hostile) -> Iterator[bytes]:
    """Small batches without end, from who reads nothing of what is answered."""
    hostile.transport.pauseProducing()  # type: ignore[union-attr]
    for number in range(20_000):
        yield joined(batch(number, [b"x"], Act.BETWEEN))
    yield joined(Ack(1 << 40))


def asking(hostile: Hostile) -> Iterator[bytes]:
    """All of every batch is asked for, as often as may be, by who reads nothing and knows all."""
    for _ in range(100):
        yield b""
    hostile.transport.pauseProducing()  # type: ignore[union-attr]
    encoder = hostile.exchange._encoder
    for _ in range(20_000):
        yield b""
    for _ in range(3):
        for number, sent in sorted(encoder._sent.items()):
            if number < encoder._number - len(encoder._held):
                yield joined(Miss(number, list(range(len(sent.pieces)))))
                yield b""
                yield b""
    yield joined(Ack(1 << 40))


def silent(hostile: Hostile) -> Iterator[bytes]:
    """Nothing at all is acknowledged; then it ends."""
    for _ in range(20_000):
        yield b""
    yield joined(End(7, 7))


def missing(hostile: Hostile) -> Iterator[bytes]:
    """Everything is asked for again and again."""
    while hostile.got < 2_000_000:
        yield b""
    for _ in range(1000):
        yield joined(Miss(0, list(range(4))))


def endless_length(hostile: Hostile) -> Iterator[bytes]:
    """A message of four gibibytes."""
    yield b"\x02\xff\xff\xff\xff"
    while not hostile.over:
        yield bytes(1 << 20)


def largest(hostile: Hostile) -> Iterator[bytes]:
    """A message as long as may be, byte by byte never at its end, then another END."""
    yield b"\x02" + (5_000_000).to_bytes(4, "big")
    for _ in range(4):
        yield bytes(1 << 20)
    yield bytes(1_000_000)


def early_end(hostile: Hostile) -> Iterator[bytes]:
    """The end is counted wrong."""
    yield joined(batch(0, [noise(300_000)]))
    yield joined(End(1, 299_999))


def behind_the_end(hostile: Hostile) -> Iterator[bytes]:
    """It goes on after its end, while a batch still waits."""
    yield joined(referring(0, 256, [bytes(32)]))
    yield joined(End(1, 256))
    for number in range(1, 1000):
        yield joined(batch(number, [noise(300_000)]))


def lying_digest(hostile: Hostile) -> Iterator[bytes]:
    """Bytes that do not have the digest that was announced for them."""
    yield joined(batch(0, [noise(300_000)], digest=bytes(32)))


ATTACKS: Final[dict[str, Attack]] = {
    made.__name__: made
    for made in (
        bomb,
        bomb_of_a_delta,
        bomb_of_a_resend,
        hollow,
        hollow_deltas,
        crumbs,
        small_blocks,
        names,
        too_much,
        too_many,
        deaf,
        asking,
        silent,
        missing,
        endless_length,
        largest,
        early_end,
        behind_the_end,
        lying_digest,
    )
}
#: Those in which our own mover sends as much as will go.
SENDING: Final = ("silent", "missing", "deaf", "asking")


def memory(field: str) -> int:
    """Bytes of memory of this process, as the system counts them."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def ahead(members: int) -> list[tuple[BaseException | None, str]]:
    """Batches of a bundle that come before their turn, on every member, as many as will go."""
    clock, ends = Turns(), []  # type: ignore[var-annotated]
    exchange = Exchange(MemoryCache(CACHE))
    made = Acceleration(clock, Pool(), exchange, lambda *end: ends.append(end))  # type: ignore[arg-type]
    bundle = Bundle(made.far, members, clock)  # type: ignore[arg-type]
    lines = [MemoryPair(clock, piece=lambda: RECORD_PAYLOAD_MAX) for _ in range(members)]
    for index, line in enumerate(lines):
        line.connect(Protocol(), bundle.member(index))
    clock.settle()
    number = 0
    for _ in range(100):
        for line in lines:
            if not line.left.held:  # it is read
                number += 1
                header = number.to_bytes(8, "big") + BATCH_PAYLOAD_MAX.to_bytes(4, "big")
                line.left.write(header + bytes(BATCH_PAYLOAD_MAX))
        clock.settle()
    assert number < 100, "it is read for ever"
    clock.settle(BUNDLE_SECONDS + 1)
    lines[0].left.abortConnection()
    clock.settle(0.1)
    return ends


def session(attack: Attack, sends: int = 0) -> list[tuple[BaseException | None, str]]:
    """One session of an accelerator with a hostile peer; how it ended."""
    clock, ends = Turns(), []  # type: ignore[var-annotated]
    exchange = Exchange(MemoryCache(CACHE))
    made = Acceleration(clock, Pool(), exchange, lambda *end: ends.append(end))  # type: ignore[arg-type]
    near, far = MemoryPair(clock), MemoryPair(clock)
    near.connect(Mover(sends), made.near)  # type: ignore[arg-type]
    far.connect(Hostile(attack, clock, exchange), made.far)  # type: ignore[arg-type]
    clock.settle()
    for _ in range(100):
        if ends:
            break
        clock.settle(0.02)
    return ends


def honest(hostile: Hostile) -> Iterator[bytes]:
    """As much as one window, all of it good: what any session costs."""
    packer = zstd.ZstdCompressor()
    number = 0
    for number in range(WINDOW // (4 << 20)):
        made = batch(number, [noise(400_000, n) for n in range(8)])
        mode = zstd.ZstdCompressor.FLUSH_BLOCK
        stream = packer.compress(made.stream, mode)
        coding = Coding.ON if number else Coding.ANEW
        yield joined(
            batch(number, [noise(400_000, n) for n in range(8)], coding=coding, stream=stream)
        )
    yield joined(Ack(1 << 40))


def measure(name: str) -> None:
    """One attack, measured."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    sends = 32 << 20 if name in SENDING else 0
    ends = ahead(STREAMS_MAX) if name == "ahead" else session(ATTACKS[name], sends)
    grown = memory("VmHWM") - before
    error, where = ends[0] if ends else (None, "still open")
    print(
        json.dumps(
            {
                "attack": name,
                "error": type(error).__name__,
                "text": str(error),
                "where": where,
                "grown": grown,
            }
        ),
        flush=True,
    )


def main(names: list[str]) -> None:
    """Measure attacks, each in a process that is forked off this one, one behind the other."""
    session(honest, 1 << 20)  # imports, tables, allocators
    for name in names:
        child = os.fork()
        if not child:
            measure(name)
            return
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"{name} has failed")


if __name__ == "__main__":
    main(sys.argv[1:])
