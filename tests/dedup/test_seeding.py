"""Filling a cache before there is a connection."""

from __future__ import annotations

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from cloudconnect.dedup.cutting import FrameCutter
from cloudconnect.dedup.interfaces import IAppender, Place
from cloudconnect.dedup.limits import BLOCK_MAX
from cloudconnect.dedup.memory import MemoryAppender, MemoryCache
from cloudconnect.dedup.seeding import ChunkSeeder, Order, Seeder
from cloudconnect.keys import Subkey
from cloudconnect.wire.frames import FrameWriter, StoredBlob
from tests.dedup.pairs import carry, noise
from tests.dedup.test_cutting import blocks, chunk_frames, cuts


class SeedTests(SynchronousTestCase):
    """What a seed is worth."""

    def seeded(self, data: bytes, cutter: FrameCutter | None = None) -> MemoryCache:
        """A cache that has seen ``data``."""
        cache = MemoryCache()
        seeder = Seeder(cache, cutter)
        for at in range(0, len(data), 70_000):
            seeder.feed(data[at : at + 70_000])
        seeder.close()
        self.assertEqual(seeder.plain, len(data))
        return cache

    def test_content(self) -> None:
        """Content that was seeded at both ends is not sent."""
        data = noise(1_000_000)
        pair = carry(data, self.seeded(data), self.seeded(data))
        self.assertLess(pair.crossed[0], 2000)

    def test_frames(self) -> None:
        """Nor are chunks that were seeded as frames, under other keys."""
        contents = [noise(50_000, seed) for seed in range(20)]
        one, other = (self.seeded(chunk_frames(contents, key), FrameCutter()) for key in (1, 2))
        pair = carry(chunk_frames(contents, 3), one, other, cutter=FrameCutter)
        self.assertLess(pair.crossed[0], 3000)

    def test_content_for_frames(self) -> None:
        """Content that was seeded helps a stream of frames as a likeness."""
        data = noise(1_000_000)
        frames = chunk_frames([data[at : at + 50_000] for at in range(0, 1_000_000, 50_000)])
        pair = carry(frames, self.seeded(data), self.seeded(data), cutter=FrameCutter)
        self.assertLess(pair.crossed[0], len(data) // 30)

    def test_twice(self) -> None:
        """What is there is not added again."""
        data = noise(500_000)
        cache = self.seeded(data)
        seeder = Seeder(cache)
        seeder.feed(data)
        seeder.close()
        self.assertEqual(seeder.added, 0)


@implementer(IAppender)
class FullAppender(MemoryAppender):
    """Takes three blocks."""

    left = 3

    def append(self, name: bytes, data: bytes | memoryview, features: object = ()) -> Place | None:
        if not self.left:
            return None
        self.left -= 1
        return super().append(name, data)


class FullCache(MemoryCache):
    """Has no room for more than three blocks of one stream."""

    def appender(self) -> FullAppender:
        return FullAppender(self)


class ChunkSeedTests(SynchronousTestCase):
    """Movers' chunks, one by one."""

    def contents(self, count: int = 20) -> list[tuple[bytes, bytes]]:
        """Chunks of many sizes, with ids."""
        return [(b"%032d" % number, noise(1 + 9000 * number, number)) for number in range(count)]

    def frames(self, chunks: list[tuple[bytes, bytes]]) -> bytes:
        """The stream in which these chunks come."""
        writer = FrameWriter(Subkey(b"k" * 32), 0)
        parts: list[bytes | memoryview] = []
        for name, data in chunks:
            blob = StoredBlob(name, len(data), 0, blake3(data).digest(), data)
            parts += writer.encode_chunk(7, blob)
        return b"".join(parts)

    def test_blocks_of_a_stream(self) -> None:
        """Its blocks are those of a stream of frames, whatever the sizes, in the same order."""
        chunks = [*self.contents(), (b"x" * 32, noise(BLOCK_MAX + 10_000)), (b"y" * 32, b"tiny")]
        cache = MemoryCache()
        seeder = ChunkSeeder(cache)
        for name, data in chunks:
            seeder.add(Order.FILES, name, data)
        seeder.close()
        expected = blocks(cuts(FrameCutter(), self.frames(chunks)))
        place = cache.find(blake3(expected[0]).digest())
        found = []
        while place is not None:
            block = cache.read(place)
            assert block is not None
            found.append(block[1])
            place = cache.beside(place, 1)
        self.assertEqual(found, expected)
        self.assertEqual(seeder.chunks, len(chunks))
        self.assertEqual(seeder.plain, sum(len(data) for _, data in chunks))
        self.assertEqual(seeder.added, sum(map(len, expected)))
        self.assertFalse(seeder.full)

    def test_orders(self) -> None:
        """What comes in between of another order does not stand between."""
        cache = MemoryCache()
        seeder = ChunkSeeder(cache)
        chunks = self.contents()[1:]
        orders = [Order.FILES, Order.SMALL_FILES, Order.MANIFEST]
        for number, (name, data) in enumerate(chunks):
            seeder.add(orders[number % 3], name, data)
        seeder.close()
        for start in range(3):
            names = [
                blake3(block).digest()
                for block in blocks(cuts(FrameCutter(), self.frames(chunks[start::3])))
            ]
            place = cache.find(names[0])
            for name in names[1:]:
                assert place is not None
                place = cache.beside(place, 1)
                self.assertEqual(place, cache.find(name))

    def test_limit(self) -> None:
        """With the chunk that reaches the limit it ends."""
        cache = MemoryCache()
        seeder = ChunkSeeder(cache, 100_000)
        for name, data in self.contents():
            seeder.add(Order.FILES, name, data)
        seeder.close()
        self.assertTrue(seeder.full)
        self.assertTrue(100_000 <= seeder.added < 200_000)
        self.assertIsNotNone(cache.find(self.name(2)))
        self.assertIsNone(cache.find(self.name(10)))

    def test_full_cache(self) -> None:
        """So it does when the cache takes no more; what was refused is not counted."""
        cache = FullCache()
        seeder = ChunkSeeder(cache)
        for name, data in self.contents():
            seeder.add(Order.FILES, name, data)
        seeder.close()
        self.assertTrue(seeder.full)
        self.assertIsNotNone(cache.find(self.name(3)))
        self.assertIsNone(cache.find(self.name(4)))
        self.assertEqual(seeder.added, 9000 * (1 + 2 + 3) + 3 * (1 + 69))

    def name(self, number: int) -> bytes:
        """The name of the block of a chunk."""
        (block,) = blocks(cuts(FrameCutter(), self.frames([self.contents()[number]])))
        return blake3(block).digest()
