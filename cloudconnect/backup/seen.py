"""Layer 3: which chunks a check has come across, in a temporary file, not in memory.

A private temporary SQLite data base: it lies in the folder for temporary files (``TMPDIR``), has no
name there, and is gone when it is closed or the process ends. A chunk takes some 90 bytes in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final

from cloudconnect.content.runs import Run
from cloudconnect.errors import LocalError

#: Distinct chunks that are held in memory before they are written: fewer, larger statements.
WRITTEN_AT_ONCE: Final = 8192
#: The data base's page cache, in KiB; what does not fit is in the system's cache or on the disk.
CACHE_KIB: Final = 32 << 10
#: Bits, as a power of two, of the filter in front of the damaged chunks: most runs need no look.
_FILTER_BITS: Final = 23

_TABLES: Final = """
    CREATE TABLE chunk (number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, need INTEGER NOT NULL);
    CREATE TABLE damage (id BLOB PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
"""
_ADD: Final = """
    INSERT INTO chunk (id, need) VALUES (?, ?)
    ON CONFLICT (id) DO UPDATE SET need = excluded.need WHERE excluded.need > need
"""
_ALL: Final = "SELECT number, id, need FROM chunk WHERE number > ? ORDER BY number LIMIT ?"
_INTACT: Final = """
    SELECT number, id, need FROM chunk
    WHERE number > ? AND id NOT IN (SELECT id FROM damage) ORDER BY number LIMIT ?
"""


class SeenChunks:
    """Chunks in the order in which they were first seen, each once.

    :raises LocalError: the temporary file cannot be made or written
    :ivar damaged: how many were marked as damaged
    """

    def __init__(self) -> None:
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._waiting: dict[bytes, int] = {}
        self._filter = bytearray((1 << _FILTER_BITS) // 8)
        self.damaged = 0
        for statement in (
            "PRAGMA journal_mode=OFF",
            "PRAGMA synchronous=OFF",
            f"PRAGMA cache_size=-{CACHE_KIB}",
        ):
            self._base.execute(statement)
        self._base.executescript(_TABLES)
        self._base.execute("BEGIN")

    def add(self, runs: Iterable[Run]) -> None:
        """Come across the chunks of these runs."""
        waiting = self._waiting
        for run in runs:
            if run.id is not None:
                end = run.offset + run.length
                if waiting.get(run.id, 0) < end:
                    waiting[run.id] = end
        if len(waiting) >= WRITTEN_AT_ONCE:
            self._write()

    def count(self) -> int:
        """How many there are."""
        self._write()
        return int(self._base.execute("SELECT count(*) FROM chunk").fetchone()[0])

    def batches(self, size: int, intact: bool = False) -> Iterator[list[tuple[bytes, int]]]:
        """All of them, as (id, bytes of it that some file needs), so many at a time.

        May be used while :meth:`damage` is called.

        :param intact: leave out those that are marked as damaged when their batch is made
        """
        self._write()
        after = 0
        query = _INTACT if intact else _ALL
        while rows := self._base.execute(query, (after, size)).fetchall():
            after = rows[-1][0]
            yield [(name, need) for _, name, need in rows]

    def behind(self, after: int, size: int) -> tuple[int, list[bytes]]:
        """The ids of at most so many that were first seen behind number ``after``.

        :param after: 0, or what this returned the last time
        :return: the number of the last of them, and they
        """
        self._write()
        rows = self._base.execute(_ALL, (after, size)).fetchall()
        return (rows[-1][0] if rows else after), [row[1] for row in rows]

    def damage(self, name: bytes, reason: str) -> None:
        """Mark one as damaged.

        :param reason: a few words for a person
        """
        added = self._execute("INSERT OR IGNORE INTO damage VALUES (?, ?)", (name, reason))
        self.damaged += added
        bit = self._bit(name)
        self._filter[bit >> 3] |= 1 << (bit & 7)

    def damage_of(self, name: bytes) -> str | None:
        """Why a chunk is damaged, or None where it is not."""
        bit = self._bit(name)
        if not self._filter[bit >> 3] >> (bit & 7) & 1:
            return None
        row = self._base.execute("SELECT reason FROM damage WHERE id = ?", (name,)).fetchone()
        return row and str(row[0])

    def close(self) -> None:
        """Drop the file."""
        self._base.close()

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, {}
        if waiting:
            try:
                self._base.executemany(_ADD, waiting.items())
            except sqlite3.Error as error:
                raise _unusable(error) from error

    def _execute(self, statement: str, values: tuple[bytes, str]) -> int:
        try:
            return self._base.execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise _unusable(error) from error

    @staticmethod
    def _bit(name: bytes) -> int:
        return int.from_bytes(name[:4], "big") >> (32 - _FILTER_BITS)


def _unusable(error: sqlite3.Error) -> LocalError:
    return LocalError(
        f"the list of chunks does not fit into the folder for temporary files (TMPDIR): {error}"
    )
