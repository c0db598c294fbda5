"""The receiving half: what it refuses, what it asks for, what it keeps."""

# mypy: allow-untyped-calls
# (trial's methods have no types)

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.dedup.decoder import Decoder
from cloudconnect.dedup.instructions import Act, Base, Instruction, pack_control
from cloudconnect.dedup.limits import BATCHES_MAX, PIECES_MAX
from cloudconnect.dedup.literals import StreamCompressor, compress_delta
from cloudconnect.dedup.memory import MemoryCache
from cloudconnect.dedup.messages import Ack, Batch, Coding, End, Miss, Resend
from cloudconnect.errors import DigestMismatch, ProtocolViolation
from tests.dedup.contract import block, fill

ROOT = Path(__file__).resolve().parent.parent.parent


def digest(*pieces: bytes) -> bytes:
    """The digest of a batch of these pieces."""
    return blake3(b"".join(blake3(piece).digest() for piece in pieces)).digest()


def batch(
    instructions: list[Instruction],
    sent: bytes = b"",
    names: tuple[bytes, ...] = (),
    pieces: tuple[bytes, ...] = (),
    bases: tuple[Base, ...] = (),
    **more: Any,
) -> Batch:
    """A batch with an uncompressed stream section."""
    control = pack_control(instructions, bases)
    section = control + sent
    fields = {
        "number": 0,
        "plain": sum(map(len, pieces)),
        "digest": digest(*pieces),
        "names": list(names),
        "coding": Coding.RAW,
        "control": len(control),
        "stream_plain": len(section),
        "stream": section,
    }
    return Batch(**{**fields, **more})  # type: ignore[arg-type]


class Case(SynchronousTestCase):
    """A decoder whose cache has blocks 0 to 9, of 1000 bytes."""

    def setUp(self) -> None:
        self.cache = MemoryCache()
        fill(self.cache, range(10))
        self.decoder = Decoder(self.cache)
        self.names = [block(seed)[0] for seed in range(20)]
        self.data = [block(seed)[1] for seed in range(20)]

    def good(self, one: Batch) -> bytes:
        """What comes of a batch that needs nothing."""
        decoded = self.decoder.batch(one)
        self.assertEqual(decoded.answers, [Ack(one.number)])
        return b"".join(decoded.plain)


class GrammarTests(Case):
    """What each instruction means."""

    def test_all(self) -> None:
        """Every instruction, in one batch."""
        prefix = self.data[6] + self.data[7]
        changed = self.data[6][:500] + b"!" + self.data[6][500:]
        delta = compress_delta(prefix, [changed], 3)
        pieces = (
            b"between",
            *self.data[0:3],
            *self.data[4:6],
            self.data[5],
            self.data[5],
            self.data[15],
            self.data[8],
            changed,
        )
        made = [
            Instruction(Act.BETWEEN, 7),
            Instruction(Act.NAMED, 3),
            Instruction(Act.ON, 2, 1),
            Instruction(Act.AGAIN, 2),
            Instruction(Act.NEW, 1000),
            Instruction(Act.ON, 1, 2),
            Instruction(Act.CHANGED, 1001),
        ]
        one = batch(
            made,
            b"between" + self.data[15],
            (self.names[0], self.names[6]),
            pieces,
            (Base(2, False, False),),
            delta_plain=1001,
            delta=delta,
            check=blake3(prefix).digest(16),
        )
        self.assertEqual(self.good(one), b"".join(pieces))
        place = self.cache.find(self.names[15])
        assert place is not None
        new = self.cache.find(blake3(changed).digest())
        self.assertEqual(self.cache.beside(place, 1), new)

    def test_in_the_same_batch(self) -> None:
        """A block may be named in the batch that brings it."""
        made = [Instruction(Act.NEW, 1000), Instruction(Act.NAMED, 1)]
        one = batch(made, self.data[15], (self.names[15],), (self.data[15],) * 2)
        self.assertEqual(self.good(one), self.data[15] * 2)

    def test_compressed(self) -> None:
        """The stream section is compressed as its coding says."""
        compressor = StreamCompressor()
        for number in range(3):
            control = pack_control([Instruction(Act.BETWEEN, 4000)], [])
            coding, coded = compressor.compress(control + bytes(4000), 3)
            one = batch(
                [Instruction(Act.BETWEEN, 4000)],
                bytes(4000),
                pieces=(bytes(4000),),
                number=number,
                coding=coding,
                stream=coded,
            )
            self.assertEqual(self.good(one), bytes(4000))


