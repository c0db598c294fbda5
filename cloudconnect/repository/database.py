"""Layer 3: the data base that a catalogue is in: opened for SQLAlchemy, and its errors by name.

SQLite in WAL mode with ``synchronous=FULL`` is the usual one. What SQLite alone needs is here and
nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import sqlalchemy as sa

from cloudconnect.errors import Busy, NoSpace, StoredDataDamaged

#: Seconds to wait for another session's transaction, each of which takes far less than one.
BUSY_SECONDS: Final = 60.0
#: The execution option of a transaction that will write.
WRITES: Final = "cloudconnect_writes"
#: ... and of one that need not be durable at once.
LAZY: Final = "cloudconnect_lazy"
#: The data base's page cache for each session, in KiB.
_CACHE_KIB: Final = 16 << 10
#: Pages of the write-ahead log after which it is moved into the data base (4 KiB each): a pack
#: changes some 500 pages here and there, so several packs change many of them once only.
_LOG_PAGES: Final = 4096
#: How SQLite's errors begin where a name in the schema, or a text in a row, was changed.
_DAMAGED: Final = ("no such ", "malformed ", "Could not decode ")
#: What the system said, by SQLite's word for it.
_SYSTEM: Final = {
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_CANTOPEN: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES,
}


def make_engine(url: str, read_only: bool) -> sa.Engine:
    """The engine of a data base, which is not connected to yet.

    :param url: for SQLAlchemy
    :param read_only: nothing will be written
    """
    engine = sa.create_engine(url, pool_size=1, max_overflow=2, **_engine_options(url))
    if engine.dialect.name == "sqlite":
        _configure_sqlite(engine, read_only)
    return engine


@contextlib.contextmanager
def errors_by_name() -> Iterator[None]:
    """What the data base raises inside, as errors of :mod:`cloudconnect.errors`, or OSError."""
    try:
        yield
    except sa.exc.DatabaseError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise NoSpace("the provider's disk is full") from error
        damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        if damaged or str(error.orig).startswith(_DAMAGED):
            raise StoredDataDamaged("the repository's catalogue is damaged: recover it") from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Busy("another session has held the repository's catalogue too long") from error
        if code in _SYSTEM:
            text = f"the repository's catalogue: {error.orig}"
            raise OSError(_SYSTEM[code], text) from error
        raise
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoredDataDamaged("the repository's catalogue is damaged: recover it") from error


def _engine_options(url: str) -> dict[str, Any]:
    if sa.make_url(url).get_backend_name() != "sqlite":
        return {}
    return {"connect_args": {"timeout": BUSY_SECONDS, "check_same_thread": False}}


def _configure_sqlite(engine: sa.Engine, read_only: bool) -> None:
    """Durable commits, and transactions that begin when SQLAlchemy says so, not the driver."""

    @sa.event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None
        if read_only:
            connection.execute("PRAGMA query_only=ON")
        else:
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        connection.execute("PRAGMA foreign_keys=ON")

    @sa.event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        # A transaction that first reads and then writes may find that it cannot: begin as a writer.
        options = connection.get_execution_options()
        writes = options.get(WRITES, False)
        if writes and not read_only:
            level = "NORMAL" if options.get(LAZY, False) else "FULL"
            if connection.info.setdefault("synchronous", "FULL") != level:
                connection.info["synchronous"] = level
                connection.exec_driver_sql(f"PRAGMA synchronous={level}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Have SQLite write ahead; where several make a new file at once, wait for the others.

    :raises sqlite3.OperationalError: it stays locked
    """
    ends = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:  # SQLite does not wait here by itself
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > ends:
                raise
        time.sleep(0.005)


def sqlite_url(path: str, read_only: bool = False) -> str:
    """The URL of a SQLite data base in a file, which is made with mode 0600 where it is missing."""
    if not read_only:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        return sa.URL.create("sqlite", database=path).render_as_string()
    # A file that nobody can write needs no lock, and its directory no room for one.
    immutable = os.statvfs(path).f_flag & os.ST_RDONLY and not Path(f"{path}-wal").exists()
    query = {"uri": "true", "mode": "ro", **({"immutable": "1"} if immutable else {})}
    return sa.URL.create("sqlite", database=f"file:{quote(path)}", query=query).render_as_string()
