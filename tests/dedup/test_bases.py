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
        middle = [blocks[1][1], blocks[2][1]]
        whole = [blocks[0][1][-MARGIN:], *middle, blocks[3][1][:MARGIN]]
        assert places[1] is not None and places[4] is not None
        for careful in (False, True):
            run = shelf.run(places[1], 2, careful)
            assert run is not None
            expected = (blocks[1][0], middle, places[1], places[2])
            self.assertEqual((run.name, run.contents, run.first, run.last), expected)
            self.assertEqual(shelf.around(run, True, True, careful), whole)
            self.assertEqual(shelf.around(run, False, False, careful), middle)
            last = shelf.run(places[4], 1, careful)
            assert last is not None
            self.assertEqual(shelf.around(last, False, True, careful), [blocks[4][1]])
            self.assertIsNone(shelf.run(places[4], 2, careful))
        prefix = b"".join(whole)
        check = check_of(prefix)
        self.assertEqual(len(check), 16)
        self.assertEqual(shelf.prefix([Base(2, True, True)], [blocks[1][0]], check), prefix)
        self.assertIsNone(shelf.prefix([Base(2, True, False)], [blocks[1][0]], check))
        self.assertIsNone(shelf.prefix([Base(2, True, True)], [bytes(32)], check))

    def test_too_long(self) -> None:
        """A prefix that would be longer than allowed is none."""
        cache = MemoryCache(100 << 20, 100 << 20)
        appender = cache.appender()
        for seed in range(20):
            appender.append(*block(seed, 400_000))
        shelf = Shelf(cache)
        fits = PREFIX_MAX // 400_000
        names = [block(0, 400_000)[0]]
        check = check_of(b"".join(block(seed, 400_000)[1] for seed in range(fits)))
        self.assertIsNotNone(shelf.prefix([Base(fits, False, False)], names, check))
        self.assertIsNone(shelf.prefix([Base(fits + 1, False, False)], names, check))
        self.assertIsNone(shelf.prefix([Base(fits, False, False)] * 2, names * 2, check))

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

    def test_damaged_prefix(self) -> None:
        """A prefix that is not the one of the far end is none; what is damaged in it is dropped."""
        cache = MemoryCache()
        fill(cache, range(3))
        blocks = [block(seed) for seed in range(3)]
        check = check_of(blocks[0][1] + blocks[1][1])
        shelf = Shelf(cache)
        base, names = [Base(2, False, False)], [blocks[0][0]]
        self.assertEqual(shelf.prefix(base, names, check), blocks[0][1] + blocks[1][1])
        self.assertIsNone(shelf.prefix(base, names, bytes(16)))
        self.assertEqual(shelf.damaged, 0)
        damage(cache)
        self.assertIsNone(shelf.prefix(base, names, check))
        self.assertEqual(shelf.damaged, 1)
        self.assertIsNone(cache.find(names[0]))
