"""The list of chunks that a restore point needs."""

from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import references
from cloudconnect.backup.references import ReferenceList


def name(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


class ReferenceTests(SynchronousTestCase):
    """Each id once, in order, whatever goes in and however little memory there is."""

    def parts(self, listed: ReferenceList, size: int = 7) -> list[bytes]:
        self.addCleanup(listed.close)
        return list(listed.parts(size))

    def test_empty(self) -> None:
        """A backup of empty files needs no chunks."""
        listed = ReferenceList()
        self.assertEqual(self.parts(listed), [])
        self.assertEqual((listed.count, listed.digest), (0, hashlib.sha256().digest()))

    @given(
        st.lists(st.lists(st.integers(0, 60), max_size=20), max_size=20),
        st.integers(1, 50),
        st.integers(1, 9),
    )
    @settings(max_examples=60, deadline=None)
    def test_distinct_and_sorted(self, groups: list[list[int]], in_memory: int, size: int) -> None:
        """Ids come out once and sorted, in parts of the size asked for, with count and digest."""
        self.patch(references, "_BLOCK", 64)
        listed = ReferenceList(in_memory)
        for group in groups:
            listed.add(name(number) for number in group)
        parts = list(listed.parts(size))
        listed.close()
        expected = sorted({name(number) for group in groups for number in group})
        self.assertEqual(b"".join(parts), b"".join(expected))
        self.assertTrue(all(len(part) == size * 32 for part in parts[:-1]))
        self.assertTrue(all(0 < len(part) <= size * 32 for part in parts))
        self.assertEqual(listed.count, len(expected))
        self.assertEqual(listed.digest, hashlib.sha256(b"".join(expected)).digest())

    def test_memory_is_bounded(self) -> None:
        """However many ids come, few are held in memory."""
        listed = ReferenceList(100)
        self.addCleanup(listed.close)
        for number in range(1000):
            listed.add([name(number)])
            self.assertLess(len(listed._ids), 100)
        self.assertEqual(len(b"".join(listed.parts(64))), 1000 * 32)
