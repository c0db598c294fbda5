"""Opening a cache's directory; more of it is in the tests of the cache itself."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cache.keys import NodeKey
from cloudconnect.cache.opening import hold, open_directory, segment_path
from cloudconnect.cache.segments import SegmentWriter
from cloudconnect.errors import UsageError
from tests.dedup.contract import block

NODE = NodeKey(bytes(range(32)))


class OpeningTests(SynchronousTestCase):
    """A directory with a segment that nobody closed."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        opened = open_directory(self.directory, "acme", NODE)
        self.assertEqual((opened.rows, opened.next), ([], 1))
        opened.index.close()
        self.path = segment_path(self.directory, 5)
        writer = SegmentWriter(self.path, 5, 0, opened.keys)
        self.places = [writer.append(*block(seed), (seed + 1,)) for seed in range(4)]
        writer.close()

    def test_read_again(self) -> None:
        """Its blocks are found, it is closed, and its number is not used again."""
        for _ in range(2):
            opened = open_directory(self.directory, "acme", NODE)
            self.assertEqual([row.last for row in opened.rows], [self.places[3]])
            self.assertEqual(opened.next, 6)
            masked = opened.keys.masked(block(2)[0])
            self.assertEqual(opened.index.find(masked), self.places[2])
            feature = opened.keys.masked_feature(2)
            self.assertEqual(list(opened.index.similar((feature,))), [self.places[1]])
            opened.index.close()

    def test_cut(self) -> None:
        """A torn last entry is cut off, a segment without a whole one is removed."""
        whole = self.path.stat().st_size
        os.truncate(self.path, whole - 1)
        opened = open_directory(self.directory, "acme", NODE)
        self.assertEqual(opened.rows[0].last, self.places[2])
        self.assertEqual(self.path.stat().st_size, self.places[3].offset)
        opened.index.close()
        os.truncate(self.path, 100)
        opened = open_directory(self.directory, "acme", NODE)
        self.assertEqual(opened.rows, [])
        self.assertFalse(self.path.exists())
        self.assertIsNone(opened.index.find(opened.keys.masked(block(0)[0])))
        opened.index.close()

    def test_links(self) -> None:
        """A link in the place of a segment is not followed, nor removed."""
        target = self.directory / "elsewhere"
        self.path.rename(target)
        self.path.symlink_to(target)
        opened = open_directory(self.directory, "acme", NODE)
        self.assertEqual(opened.rows, [])
        self.assertTrue(target.exists())
        opened.index.close()

    def test_other_files(self) -> None:
        """Emptying another host's cache removes what is a cache's, and nothing else."""
        (self.directory / "segments" / "notes").write_text("keep")
        opened = open_directory(self.directory, "acme", NodeKey(bytes(32)))
        self.assertEqual(opened.rows, [])
        self.assertFalse(self.path.exists())
        self.assertEqual((self.directory / "segments" / "notes").read_text(), "keep")
        opened.index.close()


class HoldTests(SynchronousTestCase):
    """The lock on a directory."""

    def test_once(self) -> None:
        """One at a time; it ends with the descriptor."""
        path = Path(self.mktemp())
        first = hold(path)
        self.assertRaises(UsageError, hold, path)
        os.close(first)
        os.close(hold(path))
