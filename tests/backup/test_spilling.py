"""What is remembered by path, in memory and in a temporary file."""

from __future__ import annotations

import sqlite3

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import spilling
from cloudconnect.backup.spilling import PathTable
from cloudconnect.errors import LocalError


class PathTableTests(SynchronousTestCase):
    """A table that holds little in memory."""

    def exercise(self, table: PathTable) -> None:
        """The same, wherever the paths are."""
        self.addCleanup(table.close)
        paths = [b"/%d\xff" % number for number in range(50)]
        for number, path in enumerate(paths):
            table.put(path, b"%d" % number)
        table.put(paths[3], b"other")
        table.put(paths[4], b"")
        table.drop(paths[5])
        table.drop(b"/never")
        self.assertEqual(table.get(paths[3]), b"other")
        self.assertEqual(table.get(paths[4]), b"")
        self.assertIsNone(table.get(paths[5]))
        self.assertIsNone(table.get(b"/never"))
        self.assertEqual([table.get(path) for path in paths[6:]], [b"%d" % n for n in range(6, 50)])
        table.put(paths[5], b"again")
        self.assertEqual(table.get(paths[5]), b"again")

    def test_in_memory(self) -> None:
        """Few paths need no file."""
        table = PathTable()
        self.exercise(table)
        self.assertIsNone(table._database)

    def test_in_file(self) -> None:
        """Many paths go to a file, whatever happens to each of them then."""
        for in_memory in (0, 1, 7):
            table = PathTable(in_memory)
            self.exercise(table)
            self.assertLessEqual(len(table._known), in_memory)

    def test_bytes(self) -> None:
        """So do few paths that much belongs to; what is replaced or dropped does not count."""
        table = PathTable(bytes_in_memory=1000)
        self.addCleanup(table.close)
        for number in range(10):
            table.put(b"/a", b"x" * 900)
            table.put(b"/b%d" % number, b"")
            table.drop(b"/b%d" % number)
        self.assertIsNone(table._database)
        table.put(b"/c", b"x" * 900)
        self.assertEqual(table._known, {})
        self.assertEqual(table.get(b"/a"), b"x" * 900)

    def test_no_room(self) -> None:
        """A temporary file that cannot be made is said to be that."""

        def fail(table: str) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        self.patch(spilling, "temporary_base", fail)
        error = self.assertRaises(LocalError, PathTable(0).put, b"/a", b"")
        self.assertIn("TMPDIR", str(error))
