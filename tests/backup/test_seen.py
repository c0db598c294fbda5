"""Chunks that a check has come across."""

from __future__ import annotations

import os
import sqlite3

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import seen as seen_module
from cloudconnect.backup.seen import SeenChunks
from cloudconnect.content.runs import Run
from cloudconnect.errors import LocalError


def name(number: int) -> bytes:
    return b"%032d" % number


class SeenTests(SynchronousTestCase):
    """A set on the disk."""

    def setUp(self) -> None:
        self.seen = SeenChunks()
        self.addCleanup(lambda: self.seen.close())

    def all(self, size: int = 100, intact: bool = False) -> list[tuple[bytes, int]]:
        return [pair for batch in self.seen.batches(size, intact) for pair in batch]

    def test_once_each(self) -> None:
        """Each chunk is there once, in the order of its first coming, with the most that is needed
        of it; holes are no chunks."""
        self.patch(seen_module, "WRITTEN_AT_ONCE", 2)
        self.seen.add([Run(name(3), 0, 5), Run(None, 0, 9), Run(name(1), 10, 10)])
        self.seen.add([Run(name(2), 0, 1), Run(name(3), 4, 4)])
        self.seen.add([Run(name(1), 0, 3), Run(name(3), 0, 2)])
        self.assertEqual(self.seen.count(), 3)
        self.assertEqual(self.all(), [(name(3), 8), (name(1), 20), (name(2), 1)])

    def test_batches(self) -> None:
        """They come in batches, and what is marked meanwhile is left out of later ones on
        request."""
        self.seen.add([Run(name(number), 0, 1) for number in range(10)])
        found = []
        for batch in self.seen.batches(4, intact=True):
            found.append([pair[0] for pair in batch])
            self.seen.damage(name(5), "is gone")
        self.assertEqual([len(batch) for batch in found], [4, 4, 1])
        self.assertNotIn(name(5), found[1])
        self.assertEqual(len(self.all()), 10)

    def test_damage(self) -> None:
        """The first reason stays; what is not damaged has none, also if it looks alike."""
        self.seen.damage(name(1), "is gone")
        self.seen.damage(name(1), "is odd")
        self.seen.damage(b"\xff" * 32, "is odd")
        self.assertEqual(self.seen.damaged, 2)
        self.assertEqual(self.seen.damage_of(name(1)), "is gone")
        self.assertEqual(self.seen.damage_of(b"\xff" * 32), "is odd")
        self.assertIsNone(self.seen.damage_of(name(2)))
        self.assertIsNone(self.seen.damage_of(b"\xff" * 4 + bytes(28)))

    def test_leaves_nothing(self) -> None:
        """The file has no name in the folder for temporary files."""
        folder = self.mktemp()
        os.mkdir(folder)
        self.patch(os, "environ", {**os.environ, "SQLITE_TMPDIR": folder, "TMPDIR": folder})
        seen = SeenChunks()
        seen.add([Run(os.urandom(32), 0, 1) for _ in range(20_000)])
        seen.count()
        self.assertEqual(os.listdir(folder), [])
        seen.close()

    def test_no_room(self) -> None:
        """A full disk is told as what it is."""

        class Full:
            def executemany(self, *_: object) -> None:
                raise sqlite3.OperationalError("database or disk is full")

            def close(self) -> None:
                pass

        self.seen.close()
        self.seen._base = Full()  # type: ignore[assignment]
        self.seen.add([Run(name(1), 0, 1)])
        error = self.assertRaises(LocalError, self.seen.count)
        self.assertIn("TMPDIR", str(error))
