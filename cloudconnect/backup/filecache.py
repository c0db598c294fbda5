"""Layer 3: what is known of files from earlier backups, so that unchanged ones are not read.

A file counts as unchanged while its path, device, inode, size, time of change of content and time
of change of anything (``ctime``, which nobody can set) are the same. What is kept is the file's
encoded manifest entry and the ids of its chunks; every chunk is still offered to the repository,
so one that was lost there is noticed, and the file is read after all.

The cache is an optimisation. When it is missing, damaged or locked, everything is read again;
nothing here ever raises for that.

A file that was changed within two seconds before it was read is not remembered: a further change
within the same tick of the file system's clock would leave no trace.

The entry of a file of very many chunks is kept piece by piece
(:mod:`cloudconnect.backup.longentries`).

On the disk a row holds the records of up to 512 neighbouring files of a folder, as one checked
blob: a row for each file costs as much as reading small files does.
"""

from __future__ import annotations

import os
import sqlite3
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import attrs
import cbor2
from blake3 import blake3

from cloudconnect.backup.longentries import LONG_SCHEMA, LongEntries
from cloudconnect.content.entries import Entry
from cloudconnect.shown import Shown

#: How old the last change must be when a file is read, in nanoseconds: the coarsest clock of a file
#: system that is in use, FAT's.
TRUST_NS: Final = 2_000_000_000
#: Folders that no backup has come by for this long are forgotten, in seconds.
FORGET_SECONDS: Final = 90 * 86400
#: How long to wait for another backup that is writing to the same cache, in seconds.
BUSY_SECONDS: Final = 2.0
#: Records in one row.
ROW_FILES: Final = 512
#: Changed records are written this many at a time.
_BATCH: Final = 4096
_DAY: Final = 86400
# Also raised when what encode_entry() makes changes: entries are kept as they were encoded.
_VERSION: Final = 2
_ID_SIZE: Final = 32
_CHECK_SIZE: Final = 16

_SCHEMA: Final = """
CREATE TABLE rows (
    folder BLOB NOT NULL,
    first BLOB NOT NULL,
    seen INTEGER NOT NULL,
    records BLOB NOT NULL,
    PRIMARY KEY (folder, first)
);
"""
#: State, ids and entry of a file; the latter two are empty for a long entry.
_Record = tuple[bytes, bytes, bytes]


@attrs.define(repr=False)
class Remembered(Shown):
    """An unchanged file; not changed by anybody.

    :ivar entry: its encoded manifest entry; empty for a long one
    :ivar ids: the chunks that it needs, 32 bytes each; likewise
    :ivar long: a long entry
    """

    entry: bytes
    ids: tuple[bytes, ...]
    long: Entry | None = None


class _Damaged(Exception):
    """A row's bytes are not what was written."""


