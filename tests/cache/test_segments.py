"""Segment files."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cache.keys import CacheKey, CacheKeys
from cloudconnect.cache.segments import (
    ENTRY_SIZE,
    HEADER_SIZE,
    OVERHEAD,
    Entry,
    SegmentFile,
    SegmentWriter,
)
from cloudconnect.dedup.interfaces import Place
from tests.dedup.contract import block

KEYS = CacheKeys(CacheKey(bytes(range(32))), "acme")


class SegmentTests(SynchronousTestCase):
    """A segment of three blocks."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        writer = SegmentWriter(self.path, 7, 3, KEYS)
        self.places = [
            writer.append(*block(seed, 1000 + seed), (seed, 9) if seed else ()) for seed in range(3)
        ]
        self.size = writer.size
        writer.close()
        self.file = SegmentFile(self.path, 7, KEYS)

    def test_layout(self) -> None:
        """Sizes are those of the format; the number and the one before are in the header."""
        self.assertEqual((HEADER_SIZE, ENTRY_SIZE, OVERHEAD), (56, 72, 88))
        self.assertEqual(self.size, 56 + 3003 + 3 * 88)
        self.assertEqual(self.path.stat().st_size, self.size)
        self.assertEqual(self.file.before, 3)
        self.assertTrue(self.path.read_bytes().startswith(b"CCWSEG01" + bytes(7) + b"\x07"))
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_entries(self) -> None:
        """All of them, with what is known of each."""
        expected = [
            (self.places[0], Entry(block(0, 1000)[0], 1000, 0, ())),
            (self.places[1], Entry(block(1, 1001)[0], 1001, 1000, (1, 9))),
            (self.places[2], Entry(block(2, 1002)[0], 1002, 1001, (2, 9))),
        ]
        self.assertEqual(list(self.file.entries()), expected)

    def test_read(self) -> None:
        """Each block, and nothing at any other place."""
        for seed, place in enumerate(self.places):
            self.assertEqual(self.file.read(place), block(seed, 1000 + seed))
        first = self.places[0]
        for wrong in (
            first._replace(ordinal=1),
            first._replace(offset=first.offset + 1),
            first._replace(length=999),
            Place(7, 3, self.size, 1000),
            Place(7, 0, 1 << 40, 1000),
        ):
            self.assertIsNone(self.file.read(wrong))

    def test_moved(self) -> None:
        """An entry that was moved, in its file or from another one, is not taken."""
        other = self.path.with_name("other")
        writer = SegmentWriter(other, 7, 3, KEYS)
        writer.append(*block(0, 1000), ())
        writer.close()
        octets = bytearray(self.path.read_bytes())
        octets[56 : 56 + 1088] = other.read_bytes()[56:]
        self.path.write_bytes(octets)
        self.assertIsNone(SegmentFile(self.path, 7, KEYS).read(self.places[0]))
        self.assertEqual(self.file.read(self.places[1]), block(1, 1001))

    def test_other_keys(self) -> None:
        """Another tenant's keys open nothing."""
        keys = CacheKeys(CacheKey(bytes(range(32))), "acne")
        self.assertEqual(list(SegmentFile(self.path, 7, keys).entries()), [])

    def test_not_a_segment(self) -> None:
        """Another number, magic, or fewer bytes than a header."""
        self.assertRaises(ValueError, SegmentFile, self.path, 8, KEYS)
        os.truncate(self.path, 55)
        self.assertRaises(ValueError, SegmentFile, self.path, 7, KEYS)
        self.path.write_bytes(bytes(100))
        self.assertRaises(ValueError, SegmentFile, self.path, 0, KEYS)
        self.assertRaises(OSError, SegmentFile, self.path.with_name("missing"), 7, KEYS)

    def test_torn(self) -> None:
        """Entries end where the file does, wherever it was cut."""
        ends = [56, 56 + 1088, 56 + 1088 + 1089, self.size]
        for size in range(self.size, 56, -53):
            os.truncate(self.path, size)
            there = max(index for index, end in enumerate(ends) if end <= size)
            self.assertEqual(len(list(self.file.entries())), there)

    def test_never_again(self) -> None:
        """A segment that is there is never written to again."""
        self.assertRaises(FileExistsError, SegmentWriter, self.path, 7, 3, KEYS)
