"""Layer 3: what is known of files from earlier backups, so that unchanged ones are not read.

A file counts as unchanged while its path, device, inode, size, time of change of content and time
of change of anything (``ctime``, which nobody can set) are the same. What is kept is the file's
encoded manifest entry and the ids of its chunks; every chunk is still offered to the repository,
so one that was lost there is noticed, and the file is read after all.

The cache is an optimisation. When it is missing, damaged or locked, everything is read again;
nothing here ever raises for that.

A file that was changed within two seconds before it was read is not remembered: a further change
within the same tick of the file system's clock would leave no trace.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import attrs
from blake3 import blake3

#: How old the last change must be when a file is read, in nanoseconds: the coarsest clock of a file
#: system that is in use, FAT's.
TRUST_NS: Final = 2_000_000_000
#: Folders that no backup has come by for this long are forgotten, in seconds.
FORGET_SECONDS: Final = 90 * 86400
#: Changed rows are written this many at a time.
_BATCH: Final = 2000
#: Rows of one folder that are fetched at a time.
_ROWS: Final = 256
_VERSION: Final = 1
_ID_SIZE: Final = 32
_CHECK_SIZE: Final = 16

_SCHEMA: Final = f"""
PRAGMA user_version = {_VERSION};
CREATE TABLE folders (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, seen INTEGER NOT NULL);
CREATE TABLE files (
    folder INTEGER NOT NULL REFERENCES folders (id) ON DELETE CASCADE,
    name BLOB NOT NULL,
    state BLOB NOT NULL,
    ids BLOB NOT NULL,
    entry BLOB NOT NULL,
    integrity BLOB NOT NULL,
    PRIMARY KEY (folder, name)
) WITHOUT ROWID;
"""


@attrs.frozen
class Remembered:
    """An unchanged file.

    :ivar entry: its encoded manifest entry
    :ivar ids: the chunks that it needs, 32 bytes each
    """

    entry: bytes
    ids: tuple[bytes, ...]


class _Folder:
    """The cached rows of one folder, in the order of their names; see :meth:`FileCache.find`."""

    __slots__ = ("last", "more", "number", "path", "position", "rows")

    def __init__(self, path: bytes, number: int | None) -> None:
        self.path = path
        self.number = number
        self.rows: list[tuple[bytes, bytes, bytes, bytes, bytes]] = []
        self.position = 0
        self.last = b""
        self.more = number is not None


class FileCache:
    """The cache of one repository; used by one thread at a time, and asked in walk order.

    :param directory: where it lies; made with mode 0700 if need be, the file has 0600
    :param repository: the repository's 16 bytes
    :param id_check: 8 bytes that change with the key that names chunks
    :param now_ns: the clock, nanoseconds since 1970
    :ivar trouble: why it is not used (any more), or None
    """

    def __init__(
        self,
        directory: Path,
        repository: bytes,
        id_check: bytes,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._now_ns = now_ns
        self._stack: list[_Folder] = []
        self._changed: dict[bytes, list[tuple[bytes, bytes, bytes, bytes, bytes]]] = {}
        self._waiting = 0  # rows in there
        self._gone: list[tuple[int, bytes]] = []
        self._seen: list[int] = []
        self.trouble: str | None = None
        self._path = directory / f"files-{repository.hex()}-{id_check.hex()}.sqlite"
        self._database: sqlite3.Connection | None = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                self._database = _open(self._path)
            except sqlite3.DatabaseError as error:
                if _is_busy(error):
                    raise
                _remove(self._path)
                self._database = _open(self._path)
        except (sqlite3.Error, OSError) as error:
            self._fail(error)

    def find(self, path: bytes, status: os.stat_result, parent: int) -> Remembered | None:
        """What is known of the file ``path`` if it is unchanged, else None.

        Asked in walk order. Names of the same folder that were passed over and no longer exist in
        it are forgotten.

        :param parent: descriptor of the folder that it lies in
        """
        if self._database is None:
            return None
        above, _, name = path.rpartition(b"/")
        try:
            row = self._row(self._enter(above), name, parent)
            if row is None:
                return None
            _, state, ids, entry, integrity = row
            if state != _state(status) or integrity != _integrity(path, state, ids, entry):
                return None
        except (sqlite3.Error, TypeError) as error:
            self._fail(error)
            return None
        names = tuple(ids[at : at + _ID_SIZE] for at in range(0, len(ids), _ID_SIZE))
        return Remembered(entry, names)

    def remember(
        self, path: bytes, status: os.stat_result, read_ns: int, entry: bytes, ids: Iterable[bytes]
    ) -> None:
        """Keep what a backup found out, unless the file had been changed just before.

        :param status: of the file as it was read
        :param read_ns: :meth:`now_ns` when the reading began
        :param entry: its encoded manifest entry
        :param ids: the chunks that it needs
        """
        if self._database is None:
            return
        if read_ns - max(status.st_mtime_ns, status.st_ctime_ns) < TRUST_NS:
            return
        above, _, name = path.rpartition(b"/")
        joined, state = b"".join(ids), _state(status)
        row = (name, state, joined, entry, _integrity(path, state, joined, entry))
        self._changed.setdefault(above, []).append(row)
        self._waiting += 1
        if self._waiting >= _BATCH:
            try:
                self._write()
            except sqlite3.Error as error:
                self._fail(error)

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self._now_ns()

    def close(self) -> None:
        """Write what is not written yet, forget what was not seen for long, and close."""
        if self._database is None:
            return
        try:
            self._write()
            oldest = self._seconds() - FORGET_SECONDS
            self._database.execute("DELETE FROM folders WHERE seen < ?", (oldest,))
            self._database.close()
            self._database = None
        except sqlite3.Error as error:
            self._fail(error)

    def _enter(self, path: bytes) -> _Folder:
        """The rows of folder ``path``; those of folders that the walk has left are dropped."""
        stack = self._stack
        while stack:
            top = stack[-1].path
            if top == path:
                return stack[-1]
            if path.startswith(top + b"/"):
                break
            stack.pop()
        assert self._database is not None
        found = self._database.execute(
            "SELECT id, seen FROM folders WHERE path = ?", (path,)
        ).fetchone()
        folder = _Folder(path, found[0] if found else None)
        if found and found[1] < self._seconds() - 86400:
            self._seen.append(found[0])
        stack.append(folder)
        return folder

    def _row(
        self, folder: _Folder, name: bytes, parent: int
    ) -> tuple[bytes, bytes, bytes, bytes, bytes] | None:
        """The row of ``name``: names are asked for in order, so this is a merge."""
        while True:
            while folder.position < len(folder.rows):
                row = folder.rows[folder.position]
                if row[0] > name:
                    return None
                folder.position += 1
                if row[0] == name:
                    return row
                self._passed_over(folder, row[0], parent)
            if not folder.more:
                return None
            assert self._database is not None
            folder.rows = self._database.execute(
                "SELECT name, state, ids, entry, integrity FROM files"
                " WHERE folder = ? AND name > ? ORDER BY name LIMIT ?",
                (folder.number, folder.last, _ROWS),
            ).fetchall()
            folder.position = 0
            folder.more = len(folder.rows) == _ROWS
            if folder.rows:
                folder.last = folder.rows[-1][0]

    def _passed_over(self, folder: _Folder, name: bytes, parent: int) -> None:
        """Forget a file that is not there any more; one that was only excluded today is kept."""
        try:
            os.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            assert folder.number is not None
            self._gone.append((folder.number, name))
        except OSError:
            pass

    def _seconds(self) -> int:
        return self._now_ns() // 1_000_000_000

    def _write(self) -> None:
        """Everything that waits, in one transaction."""
        database, now = self._database, self._seconds()
        assert database is not None
        database.execute("BEGIN IMMEDIATE")
        try:
            database.executemany("DELETE FROM files WHERE folder = ? AND name = ?", self._gone)
            database.executemany(
                "UPDATE folders SET seen = ? WHERE id = ?", [(now, number) for number in self._seen]
            )
            for path, rows in self._changed.items():
                database.execute(
                    "INSERT OR IGNORE INTO folders (path, seen) VALUES (?, ?)", (path, now)
                )
                found = database.execute("SELECT id FROM folders WHERE path = ?", (path,))
                number: int = found.fetchone()[0]
                database.executemany(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
                    [(number, *row) for row in rows],
                )
            database.execute("COMMIT")
        except sqlite3.Error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        self._changed, self._gone, self._seen, self._waiting = {}, [], [], 0

    def _fail(self, error: Exception) -> None:
        """Go on without the cache; a damaged file is taken away so that the next run has one."""
        self.trouble = f"the cache of unchanged files is not used: {error}"
        database, self._database = self._database, None
        try:
            if database is not None:
                database.close()
            if not _is_busy(error):
                _remove(self._path)
        except (sqlite3.Error, OSError):
            pass


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    database = sqlite3.connect(path, timeout=2.0, check_same_thread=False, isolation_level=None)
    try:
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            database.executescript(_SCHEMA)
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}")
    except BaseException:
        database.close()
        raise
    return database


def _is_busy(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _remove(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _state(status: os.stat_result) -> bytes:
    """What must be the same for a file to count as unchanged."""
    numbers = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return b"%d %d %d %d %d" % numbers


def _integrity(path: bytes, state: bytes, ids: bytes, entry: bytes) -> bytes:
    """Finds bytes of a row that changed on the disk; entries go into manifests as they are."""
    return blake3(b"\0".join((path, state, ids, entry))).digest(_CHECK_SIZE)