class _Folder:
    """A folder that the walk is in.

    :ivar firsts: the first name of each of its rows, in order
    :ivar at: which of them :attr:`records` is of, or -1
    :ivar records: those of that row that were not asked for yet
    """

    __slots__ = ("at", "firsts", "path", "records")

    def __init__(self, path: bytes, firsts: list[bytes]) -> None:
        self.path = path
        self.firsts = firsts
        self.at = -1
        self.records: dict[bytes, _Record] = {}


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
        self.now_ns = now_ns
        self._stack: list[_Folder] = []
        self._changed: dict[bytes, dict[bytes, _Record | None]] = {}  # None: the file is gone
        self._waiting = 0  # records in there
        self._seen: list[bytes] = []
        self.trouble: str | None = None
        self._path = directory / f"files-{repository.hex()}-{id_check.hex()}.sqlite"
        self._database: sqlite3.Connection | None = None
        self._empty = False  # there was nothing in it when it was opened
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                self._database = _open(self._path)
            except sqlite3.DatabaseError as error:
                if _is_busy(error):
                    raise
                _remove(self._path)
                self._database = _open(self._path)
            self._empty = self._database.execute("SELECT 1 FROM rows LIMIT 1").fetchone() is None
        except (sqlite3.Error, OSError) as error:
            self._fail(error)

    def find(self, path: bytes, status: os.stat_result) -> Remembered | None:
        """What is known of the file ``path`` if it is unchanged, else None.

        Asked in walk order. Files of the same folder that are known, were not asked for, and do not
        exist any more are forgotten.
        """
        if self._database is None:
            return None
        above, _, name = path.rpartition(b"/")
        stack = self._stack
        try:
            folder = stack[-1] if stack and stack[-1].path == above else self._enter(above)
            if folder.at + 1 < len(folder.firsts) and name >= folder.firsts[folder.at + 1]:
                self._load(folder, name)
        except (sqlite3.Error, _Damaged) as error:
            self._fail(error)
            return None
        record = folder.records.pop(name, None)
        if record is None or record[0] != _state(status):
            return None
        if not record[2]:
            return self._find_long(path, record[0])
        ids = record[1]
        if len(ids) == _ID_SIZE:
            return Remembered(record[2], (ids,))
        return Remembered(record[2], tuple(_split(ids)))

    def remember(
        self, path: bytes, status: os.stat_result, read_ns: int, entry: bytes, ids: Iterable[bytes]
    ) -> None:
        """Keep what a backup found out, unless the file had been changed just before.

        :param status: of the file as it was read
        :param read_ns: :attr:`now_ns` when the reading began
        :param entry: its encoded manifest entry
        :param ids: the chunks that it needs
        """
        if self._database is None or _too_young(status, read_ns):
            return
        above, _, name = path.rpartition(b"/")
        self._change(above, name, (_state(status), b"".join(ids), entry))
        if self._waiting >= _BATCH:
            try:
                self._write()
            except (sqlite3.Error, _Damaged) as error:
                self._fail(error)

    def remember_long(
        self, path: bytes, status: os.stat_result, read_ns: int, entry: Entry
    ) -> None:
        """As :meth:`remember`, of an entry that is too long to be in memory as a whole."""
        if self._database is None or _too_young(status, read_ns):
            return
        state = _state(status)
        try:
            LongEntries(self._database, self._seconds()).keep(path, state, entry)
        except sqlite3.Error as error:
            self._fail(error)
            return
        above, _, name = path.rpartition(b"/")
        self._change(above, name, (state, b"", b""))

    def close(self) -> None:
        """Write what is not written yet, forget what was not seen for long, and close."""
        if self._database is None:
            return
        try:
            while self._stack:
                self._pass_over(self._stack.pop())
            self._write()
            oldest = self._seconds() - FORGET_SECONDS
            self._database.execute("DELETE FROM rows WHERE seen < ?", (oldest,))
            LongEntries(self._database, self._seconds()).forget_older(oldest)
            self._database.close()
            self._database = None
        except (sqlite3.Error, _Damaged) as error:
            self._fail(error)

    # --- reading ----------------------------------------------------------------------------------

    def _enter(self, path: bytes) -> _Folder:
        """Go to folder ``path``; folders that it does not lie in are left."""
        stack = self._stack
        while stack and stack[-1].path != path and not path.startswith(stack[-1].path + b"/"):
            self._pass_over(stack.pop())
        if stack and stack[-1].path == path:
            return stack[-1]
        folder = _Folder(path, [])
        stack.append(folder)
        if self._empty:
            return folder
        assert self._database is not None
        rows = self._database.execute(
            "SELECT first, seen, records FROM rows WHERE folder = ? ORDER BY first LIMIT 2", (path,)
        ).fetchall()
        if len(rows) == 1:  # as for most folders: then this was the only question
            folder.firsts, folder.at = [_octets(rows[0][0])], 0
            folder.records = _unpack(path, rows[0][2])
        elif rows:
            folder.firsts = self._firsts(path)
        if rows and rows[0][1] < self._seconds() - _DAY:
            self._seen.append(path)
            if len(self._seen) >= _BATCH:
                self._write()
        return folder

    def _firsts(self, path: bytes) -> list[bytes]:
        """The first name of each row of a folder, in order."""
        assert self._database is not None
        rows = self._database.execute(
            "SELECT first FROM rows WHERE folder = ? ORDER BY first", (path,)
        )
        return [_octets(row[0]) for row in rows]

    def _load(self, folder: _Folder, name: bytes) -> None:
        """Load the row that ``name`` would be in; those before it are done with."""
        self._pass_over(folder)
        at = bisect_right(folder.firsts, name) - 1
        for skipped in range(folder.at + 1, at):
            folder.records = self._records(folder.path, folder.firsts[skipped])
            self._pass_over(folder)
        folder.at = at
        folder.records = self._records(folder.path, folder.firsts[at])

    def _records(self, path: bytes, first: bytes) -> dict[bytes, _Record]:
        assert self._database is not None
        row = self._database.execute(
            "SELECT records FROM rows WHERE folder = ? AND first = ?", (path, first)
        ).fetchone()
        return _unpack(path, row[0]) if row is not None else {}

    def _find_long(self, path: bytes, state: bytes) -> Remembered | None:
        assert self._database is not None
        try:
            entry = LongEntries(self._database, self._seconds()).find(path, state)
        except sqlite3.Error as error:
            self._fail(error)
            return None
        return None if entry is None else Remembered(b"", (), entry)

    def _pass_over(self, folder: _Folder) -> None:
        """Forget files that are not there any more; one that was only excluded today is kept."""
        for name, record in folder.records.items():
            path = folder.path + b"/" + name
            try:
                os.lstat(path)
            except FileNotFoundError:
                self._change(folder.path, name, None)
                if self._database is not None and not record[2]:
                    LongEntries(self._database, self._seconds()).forget(path)
            except OSError:
                pass
        folder.records = {}
        if self._waiting >= _BATCH:  # much was removed
            self._write()

    # --- writing ----------------------------------------------------------------------------------

    def _change(self, path: bytes, name: bytes, record: _Record | None) -> None:
        names = self._changed.get(path)
        if names is None:
            names = self._changed[path] = {}
        names[name] = record
        self._waiting += 1

    def _write(self) -> None:
        """Everything that waits, in one transaction."""
        database, now = self._database, self._seconds()
        assert database is not None
        database.execute("BEGIN IMMEDIATE")
        try:
            database.executemany(
                "UPDATE rows SET seen = ? WHERE folder = ?", [(now, path) for path in self._seen]
            )
            for path, changes in self._changed.items():
                for records in self._merged(database, path, changes):
                    in_order = iter(sorted((name, kept) for name, kept in records.items() if kept))
                    while part := list(islice(in_order, ROW_FILES)):
                        row = (path, part[0][0], now, _pack(path, part))
                        database.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", row)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        self._changed, self._seen, self._waiting = {}, [], 0

    def _merged(
        self, database: sqlite3.Connection, path: bytes, changes: dict[bytes, _Record | None]
    ) -> Iterator[dict[bytes, _Record | None]]:
        """Changes merged into the records of each row that they fall into; those rows go.

        Where the cache was empty this is not needed: names come in order, so what is written later
        lies behind what was written before.
        """
        firsts = [] if self._empty else self._firsts(path)
        by_row: dict[int, dict[bytes, _Record | None]] = {}
        for name, record in changes.items():
            by_row.setdefault(max(bisect_right(firsts, name) - 1, 0), {})[name] = record
        for at, changed in by_row.items():
            if not firsts:
                yield changed
                continue
            records: dict[bytes, _Record | None] = {**self._records(path, firsts[at])}
            database.execute("DELETE FROM rows WHERE folder = ? AND first = ?", (path, firsts[at]))
            yield {**records, **changed}

    def _seconds(self) -> int:
        return self.now_ns() // 1_000_000_000

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


