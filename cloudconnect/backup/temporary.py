"""Layer 3: files for what is too much for memory.

They lie where the system keeps temporary files (``TMPDIR`` says where else), have no name, and so
are gone with the process. What goes there is keyed ids of chunks, and where they stand in files: no
content and, but for hard links and folders that a killed restore has left, no names.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from typing import IO, Final

from cloudconnect.errors import LocalError

#: The page cache of a data base there, in KiB.
_CACHE_KIB: Final = 4 << 10


def temporary_file() -> IO[bytes]:
    """A file without a name and without a buffer.

    :raises OSError: it cannot be made
    """
    return tempfile.TemporaryFile(prefix="cloudconnect-", buffering=0)


def temporary_base(table: str) -> sqlite3.Connection:
    """A data base in a temporary file without a name, of which nothing needs to survive.

    :param table: the statement that makes its table
    :raises sqlite3.Error: there is no room
    """
    database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    database.execute(table)
    database.execute("BEGIN")  # one transaction for all: each commit would cost more than its rows
    return database


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Around the use of such a data base: where there is no room, it is said for what.

    :param what: is kept in it, more than one
    :raises LocalError: there is no room
    """
    try:
        yield
    except sqlite3.Error as error:
        raise LocalError(
            f"{what} do not fit into the folder for temporary files (TMPDIR): {error}"
        ) from error
