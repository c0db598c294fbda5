"""Tests of :mod:`cloudconnect.accelerator.caches`."""

# mypy: allow-untyped-calls
# (trial's methods have no types)

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cloudconnect.accelerator import caches as caches_module
from cloudconnect.accelerator.caches import CacheLease, TenantCaches
from cloudconnect.accelerator.room import DISK_MIN, cache_folder
from cloudconnect.cache.blocks import BlockCache
from cloudconnect.cache.keys import NodeKey
from cloudconnect.dedup.memory import MemoryCache
from tests.accelerator.parts import Pool, Turns
from tests.dedup.pairs import carry, noise

NODE = NodeKey(bytes(range(32)))


class CacheTests(SynchronousTestCase):
    """Caches, opened and closed by a pool without threads."""

    def setUp(self) -> None:
        self.clock, self.pool = Turns(), Pool()
        self.top = Path(self.mktemp()).resolve()

    def make(self, **more: Any) -> TenantCaches:
        """Caches of this host."""
        pool: Any = self.pool
        made = TenantCaches(self.clock, pool, self.top, NODE, **{"limit": DISK_MIN, **more})

        def close() -> None:
            made.close()
            self.clock.settle()

        self.addCleanup(close)
        return made

    def lease(self, caches: TenantCaches, tenant: str = "acme") -> CacheLease:
        """A lease, which is there once everything due is done."""
        leasing = caches.lease(tenant)
        self.clock.settle()
        lease: CacheLease = self.successResultOf(leasing)
        return lease

    def test_kept(self) -> None:
        """What one session brought another one finds, also after the cache was closed."""
        data = noise(1_000_000)
        for keep in (0.0, 60.0):
            caches = self.make(keep=keep)
            lease = self.lease(caches)
            self.assertIsNone(lease.trouble)
            carry(data, lease.cache, MemoryCache())
            lease.release()
            self.clock.settle(100)
            self.assertEqual(0, caches.open)
            other = MemoryCache()
            lease = self.lease(caches)
            carry(data, lease.cache, other)
            pair = carry(data, lease.cache, other)
            self.assertLess(pair.crossed[0], 10_000)
            lease.release()
            caches.close()
            self.clock.settle()

    def test_not_closed(self) -> None:
        """One that cannot be closed holds up neither the others nor whoever closes all, and its
        room is free."""
        caches = self.make(total=2 * DISK_MIN)
        for tenant in ("acme", "other"):
            self.lease(caches, tenant).release()

        class Broken(Exception):
            pass

        def close(cache: BlockCache, closes: Any = BlockCache.close) -> None:
            closes(cache)
            raise Broken

        self.patch(BlockCache, "close", close)
        closing = caches.close()
        self.clock.settle()
        self.successResultOf(closing)
        self.assertEqual(2, len(self.flushLoggedErrors(Broken)))
        self.assertEqual((0, {}), (caches.open, caches._room._granted))

    def test_shared(self) -> None:
        """Sessions of one tenant share a cache; those of different tenants never do."""
        caches = self.make()
        one, two, other = (self.lease(caches, tenant) for tenant in ("acme", "acme", "other"))
        self.assertIs(one.cache, two.cache)
        self.assertIsNot(one.cache, other.cache)
        self.assertEqual(2, caches.open)
        one.release()
        one.release()
        self.clock.settle(1000)
        self.assertEqual(2, caches.open)
        self.assertIsNone(two.trouble)
        for lease in (two, other):
            lease.release()
        self.clock.settle(1000)
        self.assertEqual(0, caches.open)

    def test_at_once(self) -> None:
        """Two that ask while the cache is being opened get the same; who asks while it is being
        closed gets it opened again."""
        caches = self.make(keep=0)
        self.pool.stopped = True
        asking = [caches.lease("acme") for _ in range(2)]
        self.clock.settle()
        self.assertEqual(1, len(self.pool.waiting))
        self.pool.go_on()
        self.clock.settle()
        one, two = map(self.successResultOf, asking)
        self.assertIs(one.cache, two.cache)
        self.pool.stopped = True
        one.release()
        two.release()
        again = caches.lease("acme")
        self.clock.settle()
        self.assertNoResult(again)
        self.pool.go_on()
        self.clock.settle()
        lease = self.successResultOf(again)
        self.assertIsInstance(lease.cache, BlockCache)
        self.assertIsNone(lease.trouble)
        lease.release()

    def test_kept_open(self) -> None:
        """A cache stays open for a while, and a new session in that while goes on with it."""
        caches = self.make(keep=60)
        lease = self.lease(caches)
        cache = lease.cache
        lease.release()
        self.clock.settle(59)
        lease = self.lease(caches)
        self.assertIs(cache, lease.cache)
        self.clock.settle(1000)
        self.assertEqual(1, caches.open)
        lease.release()
        self.clock.settle(61)
        self.assertEqual(0, caches.open)

    def test_taken(self) -> None:
        """What another process has is one in memory here, with the reason, until it is free."""
        other, caches = self.make(keep=0), self.make()
        first = self.lease(other)
        lease = self.lease(caches)
        self.assertIsInstance(lease.cache, MemoryCache)
        self.assertIn("another process", str(lease.trouble))
        carry(b"x" * 1000, lease.cache, MemoryCache())
        first.release()
        lease.release()
        self.clock.settle()
        lease = self.lease(caches)
        self.assertEqual((BlockCache, None), (type(lease.cache), lease.trouble))
        lease.release()

    def test_not_to_be_opened(self) -> None:
        """A folder that cannot be used, and a bug, cost the cache and not the session."""
        self.top.write_bytes(b"not a folder")
        lease = self.lease(self.make())
        self.assertIsInstance(lease.cache, MemoryCache)
        self.assertIsNotNone(lease.trouble)
        lease.release()
        self.top.unlink()

        def broken(*arguments: Any) -> None:
            raise ZeroDivisionError

        self.patch(caches_module, "BlockCache", broken)
        lease = self.lease(self.make())
        self.assertIsInstance(lease.cache, MemoryCache)
        self.assertEqual("ZeroDivisionError", lease.trouble)
        lease.release()
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_trouble_later(self) -> None:
        """A cache that fails while it is in use says so."""
        lease = self.lease(self.make())
        assert isinstance(lease.cache, BlockCache)
        lease.cache._fail(sqlite3.OperationalError("disk I/O error"))
        self.assertIn("disk I/O error", str(lease.trouble))
        lease.release()

    def test_many(self) -> None:
        """No more than so many are open: the one in nobody's use for longest is closed."""
        caches = self.make(open_max=2)
        one, two = self.lease(caches, "one"), self.lease(caches, "two")
        three = self.lease(caches, "three")
        self.assertIsInstance(three.cache, MemoryCache)
        self.assertIn("in use", str(three.trouble))
        two.release()
        three.release()
        three = self.lease(caches, "three")
        self.assertIsInstance(three.cache, BlockCache)
        self.assertEqual(2, caches.open)
        self.assertIsNone(one.trouble)
        one.release()
        three.release()

    def test_closed(self) -> None:
        """After the end there are only caches in memory, and no file is open."""
        caches = self.make()
        lease = self.lease(caches)
        caches.close()
        late = self.lease(caches, "late")
        self.assertIsInstance(late.cache, MemoryCache)
        late.release()
        lease.release()
        self.clock.settle()
        self.assertEqual((0, []), (caches.open, self.clock.getDelayedCalls()))

    def test_folders(self) -> None:
        """A tenant's name is not what its folder is called, whatever it has in it."""
        caches = self.make()
        for tenant in ("acme", "../../etc", "a/b", "x" * 250, "ä"):
            lease = self.lease(caches, tenant)
            self.assertIsNone(lease.trouble)
            lease.release()
            self.assertTrue((cache_folder(self.top, tenant) / "key").is_file())
        self.assertEqual(0o700, self.top.stat().st_mode & 0o777)
        self.assertEqual(5, len(list(self.top.iterdir())))


class ThreadTests(TestCase):
    """With threads."""

    timeout = 60

    def test_threads(self) -> Deferred[None]:
        """Leases, in turn and at once, over a real pool."""
        return Deferred.fromCoroutine(self._threads())

    async def _threads(self) -> None:
        pool = ThreadPool(0, 4, "caches")
        pool.start()
        self.addCleanup(pool.stop)
        caches = TenantCaches(reactor, pool, Path(self.mktemp()).resolve(), NODE, DISK_MIN, keep=0)
        for _ in range(5):
            asking = [caches.lease(tenant) for tenant in ("one", "two", "one")]
            leases = [await one for one in asking]
            self.assertIs(leases[0].cache, leases[2].cache)
            self.assertEqual([None] * 3, [lease.trouble for lease in leases])
            for lease in leases:
                lease.release()
        await caches.close()
        self.assertEqual(0, caches.open)
