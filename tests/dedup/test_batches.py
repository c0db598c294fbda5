"""A batch before it is sent."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.dedup.bases import Shelf
from cloudconnect.dedup.batches import (
    EDGE_FROM,
    Piece,
    find_bases,
    instructions_for,
    take_delta,
)
from cloudconnect.dedup.instructions import Act, Base, Instruction
from cloudconnect.dedup.interfaces import Place
from cloudconnect.dedup.limits import MARGIN
from cloudconnect.dedup.memory import MemoryCache
from tests.dedup.contract import block, fill


def known(ordinal: int, segment: int = 1, alone: bool = False) -> Piece:
    """A block that is referred to; its name is its place."""
    place = Place(segment, ordinal, 0, 1000)
    return Piece(b"k" * 1000, b"%d-%d" % (segment, ordinal), Act.NAMED, place, alone)


def new(size: int = 700) -> Piece:
    """A block that is sent."""
    return Piece(b"n" * size, b"new", Act.NEW)


def between(size: int = 28) -> Piece:
    """Bytes between blocks."""
    return Piece(b"b" * size, b"between", Act.BETWEEN)


class InstructionTests(SynchronousTestCase):
    """How pieces are named."""

    def made(self, *pieces: Piece) -> list[tuple[str, int, int]]:
        """The instructions for pieces, shortly."""
        made, names = instructions_for(pieces)
        self.assertEqual(len(names), sum(one.act == Act.NAMED for one in made))
        return [(one.act.name, one.number, one.skip) for one in made]

    def test_run(self) -> None:
        """Blocks behind each other are one instruction and one name."""
        self.assertEqual(self.made(*map(known, range(5, 25))), [("NAMED", 20, 0)])

    def test_interrupted(self) -> None:
        """A run goes on behind bytes between blocks, and behind a change."""
        self.assertEqual(
            self.made(between(12), known(1), between(), known(2), new(), known(4), known(5)),
            [
                ("BETWEEN", 12, 0),
                ("NAMED", 1, 0),
                ("BETWEEN", 28, 0),
                ("ON", 1, 0),
                ("NEW", 700, 0),
                ("ON", 2, 1),
            ],
        )

    def test_elsewhere(self) -> None:
        """Blocks before, far behind, or in another segment are named."""
        self.assertEqual(
            self.made(known(100), known(99), known(164), known(165, 2)),
            [("NAMED", 1, 0), ("NAMED", 1, 0), ("ON", 1, 64), ("NAMED", 1, 0)],
        )

    def test_again(self) -> None:
        """The same block again needs no name, and the run goes on behind it."""
        self.assertEqual(
            self.made(known(1), known(1), known(1), known(2)),
            [("NAMED", 1, 0), ("AGAIN", 2, 0), ("ON", 1, 0)],
        )

    def test_alone(self) -> None:
        """A block of this batch has no place at the far end yet."""
        self.assertEqual(
            self.made(known(1), known(2, alone=True), known(3)),
            [("NAMED", 1, 0), ("NAMED", 1, 0), ("NAMED", 1, 0)],
        )


class BaseTests(SynchronousTestCase):
    """What new blocks are like."""

    def setUp(self) -> None:
        self.cache = MemoryCache()
        self.places = fill(self.cache, range(10))

    def known(self, at: int) -> Piece:
        """The block at this place."""
        name, data = block(at)
        return Piece(data, name, Act.NAMED, self.places[at])

    def test_gap(self) -> None:
        """What stood between two known blocks is the base of what stands there now."""
        pieces = [self.known(2), new(), between(), new(), new(), self.known(5), new()]
        find_bases(self.cache, pieces)
        found = [piece.base for piece in pieces if piece.act == Act.NEW]
        self.assertEqual(found, [self.places[3], self.places[4], None, None])

    def test_no_gap(self) -> None:
        """Where nothing stood, or the order is another one, there is no base."""
        for before, after in ((2, 3), (5, 2), (5, 5)):
            pieces = [self.known(before), new(), new(), self.known(after)]
            find_bases(self.cache, pieces)
            self.assertEqual([piece.base for piece in pieces], [None] * 4)

    def test_delta(self) -> None:
        """Pieces with a base become changed ones; the prefix has what lies around it."""
        pieces = [new(), new(800), new()]
        pieces[1].base = self.places[4]
        delta = take_delta(Shelf(self.cache), pieces, set(), True)
        self.assertEqual([piece.act for piece in pieces], [Act.NEW, Act.CHANGED, Act.NEW])
        self.assertEqual((delta.changed, delta.size), ([b"n" * 800], 800))
        self.assertEqual(delta.bases, [Base(1, True, True)])
        self.assertEqual(delta.names, [block(4)[0]])
        self.assertLess(1000, MARGIN)
        self.assertEqual(delta.prefix, b"".join(block(seed)[1] for seed in (3, 4, 5)))

    def test_edges(self) -> None:
        """What lies beside a base is in the prefix where the piece begins or ends in another way;
        in the body of a CHUNK the id and the digest go before the content."""
        known = block(4)[1]
        head, tail = b"n" * EDGE_FROM, b"n" * 8
        for data, before, after in (
            (known[:500] + b"n" + known[501:], False, False),
            (head + known[EDGE_FROM:], False, False),
            (known[:-8] + tail, False, True),
            (b"n" + known, True, False),
            (known[300:-300], True, True),
        ):
            piece = Piece(data, b"new", Act.NEW, base=self.places[4])
            delta = take_delta(Shelf(self.cache), [piece], set(), False)
            self.assertEqual(delta.bases, [Base(1, before, after)])
            around = [block(3)[1]] * before + [known] + [block(5)[1]] * after
            self.assertEqual(delta.prefix, b"".join(around))

    def test_more(self) -> None:
        """Other similar blocks are in the prefix too; alone they make no delta."""
        pieces = [new(), new()]
        pieces[0].base, pieces[0].more = self.places[4], (self.places[8],)
        pieces[1].more = (self.places[1],)
        delta = take_delta(Shelf(self.cache), pieces, set(), True)
        self.assertEqual([piece.act for piece in pieces], [Act.CHANGED, Act.NEW])
        self.assertIn(block(8)[0], delta.names)
        self.cache.drop(block(4)[0])
        pieces[0].act = Act.NEW
        delta = take_delta(Shelf(self.cache), pieces, set(), True)
        self.assertEqual((pieces[0].act, delta.bases, delta.names), (Act.NEW, [], []))

    def test_fresh(self) -> None:
        """What this batch brings is no base, nor around one: the far end does not have it."""
        pieces = [new(), new()]
        pieces[0].base, pieces[1].base = self.places[4], self.places[5]
        fresh = {self.places[5][:2]}
        delta = take_delta(Shelf(self.cache), pieces, fresh, True)
        self.assertEqual([piece.act for piece in pieces], [Act.CHANGED, Act.NEW])
        self.assertEqual(delta.bases, [Base(1, True, False)])

    def test_gone(self) -> None:
        """A base that is gone is none."""
        piece = new()
        piece.base = self.places[4]
        self.cache.evict()
        delta = take_delta(Shelf(self.cache), [piece], set(), True)
        self.assertEqual((piece.act, delta.prefix, delta.bases), (Act.NEW, b"", []))
        self.assertEqual(instructions_for([piece])[0], [Instruction(Act.NEW, 700)])
