"""Prefixes of deltas."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.dedup.bases import Shelf, check_of, plan
from cloudconnect.dedup.instructions import Base
from cloudconnect.dedup.interfaces import Place
from cloudconnect.dedup.limits import BASES_MAX, MARGIN, PREFIX_MAX
from cloudconnect.dedup.memory import MemoryCache
from tests.dedup.contract import block, fill
from tests.dedup.storm import damage


class PlanTests(SynchronousTestCase):
    """Places as bases."""

    def test_neighbours(self) -> None:
        """Neighbours are one base; others are their own, each once, in order."""
        places = [Place(2, 5, 0, 9), Place(1, 7, 0, 9), Place(2, 6, 0, 9), Place(2, 5, 0, 9)]
        expected = [
            (Place(1, 7, 0, 9), Base(1, True, True)),
            (Place(2, 5, 0, 9), Base(2, True, True)),
        ]
        self.assertEqual(plan(places), expected)

    def test_bounded(self) -> None:
        """No more than a batch may have."""
        places = [Place(1, 2 * at, 0, 9) for at in range(BASES_MAX + 9)]
        self.assertEqual(len(plan(places)), BASES_MAX)


class ShelfTests(SynchronousTestCase):
    """Reading with a look at the name."""

    def test_around(self) -> None:
        """Blocks with the end of the one before and the beginning of the one behind them."""
        cache = MemoryCache()
        appender = cache.appender()
        blocks = [block(seed, 40_000) for seed in range(5)]
        places = [appender.append(*one) for one in blocks]
        shelf = Shelf(cache)
        middle = blocks[1][1] + blocks[2][1]
        whole = blocks[0][1][-MARGIN:] + middle + blocks[3][1][:MARGIN]
        assert places[1] is not None and places[4] is not None
        self.assertEqual(shelf.around(places[1], Base(2, True, True)), (blocks[1][0], whole))
        self.assertEqual(shelf.around(places[1], Base(2, False, False)), (blocks[1][0], middle))
        last = shelf.around(places[4], Base(1, False, True))
        self.assertEqual(last, blocks[4])
        self.assertIsNone(shelf.around(places[4], Base(2, False, False)))
        self.assertEqual(shelf.prefix([Base(2, True, True)], [blocks[1][0]]), whole)
        self.assertIsNone(shelf.prefix([Base(2, True, True)], [bytes(32)]))
        self.assertEqual(len(check_of(whole)), 16)

    def test_too_long(self) -> None:
        """A prefix that would be longer than allowed is none."""
        cache = MemoryCache(100 << 20, 100 << 20)
        appender = cache.appender()
        for seed in range(20):
            appender.append(*block(seed, 400_000))
        shelf = Shelf(cache)
        fits = PREFIX_MAX // 400_000
        names = [block(0, 400_000)[0]]
        self.assertIsNotNone(shelf.prefix([Base(fits, False, False)], names))
        self.assertIsNone(shelf.prefix([Base(fits + 1, False, False)], names))
        self.assertIsNone(shelf.prefix([Base(fits, False, False)] * 2, names * 2))

    def test_damaged(self) -> None:
        """A block that is not what its name says is dropped and counted."""
        cache = MemoryCache()
        places = fill(cache, range(3))
        damage(cache)
        shelf = Shelf(cache)
        self.assertIsNone(shelf.read(places[1]))
        self.assertIsNone(shelf.named(block(2)[0]))
        self.assertEqual(shelf.damaged, 2)
        self.assertIsNone(cache.find(block(1)[0]))
        self.assertIsNotNone(cache.find(block(0)[0]))
