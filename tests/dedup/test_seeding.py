"""Filling a cache before there is a connection."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.dedup.cutting import FrameCutter
from cloudconnect.dedup.memory import MemoryCache
from cloudconnect.dedup.seeding import Seeder
from tests.dedup.pairs import carry, noise
from tests.dedup.test_cutting import chunk_frames


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
