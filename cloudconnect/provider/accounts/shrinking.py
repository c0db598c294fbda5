"""Layer 4: the accounts' data base gives back the room of what was forgotten.

SQLite uses free pages again, but keeps the file as large as it ever was. A new data base is made so
that it can give pages back some at a time; one of an older release, that cannot, is written anew
once, where that takes a moment. Other data bases see to it themselves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cloudconnect.errors import Busy, NoSpace
from cloudconnect.provider.accounts.database import Database

#: Pages (4 KiB each) that are given back in one transaction: some 15 ms.
SLICE_PAGES: Final = 1000
#: So many free pages always stay: they will be wanted again.
KEPT_PAGES: Final = 4096
#: Nothing is given back before so many of all pages are free, as one in this number.
FREE_PART: Final = 4
#: A data base with more pages in use is not written anew while a provider runs: others wait for it.
ANEW_PAGES: Final = 1 << 16
_INCREMENTAL: Final = 2


class ShrinkingAccounts(Database):
    """What makes the file smaller."""

    def give_back(self) -> int:
        """Give some of the room that is not used back to the file system; how many pages.

        :return: 0 where there is not much of it, or that cannot be done
        :raises NoSpace: the disk is full or read-only
        :raises Busy: somebody else has written for a long time
        """
        if self._engine.dialect.name != "sqlite":
            return 0
        with self._alone() as connection:
            free, pages, how = (
                int(connection.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("freelist_count", "page_count", "auto_vacuum")
            )
            if free <= KEPT_PAGES or free * FREE_PART <= pages:
                return 0
            if how == _INCREMENTAL:
                count = min(SLICE_PAGES, free - KEPT_PAGES)
                connection.executescript(f"PRAGMA incremental_vacuum({count})")
                return free - int(connection.execute("PRAGMA freelist_count").fetchone()[0])
            if pages - free > ANEW_PAGES:
                return 0
            connection.executescript(
                "PRAGMA auto_vacuum=INCREMENTAL; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)"
            )
            return free

    @contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        """A connection of the driver's, outside any transaction."""
        borrowed = self._engine.raw_connection()
        try:
            connection = borrowed.driver_connection
            assert isinstance(connection, sqlite3.Connection)
            yield connection
        except sqlite3.OperationalError as error:
            code = error.sqlite_errorcode & 0xFF
            if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY):
                raise NoSpace("the accounts data base cannot be made smaller: no room") from error
            if code == sqlite3.SQLITE_BUSY:
                raise Busy(
                    "the accounts data base is in use: it stays as large as it is"
                ) from error
            raise
        finally:
            borrowed.close()
