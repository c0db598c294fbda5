"""Layer 3: a repository's catalogue: which blob lies where, and which restore points there are.

SQLAlchemy Core; SQLite in WAL mode with ``synchronous=FULL`` is the usual data base, and nothing
here but :func:`_configure_sqlite` depends on it. Tables change through Alembic migrations only
(``repository/migrations``), which :func:`open_catalogue` runs. All that it holds can be made again
from the blob store (:mod:`cloudconnect.repository.rebuild`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from cloudconnect.errors import Busy, NoSpace, Refused, StoredDataDamaged, UsageError
from cloudconnect.repository.packs import Entry
from cloudconnect.repository.tables import blobs_table, packs_table, repository_table

#: The newest revision that this release knows; a test compares it with the migrations.
REVISION: Final = "0003"
#: Seconds to wait for another session's transaction, each of which takes far less than one.
BUSY_SECONDS: Final = 60.0
#: Ids looked up by one statement: best of 256 to 8192, measured with a million rows.
LOOKUP_IDS: Final = 1024
#: So many by another one: of large files a batch has some 60 chunks, and the ids that only fill up
#: a statement are compared too.
LOOKUP_FEW: Final = 128
#: Up to so many rows for each id that is looked for are read in a row: a lookup costs as much as
#: that.
SCAN_RATIO: Final = 4
#: The data base's page cache for each session, in KiB.
_CACHE_KIB: Final = 16 << 10
#: Pages of the write-ahead log after which it is moved into the data base (4 KiB each): a pack
#: changes some 500 pages here and there, so several packs change many of them once only.
_LOG_PAGES: Final = 4096
_WRITES: Final = "cloudconnect_writes"
#: Alembic keeps the connection that it works on in a module: of two migrations at once in a
#: process, one would be done on the other's data base.
_migrating: Final = threading.Lock()
#: How SQLite's errors begin where a name in the schema, or a text in a row, was changed.
_DAMAGED: Final = ("no such ", "malformed ", "Could not decode ")
_lookups: dict[tuple[str, str, str, int], tuple[str, bool]] = {}
_additions: dict[tuple[str, str, str], tuple[str, list[str] | None]] = {}
#: What the system said, by SQLite's word for it.
_SYSTEM: Final = {
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_CANTOPEN: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES,
}

_located = sa.select(blobs_table, packs_table.c.name).where(
    blobs_table.c.id.in_(sa.bindparam("ids", expanding=True)),
    blobs_table.c.damaged.is_(False),
    packs_table.c.number == blobs_table.c.pack,
)
_scan = (
    sa.select(blobs_table.c.id)
    .where(
        blobs_table.c.id.between(sa.bindparam("first"), sa.bindparam("last")),
        blobs_table.c.damaged.is_(sa.false()),
        blobs_table.c.condemned == sa.literal_column("0"),
    )
    .order_by(blobs_table.c.id)
    .limit(sa.bindparam("most"))
)


@attrs.frozen
class Catalogue:
    """The data base of one repository; used by one thread at a time.

    :ivar engine: for statements that have no method here
    :ivar read_only: nothing can be written
    """

    engine: sa.Engine
    read_only: bool = False

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state and changes nothing. Keep it short."""
        with _errors_by_name(), self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that may write, one at a time over all sessions; durable at its end.

        :raises NoSpace: the disk is full
        :raises OSError: the system reports anything else
        :raises Busy: another session writes and does not end
        """
        writer = self.engine.execution_options(**{_WRITES: True})
        with _errors_by_name(), writer.begin() as connection:
            yield connection

    def present(self, connection: sa.Connection, ids: Iterable[bytes]) -> set[bytes]:
        """Those of ``ids`` that are stored to stay, and not known to be damaged.

        Not those that are condemned: see :meth:`rescue`.
        """
        found: set[bytes] = set()
        for batch in _batches(ids):
            count = LOOKUP_IDS if len(batch) > LOOKUP_FEW else LOOKUP_FEW
            statement, positional = _lookup(self.engine.dialect, count)
            batch += batch[-1:] * (count - len(batch))  # one of two statements
            parameters: Any = tuple(batch)
            if not positional:
                parameters = {f"id_{number}": name for number, name in enumerate(batch)}
            rows = connection.exec_driver_sql(statement, parameters)
            found.update(bytes(row[0]) for row in rows)
        return found

    def present_near(self, connection: sa.Connection, ids: Iterable[bytes]) -> set[bytes]:
        """As :meth:`present`, for ids that are close to each other: a part of a sorted list.

        Where the list names much of what is stored, as a restore point of most of a repository
        does, its part of the index is read in a row; where it names little, ids are looked up.
        """
        wanted = sorted(ids)
        if len(wanted) < LOOKUP_IDS:
            return self.present(connection, wanted)
        most = SCAN_RATIO * len(wanted)
        scan = connection.execute(_scan, {"first": wanted[0], "last": wanted[-1], "most": most})
        scanned = [bytes(row[0]) for row in scan.cursor.fetchall()]  # rows as objects cost as much
        found = set(scanned).intersection(wanted)
        if len(scanned) == most:
            found |= self.present(connection, wanted[bisect_right(wanted, scanned[-1]) :])
        return found

    def locate(self, ids: Iterable[bytes]) -> dict[bytes, tuple[str, Entry]]:
        """Pack name and place of those of ``ids`` that are stored and not known to be damaged."""
        found: dict[bytes, tuple[str, Entry]] = {}
        with self.reading() as connection:
            for batch in _batches(ids):
                for row in connection.execute(_located, {"ids": batch}):
                    found[row.id] = (row.name, _entry(row))
        return found

    def rescue(self, connection: sa.Connection, ids: Iterable[bytes]) -> set[bytes]:
        """Keep those of ``ids`` that are condemned, and say which of them are stored now.

        Under the lock of publishing (:mod:`cloudconnect.repository.points`), or nobody knows what
        the next moment brings.
        """
        wanted = set(ids)
        for batch in _batches(wanted):
            connection.execute(
                sa.update(blobs_table)
                .where(blobs_table.c.id.in_(batch), blobs_table.c.condemned > 0)
                .values(condemned=0)
            )
        return self.present(connection, wanted)

    def epoch(self, connection: sa.Connection) -> int:
        """How many fences there have been (:mod:`cloudconnect.repository.leases`)."""
        return connection.execute(sa.select(repository_table.c.epoch)).scalar() or 0

    def refuse_frozen(self, connection: sa.Connection) -> None:
        """Part of every transaction that takes something away.

        :raises Refused: the repository is frozen
        """
        if connection.execute(sa.select(repository_table.c.frozen)).scalar():
            raise Refused("the repository is frozen: nothing is deleted or removed")

    def entries(self, connection: sa.Connection, ids: Iterable[bytes], pack: int) -> list[Entry]:
        """Where those of ``ids`` are that lie in one pack and are not known to be damaged.

        :param pack: its number
        """
        b = blobs_table.c
        query = sa.select(blobs_table).where(b.pack == pack, b.damaged.is_(sa.false()))
        return [
            _entry(row)
            for batch in _batches(ids)
            for row in connection.execute(query.where(b.id.in_(batch)))
        ]

    def rows(
        self, connection: sa.Connection, ids: Iterable[bytes]
    ) -> dict[bytes, tuple[int, Entry, bool]]:
        """What the catalogue says of ``ids``: number of the pack, place, whether it is damaged."""
        query = sa.select(blobs_table).where(
            blobs_table.c.id.in_(sa.bindparam("ids", expanding=True))
        )
        return {
            row.id: (row.pack, _entry(row), row.damaged)
            for batch in _batches(ids)
            for row in connection.execute(query, {"ids": batch})
        }

    def add_pack(
        self,
        connection: sa.Connection,
        name: str,
        size: int,
        entries: Sequence[Entry],
        arrival_time: float,
        job: bytes | None = None,
    ) -> int:
        """Index a pack that is durable. A blob that is stored elsewhere, to stay, stays there.

        :param size: of the pack in bytes
        :param arrival_time: seconds since 1970
        :param job: the job run that stores it, 16 bytes, where that is known
        :return: number of the pack
        """
        number = self.insert_pack(connection, name, size, entries, arrival_time, job)
        if entries:
            statement, names = _addition(self.engine.dialect)
            ordered = sorted(entries, key=lambda entry: entry.id)  # neighbours share a page
            rows: Any = [_row(entry, number) for entry in ordered]
            if names is not None:
                rows = [tuple(map(row.__getitem__, names)) for row in rows]
            connection.exec_driver_sql(statement, rows)
        return number

    def insert_pack(
        self,
        connection: sa.Connection,
        name: str,
        size: int,
        entries: Sequence[Entry],
        arrival_time: float,
        job: bytes | None = None,
    ) -> int:
        """Its row alone: :meth:`add_pack` without the blobs."""
        values = {
            "name": name,
            "size": size,
            "blobs": len(entries),
            "plain_length": sum(entry.plain_length for entry in entries),
            "arrival_time": arrival_time,
            "epoch": self.epoch(connection),
            "job": job,
        }
        insert = _insert(self.engine.dialect, packs_table)
        connection.execute(insert.on_conflict_do_nothing(index_elements=["name"]), values)
        number = sa.select(packs_table.c.number).where(packs_table.c.name == name)
        return int(connection.execute(number).scalar_one())

    def mark_damaged(self, ids: Sequence[bytes], pack: str | None = None) -> None:
        """From now on these are as if they were not stored, until somebody sends them again.

        :param pack: name of the one in which they are damaged; what lies elsewhere by now is not
        """
        damaged = sa.update(blobs_table).values(damaged=True)
        if pack is not None:
            number = sa.select(packs_table.c.number).where(packs_table.c.name == pack)
            damaged = damaged.where(blobs_table.c.pack == number.scalar_subquery())
        with self.writing() as connection:
            for batch in _batches(ids):
                connection.execute(damaged.where(blobs_table.c.id.in_(batch)))
            self.count_removal(connection)

    def count_removal(self, connection: sa.Connection) -> None:
        """Note that blobs ceased to be stored: who looked them up before must look again."""
        removals = repository_table.c.removals
        connection.execute(sa.update(repository_table).values(removals=removals + 1))

    def removals(self, connection: sa.Connection) -> int:
        """How often that happened."""
        return int(connection.execute(sa.select(repository_table.c.removals)).scalar_one())

    def close(self) -> None:
        """Let go of the data base."""
        self.engine.dispose()


def open_catalogue(url: str, read_only: bool = False) -> Catalogue:
    """The catalogue at ``url``, brought to this release's revision first.

    :param url: for SQLAlchemy, such as ``sqlite:////srv/r/catalogue.sqlite``
    :param read_only: nothing will be written, migrations neither
    :raises UsageError: a newer release made it, or it needs a migration and is read-only
    """
    engine = sa.create_engine(url, pool_size=1, max_overflow=2, **_engine_options(url))
    if engine.dialect.name == "sqlite":
        _configure_sqlite(engine, read_only)
    catalogue = Catalogue(engine, read_only)
    try:
        with catalogue.reading() as connection:
            revision = current_revision(connection)
        if revision != REVISION:
            if read_only:
                raise UsageError(f"the catalogue is of revision {revision}, and read-only")
            _migrate(catalogue)
    except BaseException:
        catalogue.close()
        raise
    return catalogue


def current_revision(connection: sa.Connection) -> str | None:
    """The revision that the data base has; None for an empty one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(catalogue: Catalogue) -> None:
    # Alembic takes a while to import, and a migration is rare.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "cloudconnect.repository:migrations")
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    with _migrating, catalogue.writing() as connection:
        revision = current_revision(connection)
        if revision is not None and revision not in known:
            raise UsageError(
                f"a newer release of cloudconnect made this repository (its catalogue is of "
                f"revision {revision}); install that release"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


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
        writes = connection.get_execution_options().get(_WRITES, False)
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


@contextlib.contextmanager
def _errors_by_name() -> Iterator[None]:
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


def _lookup(dialect: sa.Dialect, count: int) -> tuple[str, bool]:
    """Which of ``count`` ids are there, compiled once: this is the statement that has to be fast.

    Executed through SQLAlchemy's own IN it costs twice as much, all of it in Python. Every engine
    has a dialect of its own, and compiling takes as long as opening the rest: so once for all.
    """
    key = (dialect.name, dialect.driver, dialect.paramstyle, count)
    if key not in _lookups:
        names: list[sa.BindParameter[bytes]] = [
            sa.bindparam(f"id_{number}") for number in range(count)
        ]
        ids = blobs_table.c.id
        here = sa.select(ids).where(
            ids.in_(names),
            blobs_table.c.damaged.is_(sa.false()),
            blobs_table.c.condemned == sa.literal_column("0"),
        )
        compiled = here.compile(dialect=dialect)
        _lookups[key] = str(compiled), compiled.positional
    return _lookups[key]


def _addition(dialect: sa.Dialect) -> tuple[str, list[str] | None]:
    """How blobs are added, compiled once for all: 8192 rows of a pack are the most that one
    statement is executed for, and SQLAlchemy spends as long on each as SQLite does.

    :return: the statement, and the names of its parameters in order; None: it takes them by name
    """
    key = (dialect.name, dialect.driver, dialect.paramstyle)
    if key not in _additions:
        insert = _insert(dialect, blobs_table)
        columns = [column.name for column in blobs_table.columns]
        statement = insert.on_conflict_do_update(
            index_elements=["id"],
            set_={name: insert.excluded[name] for name in columns if name != "id"},
            where=sa.or_(blobs_table.c.damaged, blobs_table.c.condemned > sa.literal_column("0")),
        )
        compiled = statement.compile(dialect=dialect, column_keys=columns)
        assert set(compiled.params) == set(columns)  # no value of its own: each row gives all
        names = compiled.positiontup if compiled.positional else None
        _additions[key] = str(compiled), None if names is None else list(names)
    return _additions[key]


def _insert(dialect: sa.Dialect, table: sa.Table) -> Any:
    """An INSERT that knows ON CONFLICT: both dialects have it, SQLAlchemy's core does not."""
    if dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def _batches(ids: Iterable[bytes]) -> Iterator[list[bytes]]:
    ordered = sorted(ids)  # neighbours share a page of the index
    for at in range(0, len(ordered), LOOKUP_IDS):
        yield ordered[at : at + LOOKUP_IDS]


def _row(entry: Entry, pack: int) -> dict[str, Any]:
    return {
        "id": entry.id,
        "kind": entry.kind,
        "offset": entry.offset,
        "stored_length": entry.stored_length,
        "plain_length": entry.plain_length,
        "coding": entry.coding,
        "digest": entry.digest,
        "pack": pack,
        "damaged": False,
        "condemned": 0,
    }


def _entry(row: sa.Row[Any]) -> Entry:
    return Entry(
        row.id,
        row.kind,
        row.offset,
        row.stored_length,
        row.plain_length,
        row.coding,
        row.digest,
    )
