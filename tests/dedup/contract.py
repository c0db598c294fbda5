"""What every cache of blocks does, whatever it is made of."""

# mypy: allow-untyped-calls
# (trial's methods have no types)

from __future__ import annotations

import threading

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cloudconnect.dedup.interfaces import SIMILAR_MAX, IAppender, IBlockCache, Place
from cloudconnect.dedup.limits import BLOCK_MAX
from tests.dedup.pairs import carry, noise


def block(seed: int, size: int = 1000) -> tuple[bytes, bytes]:
    """Name and content of a block."""
    data = noise(size, seed)
    return blake3(data).digest(), data


def fill(cache: IBlockCache, seeds: range, features: bool = False) -> list[Place]:
    """Append blocks with these seeds, in one stream; each has its seed and one as a feature."""
    appender = cache.appender()
    places = []
    for seed in seeds:
        name, data = block(seed)
        place = appender.append(name, data, (seed + 1,) if features else ())
        assert place is not None
        places.append(place)
    appender.close()
    return places


class CacheContract:
    """Mixed into a test case that says how its cache is made."""

    def make(self: SynchronousTestCase, segments: int) -> IBlockCache:  # type: ignore[misc]
        """A cache with room for so many segments of about 10,000 bytes."""
        raise NotImplementedError

    def evict(self: SynchronousTestCase, cache: IBlockCache) -> None:  # type: ignore[misc]
        """Make it forget a segment."""
        raise NotImplementedError

    def test_interfaces(self: SynchronousTestCase) -> None:  # type: ignore[misc]
        """It and its appenders provide what they say."""
        cache = self.make(8)
        verifyObject(IBlockCache, cache)
        verifyObject(IAppender, cache.appender())

    def test_there_and_back(self: SynchronousTestCase) -> None:  # type: ignore[misc]
        """A block is found and read; another one is not found."""
        cache = self.make(8)
        self.assertTrue(cache.empty())
        places = fill(cache, range(5))
        self.assertFalse(cache.empty())
        for seed in range(5):
            name, data = block(seed)
            self.assertEqual(cache.find(name), places[seed])
            self.assertEqual(cache.read(places[seed]), (name, data))
        self.assertIsNone(cache.find(block(9)[0]))

    def test_sizes(self: SynchronousTestCase) -> None:  # type: ignore[misc]
        """The smallest and the largest block come back."""
        cache = self.make(400)
        appender = cache.appender()
        for size in (256, BLOCK_MAX):
            name, data = block(size, size)
            place = appender.append(name, data)
            self.assertEqual(cache.read(place), (name, data))
        appender.close()

    def test_beside(self: SynchronousTestCase) -> None:  # type: ignore[misc]
        """The blocks of a stream lie in its order, also where a segment ends."""
        cache = self.make(8)
        places = fill(cache, range(25))
        self.assertGreater(len({place.segment for place in places}), 1)
        for at in (0, 3, 24):
            for steps in (-30, -24, -3, -1, 0, 1, 2, 21, 24):
                there = places[at + steps] if 0 <= at + steps < 25 else None
                self.assertEqual(cache.beside(places[at], steps), there, (at, steps))

    def test_two_streams(self: SynchronousTestCase) -> None:  # type: ignore[misc]
        """Each appender has an order of its own."""
        cache = self.make(8)
        one, other = cache.appender(), cache.appender()
        first = [a.append(*block(seed)) for seed, a in enumerate((one, other, one, other))]
        self.assertEqual(cache.beside(first[0], 1), first[2])
        self.assertEqual(cache.beside(first[1], 1), first[3])
        self.assertIsNone(cache.beside(first[3], 1))
        one.close()
        other.close()

    def test_bounded(self: SynchronousTestCase) -> None:  # type: ignore[misc]
        """It forgets something before it holds more than it may, and says so of no other."""
        cache = self.make(6)
        fill(cache, range(200))
        found = [seed for seed in range(200) if cache.find(block(seed)[0]) is not None]
        self.assertIn(199, found)
        self.assertNotIn(0, found)
        self.assertLessEqual(len(found), 70)
        for seed in found:
            self.assertEqual(cache.read(cache.find(block(seed)[0])), block(seed))

    def test_evicted(self: SynchronousTestCase) -> None:  # type: ignore[misc]
        """A place that was forgotten is nothing, and its neighbours say so."""
        cache = self.make(8)
        places = fill(cache, range(25), features=True)
        self.evict(cache)
        gone = [place for place in places if cache.read(place) is None]
        self.assertEqual(gone, places[: len(gone)])
        self.assertTrue(gone)
        self.assertIsNone(cache.find(block(0)[0]))
        self.assertIsNone(cache.beside(gone[0], 1))
        self.assertIsNone(cache.beside(places[len(gone)], -1))
        self.assertEqual(cache.similar((1,)), [])
        while cache.find(block(24)[0]) is not None:
            self.evict(cache)
        self.assertTrue(cache.empty())

    def test_again(self: SynchronousTestCase) -> None:  # type: ignore[misc]
        """A block that is appended again is found at its later place; the earlier may go."""
        cache = self.make(8)
        first = fill(cache, range(3))
        later = fill(cache, range(1, 3))
        self.assertEqual(cache.find(block(1)[0]), later[0])
        self.assertEqual(cache.read(first[1]), block(1))
        self.evict(cache)
        self.assertEqual(cache.find(block(2)[0]), later[1])

    def test_similar(self: SynchronousTestCase) -> None:  # type: ignore[misc]
        """Blocks that share features are found, those that share most first, and not too many."""
        cache = self.make(8)
        appender = cache.appender()
        one = appender.append(*block(1), (10, 11, 12, 13))
        other = appender.append(*block(2), (11, 20, 21, 22))
        self.assertEqual(cache.similar((10, 12, 20)), [one, other])
        self.assertEqual(cache.similar((11, 20)), [other])
        self.assertEqual(cache.similar((5,)), [])
        self.assertEqual(cache.similar(()), [])
        for seed in range(30, 36):
            appender.append(*block(seed), (seed,))
        self.assertEqual(len(cache.similar(range(30, 36))), SIMILAR_MAX)
        appender.close()

    def test_dropped(self: SynchronousTestCase) -> None:  # type: ignore[misc]
        """A dropped block is not found; dropping what is not there does nothing."""
        cache = self.make(8)
        fill(cache, range(3))
        cache.drop(block(1)[0])
        cache.drop(block(7)[0])
        self.assertIsNone(cache.find(block(1)[0]))
        self.assertIsNotNone(cache.find(block(2)[0]))

    def test_horizon(self: SynchronousTestCase) -> None:  # type: ignore[misc]
        """What is appended later lies at or beyond the horizon, what was before does not."""
        cache = self.make(8)
        before = fill(cache, range(3))
        horizon = cache.horizon()
        after = fill(cache, range(3, 6))
        self.assertTrue(all(place.segment < horizon for place in before))
        self.assertTrue(all(place.segment >= horizon for place in after))

    def test_appender_closed_twice(self: SynchronousTestCase) -> None:  # type: ignore[misc]
        """Closing again does nothing, nor does closing one that took nothing."""
        cache = self.make(8)
        appender = cache.appender()
        appender.close()
        appender.close()
        self.assertTrue(cache.empty())

    def test_threads(self: SynchronousTestCase) -> None:  # type: ignore[misc]
        """Several streams at once, with evictions, give right content or none."""
        cache = self.make(12)
        wrong = []

        def work(start: int) -> None:
            appender = cache.appender()
            for seed in range(start, start + 60):
                name, data = block(seed)
                appender.append(name, data)
                place = cache.find(block(seed - 5)[0])
                found = None if place is None else cache.read(place)
                if found is not None and found != block(seed - 5):
                    wrong.append(seed)
            appender.close()

        threads = [threading.Thread(target=work, args=(start,)) for start in (100, 200, 300)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])

    def test_under_the_codec(self: SynchronousTestCase) -> None:  # type: ignore[misc]
        """The codec is exact with it, and saves what it should."""
        source, target = self.make(400), self.make(400)
        data = noise(1_000_000, 77)
        carry(data, source, target)
        self.assertLess(carry(data, target, source).crossed[0], 2000)
        changed = data[:400_000] + b"!" + data[400_000:]
        self.assertLess(carry(changed, source, target).crossed[0], 3000)
