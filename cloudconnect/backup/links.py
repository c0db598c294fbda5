"""Layer 3: which things with several names have come already, in little memory.

A tree of many snapshots has millions of files with several names, and the first name of each must
be known until its last one has come, which may lie outside the source. The first ones are held in
memory; when they are many, all go to a data base in a temporary file.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Final

from cloudconnect.backup.temporary import temporary_base

#: Things that are held in memory (about 20 MB).
IN_MEMORY: Final = 1 << 16
_TABLE: Final = (
    "CREATE TABLE links (device INTEGER, inode INTEGER, path BLOB, names INTEGER,"
    " PRIMARY KEY (device, inode)) WITHOUT ROWID"
)

_Inode = tuple[int, int]


class LinkMap:
    """The first names of things that have more; used by one thread.

    :param in_memory: how many are held in memory
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._known: dict[_Inode, tuple[bytes, int]] = {}
        self._database: sqlite3.Connection | None = None

    def first(self, path: bytes, status: os.stat_result) -> None:
        """``path`` is the first name of something that has several.

        :raises OSError: the temporary file cannot be written
        """
        self._known[status.st_dev, status.st_ino] = (path, status.st_nlink - 1)
        if len(self._known) > self._in_memory:
            self._spill()

    def further(self, status: os.stat_result) -> bytes | None:
        """The first name of what this is a further name of, or None; asked once for each name.

        :raises OSError: the temporary file cannot be read
        """
        inode = (status.st_dev, status.st_ino)
        known = self._known.pop(inode, None)
        if known is not None:
            if known[1] > 1:
                self._known[inode] = (known[0], known[1] - 1)
            return known[0]
        return None if self._database is None else self._in_file(inode)

    def close(self) -> None:
        """Drop everything."""
        self._known = {}
        if self._database is not None:
            self._database.close()
            self._database = None

    def _in_file(self, inode: _Inode) -> bytes | None:
        assert self._database is not None
        try:
            row = self._database.execute(
                "SELECT path, names FROM links WHERE device = ? AND inode = ?", _signed(inode)
            ).fetchone()
            if row is None:
                return None
            path, names = row
            statement = "UPDATE links SET names = names - 1 WHERE device = ? AND inode = ?"
            if names <= 1:
                statement = "DELETE FROM links WHERE device = ? AND inode = ?"
            self._database.execute(statement, _signed(inode))
        except sqlite3.Error as error:
            raise OSError(f"the list of hard links cannot be kept: {error}") from error
        return bytes(path)

    def _spill(self) -> None:
        try:
            if self._database is None:
                self._database = temporary_base(_TABLE)
            self._database.executemany(
                "INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?)",
                ((*_signed(inode), *known) for inode, known in self._known.items()),
            )
        except sqlite3.Error as error:
            raise OSError(f"the list of hard links cannot be kept: {error}") from error
        self._known = {}


def _signed(inode: _Inode) -> _Inode:
    """As 64-bit numbers with a sign, which is what a column holds."""
    device, number = (value - (1 << 64) if value >> 63 else value for value in inode)
    return device, number
