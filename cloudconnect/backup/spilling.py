"""Layer 3: what is remembered by path while a restore runs, in little memory.

A tree of many snapshots has millions of files with several names, and what became of the first name
must be known until the last one has come. Some are held in memory; when they are many, all go to a
data base in a temporary file.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from cloudconnect.backup.temporary import temporary_base, told

#: Paths that are held in memory ...
IN_MEMORY: Final = 1 << 15
#: ... and bytes of them and of what belongs to them.
BYTES_IN_MEMORY: Final = 16 << 20
_WHAT: Final = "hard links"
_TABLE: Final = "CREATE TABLE known (path BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"


class PathTable:
    """Bytes by path; used by one thread.

    :param in_memory: paths that are held in memory
    :param bytes_in_memory: and bytes
    """

    def __init__(self, in_memory: int = IN_MEMORY, bytes_in_memory: int = BYTES_IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._bytes_in_memory = bytes_in_memory
        self._known: dict[bytes, bytes] = {}
        self._bytes = 0
        self._database: sqlite3.Connection | None = None

    def get(self, path: bytes) -> bytes | None:
        """What belongs to a path; None: nothing.

        :raises LocalError: the temporary file cannot be read
        """
        value = self._known.get(path)
        if value is None and self._database is not None:
            with told(_WHAT):
                query = "SELECT value FROM known WHERE path = ?"
                row = self._database.execute(query, (path,)).fetchone()
            value = None if row is None else bytes(row[0])
        return value

    def put(self, path: bytes, value: bytes) -> None:
        """Remember this, in the place of what belonged to the path.

        :raises LocalError: there is no room for temporary files
        """
        self._forget(path)
        self._known[path] = value
        self._bytes += len(path) + len(value)
        if len(self._known) > self._in_memory or self._bytes > self._bytes_in_memory:
            self._spill()

    def drop(self, path: bytes) -> None:
        """Forget what belongs to a path.

        :raises LocalError: as :meth:`put`
        """
        self._forget(path)
        if self._database is not None:
            with told(_WHAT):
                self._database.execute("DELETE FROM known WHERE path = ?", (path,))

    def close(self) -> None:
        """Forget everything."""
        self._known = {}
        self._bytes = 0
        if self._database is not None:
            self._database.close()
            self._database = None

    def _forget(self, path: bytes) -> None:
        before = self._known.pop(path, None)
        if before is not None:
            self._bytes -= len(path) + len(before)

    def _spill(self) -> None:
        with told(_WHAT):
            if self._database is None:
                self._database = temporary_base(_TABLE)
            self._database.executemany(
                "INSERT OR REPLACE INTO known VALUES (?, ?)", self._known.items()
            )
        self._known = {}
        self._bytes = 0
