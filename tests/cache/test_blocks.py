"""The block cache on disk."""

# mypy: allow-untyped-calls
# (trial's methods have no types)

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cache.blocks import BlockCache
from cloudconnect.cache.keys import NodeKey
from cloudconnect.dedup.interfaces import IBlockCache
from cloudconnect.errors import UsageError
from tests.dedup.contract import CacheContract, block, fill
from tests.dedup.pairs import carry, noise

ROOT = Path(__file__).resolve().parent.parent.parent
NODE = NodeKey(bytes(range(32)))

#: Appends blocks and says so, until it is killed.
WRITER = """
import sys
from pathlib import Path
from cloudconnect.cache.blocks import BlockCache
from cloudconnect.cache.keys import NodeKey
from tests.dedup.contract import block
cache = BlockCache(Path(sys.argv[1]), "acme", NodeKey(bytes(range(32))), 4_000_000, 100_000)
appender = cache.appender()
for seed in range(100_000):
    appender.append(*block(seed), (seed + 1,))
    if seed == 1200:
        print("there", flush=True)
"""


class DiskCase(SynchronousTestCase):
    """Makes caches below one directory, and closes them."""

    def setUp(self) -> None:
        self.top = Path(self.mktemp()).resolve()
        self.top.mkdir()
        self.caches: list[BlockCache] = []

    def open(
        self,
        name: str = "cache",
        limit: int = 1_000_000,
        tenant: str = "acme",
        node: NodeKey = NODE,
        segment: int = 10_000,
    ) -> BlockCache:
        """A cache in a directory of this name."""
        cache = BlockCache(self.top / name, tenant, node, limit, segment)
        self.addCleanup(cache.close)
        return cache

    def files(self, name: str = "cache") -> list[Path]:
        """Its segments, in order."""
        return sorted((self.top / name / "segments").iterdir())


class BlockCacheTests(CacheContract, DiskCase):
    """What every cache does."""

    def make(self, segments: int) -> IBlockCache:
        self.made = getattr(self, "made", 0) + 1
        return self.open(f"cache-{self.made}", segments * 10_000)

    def evict(self, cache: IBlockCache) -> None:
        assert isinstance(cache, BlockCache)
        cache.evict()


