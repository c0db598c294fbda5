"""The index of a block cache."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cache.index import BATCH, Index, SegmentRow, remove_index
from cloudconnect.dedup.interfaces import Place


def name(number: int) -> bytes:
    """A masked name."""
    return number.to_bytes(16, "big")


class IndexTests(SynchronousTestCase):
    """One index."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.index = Index(self.path)
        self.addCleanup(lambda: self.index.close())

    def again(self) -> None:
        """Close it and open it again."""
        self.index.close()
        self.index = Index(self.path)

    def test_found(self) -> None:
        """A block is found before and after it was written, at its latest place."""
        first, later = Place(1, 0, 56, 1000), Place(2, 5, 900, 1000)
        self.assertTrue(self.index.empty())
        self.index.add(name(1), (), first)
        self.assertFalse(self.index.empty())
        self.assertEqual(self.index.find(name(1)), first)
        self.again()
        self.assertEqual(self.index.find(name(1)), first)
        self.index.add(name(1), (), later)
        self.assertEqual(self.index.find(name(1)), later)
        self.again()
        self.assertEqual(self.index.find(name(1)), later)
        self.assertIsNone(self.index.find(name(2)))

    def test_written(self) -> None:
        """Blocks are written many at a time; what was not is lost with the process."""
        for number in range(BATCH + 3):
            self.index.add(name(number), (), Place(1, number, 0, 300))
        self.index.abandon()
        self.index = Index(self.path)
        self.assertIsNotNone(self.index.find(name(BATCH - 1)))
        self.assertIsNone(self.index.find(name(BATCH)))

    def test_similar(self) -> None:
        """Most shared features first, written or not."""
        one, other = Place(1, 0, 56, 1000), Place(1, 1, 2000, 1000)
        self.index.add(name(1), (10, 11, 12), one)
        self.index.write()
        self.index.add(name(2), (12, 13, 14), other)
        self.assertEqual(list(self.index.similar((10, 11, 13))), [one, other])
        self.assertEqual(list(self.index.similar((12, 99))), [other])
        self.assertEqual(list(self.index.similar((99,))), [])
        self.assertEqual(list(self.index.similar(())), [])

    def test_large_features(self) -> None:
        """A masked feature has 63 bits, which is more than any other number in a row."""
        feature, place = (1 << 63) - 1, Place(1, 0, 56, 1000)
        self.index.add(name(1), (feature,), place)
        self.index.write()
        self.assertEqual(list(self.index.similar((5, feature))), [place])

    def test_segments(self) -> None:
        """Closed segments are kept, with what is known of them."""
        row = SegmentRow(3, 2, 5000, Place(3, 4, 4000, 900), 17)
        self.index.close_segment(row)
        self.index.use([(3, 20), (99, 1)])
        self.again()
        row.used = 20
        self.assertEqual(self.index.segments(), [row])

    def test_forgotten(self) -> None:
        """What lay in a segment goes with it, but not what is elsewhere by now."""
        for entries in ([(name(1), (10,)), (name(2), (11,))], None):
            self.index.close_segment(SegmentRow(3, 2, 5000, Place(3, 4, 4000, 900), 17))
            self.index.add(name(1), (10,), Place(3, 0, 56, 1000))
            self.index.add(name(2), (11,), Place(3, 1, 1144, 1000))
            self.index.add(name(2), (11,), Place(4, 0, 56, 1000))
            self.index.forget_segment(3, entries)
            self.assertIsNone(self.index.find(name(1)))
            self.assertEqual(list(self.index.similar((10,))), [])
            self.assertEqual(self.index.find(name(2)), Place(4, 0, 56, 1000))
            self.assertEqual(list(self.index.similar((11,))), [Place(4, 0, 56, 1000)])
            self.assertEqual(self.index.segments(), [])

    def test_removed(self) -> None:
        """A block can be taken out, written or not."""
        for write in (False, True):
            self.index.add(name(1), (), Place(3, 0, 56, 1000))
            if write:
                self.index.write()
            self.index.remove(name(1))
            self.assertIsNone(self.index.find(name(1)))

    def test_all_or_nothing(self) -> None:
        """A transaction that fails leaves nothing behind, and the next one works."""
        self.assertRaises(TypeError, self.index.use, [(1, 2), 3])  # type: ignore[list-item]
        self.index.add(name(1), (), Place(3, 0, 56, 1000))
        self.index.write()
        self.again()
        self.assertIsNotNone(self.index.find(name(1)))

    def test_others(self) -> None:
        """A file of another version, or of something else, is an error of SQLite's."""
        self.index.close()
        for content in (b"junk" * 400, None):
            remove_index(self.path)
            self.assertFalse(self.path.exists())
            if content is not None:
                self.path.write_bytes(content)
            else:
                database = sqlite3.connect(self.path)
                database.execute("PRAGMA user_version = 99")
                database.close()
            self.assertRaises(sqlite3.DatabaseError, Index, self.path)
        remove_index(self.path)
        self.index = Index(self.path)

    def test_damaged_rows(self) -> None:
        """Rows of something else than numbers that can be are an error of SQLite's, and not what
        a damaged page makes of them."""
        self.index.close()
        for value in ("x'ff'", "'text'", "CAST(x'f2' AS TEXT)", "1.5", "-1", str(1 << 60)):
            remove_index(self.path)
            index = Index(self.path)
            index.add(name(1), (7,), Place(3, 0, 56, 1000))
            index.close_segment(SegmentRow(3, 0, 1056, Place(3, 0, 56, 1000), 1))
            index.close()
            database = sqlite3.connect(self.path)
            for table in ("blocks", "features", "segments"):
                column = "used" if table == "segments" else "offset"
                database.execute(f"UPDATE {table} SET {column} = {value}")
            database.commit()
            database.close()
            index = Index(self.path)
            self.assertRaises(sqlite3.DatabaseError, index.find, name(1))
            self.assertRaises(sqlite3.DatabaseError, index.similar, [7])
            self.assertRaises(sqlite3.DatabaseError, index.segments)
            index.abandon()
        remove_index(self.path)
        self.index = Index(self.path)
