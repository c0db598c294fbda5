"""Both ends of a connection: what goes in comes out, whatever the caches hold."""

from __future__ import annotations

import gc
import os
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.dedup import encoder
from cloudconnect.dedup.cutting import ContentCutter, FrameCutter
from cloudconnect.dedup.exchange import Exchange
from cloudconnect.dedup.limits import WINDOW_DEFAULT, WINDOW_MAX, WINDOW_MIN
from cloudconnect.dedup.memory import MemoryCache
from cloudconnect.dedup.messages import End, MessageReader, Miss
from cloudconnect.errors import DigestMismatch, ProtocolViolation, Truncated
from tests.dedup.pairs import Pair, carry, noise, text
from tests.dedup.storm import damage, small_batches, storm

#: How many times as many examples as usual are tried.
TIMES = int(os.environ.get("CLOUDCONNECT_EXAMPLES", "1"))
#: Parts of which streams are made: what repeats, what is similar, what is not.
PARTS = [
    b"",
    b"x",
    bytes(300_000),
    noise(50_000, 2),
    noise(200_000, 3),
    text(120_000, 4),
    text(60_000, 4) + b"changed" + text(60_000, 5),
    noise(100_000, 3) + b"!" + noise(200_000, 3)[100_000:],
    bytes(range(256)) * 200,
]
streams = st.lists(st.one_of(st.sampled_from(PARTS), st.binary(max_size=400)), max_size=8).map(
    b"".join
)
cutters = st.sampled_from([ContentCutter, FrameCutter])


def small_cache(segments: int) -> MemoryCache:
    """A cache that holds little."""
    return MemoryCache(segments * 100_000, 60_000)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """``data`` cut at these places, as far as it has them."""
    ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


class ExactTests(SynchronousTestCase):
    """decode(encode(x)) is x; in small batches, so that a short stream has many."""

    def setUp(self) -> None:
        self.patch(encoder, "BATCH_LITERAL", 60_000)
        self.patch(encoder, "BATCH_PLAIN", 150_000)

    @given(
        st.lists(streams, min_size=1, max_size=3),
        st.lists(st.integers(0, 400_000), max_size=4),
        cutters,
        st.sampled_from([1, 3, 9]),
        st.sampled_from([0, 17, 1000, 70_000]),
        st.booleans(),
    )
    @settings(deadline=None, max_examples=60 * TIMES)
    def test_any_split(self, datas, places, cutter, level, step, flush) -> None:  # type: ignore
        """Any stream, cut anywhere on either side, over and over through the same caches."""
        source, target = MemoryCache(), MemoryCache()
        for data in datas:
            if step == 17:
                data = data[:20_000]
            pair = Pair(source, target, cutter, level, step)
            pair.send(cut(data, places), flush=flush)
            pair.finish()
            self.assertEqual(bytes(pair.out[1]), data)

    @given(
        st.lists(streams, min_size=2, max_size=4),
        st.lists(st.sampled_from("st-xrf"), max_size=40),
        st.integers(1, 4),
        st.integers(1, 4),
    )
    @settings(deadline=None, max_examples=80 * TIMES)
    def test_any_cache(self, datas, happenings, here, there) -> None:  # type: ignore[no-untyped-def]
        """Evictions at any moment, restarts, and caches that are cold, foreign or damaged."""
        caches = [small_cache(here), small_cache(there)]
        script = iter(happenings)

        def meanwhile() -> None:
            what = next(script, "-")
            if what in "st":
                caches["st".index(what)].evict()
            elif what == "x":
                damage(caches[1])

        for data in datas:
            pair = Pair(*caches, step=50_000, meanwhile=meanwhile)
            pair.send(cut(data, [1000, 100_000]))
            pair.finish()
            self.assertEqual(bytes(pair.out[1]), data)
            what = next(script, "-")
            if what == "r":
                caches[1] = small_cache(there)  # cold
            elif what == "f":
                caches[1] = small_cache(there)  # foreign: it has seen something else
                carry(b"".join(reversed(PARTS)), small_cache(4), caches[1])
            caches.reverse()

    def test_storms(self) -> None:
        """Everything at once, in both directions; that it is exact is not for want of trouble."""
        counts: Counter[str] = Counter()
        with small_batches():
            for seed in range(12 * TIMES):
                counts += storm(seed)
        for name in ("by_reference", "by_delta", "by_compression", "misses", "damaged"):
            self.assertGreater(counts[name], 0, name)

    @given(streams, streams, st.lists(st.integers(0, 300_000), max_size=4))
    @settings(deadline=None, max_examples=30 * TIMES)
    def test_both_ways(self, there, back, places) -> None:  # type: ignore[no-untyped-def]
        """Two streams at once share a connection."""
        pair = Pair(step=30_000)
        for one, other in zip(
            cut(there, places) + [b""] * 9, cut(back, places[:2]) + [b""] * 9, strict=False
        ):
            pair.put(0, pair.ends[0].send(one))
            pair.put(1, pair.ends[1].send(other))
            pair.settle()
        pair.finish()
        self.assertEqual((bytes(pair.out[1]), bytes(pair.out[0])), (there, back))