class KeepingTests(DiskCase):
    """What is there when it is opened again."""

    def all_there(self, cache: BlockCache, seeds: range) -> None:
        """Assert that these blocks are found and right."""
        for seed in seeds:
            place = cache.find(block(seed)[0])
            assert place is not None, seed
            self.assertEqual(cache.read(place), block(seed))
            self.assertEqual(cache.similar((seed + 1,)), [place])

    def test_opened_again(self) -> None:
        """Blocks, features, neighbours and segments are as they were."""
        cache = self.open()
        places = fill(cache, range(30), features=True)
        size = cache.size
        cache.close()
        again = self.open()
        self.all_there(again, range(30))
        self.assertEqual(again.size, size)
        self.assertEqual(again.beside(places[0], 29), places[29])
        self.assertEqual(again.beside(places[29], -29), places[0])
        self.assertGreater(again.horizon(), places[29].segment)

    def test_killed(self) -> None:
        """A process that is killed while it appends loses what was not whole, and nothing else."""
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(self.top / "cache")],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert writer.stdout is not None
        self.assertEqual(writer.stdout.readline(), b"there\n")
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        cache = self.open(limit=4_000_000, segment=100_000)
        self.all_there(cache, range(1200))
        fill(cache, range(200_000, 200_005))
        cache.close()
        self.all_there(self.open(limit=4_000_000, segment=100_000), range(1200))

    def test_torn(self) -> None:
        """A last entry that was not written whole is cut off."""
        cache = self.open(segment=50_000)
        fill(cache, range(5))
        cache.close()
        file = self.files()[0]
        whole = file.stat().st_size
        os.truncate(file, whole - 7)
        again = self.open(segment=50_000)
        self.assertIsNone(again.find(block(4)[0]) and again.read(again.find(block(4)[0])))
        for seed in range(4):
            self.assertEqual(again.read(again.find(block(seed)[0])), block(seed))
        self.assertLess(file.stat().st_size, whole - 1000)

    def test_index_lost(self) -> None:
        """Without its index, or with one that is not SQLite, all is read from the segments."""
        cache = self.open()
        fill(cache, range(30), features=True)
        cache.close()
        index = self.top / "cache" / "index.sqlite"
        for content in (None, b"junk" * 1000):
            for name in ("", "-wal", "-shm"):
                index.with_name(index.name + name).unlink(missing_ok=True)
            if content is not None:
                index.write_bytes(content)
            again = self.open()
            self.all_there(again, range(30))
            self.assertIsNotNone(again.beside(again.find(block(0)[0]), 29))
            again.close()

    def test_index_fails(self) -> None:
        """An index that fails in use makes the cache empty, and the next one to open it whole."""
        cache = self.open()
        fill(cache, range(10), features=True)

        def broken(name: bytes) -> None:
            raise sqlite3.DatabaseError("database disk image is malformed")

        self.patch(cache._index, "find", broken)
        self.assertIsNone(cache.find(block(3)[0]))
        self.assertIn("malformed", cache.trouble or "")
        self.assertTrue(cache.empty())
        self.assertEqual(cache.similar((1,)), [])
        appender = cache.appender()
        self.assertIsNone(appender.append(*block(50)))
        appender.close()
        cache.close()
        self.all_there(self.open(), range(10))

    def test_segment_lost(self) -> None:
        """A segment that disappeared takes its blocks with it."""
        cache = self.open()
        fill(cache, range(30))
        cache.close()
        self.files()[1].unlink()
        again = self.open()
        there = [seed for seed in range(30) if again.find(block(seed)[0]) is not None]
        self.assertLess(len(there), 30)
        self.assertGreater(len(there), 10)
        for seed in there:
            self.assertEqual(again.read(again.find(block(seed)[0])), block(seed))

    def test_foreign(self) -> None:
        """Another host's or another tenant's cache is emptied, and used."""
        for tenant, node in (("other", NODE), ("acme", NodeKey(bytes(32)))):
            cache = self.open()
            fill(cache, range(30))
            cache.close()
            foreign = self.open(tenant=tenant, node=node)
            self.assertTrue(foreign.empty())
            self.assertEqual(self.files(), [])
            fill(foreign, range(40, 45))
            self.all_there_after(foreign, 40)
            foreign.close()
            shutil.rmtree(self.top / "cache")

    def all_there_after(self, cache: BlockCache, seed: int) -> None:
        """Assert that the block ``seed`` is there."""
        self.assertEqual(cache.read(cache.find(block(seed)[0])), block(seed))

    def test_mixed_up(self) -> None:
        """Segments of another cache, swapped ones and other files do no harm."""
        for name in ("cache", "other"):
            cache = self.open(name)
            fill(cache, range(30) if name == "cache" else range(50, 80))
            cache.close()
        mine, theirs = self.files(), self.files("other")
        shutil.copy(theirs[0], mine[0])
        swapped = mine[1].read_bytes()
        shutil.copy(mine[2], mine[1])
        mine[2].write_bytes(swapped)
        (self.top / "cache" / "segments" / "README").write_text("not a segment")
        (self.top / "cache" / "segments" / f"{1 << 40:016x}").write_bytes(b"nor this")
        again = self.open()
        for seed in range(100):
            place = again.find(block(seed)[0])
            if place is not None:
                self.assertIn(again.read(place), (None, block(seed)))
        fill(again, range(200, 210))
        self.all_there_after(again, 200)

    def test_directory_lost(self) -> None:
        """A directory that is removed in use costs the blocks; nothing raises."""
        cache = self.open()
        places = fill(cache, range(30))
        shutil.rmtree(self.top / "cache")
        appender = cache.appender()
        appender.append(*block(99))
        appender.close()
        for place in places:
            self.assertIn(cache.read(place), (None, block(places.index(place))))
        while cache.evict():
            pass
        cache.close()


class DamageTests(DiskCase):
    """Bytes that a disk changed."""

    def test_every_byte(self) -> None:
        """Whatever byte of a segment changes, a block comes back as it was or not at all."""
        cache = self.open(segment=50_000)
        places = fill(cache, range(3))
        cache.close()
        file = self.files()[0]
        whole = file.read_bytes()
        for at in range(0, len(whole), 41):
            changed = bytearray(whole)
            changed[at] ^= 1
            file.write_bytes(changed)
            again = self.open(segment=50_000)
            found = [again.read(place) for place in places]
            wrong = [f for f, seed in zip(found, range(3), strict=True) if f != block(seed)]
            self.assertEqual(wrong, [None] * len(wrong))
            self.assertTrue(wrong)
            again.close()
            shutil.rmtree(self.top / "cache" / "segments")
            (self.top / "cache" / "segments").mkdir()
            (self.top / "cache" / "index.sqlite").unlink()
            file.write_bytes(whole)

    def test_dropped(self) -> None:
        """A damaged block is counted and not found again, and its neighbours are."""
        cache = self.open(segment=50_000)
        places = fill(cache, range(3))
        file = self.files()[0]
        with file.open("r+b") as opened:
            opened.seek(places[1].offset + 500)
            octet = opened.read(1)
            opened.seek(-1, os.SEEK_CUR)
            opened.write(bytes([octet[0] ^ 1]))
        self.assertIsNone(cache.read(places[1]))
        self.assertEqual(cache.damaged, 1)
        self.assertIsNone(cache.find(block(1)[0]))
        self.assertEqual(cache.beside(places[0], 2), places[2])

    def test_healed(self) -> None:
        """A damaged cache on either side costs bytes, and heals."""
        data = noise(500_000, 5)
        source = self.open("source", 4_000_000, segment=200_000)
        target = self.open("target", 4_000_000, segment=200_000)
        carry(data, source, target)
        for name in ("source", "target"):
            for file in self.files(name):
                octets = bytearray(file.read_bytes())
                octets[3000::7000] = bytes(len(octets[3000::7000]))
                file.write_bytes(octets)
        pair = carry(data, source, target)
        self.assertGreater(pair.ends[1].received.misses, 0)
        again = carry(data, source, target)
        self.assertEqual(again.ends[1].received.misses, 0)
        self.assertLess(again.crossed[0], 5000)


