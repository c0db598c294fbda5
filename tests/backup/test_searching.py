"""Searching many restore points."""

from __future__ import annotations

import os

from cloudconnect.backup.patterns import PathPatterns
from cloudconnect.backup.searching import SearchResult, search
from cloudconnect.errors import Cancelled, CloudConnectError
from tests.backup.cases import BackupCase
from tests.backup.trees import write


class SearchTests(BackupCase):
    """Points in which a file changes."""

    def setUp(self) -> None:
        super().setUp()
        write(self.top + b"/docs/letter.odt", b"one")
        self.first = self.place.backup(self.top)
        write(self.top + b"/docs/letter.odt", b"longer", mtime_ns=5)
        write(self.top + b"/docs/other", b"x")
        self.second = self.place.backup(self.top)
        self.hits: list[tuple[bytes, bytes, int]] = []

    def search(self, pattern: bytes, *points: bytes) -> SearchResult:
        self.hits.clear()
        return search(
            self.place.open("read"),
            self.place.keys,
            self.place.description,
            points or (self.first.point, self.second.point),
            PathPatterns([pattern]),
            lambda point, entry: self.hits.append((point, entry.path[len(self.top) :], entry.size)),
        )

    def test_names(self) -> None:
        """Every point that has it, with what it was there."""
        result = self.search(b"*.odt")
        wanted = [
            (self.first.point, b"/docs/letter.odt", 3),
            (self.second.point, b"/docs/letter.odt", 6),
        ]
        self.assertEqual(self.hits, wanted)
        self.assertEqual((result.points, result.found, result.damaged), (2, 2, []))
        self.assertGreater(result.entries, 5)

    def test_paths_and_folders(self) -> None:
        """Whole paths, and folders only, as patterns of backups mean them."""
        self.search(self.top + b"/docs/other")
        self.assertEqual([hit[0] for hit in self.hits], [self.second.point])
        self.search(b"docs/")
        self.assertEqual([hit[1] for hit in self.hits], [b"/docs", b"/docs"])
        self.assertEqual(self.search(b"letter.odt/").found, 0)

    def test_damaged_point(self) -> None:
        """A damaged point is named, and the others are searched; one that is gone is passed by."""
        assert self.first.record is not None
        self.place.damage(self.first.record.manifest[0])
        result = self.search(b"*.odt", bytes(16), self.first.point, self.second.point)
        self.assertEqual([point for point, _ in result.damaged], [self.first.point])
        self.assertEqual([hit[0] for hit in self.hits], [self.second.point])
        self.assertEqual(result.points, 2)

    def test_interrupted(self) -> None:
        """What looking raises ends the search."""

        def look(path: bytes) -> None:
            raise Cancelled("enough")

        arguments = (self.place.keys, self.place.description, [self.first.point])
        with self.assertRaises(Cancelled):
            search(
                self.place.open("read"),
                *arguments,
                PathPatterns([b"x"]),
                lambda point, entry: None,
                look,
            )
        assert self.place.served is not None
        self.assertIsInstance(self.place.served.wait(), CloudConnectError)
        self.assertTrue(os.path.isdir(self.top))
