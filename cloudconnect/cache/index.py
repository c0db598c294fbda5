"""Layer 3: the index of a block cache: which block lies where; SQLite, rebuilt from segments.

Names and features are there under a key of the cache (:meth:`CacheKeys.masked`). Rows that were not
written yet are kept in memory and found there; a process that is killed loses them, and they are
read from the segments that it had open. The index is never believed: what is read has its name
computed by the codec.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from cloudconnect.dedup.interfaces import Place

#: Blocks that are written to the index at a time.
BATCH: Final = 512
#: SQLite's page cache, in KiB: the upper pages of the index of a full cache of 100 GB.
CACHE_KIB: Final = 16384
#: The largest number in a row: more than any disk has bytes, and its sums fit into 64 bits.
NUMBER_MAX: Final = 1 << 56
_VERSION: Final = 1

_SCHEMA: Final = f"""
PRAGMA user_version = {_VERSION};
CREATE TABLE blocks (
    name BLOB PRIMARY KEY,
    segment INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE features (
    feature INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL
);
CREATE TABLE segments (
    number INTEGER PRIMARY KEY,
    before INTEGER NOT NULL,
    size INTEGER NOT NULL,
    last_ordinal INTEGER NOT NULL,
    last_offset INTEGER NOT NULL,
    last_length INTEGER NOT NULL,
    used INTEGER NOT NULL
);
"""
_SIMILAR: Final = "SELECT feature, segment, ordinal, offset, length FROM features WHERE feature IN"


@attrs.define
class SegmentRow:
    """A closed segment.

    :ivar before: number of the segment that its stream filled before, or 0
    :ivar size: bytes of the file
    :ivar last: place of its last block
    :ivar used: greater the later it was last used
    """

    number: int
    before: int
    size: int
    last: Place
    used: int


class Index:
    """The index in one file; its user holds a lock around every call.

    :param path: the file; made when it is missing
    :raises sqlite3.Error: it cannot be used
    """

    def __init__(self, path: Path) -> None:
        self._blocks: dict[bytes, Place] = {}
        self._features: dict[int, Place] = {}
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.text_factory = bytes  # there is no text, but for a damaged page
        try:
            # One process uses it: so nothing of it is mapped into memory, where a file that is cut
            # by somebody, or by a failing disk, would end the process.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = OFF")
            self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._database.executescript(_SCHEMA)
            elif version != _VERSION:
                raise sqlite3.DatabaseError(f"it is of version {version}")
        except BaseException:
            self._database.close()
            raise

    def find(self, name: bytes) -> Place | None:
        """Where the block with this masked name lies."""
        place = self._blocks.get(name)
        if place is not None:
            return place
        for row in self._select(
            "SELECT segment, ordinal, offset, length FROM blocks WHERE name = ?", name
        ):
            return Place(*row)
        return None

    def similar(self, features: Iterable[int]) -> Iterator[Place]:
        """Places of blocks that share some of these masked features, those of most first."""
        known = self._features
        wanted = list(features)
        asked = [feature for feature in wanted if feature not in known]
        stored: dict[int, Place] = {}
        if asked:
            marks = ", ".join("?" * len(asked))
            rows = self._select(f"{_SIMILAR} ({marks})", *asked, keys=1)
            stored = {row[0]: Place(*row[1:]) for row in rows}
        votes: dict[Place, int] = {}
        for feature in wanted:
            place = known.get(feature) or stored.get(feature)
            if place is not None:
                votes[place] = votes.get(place, 0) + 1
        return iter(sorted(votes, key=votes.__getitem__, reverse=True))

    def add(self, name: bytes, features: Iterable[int], place: Place) -> None:
        """A block lies at ``place``."""
        self._blocks[name] = place
        for feature in features:
            self._features[feature] = place
        if len(self._blocks) >= BATCH:
            self.write()

    def write(self) -> None:
        """Write what waits in memory."""
        if not self._blocks:
            return
        with self._transaction():
            self._database.executemany(
                "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?)",
                [(name, *place) for name, place in sorted(self._blocks.items())],
            )
            self._database.executemany(
                "INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?, ?)",
                [(feature, *place) for feature, place in sorted(self._features.items())],
            )
        self._blocks, self._features = {}, {}

    def remove(self, name: bytes) -> None:
        """A block is gone."""
        self._blocks.pop(name, None)
        self._database.execute("DELETE FROM blocks WHERE name = ?", (name,))

    def close_segment(self, row: SegmentRow) -> None:
        """A segment has been closed; all its blocks were added."""
        self.write()
        self._database.execute(
            "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?, ?, ?)",
            (row.number, row.before, row.size, *row.last[1:], row.used),
        )

    def segments(self) -> list[SegmentRow]:
        """The closed segments."""
        rows = self._select("SELECT * FROM segments")
        return [SegmentRow(r[0], r[1], r[2], Place(r[0], *r[3:6]), r[6]) for r in rows]

    def use(self, used: Iterable[tuple[int, int]]) -> None:
        """Note when segments were used: pairs of number and :attr:`SegmentRow.used`."""
        with self._transaction():
            self._database.executemany(
                "UPDATE segments SET used = ? WHERE number = ?",
                [(when, number) for number, when in used],
            )

    def forget_segment(
        self, number: int, entries: Sequence[tuple[bytes, Sequence[int]]] | None
    ) -> None:
        """A segment is gone.

        :param entries: masked names and features of its blocks; None where they are not known any
            more, and the whole index is searched
        """
        self.write()
        with self._transaction():
            if entries is None:
                self._database.execute("DELETE FROM blocks WHERE segment = ?", (number,))
                self._database.execute("DELETE FROM features WHERE segment = ?", (number,))
            else:
                self._database.executemany(
                    "DELETE FROM blocks WHERE name = ? AND segment = ?",
                    [(name, number) for name, _ in entries],
                )
                self._database.executemany(
                    "DELETE FROM features WHERE feature = ? AND segment = ?",
                    [(feature, number) for _, features in entries for feature in features],
                )
            self._database.execute("DELETE FROM segments WHERE number = ?", (number,))

    def empty(self) -> bool:
        """Whether there is no block in it."""
        if self._blocks:
            return False
        return not self._select("SELECT 1 FROM blocks LIMIT 1")

    def abandon(self) -> None:
        """Close without writing."""
        self._database.close()

    def close(self) -> None:
        """Write what waits, and close."""
        try:
            self.write()
        finally:
            self._database.close()

    def _select(self, query: str, *parameters: object, keys: int = 0) -> list[tuple[int, ...]]:
        """The rows that a query finds: numbers that can be, whatever a damaged page says.

        :param keys: columns at the front that were asked for by their values
        :raises sqlite3.Error: it says something else
        """
        try:
            rows = self._database.execute(query, parameters).fetchall()
        except ValueError as error:  # the names of columns are no text any more
            raise sqlite3.DatabaseError("the schema is damaged") from error
        for row in rows:
            for number in row[keys:]:
                if type(number) is not int or not 0 <= number <= NUMBER_MAX:
                    raise sqlite3.DatabaseError("a row is damaged")
        return rows

    def _transaction(self) -> _Transaction:
        return _Transaction(self._database)


class _Transaction:
    """All of it, or none of it."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is None:
            self._database.execute("COMMIT")
        elif self._database.in_transaction:
            self._database.execute("ROLLBACK")


def remove_index(path: Path) -> None:
    """Remove the index at ``path`` and what SQLite keeps beside it."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