class BoundTests(DiskCase):
    """Space, locks and secrets."""

    def test_limit(self) -> None:
        """Its files never take more than the limit, with several appenders."""
        cache = self.open(limit=100_000)
        appenders = [cache.appender() for _ in range(4)]
        for seed in range(400):
            appenders[seed % 4].append(*block(seed))
            self.assertLessEqual(sum(file.stat().st_size for file in self.files()), 100_000)
        for appender in appenders:
            appender.close()
        self.assertLessEqual(cache.size, 100_000)

    def test_more_appenders_than_room(self) -> None:
        """An appender for which there is no room takes nothing, and nothing breaks."""
        cache = self.open(limit=40_000)
        appenders = [cache.appender() for _ in range(6)]
        places = [appender.append(*block(seed)) for seed, appender in enumerate(appenders)]
        self.assertEqual([place is None for place in places], [False] * 4 + [True] * 2)
        for appender in appenders:
            appender.close()

    def test_smaller_limit(self) -> None:
        """Opened with a smaller limit it forgets until it fits."""
        cache = self.open(limit=300_000)
        for seed in range(250):
            cache_appender = cache.appender()
            cache_appender.append(*block(seed))
            cache_appender.close()
        cache.close()
        again = self.open(limit=50_000)
        self.assertLessEqual(again.size, 50_000)
        self.assertIsNotNone(again.find(block(249)[0]))

    def test_least_recently_used(self) -> None:
        """What is in use stays, however old it is."""
        cache = self.open(limit=60_000)
        old = cache.appender()
        old.append(*block(0))
        old.close()
        for seed in range(1, 200):
            appender = cache.appender()
            appender.append(*block(seed))
            appender.close()
            self.assertIsNotNone(cache.find(block(0)[0]))
        self.assertIsNone(cache.find(block(1)[0]))

    def test_reader_outlives_eviction(self) -> None:
        """Who has a segment open goes on reading it."""
        cache = self.open()
        appender = cache.appender()
        place = appender.append(*block(1))
        appender.close()
        assert place is not None
        file = cache._file(place.segment)
        assert file is not None
        cache.evict()
        self.assertIsNone(cache.read(place))
        self.assertEqual(file.read(place), block(1))

    def test_index_does_not_grow(self) -> None:
        """Blocks and features of evicted segments leave the index."""
        cache = self.open(limit=60_000)
        for start in range(0, 600, 30):
            appender = cache.appender()
            for seed in range(start, start + 30):
                appender.append(*block(seed), (seed + 1,))
            appender.close()
        cache._index.write()
        database = cache._index._database
        for table in ("blocks", "features"):
            count = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            self.assertLess(count, 70)

    def test_no_index(self) -> None:
        """Where no index can be made the directory cannot be used, and is let go of."""
        index = self.top / "cache" / "index.sqlite"
        index.mkdir(parents=True)
        self.assertRaises(OSError, self.open)
        index.rmdir()
        self.assertTrue(self.open().empty())

    def test_lock(self) -> None:
        """Two caches cannot have one directory; a limit that is too small is refused."""
        self.open()
        self.assertRaises(UsageError, self.open)
        self.assertRaises(UsageError, self.open, "small", 39_999)

    def test_nothing_readable(self) -> None:
        """No content, name, feature or tenant stands on the disk in clear, and no mode is wide."""
        cache = self.open()
        data = b"a canary that nobody may see" * 100
        name, _ = block(1)
        appender = cache.appender()
        appender.append(name, data, (0x1234567,))
        appender.close()
        cache.close()
        self.assertEqual((self.top / "cache").stat().st_mode & 0o777, 0o700)
        for path in (self.top / "cache").rglob("*"):
            if path.is_dir():
                continue
            octets = path.read_bytes()
            for secret in (b"canary", name, name[:16], b"acme", (0x1234567).to_bytes(4, "big")):
                self.assertNotIn(secret, octets, path.name)
            if path.parent.name == "segments" or path.name in ("key", "lock"):
                self.assertEqual(path.stat().st_mode & 0o77, 0, path.name)