def _pack(path: bytes, records: list[tuple[bytes, _Record]]) -> bytes:
    flat = [octets for name, record in records for octets in (name, *record)]
    packed: bytes = cbor2.dumps(flat)
    return _check(path, packed) + packed


def _unpack(path: bytes, row: Any) -> dict[bytes, _Record]:
    """The records of a row: entries go into manifests as they are, so they are checked first."""
    octets = _octets(row)
    if _check(path, octets[_CHECK_SIZE:]) != octets[:_CHECK_SIZE]:
        raise _Damaged("a row of it has changed")
    flat = cbor2.loads(octets[_CHECK_SIZE:])
    return dict(zip(flat[::4], zip(flat[1::4], flat[2::4], flat[3::4], strict=True), strict=True))


def _check(path: bytes, packed: bytes) -> bytes:
    return blake3(path + b"\0" + packed).digest(_CHECK_SIZE)


def _too_young(status: os.stat_result, read_ns: int) -> bool:
    return read_ns - max(status.st_mtime_ns, status.st_ctime_ns) < TRUST_NS


def _octets(value: Any) -> bytes:
    if type(value) is not bytes:
        raise _Damaged("a row of it has another type than was written")
    return value


def _split(ids: bytes) -> Iterator[bytes]:
    return (ids[at : at + _ID_SIZE] for at in range(0, len(ids), _ID_SIZE))


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    database = sqlite3.connect(
        path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None
    )
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        mark = f"PRAGMA user_version = {_VERSION};"
        if version == 0:
            database.executescript(f"BEGIN; {_SCHEMA} {LONG_SCHEMA} {mark} COMMIT;")
        elif version == 1:
            database.executescript(f"BEGIN; {LONG_SCHEMA} {mark} COMMIT;")
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