class RefusedTests(Case):
    """Malformed batches: nothing is passed on, nothing enters the cache."""

    def refused(self, one: Batch) -> None:
        """Assert that ``one`` is refused, by a decoder that is otherwise fine."""
        self.assertRaises(ProtocolViolation, Decoder(self.cache).batch, one)
        self.assertIsNone(self.cache.find(self.names[15]))

    def test_lengths(self) -> None:
        """Sections, names and pieces that do not add up."""
        between, new = Instruction(Act.BETWEEN, 7), Instruction(Act.NEW, 1000)
        named, on, again = (Instruction(act, 1) for act in (Act.NAMED, Act.ON, Act.AGAIN))
        d, n = self.data, self.names
        self.refused(batch([between], b"between!", pieces=(b"between!",)))
        self.refused(batch([new], d[15] + b"x", pieces=(d[15], b"x")))
        self.refused(batch([new], d[15], pieces=(d[15], d[15])))  # announces more
        self.refused(batch([new], d[15], (n[0],), (d[15],)))  # a name too many
        self.refused(batch([named, named], b"", (n[0],), (d[0], d[0])))  # one too few
        self.refused(batch([on], b"", (), (d[0],)))
        self.refused(batch([again], b"", (), (d[0],)))
        self.refused(batch([new, again], d[15], (), (d[15], d[15])))
        self.refused(batch([Instruction(Act.CHANGED, 1000)], b"", (), (d[15],)))
        self.refused(batch([named], b"", (n[0], n[1]), (d[0],), (Base(1, False, False),)))

    def test_many_pieces(self) -> None:
        """More pieces than there can be in so many bytes."""
        made = [Instruction(Act.NAMED, 1), Instruction(Act.AGAIN, 4)]
        self.refused(batch(made, b"", (self.names[0],), (self.data[0],)))
        tiny = [Instruction(Act.BETWEEN, 1)] * 30
        self.refused(batch(tiny, b"x" * 30, (), (b"x",) * 30))

    def test_order(self) -> None:
        """Batches that are missing, come twice, or after the end."""
        one = batch([Instruction(Act.BETWEEN, 1)], b"x", pieces=(b"x",))
        self.refused(attrs.evolve(one, number=1))
        self.good(one)
        self.assertRaises(ProtocolViolation, self.decoder.batch, one)
        self.decoder.end(End(1, 1))
        self.assertTrue(self.decoder.ended)
        again = attrs.evolve(one, number=1)
        self.assertRaises(ProtocolViolation, self.decoder.batch, again)

    def test_ends(self) -> None:
        """An end that counts other bytes or batches than came."""
        one = batch([Instruction(Act.BETWEEN, 1)], b"x", pieces=(b"x",))
        for end in (End(0, 1), End(2, 1), End(1, 0), End(1, 2)):
            decoder = Decoder(self.cache)
            decoder.batch(one)
            self.assertRaises(ProtocolViolation, decoder.end, end)

    def test_digest(self) -> None:
        """Bytes that were sent in full and do not have their digest."""
        one = batch([Instruction(Act.NEW, 1000)], self.data[15], (), (self.data[14],))
        self.assertRaises(DigestMismatch, self.decoder.batch, one)
        self.assertIsNone(self.cache.find(self.names[15]))

    def test_window(self) -> None:
        """More than was allowed to be under way, in bytes or in batches."""
        missing = batch([Instruction(Act.NAMED, 1)], b"", (self.names[15],), (self.data[15],))
        decoder = Decoder(self.cache, window=2500)
        decoder.batch(missing)
        decoder.batch(attrs.evolve(missing, number=1))
        third = attrs.evolve(missing, number=2)
        self.assertRaises(ProtocolViolation, decoder.batch, third)
        decoder = Decoder(self.cache)
        for number in range(BATCHES_MAX):
            decoder.batch(attrs.evolve(missing, number=number))
        more = attrs.evolve(missing, number=BATCHES_MAX)
        self.assertRaises(ProtocolViolation, decoder.batch, more)

    def test_held_window(self) -> None:
        """What was passed on and not taken is under way still, in bytes and in batches."""
        known = batch([Instruction(Act.NAMED, 1)], b"", (self.names[5],), (self.data[5],))
        decoder = Decoder(self.cache, window=2500)
        decoder.hold()
        for number in range(2):
            decoded = decoder.batch(attrs.evolve(known, number=number))
            self.assertEqual(([self.data[5]], []), (decoded.plain, decoded.answers))
        third = attrs.evolve(known, number=2)
        self.assertRaises(ProtocolViolation, decoder.batch, third)
        decoder = Decoder(self.cache)
        decoder.hold()
        for number in range(BATCHES_MAX):
            decoder.batch(attrs.evolve(known, number=number))
        more = attrs.evolve(known, number=BATCHES_MAX)
        self.assertRaises(ProtocolViolation, decoder.batch, more)

    def test_taken(self) -> None:
        """Whole batches are acknowledged, all at once, when all of their bytes were taken."""
        known = batch([Instruction(Act.NAMED, 1)], b"", (self.names[5],), (self.data[5],))
        decoder = Decoder(self.cache, window=3000)
        decoder.hold()
        for number in range(3):
            decoder.batch(attrs.evolve(known, number=number))
        self.assertIsNone(decoder.taken(999))
        self.assertEqual(Ack(1), decoder.taken(2500))
        self.assertIsNone(decoder.taken(2999))
        decoder.batch(attrs.evolve(known, number=3))
        decoder.batch(attrs.evolve(known, number=4))
        fifth = attrs.evolve(known, number=5)
        self.assertRaises(ProtocolViolation, decoder.batch, fifth)
        self.assertEqual(Ack(4), decoder.taken(5000))

    @given(
        st.lists(
            st.builds(Instruction, st.sampled_from(Act), st.integers(1, 1100), st.integers(0, 9)),
            max_size=6,
        ),
        st.lists(st.integers(0, 14), max_size=4),
        st.integers(0, 3000),
        st.integers(1, 9000),
    )
    @settings(deadline=None)
    def test_anything(self, made: Any, names: Any, sent: int, plain: int) -> None:
        """Whatever is in a batch, it is refused, or asked about, or passed on as announced."""
        decoder = Decoder(self.cache)
        one = batch(made, b"s" * sent, tuple(self.names[seed] for seed in names), plain=plain)
        try:
            decoded = decoder.batch(one)
        except (ProtocolViolation, DigestMismatch):
            return
        self.assertEqual(decoded.plain, [])
        self.assertIsInstance(decoded.answers[0], Miss)


