"""Tests for cloudconnect.repository.marking."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import NotFound, StoredDataDamaged
from cloudconnect.repository.marking import IN_BIN, LIVE, UNNEEDED, Marks, read_point
from tests.repository.repositories import RepositoryCase, name_of

_ids = st.lists(st.integers(0, 50), max_size=30)


class MarksTests(SynchronousTestCase):
    """A mark that was set is never missing."""

    @settings(max_examples=60, deadline=None)
    @given(_ids, _ids)
    def test_set(self, live: list[int], binned: list[int]) -> None:
        """What is live is live, whatever else needs it; what is in the bin is at least needed."""
        marks = Marks(50)
        marks.add(b"".join(map(name_of, binned)), live=False)
        marks.add(b"".join(map(name_of, live)), live=True)
        states = marks.look_up(b"".join(map(name_of, range(51))))
        self.assertEqual({states[number] for number in live} - {LIVE}, set())
        self.assertEqual({states[number] for number in binned} - {LIVE, IN_BIN}, set())

    def test_few_by_mistake(self) -> None:
        """Of blobs that nobody needs only few are marked, and others the next time."""
        needed = os.urandom(32 * 20_000)
        others = os.urandom(32 * 20_000)
        wrong = []
        for _ in range(2):
            marks = Marks(40_000)
            marks.add(needed, live=True)
            states = marks.look_up(others)
            wrong.append({at for at, state in enumerate(states) if state != UNNEEDED})
            self.assertLess(len(wrong[-1]), 20_000 // 500)
        self.assertLess(len(wrong[0] & wrong[1]), 10)

    def test_empty(self) -> None:
        """No ids are no ids."""
        marks = Marks(0)
        marks.add(b"", live=True)
        self.assertEqual(marks.look_up(b""), [])
        self.assertEqual(marks.look_up(name_of(1)), [UNNEEDED])

    def test_sizes(self) -> None:
        """The number of marks is a power of two, and bounded."""
        for blobs in (0, 1023, 1024, 1025, 1 << 40):
            marks = Marks(blobs)
            self.assertEqual((marks._mask + 1) & marks._mask, 0)
            self.assertLessEqual(len(marks._needed), 64 << 20)
            self.assertGreaterEqual(8 * len(marks._needed), min(64 * blobs, 1 << 29))


class ReadPointTests(RepositoryCase):
    """The blob of a record is read with care."""

    def test_read(self) -> None:
        """What is not there, or is something else, is said."""
        store = self.created().store
        self.assertRaises(NotFound, read_point, store, "points/a")
        for number, octets in enumerate((b"", b"junk", b"\xa0", b"\xa1\x66record\x01")):
            store.put(f"points/{number}", [octets])
            self.assertRaises(StoredDataDamaged, read_point, store, f"points/{number}")
