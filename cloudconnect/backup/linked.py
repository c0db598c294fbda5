"""Layer 3: entries that have further names, kept in a temporary file until those come.

A hard link's entry only says which name came first. Who wants its content in one pass over a
manifest must have kept that of the first name; a backup may have millions of them.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from cloudconnect.backup.drafts import FLAG_LINKED
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.manifest import EntryDecoder, encode_entry
from cloudconnect.errors import LocalError

#: The data base's page cache, in KiB.
CACHE_KIB: Final = 8 << 10
#: A file of more runs keeps most of them in a temporary file of its own: so many of these, and no
#: more, are held as they are.
LONG_RUNS: Final = 1 << 13
LONG_MAX: Final = 128


class LinkedEntries:
    """The first names of one manifest, in a temporary file without a name.

    :raises LocalError: it cannot be made
    """

    def __init__(self) -> None:
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.execute("PRAGMA journal_mode=OFF")
        self._base.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        self._base.execute("CREATE TABLE entry (path BLOB PRIMARY KEY, entry BLOB NOT NULL)")
        self._base.execute("BEGIN")
        self._long: dict[bytes, Entry] = {}

    def resolve(self, entry: Entry) -> Entry:
        """``entry`` itself, or for a further name of a file the entry with the content.

        Called for every entry in order. Where the first name did not come, what a link's entry has
        is all that is known.

        :raises LocalError: there is no room for temporary files
        """
        if entry.type is not EntryType.FILE:
            return entry
        if entry.link is not None:
            if entry.link in self._long:
                return self._long[entry.link]
            query = "SELECT entry FROM entry WHERE path = ?"
            row = self._base.execute(query, (entry.link,)).fetchone()
            return entry if row is None else next(EntryDecoder().feed(row[0]))
        if entry.flags & FLAG_LINKED:
            if len(entry.runs) > LONG_RUNS and len(self._long) < LONG_MAX:
                self._long[entry.path] = entry
                return entry
            try:
                self._base.execute(
                    "INSERT OR REPLACE INTO entry VALUES (?, ?)", (entry.path, encode_entry(entry))
                )
            except sqlite3.Error as error:
                raise LocalError(
                    f"hard links do not fit into the folder for temporary files (TMPDIR): {error}"
                ) from error
        return entry

    def close(self) -> None:
        """Drop the file."""
        self._base.close()
