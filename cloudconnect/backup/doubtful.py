"""Layer 3: names of files by their folders, each with a mark, in little memory.

For folders that a killed restore has left unfinished: one of them may hold a million files, and all
are remembered until it is known that they are whole. So many are held in memory; when there are
more, all go to a data base in a temporary file, where nothing is left out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final

from cloudconnect.backup.target import Parts
from cloudconnect.backup.temporary import temporary_base, told

#: Names and folders that are held in memory (about 10 MB).
IN_MEMORY: Final = 1 << 16
#: The name of the row that stands for a folder itself.
_FOLDER: Final = b""
_WHAT: Final = "the names of files that a killed restore has left"
_TABLE: Final = (
    "CREATE TABLE names (folder BLOB, name BLOB, mark INTEGER, PRIMARY KEY (folder, name))"
    " WITHOUT ROWID"
)


class DoubtfulNames:
    """Used by one thread.

    :param in_memory: names and folders that are held in memory
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._folders: dict[Parts, dict[bytes, bool]] = {}
        self._count = 0  # of names and folders in memory
        self._open_folders = 0
        self._database: sqlite3.Connection | None = None

    def __bool__(self) -> bool:
        """Whether there is a folder."""
        return self._open_folders > 0

    def begin(self, parts: Parts, names: Iterable[bytes]) -> None:
        """A folder and the names in it, none of them marked, in the place of what was known of it.

        :raises LocalError: there is no room for temporary files
        """
        self.end(parts)
        self._open_folders += 1
        if self._database is None:
            known = self._folders[parts] = {}
            self._count += 1
            rest = iter(names)
            for name in rest:
                known[name] = False
                self._count += 1
                if self._count > self._in_memory:
                    self._spill()
                    self._insert(parts, rest)
                    break
        else:
            self._insert(parts, (_FOLDER,))
            self._insert(parts, names)

    def has(self, parts: Parts) -> bool:
        """Whether this folder is known."""
        return self.mark(parts, _FOLDER) is not None

    def mark(self, parts: Parts, name: bytes) -> bool | None:
        """The mark of a name; None: it is not there.

        :raises LocalError: the temporary file cannot be read
        """
        if self._database is None:
            names = self._folders.get(parts)
            return None if names is None else (False if name == _FOLDER else names.get(name))
        query = "SELECT mark FROM names WHERE folder = ? AND name = ?"
        row = self._run(query, (_path(parts), name)).fetchone()
        return None if row is None else bool(row[0])

    def set(self, parts: Parts, name: bytes, mark: bool) -> None:
        """Mark a name that is there, or not.

        :raises LocalError: there is no room for temporary files
        """
        if self._database is None:
            names = self._folders.get(parts, {})
            if name in names:
                names[name] = mark
        else:
            query = "UPDATE names SET mark = ? WHERE folder = ? AND name = ?"
            self._run(query, (mark, _path(parts), name))

    def drop(self, parts: Parts, name: bytes) -> None:
        """Forget a name.

        :raises LocalError: likewise
        """
        if self._database is None:
            if self._folders.get(parts, {}).pop(name, None) is not None:
                self._count -= 1
        else:
            self._run("DELETE FROM names WHERE folder = ? AND name = ?", (_path(parts), name))

    def names(self, parts: Parts) -> Iterator[tuple[bytes, bool]]:
        """The names in a folder that are there still, and their marks.

        :raises LocalError: the temporary file cannot be read
        """
        if self._database is None:
            yield from self._folders.get(parts, {}).items()
            return
        query = "SELECT name, mark FROM names WHERE folder = ? AND name != ?"
        for name, mark in self._run(query, (_path(parts), _FOLDER)):
            yield bytes(name), bool(mark)

    def end(self, parts: Parts) -> None:
        """Forget a folder.

        :raises LocalError: there is no room for temporary files
        """
        if not self._open_folders or not self.has(parts):
            return
        self._open_folders -= 1
        if self._database is None:
            self._count -= 1 + len(self._folders.pop(parts))
        else:
            self._run("DELETE FROM names WHERE folder = ?", (_path(parts),))

    def close(self) -> None:
        """Forget everything."""
        self._folders = {}
        self._count = self._open_folders = 0
        if self._database is not None:
            self._database.close()
            self._database = None

    def _spill(self) -> None:
        with told(_WHAT):
            self._database = temporary_base(_TABLE)
        for parts, known in self._folders.items():
            self._insert(parts, (_FOLDER,))
            self._insert(parts, known)
            marked = ((_path(parts), name) for name, mark in known.items() if mark)
            with told(_WHAT):
                self._database.executemany(
                    "UPDATE names SET mark = 1 WHERE folder = ? AND name = ?", marked
                )
        self._folders, self._count = {}, 0

    def _insert(self, parts: Parts, names: Iterable[bytes]) -> None:
        assert self._database is not None
        folder = _path(parts)
        with told(_WHAT):
            self._database.executemany(
                "INSERT OR REPLACE INTO names VALUES (?, ?, 0)", ((folder, name) for name in names)
            )

    def _run(self, query: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        assert self._database is not None
        with told(_WHAT):
            return self._database.execute(query, values)


def _path(parts: Parts) -> bytes:
    return b"/".join(parts)
