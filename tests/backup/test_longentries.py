"""Entries that are too long for one row of the cache."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.filecache import FORGET_SECONDS, TRUST_NS, FileCache
from cloudconnect.backup.longentries import LONG_SCHEMA, LongEntries
from cloudconnect.content.entries import Entry
from cloudconnect.content.runs import Run
from cloudconnect.settings import MANIFEST_PIECE_RUNS
from tests.backup.cases import file_of
from tests.backup.trees import write

STATE = b"state"


def long_entry(path: bytes = b"/image", count: int = MANIFEST_PIECE_RUNS + 5) -> Entry:
    runs = tuple(Run(b"%032d" % number, 0, 100) for number in range(count))
    return file_of(path, size=100 * count, runs=runs)


class LongEntriesTests(SynchronousTestCase):
    """What was kept comes back, or nothing does."""

    def setUp(self) -> None:
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.database.executescript(LONG_SCHEMA)
        self.kept = LongEntries(self.database, 1_000_000)

    def pieces(self) -> int:
        return int(self.database.execute("SELECT count(*) FROM pieces").fetchone()[0])

    def test_there_and_back(self) -> None:
        """An entry of several pieces comes back, for its path and its state only."""
        entry = long_entry()
        self.kept.keep(b"/image", STATE, entry)
        self.assertEqual(self.pieces(), 2)
        self.assertEqual(self.kept.find(b"/image", STATE), entry)
        self.assertIsNone(self.kept.find(b"/image", b"other"))
        self.assertIsNone(self.kept.find(b"/imagd", STATE))

    def test_replaced(self) -> None:
        """A later entry of the same path takes the place of the earlier one, all of it."""
        self.kept.keep(b"/image", STATE, long_entry(count=3 * MANIFEST_PIECE_RUNS))
        later = long_entry(count=MANIFEST_PIECE_RUNS + 1)
        self.kept.keep(b"/image", b"later", later)
        self.assertEqual(self.pieces(), 2)
        self.assertEqual(self.kept.find(b"/image", b"later"), later)

    def test_damaged(self) -> None:
        """A piece that was changed, exchanged or lost: nothing is known."""
        for change in (
            "UPDATE pieces SET octets = zeroblob(500) WHERE number = 1",
            "UPDATE pieces SET octets = 'text' WHERE number = 1",
            "DELETE FROM pieces WHERE number = 0",
            "DELETE FROM pieces WHERE number = 1",
            "UPDATE pieces SET number = 7 WHERE number = 1",
        ):
            self.kept.keep(b"/image", STATE, long_entry())
            self.database.execute(change)
            self.assertIsNone(self.kept.find(b"/image", STATE), change)

    def test_forgotten(self) -> None:
        """What was not seen for long is forgotten; what was seen today is not."""
        self.kept.keep(b"/image", STATE, long_entry())
        later = LongEntries(self.database, self.kept.now + FORGET_SECONDS)
        self.assertIsNotNone(later.find(b"/image", STATE))
        later.forget_older(self.kept.now + 10)
        self.assertEqual(self.pieces(), 2)
        later.forget_older(later.now + 1)
        self.assertEqual(self.pieces(), 0)


class CacheTests(SynchronousTestCase):
    """Long entries in the cache of unchanged files."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        os.makedirs(self.top)
        self.path = self.top + b"/image"
        write(self.path, b"content")
        self.directory = Path(os.path.abspath(self.mktemp()))
        self.now = os.stat(self.path).st_ctime_ns + TRUST_NS

    def cache(self) -> FileCache:
        cache = FileCache(self.directory, b"r" * 16, b"check-id", lambda: self.now)
        self.addCleanup(cache.close)
        return cache

    def remember(self) -> Entry:
        entry, cache = long_entry(self.path), self.cache()
        cache.remember_long(self.path, os.stat(self.path), self.now, entry)
        cache.close()
        self.assertIsNone(cache.trouble)
        return entry

    def test_unchanged(self) -> None:
        """A long entry is found by a later backup, and not for a changed file."""
        entry = self.remember()
        found = self.cache().find(self.path, os.stat(self.path))
        assert found is not None
        self.assertEqual((found.entry, found.ids, found.long), (b"", (), entry))
        os.utime(self.path)
        self.assertIsNone(self.cache().find(self.path, os.stat(self.path)))

    def test_young(self) -> None:
        """A file that was changed just before it was read is not remembered."""
        self.now -= 1
        self.remember()
        self.assertIsNone(self.cache().find(self.path, os.stat(self.path)))

    def test_gone(self) -> None:
        """The pieces of a file that does not exist any more go with it."""
        self.remember()
        write(self.top + b"/other", b"x")
        os.unlink(self.path)
        cache = self.cache()
        cache.find(self.top + b"/other", os.stat(self.top + b"/other"))
        cache.close()
        file = next(self.directory.glob("*.sqlite"))
        with sqlite3.connect(file) as database:
            self.assertEqual(database.execute("SELECT count(*) FROM pieces").fetchone(), (0,))
        database.close()

    def test_damaged(self) -> None:
        """Where a piece was changed, the file is read again; the rest of the cache stays."""
        self.remember()
        file = next(self.directory.glob("*.sqlite"))
        with sqlite3.connect(file) as database:
            database.execute("UPDATE pieces SET octets = x'00'")
        database.close()
        cache = self.cache()
        self.assertIsNone(cache.find(self.path, os.stat(self.path)))
        self.assertIsNone(cache.trouble)

    def test_cache_of_an_earlier_release(self) -> None:
        """What version 1 kept is still known."""
        cache = self.cache()
        status = os.stat(self.path)
        cache.remember(self.path, status, self.now, b"entry", (b"1" * 32,))
        cache.close()
        file = next(self.directory.glob("*.sqlite"))
        with sqlite3.connect(file) as database:
            database.executescript("DROP TABLE pieces; PRAGMA user_version = 1;")
        database.close()
        found = self.cache().find(self.path, status)
        assert found is not None
        self.assertEqual(found.entry, b"entry")
        self.remember()