class SavingTests(SynchronousTestCase):
    """What is known is not sent again."""

    def test_known(self) -> None:
        """The second time costs less than a thousandth, and the way back costs as little."""
        data = noise(3_000_000)
        source, target = MemoryCache(), MemoryCache()
        first = carry(data, source, target)
        self.assertLess(len(data), first.crossed[0])
        again = carry(data, source, target)
        self.assertLess(again.crossed[0], len(data) // 1000)
        back = carry(data, target, source)
        self.assertLess(back.crossed[0], len(data) // 1000)
        self.assertEqual(again.ends[0].sent.by_reference, len(data))
        self.assertEqual(again.ends[1].received.by_reference, len(data))

    def test_changed(self) -> None:
        """A changed byte costs far less than the block that it is in."""
        data = noise(1_000_000)
        source, target = MemoryCache(), MemoryCache()
        carry(data, source, target)
        changed = bytearray(data)
        changed[500_000] ^= 1
        pair = carry(bytes(changed), source, target)
        self.assertLess(pair.crossed[0], 2000)
        self.assertGreater(pair.ends[0].sent.by_delta, 5000)

    def test_only_changed_blocks(self) -> None:
        """So it is where the stream has nothing but changed blocks, without known neighbours."""
        data = noise(1_000_000)
        source, target = MemoryCache(), MemoryCache()
        carry(data, source, target)
        pair = carry(data[300_000:300_100] + b"?" + data[310_000:370_000], source, target)
        self.assertLess(pair.crossed[0], 15_000)

    def test_shifted(self) -> None:
        """An insertion costs what it is, and the blocks around it."""
        data = noise(3_000_000)
        source, target = MemoryCache(), MemoryCache()
        carry(data, source, target)
        pair = carry(data[:1_000_000] + b"inserted" * 10 + data[1_000_000:], source, target)
        self.assertLess(pair.crossed[0], 5000)

    def test_repeated(self) -> None:
        """A block that repeats is sent once."""
        pair = carry(bytes(5_000_000), MemoryCache(), MemoryCache())
        self.assertLess(pair.crossed[0], 2000)

    def test_cold(self) -> None:
        """A far end that lost its cache gets everything, at once and without asking for it."""
        data = noise(3_000_000)
        source = MemoryCache()
        carry(data, source, MemoryCache())
        pair = carry(data, source, MemoryCache())
        self.assertEqual(pair.ends[0].sent.misses, 0)
        again = carry(data, source, pair.caches[1])
        self.assertLess(again.crossed[0], len(data) // 1000)

    def test_foreign(self) -> None:
        """Where the far end's cache is another one, naming its blocks soon ends; it heals."""
        data = noise(30_000_000)
        source, target = MemoryCache(), MemoryCache()
        carry(data, source, MemoryCache())
        carry(noise(100_000, 9), MemoryCache(), target)
        pair = carry(data, source, target)
        self.assertGreater(pair.ends[0].sent.misses, 0)
        self.assertLess(pair.ends[0].sent.resent, 12_000_000)
        self.assertLess(pair.crossed[0], len(data) * 1.01)
        again = carry(data, source, target)
        self.assertLess(again.crossed[0], len(data) // 500)

    def test_holes(self) -> None:
        """A few lost blocks are sent again, and no others."""
        data = noise(1_500_000)
        source, target = MemoryCache(), MemoryCache()
        carry(data, source, target)
        for name in list(target._places)[5:8]:
            target.drop(name)
        pair = carry(data, source, target)
        self.assertLess(pair.ends[0].sent.resent, 400_000)
        self.assertEqual(pair.ends[0].sent.misses, pair.ends[1].received.misses)
        again = carry(data, source, target)
        self.assertEqual(again.ends[0].sent.misses, 0)

    def test_damaged(self) -> None:
        """Blocks that a disk changed are found by their names, dropped, and sent again."""
        data = noise(500_000)
        source, target = MemoryCache(), MemoryCache()
        carry(data, source, target)
        damage(target)
        pair = carry(data, source, target)
        self.assertGreater(pair.ends[1].received.damaged, 0)
        again = carry(data, source, target)
        self.assertEqual(again.ends[0].sent.misses, 0)

    def test_damaged_base(self) -> None:
        """A base that the sender's disk changed is found by the far end; from then on the sender
        looks at each one, and drops those that are damaged."""
        data = noise(6_000_000)
        changed = bytearray(data)
        changed[::50_000] = bytes(len(changed[::50_000]))
        source, target = MemoryCache(), MemoryCache()
        carry(data, source, target)
        damage(source)
        pair = carry(bytes(changed), source, target)
        sent = pair.ends[0].sent
        self.assertGreater(sent.misses, 0)
        self.assertGreater(sent.damaged, 0)
        again = carry(bytes(changed), source, target)
        self.assertEqual((again.ends[0].sent.misses, again.ends[0].sent.damaged), (0, 0))


class HostileTests(SynchronousTestCase):
    """A far end that sends anything."""

    def test_changed_wire(self) -> None:
        """Bytes changed, cut out or doubled anywhere, with warm caches: refused, or exact."""
        data = text(150_000) + noise(100_000)
        changed = data[:50_000] + b"changed" + data[50_000:] + text(50_000, 8)
        refused = 0
        for seed in range(60 * TIMES):
            draw = random.Random(seed)
            caches = [MemoryCache(), MemoryCache()]
            carry(data, caches[0], caches[1])
            if draw.random() < 0.5:
                caches[1].drop(draw.choice(list(caches[1]._places)))
            pair = Pair(*caches)
            pair.put(0, pair.ends[0].send(changed))
            pair.put(0, pair.ends[0].finish())
            try:
                for _ in range(4):
                    for end in (0, 1):
                        wire = pair.wire[end]
                        if wire and draw.random() < 0.7:
                            at = draw.randrange(len(wire))
                            size = draw.choice([1, 1, 1, 4, 40])
                            what = draw.random()
                            if what < 0.6:
                                wire[at] ^= 1 << draw.randrange(8)
                            elif what < 0.8:
                                del wire[at : at + size]
                            else:
                                wire[at:at] = wire[at : at + size]
                        received = pair.ends[1 - end].receive(bytes(wire))
                        wire.clear()
                        for part in received.plain:
                            pair.out[1 - end] += part
                        pair.put(1 - end, received.wire)
            except (ProtocolViolation, DigestMismatch):
                refused += 1
            self.assertTrue(changed.startswith(bytes(pair.out[1])))
        self.assertGreater(refused, 20)


class DocumentedTests(SynchronousTestCase):
    """The example in ``docs/wan.rst``."""

    def test_example(self) -> None:
        """It is what an end takes, and what it answers."""
        page = (Path(__file__).resolve().parent.parent.parent / "docs/wan.rst").read_text()
        block = page.split("the other end acknowledges::", 1)[1].split("The cache on disk", 1)[0]
        octets = bytes.fromhex("".join(block.split()))
        sent, answer = octets[:-13], octets[-13:]
        end = Exchange(MemoryCache())
        received = end.receive(sent)
        self.assertEqual(b"".join(received.plain), b"hello, far end")
        self.assertEqual(b"".join(received.wire), answer)
        self.assertTrue(received.ended)
        self.assertTrue(sent.startswith(b"".join(end.start())))


class WindowTests(SynchronousTestCase):
    """What is under way is bounded."""

    def test_full(self) -> None:
        """Without acknowledgements a sender stops being ready, and goes on when they come."""
        end = Exchange(MemoryCache(), ContentCutter())
        parts = end.start()
        sent = 0
        while end.ready:
            parts += end.send(noise(100_000, sent))
            sent += 1
        self.assertLess(sent * 100_000, WINDOW_MIN + 3_000_000)
        other = Exchange(MemoryCache(), ContentCutter())
        received = other.receive(b"".join(parts))
        more = end.receive(b"".join([*other.start(), *received.wire]))
        self.assertTrue(end.ready)
        self.assertTrue(more.wire)

    def test_held(self) -> None:
        """An end that holds sends no acknowledgement before it is told what was taken."""
        data = noise(20_000_000)
        here, there = (Exchange(MemoryCache(), ContentCutter()) for _ in range(2))
        there.hold()
        here.receive(b"".join(there.start()))
        wire, at, out = here.start(), 0, b""
        while at < len(data):
            while here.ready and at < len(data):
                wire += here.send(data[at : at + 500_000])
                at += 500_000
            received = there.receive(b"".join(wire))
            out += b"".join(received.plain)
            self.assertEqual([], received.wire)
            self.assertEqual([], there.taken(len(out) - WINDOW_DEFAULT))
            wire = here.receive(b"".join(there.taken(len(out)))).wire
        received = there.receive(b"".join([*wire, *here.finish()]))
        out += b"".join(received.plain)
        self.assertEqual((True, data), (received.ended, out))
        self.assertFalse(here.settled)
        here.receive(b"".join(there.taken(len(out))))
        self.assertTrue(here.settled)

    def test_sizes(self) -> None:
        """A window that no far end could use is refused."""
        for window in (WINDOW_MIN - 1, WINDOW_MAX + 1):
            self.assertRaises(ValueError, Exchange, MemoryCache(), window=window)

    def test_frugal(self) -> None:
        """One end of many in a process allows less, and so may be given less."""
        for frugal, window in ((False, WINDOW_DEFAULT), (True, WINDOW_MIN)):
            hello = b"".join(Exchange(MemoryCache(), frugal=frugal).start())
            self.assertEqual(hello[-4:], window.to_bytes(4, "big"))

    def test_many_misses_at_once(self) -> None:
        """Batches behind a missing one are looked at before it comes."""
        data = noise(8_500_000)
        source = MemoryCache()
        carry(data, source, MemoryCache())
        sender = Exchange(source, ContentCutter())
        target = MemoryCache()
        carry(b"y" * 1000, MemoryCache(), target)
        receiver = Exchange(target, ContentCutter())
        sender.receive(b"".join(receiver.start()))
        receiver.receive(b"".join(sender.start()))
        parts = sender.send(data)
        received = receiver.receive(b"".join(parts))
        self.assertEqual(received.plain, [])
        asked = list(MessageReader().receive(b"".join(received.wire)))
        self.assertGreater(len(asked), 1)
        self.assertEqual({type(one) for one in asked}, {Miss})


class EndTests(SynchronousTestCase):
    """How a connection ends."""

    def test_truncated(self) -> None:
        """A connection that ends before both streams did was cut."""
        pair = Pair()
        pair.send([b"a" * 1000])
        pair.put(0, pair.ends[0].finish())
        pair.settle()
        self.assertRaises(Truncated, pair.ends[0].eof)
        self.assertRaises(Truncated, pair.ends[1].eof)
        pair.finish()

    def test_empty(self) -> None:
        """Streams of no bytes end cleanly."""
        pair = Pair()
        pair.finish()
        self.assertEqual(pair.out, [b"", b""])

    def test_flush(self) -> None:
        """What was flushed is at the far end, though more may come."""
        pair = Pair()
        pair.send([b"question"], flush=True)
        self.assertEqual(bytes(pair.out[1]), b"question")
        pair.send([b"answer"], end=1, flush=True)
        self.assertEqual(bytes(pair.out[0]), b"answer")
        pair.finish()

    def test_greeting(self) -> None:
        """The first message is a greeting, and no later one."""
        end = b"".join(End(0, 0).encode())
        greeting = b"".join(Exchange(MemoryCache()).start())
        self.assertRaises(ProtocolViolation, Exchange(MemoryCache()).receive, end)
        self.assertRaises(ProtocolViolation, Exchange(MemoryCache()).receive, 2 * greeting)
        self.assertTrue(Exchange(MemoryCache()).receive(greeting + end).ended)

    def test_after_an_error(self) -> None:
        """After an error nothing is taken any more."""
        end = Exchange(MemoryCache())
        self.assertRaises(ProtocolViolation, end.receive, bytes(5))
        self.assertRaises(ProtocolViolation, end.receive, b"")

    def test_level(self) -> None:
        """Only levels that zstd has are taken."""
        end = Exchange(MemoryCache())
        for level in (0, 20):
            with self.assertRaises(ValueError):
                end.level = level
        end.level = 9
        self.assertEqual(end.level, 9)

    def test_changed_on_the_way(self) -> None:
        """A byte that changes between the ends is never passed on as if it had not.

        The connection below notices it first; this is what is left if that fails.
        """
        data = text(40_000) + noise(3000)
        sender, clean = Exchange(MemoryCache(), ContentCutter()), Exchange(MemoryCache())
        wire = b"".join([*sender.start(), *sender.send(data), *sender.finish()])
        sender.receive(b"".join(clean.start()))
        passed = 0
        for at in range(0, len(wire), 97):
            changed = bytearray(wire)
            changed[at] ^= 0x10
            receiver = Exchange(MemoryCache())
            try:
                received = receiver.receive(bytes(changed))
            except (ProtocolViolation, DigestMismatch):
                continue
            plain = b"".join(received.plain)
            self.assertIn(plain, (b"", data))
            passed += 1
        self.assertLess(passed, 20)

    def test_close_lets_go(self) -> None:
        """Once closed, an exchange that failed holds no window and no compressor: the traceback of
        its error holds the exchange itself until garbage is collected."""
        gc.disable()
        self.addCleanup(gc.enable)
        gone: list[int] = []
        for _ in range(3):
            end = Exchange(MemoryCache(), ContentCutter())
            data = Watched(noise(600_000))
            data.gone = gone
            end.start()
            end.send(data)
            end.flush()
            del data
            self.assertRaises(ProtocolViolation, end.receive, b"\xff" * 16)
            end.close()
            self.assertIsNone(end._encoder._stream._compressor)
            self.assertIsNone(end._decoder._stream._decompressor)
            del end
        self.assertEqual([600_000] * 3, gone)


class Watched(bytes):
    """Bytes that say when nobody has them any more."""

    gone: list[int]

    def __del__(self) -> None:
        self.gone.append(len(self))
