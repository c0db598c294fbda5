"""The cache in memory."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.dedup.interfaces import IBlockCache
from cloudconnect.dedup.memory import MemoryCache
from tests.dedup.contract import CacheContract, block, fill


class MemoryCacheTests(CacheContract, SynchronousTestCase):
    """What every cache does."""

    def make(self, segments: int) -> IBlockCache:
        return MemoryCache(segments * 10_000, 10_000)

    def evict(self, cache: IBlockCache) -> None:
        assert isinstance(cache, MemoryCache)
        cache.evict()

    def test_nothing_to_evict(self) -> None:
        """An empty cache has nothing to forget."""
        self.assertFalse(MemoryCache().evict())

    def test_features_go(self) -> None:
        """Features of blocks that are gone take no memory."""
        cache = MemoryCache(40_000, 10_000)
        fill(cache, range(300), features=True)
        self.assertLess(len(cache._features), 60)
        cache.drop(block(299)[0])
        self.assertEqual(cache.similar((300,)), [])
