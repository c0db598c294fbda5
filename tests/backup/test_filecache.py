"""What is known of unchanged files."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import filecache
from cloudconnect.backup.filecache import FORGET_SECONDS, TRUST_NS, FileCache
from tests.backup.trees import write

REPOSITORY = b"r" * 16
CHECK = b"check-id"
IDS = (b"1" * 32, b"2" * 32)


class CacheTests(SynchronousTestCase):
    """When a file counts as unchanged, and what happens when the cache is in a bad state."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        os.makedirs(self.top)
        self.directory = Path(os.path.abspath(self.mktemp()))
        self.now = 0

    def cache(self, repository: bytes = REPOSITORY, check: bytes = CHECK) -> FileCache:
        cache = FileCache(self.directory, repository, check, lambda: self.now)
        self.addCleanup(cache.close)
        return cache

    @property
    def file(self) -> Path:
        return self.directory / f"files-{REPOSITORY.hex()}-{CHECK.hex()}.sqlite"

    def make(self, name: bytes = b"file", content: bytes = b"content") -> os.stat_result:
        write(self.top + b"/" + name, content)
        status = os.stat(self.top + b"/" + name)
        self.now = max(self.now, status.st_ctime_ns + TRUST_NS, status.st_mtime_ns + TRUST_NS)
        return status

    def remember(self, cache: FileCache, name: bytes = b"file", entry: bytes = b"entry") -> None:
        path = self.top + b"/" + name
        cache.remember(path, os.stat(path), self.now, entry, IDS)

    def known(self, cache: FileCache, name: bytes = b"file") -> bytes | None:
        path = self.top + b"/" + name
        found = cache.find(path, os.stat(path))
        return found.entry if found else None

    def test_unchanged(self) -> None:
        """What one backup kept, a later one finds: entry and ids."""
        status = self.make()
        cache = self.cache()
        self.assertIsNone(self.known(cache))
        self.remember(cache)
        cache.close()
        self.assertIsNone(cache.trouble)
        later = self.cache()
        found = later.find(self.top + b"/file", status)
        assert found is not None
        self.assertEqual((found.entry, found.ids), (b"entry", IDS))

    def test_each_change_is_noticed(self) -> None:
        """Another size, inode, time of content or time of change: the file is read again."""
        status = self.make()
        cache = self.cache()
        self.remember(cache)
        cache.close()
        for field in ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns"):
            changed = _Status(status, field)
            found = self.cache().find(self.top + b"/file", changed)  # type: ignore[arg-type]
            self.assertIsNone(found, field)
        self.assertIsNotNone(self.known(self.cache()))

    def test_real_change(self) -> None:
        """A file that was written again with the same size and its old time is read again."""
        status = self.make()
        cache = self.cache()
        self.remember(cache)
        cache.close()
        with open(self.top + b"/file", "r+b") as file:
            file.write(b"CONTENT")
        os.utime(self.top + b"/file", ns=(status.st_atime_ns, status.st_mtime_ns))
        self.assertEqual(os.stat(self.top + b"/file").st_mtime_ns, status.st_mtime_ns)
        self.assertIsNone(self.known(self.cache()))

    def test_young_files_are_not_trusted(self) -> None:
        """A file that changed less than two seconds before it was read is not kept."""
        status = self.make()
        newest = max(status.st_ctime_ns, status.st_mtime_ns)
        for age, kept in ((TRUST_NS - 1, False), (0, False), (-1, False), (TRUST_NS, True)):
            cache = self.cache()
            cache.remember(self.top + b"/file", status, newest + age, b"entry", IDS)
            cache.close()
            self.assertEqual(self.known(self.cache()) is not None, kept, age)

    def test_repositories_and_keys_are_apart(self) -> None:
        """What is known for one repository, or one key of chunk ids, is not for another."""
        self.make()
        cache = self.cache()
        self.remember(cache)
        cache.close()
        self.assertIsNone(self.known(self.cache(repository=b"s" * 16)))
        self.assertIsNone(self.known(self.cache(check=b"another!")))

    def test_many_files_in_walk_order(self) -> None:
        """A folder of more rows than are fetched at once, with folders between its files."""
        names = sorted(b"%d" % number for number in range(filecache.ROW_FILES * 2 + 10))
        cache = self.cache()
        for name in names:
            self.make(name)
        self.make(b"1-folder/inner")
        for name in names:
            self.remember(cache, name, b"entry of " + name)
        self.remember(cache, b"1-folder/inner", b"inner")
        cache.close()
        later = self.cache()
        for name in sorted([*names, b"1-folder"]):
            if name == b"1-folder":
                path = self.top + b"/1-folder/inner"
                found = later.find(path, os.stat(path))
                assert found is not None
                self.assertEqual(found.entry, b"inner")
            else:
                self.assertEqual(self.known(later, name), b"entry of " + name)

    def test_rows_are_merged(self) -> None:
        """New files between, before and behind known ones go into the right rows; none is lost."""
        self.patch(filecache, "ROW_FILES", 4)
        self.patch(filecache, "_BATCH", 3)
        known = set()
        for run in ([b"m%02d" % n for n in range(9)], [b"a", b"m04x", b"z"], [b"m00", b"n", b"zz"]):
            for name in run:
                self.make(name)
            cache = self.cache()
            for name in sorted(run):
                self.remember(cache, name, b"entry of " + name)
            cache.close()
            known.update(run)
            later = self.cache()
            for name in sorted(known):
                self.assertEqual(self.known(later, name), b"entry of " + name)
            later.close()

    def test_changes_in_distant_rows(self) -> None:
        """Changes in the first and the last of three rows leave the one between where it was."""
        self.patch(filecache, "ROW_FILES", 3)
        names = [b"%d" % number for number in range(9)]
        for name in names:
            self.make(name)
        cache = self.cache()
        for name in names:
            self.remember(cache, name)
        cache.close()
        cache = self.cache()
        for name in (b"1", b"7"):
            self.remember(cache, name, b"changed")
        cache.close()
        cache = self.cache()
        found = [self.known(cache, name) for name in names]
        expected = [b"changed" if name in (b"1", b"7") else b"entry" for name in names]
        self.assertEqual(found, expected)

    def test_vanished_files_are_forgotten(self) -> None:
        """Rows of files that are gone are removed; those of files that were excluded are kept."""
        for name in (b"a", b"b", b"c", b"d"):
            self.make(name)
        cache = self.cache()
        for name in (b"a", b"b", b"c", b"d"):
            self.remember(cache, name)
        cache.close()
        os.unlink(self.top + b"/b")
        cache = self.cache()
        self.known(cache, b"d")
        cache.close()
        for name in (b"a", b"b", b"c", b"d"):
            write(self.top + b"/" + name, b"again")
        cache = self.cache()
        self.assertEqual(cache._enter(self.top).firsts, [b"a"])
        self.assertEqual(set(cache._records(self.top, b"a")), {b"a", b"c", b"d"})

    def test_much_vanished(self) -> None:
        """Where many files vanished, what is to be forgotten is written before it is much."""
        self.patch(filecache, "_BATCH", 40)
        self.patch(filecache, "ROW_FILES", 16)
        names = [b"%03d" % number for number in range(300)]
        cache = self.cache()
        for name in names:
            self.make(name)
        for name in names:
            self.remember(cache, name, b"entry of " + name)
        cache.close()
        kept = names[::7]
        for name in set(names) - set(kept):
            os.unlink(self.top + b"/" + name)
        later, waiting = self.cache(), []
        for name in kept:
            self.assertEqual(self.known(later, name), b"entry of " + name)
            waiting.append(later._waiting)
        self.assertLess(max(waiting), 60)
        later.close()
        self.assertIsNone(later.trouble)
        last = self.cache()
        for name in kept:
            self.assertEqual(self.known(last, name), b"entry of " + name)

    def test_many_folders_seen(self) -> None:
        """That many folders are still there is written before it is much."""
        self.patch(filecache, "_BATCH", 10)
        cache = self.cache()
        names = [b"%03d/file" % number for number in range(50)]
        for name in names:
            self.make(name)
        for name in names:
            self.remember(cache, name)
        cache.close()
        self.now += 5 * 86400 * 1_000_000_000
        later, seen = self.cache(), []
        for name in names:
            self.assertIsNotNone(self.known(later, name))
            seen.append(len(later._seen))
        self.assertLessEqual(max(seen), 10)

    def test_whole_rows_are_passed_over(self) -> None:
        """Rows of which no file is asked for are looked through for files that are gone."""
        self.patch(filecache, "ROW_FILES", 2)
        names = [b"%d" % number for number in range(8)]
        for name in names:
            self.make(name)
        cache = self.cache()
        for name in names:
            self.remember(cache, name)
        cache.close()
        for name in (b"1", b"2", b"4"):
            os.unlink(self.top + b"/" + name)
        cache = self.cache()
        self.assertEqual(self.known(cache, b"7"), b"entry")
        cache.close()
        cache = self.cache()
        left = [set(cache._records(self.top, first)) for first in cache._enter(self.top).firsts]
        self.assertEqual(set().union(*left), {b"0", b"3", b"5", b"6", b"7"})

    def test_two_backups_at_once(self) -> None:
        """While another backup writes, this one goes on without the cache and does not harm it."""
        self.patch(filecache, "BUSY_SECONDS", 0.0)
        self.patch(filecache, "_BATCH", 1)
        self.make()
        first = self.cache()
        self.remember(first)
        first.close()
        other = sqlite3.connect(self.file, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        second = self.cache()
        self.assertEqual(self.known(second), b"entry")
        self.make(b"new")
        self.remember(second, b"new")
        self.assertIn("not used", second.trouble or "")
        self.assertIsNone(self.known(second, b"new"))
        other.execute("ROLLBACK")
        self.assertEqual(self.known(self.cache()), b"entry")

    def test_busy_at_the_end(self) -> None:
        """What cannot be written at the end is not remembered, and nothing is raised."""
        self.patch(filecache, "BUSY_SECONDS", 0.0)
        self.make()
        cache = self.cache()
        self.remember(cache)
        other = sqlite3.connect(self.file, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        cache.close()
        self.assertIn("not used", cache.trouble or "")
        other.execute("ROLLBACK")
        self.assertIsNone(self.known(self.cache()))

    def test_old_folders_are_forgotten(self) -> None:
        """A folder that no backup came by for long goes with its files; a visit keeps it."""
        self.make()
        cache = self.cache()
        self.remember(cache)
        cache.close()
        self.now += (FORGET_SECONDS - 10) * 1_000_000_000
        cache = self.cache()
        self.assertIsNotNone(self.known(cache))
        cache.close()
        self.now += (FORGET_SECONDS - 10) * 1_000_000_000
        self.cache().close()
        cache = self.cache()
        self.assertIsNotNone(self.known(cache))
        cache.close()
        self.now += (FORGET_SECONDS + 10) * 1_000_000_000
        self.cache().close()
        self.assertIsNone(self.known(self.cache()))

    def test_only_for_the_owner(self) -> None:
        """The folder and the file of the cache are nobody else's to read."""
        self.make()
        cache = self.cache()
        self.remember(cache)
        for path, mode in ((self.directory, 0o700), (self.file, 0o600)):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), mode)
        for path in self.directory.iterdir():
            self.assertEqual(stat.S_IMODE(path.stat().st_mode) & 0o077, 0, path)

    def test_garbage_file(self) -> None:
        """A file that is no database is replaced, and the cache works."""
        self.directory.mkdir()
        self.file.write_bytes(b"this is not a database" * 1000)
        self.make()
        cache = self.cache()
        self.assertIsNone(self.known(cache))
        self.remember(cache)
        cache.close()
        self.assertEqual(self.known(self.cache()), b"entry")

    def test_other_version(self) -> None:
        """A cache of another version is replaced."""
        self.directory.mkdir()
        database = sqlite3.connect(self.file)
        database.execute("PRAGMA user_version = 99")
        database.close()
        self.make()
        cache = self.cache()
        self.remember(cache)
        cache.close()
        self.assertEqual(self.known(self.cache()), b"entry")

    def test_damaged_row(self) -> None:
        """A row whose bytes changed on the disk is not believed."""
        self.make()
        cache = self.cache()
        self.remember(cache)
        cache.close()
        database = sqlite3.connect(self.file)
        database.execute("UPDATE rows SET records = CAST(records || x'00' AS BLOB)")
        database.commit()
        database.close()
        cache = self.cache()
        self.assertIsNone(self.known(cache))
        self.assertIn("changed", cache.trouble or "")

    def test_row_of_another_type(self) -> None:
        """A row that holds text where bytes belong ends the use of the cache, without an error."""
        self.make()
        cache = self.cache()
        self.remember(cache)
        cache.close()
        database = sqlite3.connect(self.file)
        database.execute("UPDATE rows SET records = 'text'")
        database.commit()
        database.close()
        cache = self.cache()
        self.assertIsNone(self.known(cache))
        self.assertIsNotNone(cache.trouble)

    def test_damage_while_open(self) -> None:
        """A database that turns out to be damaged later is given up without an error."""
        names = [b"%04d" % number for number in range(2000)]
        for name in names:
            self.make(name)
        cache = self.cache()
        for name in names:
            self.remember(cache, name, b"e" * 200)
        cache.close()
        size = self.file.stat().st_size
        with self.file.open("r+b") as file:
            file.seek(8192)
            file.write(b"\xff" * (size - 8192))
        cache = self.cache()
        for name in names:
            self.known(cache, name)
            self.remember(cache, name)
        cache.close()
        self.assertIsNotNone(cache.trouble)
        self.assertFalse(self.file.exists())

    def test_no_folder(self) -> None:
        """Where the folder cannot be made, there is no cache and no error."""
        self.directory.parent.mkdir(exist_ok=True)
        self.directory.write_bytes(b"a file in the way")
        self.make()
        cache = self.cache()
        self.assertIsNone(self.known(cache))
        self.remember(cache)
        cache.close()
        self.assertIn("not used", cache.trouble or "")


class _Status:
    """A status with one field changed."""

    def __init__(self, status: os.stat_result, field: str) -> None:
        self._status = status
        self._field = field

    def __getattr__(self, name: str) -> int:
        value: int = getattr(self._status, name)
        return value + (name == self._field)
