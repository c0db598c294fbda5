"""Tests for cloudconnect.wire.striping."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import ProtocolViolation
from cloudconnect.settings import BATCH_LEAD_MAX, BATCH_PAYLOAD_MAX
from cloudconnect.wire.striping import (
    BATCH_COST,
    BATCH_PAYLOAD,
    BATCH_SHARE,
    HEADER_SIZE,
    Joiner,
    Splitter,
)


def batch(number: int, payload: bytes) -> bytes:
    """The bytes of the specification, made by hand."""
    return struct.pack(">QI", number, len(payload)) + payload


def end(count: int) -> bytes:
    """The end after so many batches."""
    return struct.pack(">QI", count, 0)


def take(joiner: Joiner, member: int, data: bytes) -> bytes:
    """What ``data`` on ``member`` lets through."""
    return b"".join(bytes(payload) for payload in joiner.receive(member, data))


class SplitterTests(SynchronousTestCase):
    """The sending side."""

    def test_octets(self) -> None:
        """A batch is a number, a length and the payload; an end is how many there were."""
        splitter = Splitter(5)
        splitter.put([b"abc", bytearray(b"defg"), b"", memoryview(b"h")])
        self.assertEqual(splitter.waiting, 8)
        self.assertEqual(b"".join(splitter.batch()), batch(0, b"abcde"))
        self.assertEqual(splitter.waiting, 3)
        self.assertEqual(b"".join(splitter.batch()), batch(1, b"fgh"))
        self.assertEqual((splitter.waiting, splitter.batch()), (0, []))
        self.assertEqual(splitter.end(), end(2))
        self.assertEqual(len(splitter.end()), HEADER_SIZE)

    def test_no_copy(self) -> None:
        """What is put whole into a batch is the very object that was given."""
        splitter = Splitter()
        part = b"x" * 1000
        splitter.put([part])
        self.assertIs(splitter.batch()[1], part)

    def test_drop(self) -> None:
        """What waits can be forgotten; numbers go on."""
        splitter = Splitter(2)
        splitter.put([b"abcd"])
        splitter.batch()
        splitter.drop()
        self.assertEqual((splitter.waiting, splitter.batch()), (0, []))
        self.assertEqual(splitter.end(), end(1))

    def test_sizes(self) -> None:
        """A size that no receiver takes is refused."""
        for size in (0, -1, BATCH_PAYLOAD_MAX + 1):
            self.assertRaises(ValueError, Splitter, size)

    def test_share(self) -> None:
        """Little is divided among the members, in parts that are worth their headers."""
        for waiting, members, share in (
            (60_000, 4, 15_000),
            (60_001, 4, 15_001),
            (60_000, 1, 60_000),
            (60_000, 0, 60_000),
            (3 * BATCH_SHARE, 4, BATCH_SHARE),
            (5, 4, BATCH_SHARE),
        ):
            splitter = Splitter()
            splitter.put([bytes(waiting)])
            self.assertEqual(splitter.share(members), share)
            sizes = []
            while splitter.waiting:
                sizes.append(len(splitter.batch(share)[1]))
            self.assertEqual(sum(sizes), waiting)
            self.assertEqual(set(sizes[:-1]) - {share}, set())
        splitter.put([bytes(3 * BATCH_PAYLOAD)])
        self.assertEqual(len(splitter.batch(splitter.share(2))[1]), BATCH_PAYLOAD)


class JoinerTests(SynchronousTestCase):
    """The receiving side, with well-formed input."""

    @settings(deadline=None)
    @given(st.data())
    def test_any_interleaving(self, data: st.DataObject) -> None:
        """However batches go to members, and members' bytes come: the stream comes out, once.

        Members that are ahead are not read, as flow control has it; somebody can always go on.
        """
        draw = data.draw
        members = draw(st.integers(1, 4))
        parts = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=20))
        splitter = Splitter(draw(st.integers(1, 16)))
        splitter.put(parts)
        lines = [bytearray() for _ in range(members)]
        while made := splitter.batch():
            lines[draw(st.integers(0, members - 1))] += b"".join(made)
        for line in lines:
            line += splitter.end()
        window = draw(st.integers(0, 4 * BATCH_COST))
        joiner = Joiner(members, window)
        received = b""
        while any(lines):
            readable = [i for i in range(members) if lines[i] and not joiner.is_ahead(i)]
            self.assertTrue(readable, "nobody can go on")
            member = draw(st.sampled_from(readable))
            size = draw(st.integers(1, 50))
            piece, lines[member] = bytes(lines[member][:size]), lines[member][size:]
            received += take(joiner, member, piece)
            self.assertLessEqual(joiner.waiting, window + members * (16 + BATCH_COST))
        self.assertEqual(received, b"".join(parts))
        self.assertEqual((joiner.ended, joiner.waiting), (True, 0))

    def test_in_order_is_not_copied(self) -> None:
        """What is due, and whole, is a view of what came."""
        joiner = Joiner(1)
        data = batch(0, b"first") + batch(1, b"second")
        found = list(joiner.receive(0, data))
        self.assertEqual([bytes(payload) for payload in found], [b"first", b"second"])
        for payload in found:
            self.assertIsInstance(payload, memoryview)
            self.assertIs(payload.obj, data)  # type: ignore[union-attr]

    def test_kept_is_copied(self) -> None:
        """What waits for its turn does not change with the buffer that it came in."""
        joiner = Joiner(2, 0)
        for number, window in ((1, 4096), (1, 0)):
            joiner = Joiner(2, window)
            buffer = bytearray(batch(number, b"second") + batch(2, b"third"))
            self.assertEqual(list(joiner.receive(0, memoryview(buffer))), [])
            buffer[:] = bytes(len(buffer))
            self.assertEqual(take(joiner, 1, batch(0, b"first ")), b"first secondthird")

    def test_one_byte_at_a_time(self) -> None:
        """Bytes may be cut anywhere."""
        joiner = Joiner(2)
        data = batch(0, b"ab") + batch(2, b"ef") + end(3)
        self.assertEqual(take(joiner, 1, batch(1, b"cd") + end(3)), b"")
        out = b"".join(take(joiner, 0, data[i : i + 1]) for i in range(len(data)))
        self.assertEqual(out, b"abcdef")
        self.assertTrue(joiner.ended)

    def test_window(self) -> None:
        """A member whose next batch has no room is ahead; the number that is due has room."""
        joiner = Joiner(3, 2 * (100 + BATCH_COST))
        ahead = batch(1, b"b" * 100) + batch(2, b"c" * 100) + batch(3, b"d" * 100)
        take(joiner, 0, ahead)
        self.assertTrue(joiner.is_ahead(0))
        self.assertEqual(joiner.waiting, 2 * (100 + BATCH_COST))
        take(joiner, 1, batch(4, b"e" * 100))
        self.assertTrue(joiner.is_ahead(1))
        self.assertFalse(joiner.is_ahead(2))
        self.assertEqual(
            take(joiner, 2, batch(0, b"a" * 100)),
            b"".join(letter * 100 for letter in (b"a", b"b", b"c", b"d", b"e")),
        )
        self.assertFalse(joiner.is_ahead(0) or joiner.is_ahead(1))
        self.assertEqual(joiner.waiting, 0)

    def test_many_small_ones_count(self) -> None:
        """Batches of one byte each fill the window too: what they take in memory is counted."""
        joiner = Joiner(2)
        take(joiner, 0, b"".join(batch(number, b"x") for number in range(1, 20_000)))
        self.assertTrue(joiner.is_ahead(0))
        out = take(joiner, 1, batch(0, b"x"))
        self.assertEqual(len(out), 20_000)
        self.assertFalse(joiner.is_ahead(0))

    def test_end(self) -> None:
        """The end has come when it has on each member; an empty stream ends too."""
        joiner = Joiner(2)
        self.assertEqual(take(joiner, 0, end(1)), b"")
        self.assertEqual((joiner.has_ended(0), joiner.has_ended(1), joiner.ended), (1, 0, 0))
        self.assertEqual(take(joiner, 1, batch(0, b"all")), b"all")
        self.assertFalse(joiner.ended)
        take(joiner, 1, end(1))
        self.assertTrue(joiner.ended)
        empty = Joiner(1)
        take(empty, 0, end(0))
        self.assertTrue(empty.ended)

    def test_drop(self) -> None:
        """What is kept can be forgotten."""
        joiner = Joiner(2, 300)
        take(joiner, 0, batch(1, b"b") + batch(2, b"c" * 99) + batch(3, b"d"))
        joiner.drop()
        self.assertEqual(joiner._batches, {})
        self.assertEqual([bytes(each.kept) for each in joiner._members], [b"", b""])


class MalformedTests(SynchronousTestCase):
    """What no peer may send."""

    def refused(self, *pieces: tuple[int, bytes], members: int = 2) -> None:
        """The last of ``pieces`` is refused, and no other."""
        joiner = Joiner(members)
        for member, data in pieces[:-1]:
            take(joiner, member, data)
        self.assertRaises(ProtocolViolation, take, joiner, *pieces[-1])

    def test_too_long(self) -> None:
        """A length above the limit is refused by the header alone."""
        largest = BATCH_PAYLOAD_MAX
        self.assertEqual(take(Joiner(1), 0, batch(0, b"x" * largest)), b"x" * largest)
        self.refused((0, struct.pack(">QI", 0, largest + 1)))

    def test_repeated(self) -> None:
        """A number comes once: delivered, waiting, or on its way on another member."""
        self.refused((0, batch(0, b"a")), (1, batch(0, b"a")))
        self.refused((0, batch(1, b"b")), (1, batch(1, b"b")))
        self.refused((0, batch(1, b"bb")[:-1]), (1, batch(1, b"bb")), (0, b"b"))
        self.refused((0, batch(0, b"aa")[:-1]), (1, batch(0, b"aa")), (0, b"a"))

    def test_not_increasing(self) -> None:
        """Numbers increase on each member, even where the window would sort them."""
        self.refused((0, batch(2, b"c")), (0, batch(1, b"b")))
        self.refused((0, batch(2, b"c") + batch(2, b"c")))

    def test_too_far(self) -> None:
        """A number that no window reaches is refused, also that of an end."""
        take(Joiner(2), 0, batch(BATCH_LEAD_MAX, b"x"))
        self.refused((0, batch(BATCH_LEAD_MAX + 1, b"x")))
        self.refused((0, end(BATCH_LEAD_MAX + 1)))
        self.refused((0, b"\xff" * HEADER_SIZE))

    def test_contradicting_ends(self) -> None:
        """Ends say the same on all members, and no less than what came."""
        self.refused((0, end(3)), (1, end(4)))
        self.refused((0, batch(3, b"d")), (1, end(3)))
        self.refused((0, end(3)), (1, batch(3, b"d")))

    def test_missing(self) -> None:
        """An end that promises more than came on all members is refused."""
        self.refused((0, batch(0, b"a") + end(2)), (1, end(2)))
        self.refused((0, batch(1, b"b") + end(2)), (1, end(2)))

    def test_behind_the_end(self) -> None:
        """Nothing comes behind an end on its member."""
        self.refused((0, end(0)), (0, b"x"))
        self.refused((0, end(0) + b"x"))
        self.refused((0, end(0) + end(0)))

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=60)), max_size=30))
    def test_noise(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        """Whatever comes: it is a stream, or it is refused by name; and the bound holds."""
        joiner = Joiner(3, 1000)
        try:
            for member, data in pieces:
                take(joiner, member, data)
                self.assertLessEqual(joiner.waiting, 1000 + 3 * (BATCH_PAYLOAD_MAX + BATCH_COST))
        except ProtocolViolation:
            return

    @settings(deadline=None)
    @given(st.data())
    def test_mutations(self, data: st.DataObject) -> None:
        """A changed byte in well-formed members: refused by name, or it still is some stream."""
        lines = [
            batch(0, b"aa") + batch(2, b"cc") + end(4),
            batch(1, b"b") + batch(3, b"d") + end(4),
        ]
        member = data.draw(st.integers(0, 1))
        changed = bytearray(lines[member])
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
        lines[member] = bytes(changed)
        joiner = Joiner(2)
        try:
            for number, line in enumerate(lines):
                take(joiner, number, line)
        except ProtocolViolation:
            return
        self.assertLessEqual(joiner.waiting, 2 * (BATCH_PAYLOAD_MAX + BATCH_COST))