class MissTests(Case):
    """What is not there."""

    def test_asked_for(self) -> None:
        """Only the missing pieces are asked for, and fill their places."""
        made = [Instruction(Act.NAMED, 2), Instruction(Act.NAMED, 1), Instruction(Act.NAMED, 1)]
        pieces = (self.data[0], self.data[1], self.data[15], self.data[2])
        one = batch(made, b"", (self.names[0], self.names[15], self.names[2]), pieces)
        self.assertEqual(self.decoder.batch(one).answers, [Miss(0, [2])])
        decoded = self.decoder.resent(Resend(0, [(2, 1000)], Coding.RAW, self.data[15]))
        self.assertEqual(b"".join(decoded.plain), b"".join(pieces))
        self.assertEqual(decoded.answers, [Ack(0)])
        self.assertIsNotNone(self.cache.find(self.names[15]))

    def test_order_kept(self) -> None:
        """Batches behind a missing piece wait for it, and those that name it need no more."""
        missing = batch([Instruction(Act.NAMED, 1)], b"", (self.names[15],), (self.data[15],))
        behind = batch([Instruction(Act.NEW, 1000)], self.data[16], (), (self.data[16],), number=1)
        naming = attrs.evolve(missing, number=2, names=[self.names[16]])
        naming = attrs.evolve(naming, digest=digest(self.data[16]))
        self.assertEqual(self.decoder.batch(missing).answers, [Miss(0, [0])])
        for one in (behind, naming):
            decoded = self.decoder.batch(one)
            self.assertEqual((decoded.plain, decoded.answers), ([], []))
        self.decoder.end(End(3, 3000))
        self.assertFalse(self.decoder.ended)
        decoded = self.decoder.resent(Resend(0, [(0, 1000)], Coding.RAW, self.data[15]))
        self.assertEqual(b"".join(decoded.plain), self.data[15] + self.data[16] + self.data[16])
        self.assertEqual(decoded.answers, [Ack(0), Ack(1), Ack(2)])
        self.assertTrue(self.decoder.ended)

    def test_another_order(self) -> None:
        """A run in another order than the far end's is noticed, and all of it asked for, once."""
        pieces = (self.data[0], self.data[15])
        one = batch([Instruction(Act.NAMED, 2)], b"", (self.names[0],), pieces)
        self.assertEqual(self.decoder.batch(one).answers, [Miss(0, [0, 1])])
        resend = Resend(0, [(0, 1000), (1, 1000)], Coding.RAW, b"".join(pieces))
        self.assertEqual(b"".join(self.decoder.resent(resend).plain), b"".join(pieces))

    def test_another_order_and_a_hole(self) -> None:
        """So is one that has another length beside a piece that is missing."""
        other = self.data[16][:900]
        pieces = (self.data[0], other, self.data[15])
        made = [Instruction(Act.NAMED, 2), Instruction(Act.NAMED, 1)]
        one = batch(made, b"", (self.names[0], self.names[15]), pieces)
        self.assertEqual(self.decoder.batch(one).answers, [Miss(0, [2])])
        decoded = self.decoder.resent(Resend(0, [(2, 1000)], Coding.RAW, self.data[15]))
        self.assertEqual((decoded.plain, decoded.answers), ([], [Miss(0, [0, 1])]))
        short = Resend(0, [(0, 1000), (1, 899)], Coding.RAW, self.data[0] + other[1:])
        self.assertRaises(ProtocolViolation, self.decoder.resent, short)
        resend = Resend(0, [(0, 1000), (1, 900)], Coding.RAW, self.data[0] + other)
        self.assertEqual(b"".join(self.decoder.resent(resend).plain), b"".join(pieces))

    def test_wrong_resend(self) -> None:
        """What is resent must be what was asked for, and have the digest."""
        made = [Instruction(Act.NAMED, 1), Instruction(Act.NAMED, 1)]
        pieces = (self.data[0], self.data[15])
        one = batch(made, b"", (self.names[0], self.names[15]), pieces)
        good = Resend(0, [(1, 1000)], Coding.RAW, self.data[15])
        for wrong in (
            attrs.evolve(good, number=1),
            attrs.evolve(good, pieces=[(0, 1000)]),
            attrs.evolve(good, pieces=[(0, 1000), (1, 1000)], data=self.data[15] * 2),
            attrs.evolve(good, data=self.data[15][1:]),
            attrs.evolve(good, coding=Coding.ANEW),
        ):
            decoder = Decoder(self.cache)
            decoder.batch(one)
            self.assertRaises(ProtocolViolation, decoder.resent, wrong)
        tiny = batch([Instruction(Act.NAMED, 1)], b"", (self.names[15],), (b"tiny" * 64,))
        tiny = attrs.evolve(tiny, plain=256)
        decoder = Decoder(self.cache)
        decoder.batch(tiny)
        short = Resend(0, [(0, 255)], Coding.RAW, b"t" * 255)
        self.assertRaises(ProtocolViolation, decoder.resent, short)
        self.decoder.batch(one)
        # The digest could be wrong because of what was found here: the rest is asked for first.
        decoded = self.decoder.resent(attrs.evolve(good, data=self.data[14]))
        self.assertEqual(decoded.answers, [Miss(0, [0])])
        again = Resend(0, [(0, 1000)], Coding.RAW, self.data[0])
        self.assertRaises(DigestMismatch, self.decoder.resent, again)

    def test_another_prefix(self) -> None:
        """Where the prefix is another one here, the blocks themselves are asked for."""
        changed = b"changed" * 100
        made = [Instruction(Act.CHANGED, 700)]
        for names, check in (((self.names[15],), bytes(16)), ((self.names[0],), bytes(16))):
            one = batch(
                made,
                b"",
                names,
                (changed,),
                (Base(1, True, True),),
                delta_plain=700,
                delta=b"whatever",
                check=check,
            )
            decoder = Decoder(self.cache)
            self.assertEqual(decoder.batch(one).answers, [Miss(0, [0])])
            resend = Resend(0, [(0, 700)], Coding.RAW, changed)
            self.assertEqual(b"".join(decoder.resent(resend).plain), changed)
            self.cache.drop(blake3(changed).digest())


