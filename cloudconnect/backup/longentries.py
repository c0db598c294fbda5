"""Layer 3: entries of unchanged files that are too long for one row of the cache.

A part of :mod:`cloudconnect.backup.filecache`. The entry of a file of a terabyte has most of a
gigabyte, so it is kept piece by piece, as it stands in a manifest, and its runs are held in a
temporary file while they are used.

The pieces are tied to the state of the file that they were made of: after two backups at once, or a
crash, pieces of another state are as good as none.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import attrs
from blake3 import blake3

from cloudconnect.backup.temporary import temporary_file
from cloudconnect.content.entries import Entry
from cloudconnect.content.manifest import EntryDecoder, encode_pieces
from cloudconnect.errors import StoredDataDamaged
from cloudconnect.shown import Shown

#: What the cache's data base has for them.
LONG_SCHEMA: Final = """
CREATE TABLE pieces (
    path BLOB NOT NULL,
    number INTEGER NOT NULL,
    seen INTEGER NOT NULL,
    octets BLOB NOT NULL,
    PRIMARY KEY (path, number)
);
"""

_DAY: Final = 86400
_CHECK_SIZE: Final = 16


@attrs.frozen(repr=False)
class LongEntries(Shown):
    """The long entries in a data base.

    :ivar database: with :data:`LONG_SCHEMA`, in no transaction
    :ivar now: seconds since 1970
    """

    database: sqlite3.Connection
    now: int

    def keep(self, path: bytes, state: bytes, entry: Entry) -> None:
        """Keep the entry of a file in place of what was kept of it before.

        :param state: what the file was like
        :raises sqlite3.Error: it cannot be kept
        """
        rows = (
            (path, number, self.now, _check(path, state, number, piece) + piece)
            for number, piece in enumerate(encode_pieces(entry))
        )
        self.database.execute("BEGIN IMMEDIATE")
        try:
            self.forget(path)
            self.database.executemany("INSERT INTO pieces VALUES (?, ?, ?, ?)", rows)
            self.database.execute("COMMIT")
        except BaseException:
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
            raise

    def find(self, path: bytes, state: bytes) -> Entry | None:
        """The entry, or None where it is not all there as it was kept.

        :raises sqlite3.Error: the data base cannot be read
        """
        decoder, found, seen = EntryDecoder(temporary_file), list[Entry](), self.now
        query = "SELECT number, seen, octets FROM pieces WHERE path = ? ORDER BY number"
        try:
            for number, time, octets in self.database.execute(query, (path,)):
                if type(octets) is not bytes:
                    return None
                piece, seen = octets[_CHECK_SIZE:], min(seen, time)
                if _check(path, state, number, piece) != octets[:_CHECK_SIZE]:
                    return None
                found += decoder.feed(piece)
            decoder.finish()
        except (StoredDataDamaged, OSError):
            return None
        if len(found) != 1 or found[0].path != path:
            return None
        if seen < self.now - _DAY:
            change = "UPDATE pieces SET seen = ? WHERE path = ?"
            self.database.execute(change, (self.now, path))
        return found[0]

    def forget(self, path: bytes) -> None:
        """Nothing is to be kept of this file."""
        self.database.execute("DELETE FROM pieces WHERE path = ?", (path,))

    def forget_older(self, oldest: int) -> None:
        """Forget entries that were last seen before ``oldest``, in seconds since 1970."""
        self.database.execute("DELETE FROM pieces WHERE seen < ?", (oldest,))


def _check(path: bytes, state: bytes, number: int, piece: bytes) -> bytes:
    where = path + b"\0" + state + number.to_bytes(8, "big")
    return blake3(len(where).to_bytes(8, "big") + where + piece).digest(_CHECK_SIZE)
