"""Layer 3: entries that have further names, kept in a temporary file until those come.

A hard link's entry only says which name came first. Who wants its content in one pass over a
manifest must have kept that of the first name; a backup may have millions of them.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from cloudconnect.backup.drafts import FLAG_LINKED
from cloudconnect.backup.temporary import temporary_file
from cloudconnect.content.manifest import Entry, EntryDecoder, EntryType, encode_pieces
from cloudconnect.errors import LocalError

#: The data base's page cache, in KiB.
CACHE_KIB: Final = 8 << 10


class LinkedEntries:
    """The first names of one manifest, in a temporary file without a name.

    :raises LocalError: it cannot be made
    """

    def __init__(self) -> None:
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.execute("PRAGMA journal_mode=OFF")
        self._base.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        self._base.execute(
            "CREATE TABLE pieces (path BLOB, number INTEGER, piece BLOB,"
            " PRIMARY KEY (path, number)) WITHOUT ROWID"
        )
        self._base.execute("BEGIN")

    def resolve(self, entry: Entry) -> Entry:
        """``entry`` itself, or for a further name of a file the entry with the content.

        Called for every entry in order. Where the first name did not come, what a link's entry has
        is all that is known.

        :raises LocalError: there is no room for temporary files
        """
        if entry.type is not EntryType.FILE:
            return entry
        if entry.link is not None:
            return self._first(entry.link) or entry
        if entry.flags & FLAG_LINKED:
            try:
                self._base.execute("DELETE FROM pieces WHERE path = ?", (entry.path,))
                self._base.executemany(
                    "INSERT INTO pieces VALUES (?, ?, ?)",
                    (
                        (entry.path, number, piece)
                        for number, piece in enumerate(encode_pieces(entry))
                    ),
                )
            except sqlite3.Error as error:
                raise LocalError(
                    f"hard links do not fit into the folder for temporary files (TMPDIR): {error}"
                ) from error
        return entry

    def _first(self, path: bytes) -> Entry | None:
        """What was kept of the entry of ``path``, piece by piece: it may be very long."""
        decoder = EntryDecoder(temporary_file)
        query = "SELECT piece FROM pieces WHERE path = ? ORDER BY number"
        for (piece,) in self._base.execute(query, (path,)):
            for entry in decoder.feed(piece):
                return entry
        return None

    def close(self) -> None:
        """Drop the file."""
        self._base.close()