#: Feeds a decoder what would take much memory, and prints by how many KiB its peak grew.
BOMBS = """
import struct, sys
from cloudconnect.dedup.exchange import Exchange
from cloudconnect.dedup.instructions import Act, Base, Instruction, pack_control
from cloudconnect.dedup.limits import BATCH_MAX, BLOCK_MAX
from cloudconnect.dedup.literals import zstd
from cloudconnect.dedup.memory import MemoryCache
from cloudconnect.dedup.messages import Coding, MessageReader
from cloudconnect.errors import ProtocolViolation
from tests.dedup.contract import block
from tests.dedup.test_decoder import batch

def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1])

big = zstd.compress(bytes(1 << 30))
window = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
wide = zstd.ZstdCompressor(options=window).compress(bytes(64 << 20), 2)
cache = MemoryCache()
appender = cache.appender()
name, data = block(1, BLOCK_MAX)
appender.append(name, data)
hello = b"".join(Exchange(cache).start())

def bomb(plain, stream, made=(), **more):
    control = len(pack_control(made, more.get("bases", ())))
    one = batch(list(made), plain=plain, coding=Coding.ANEW, stream_plain=plain + control - 1,
                stream=stream, **more)
    return b"".join(one.encode())

again = [Instruction(Act.NAMED, 1), Instruction(Act.AGAIN, 9000)]
bombs = [
    bomb(1000, big), bomb(BATCH_MAX, big), bomb(BATCH_MAX, wide), bomb(BATCH_MAX, big[:100]),
    b"".join(batch(again, b"", (name,), plain=BATCH_MAX).encode()),
    b"".join(batch([Instruction(Act.NEW, 256)], b"", (name,), plain=BATCH_MAX,
                   bases=(Base(9000, True, True),), delta_plain=256, delta=big).encode()),
    struct.pack(">BI", 2, (1 << 32) - 1) + b"x" * 100,
    struct.pack(">BI", 6, 18) + bytes(8) + b"\\x00\\xff\\xff\\xff\\x7f\\x00\\xff\\xff\\xff\\x7f",
]
before = peak()
for one in bombs:
    end = Exchange(cache)
    try:
        received = end.receive(hello + one)
    except ProtocolViolation:
        continue
    assert not received.plain
print(peak() - before)
"""


class BombTests(SynchronousTestCase):
    """What is small on the wire and large in memory."""

    def test_memory(self) -> None:
        """Bombs of every kind are refused within 32 MiB."""
        done = subprocess.run(
            [sys.executable, "-c", BOMBS],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=ROOT,
        )
        self.assertEqual(done.stderr, "")
        self.assertLess(int(done.stdout), 32 << 10)

    def test_most_pieces(self) -> None:
        """The most pieces that a batch may name cost little to refuse or ask for."""
        made = [Instruction(Act.NAMED, PIECES_MAX)]
        one = batch(made, b"", (bytes(32),), plain=PIECES_MAX * 128)
        self.assertRaises(ProtocolViolation, Decoder(MemoryCache()).batch, one)
