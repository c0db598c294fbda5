"""Layer 4: the accounts data base itself: opening, migrating, transactions, the provider's values.

Everything is SQLAlchemy Core with Alembic migrations; nothing here but :func:`_durable_sqlite` and
:func:`_read_only` depends on SQLite.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import sqlalchemy as sa

from cloudconnect.errors import NoSpace, UsageError
from cloudconnect.provider.accounts.tables import REVISION, metadata, settings_table

#: What SQLite says where it has no room for the files that it keeps beside an open data base.
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
#: As Alembic makes it.
_version_table: Final = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


class Database:
    """The accounts data base: what all its parts share.

    :param url: SQLAlchemy URL, such as ``sqlite:////srv/backup/accounts.sqlite``
    :raises UsageError: it was written by a newer release
    :raises NoSpace: the disk is so full that it cannot be opened
    """

    def __init__(self, url: str) -> None:
        read_only = _read_only(url)
        self._engine = sa.create_engine(read_only or url)
        if self._engine.dialect.name == "sqlite" and not read_only:
            sa.event.listen(self._engine, "connect", _durable_sqlite)
        try:
            self._prepare()
        except sa.exc.DatabaseError as error:
            if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF not in _NO_ROOM:
                raise
            raise NoSpace(
                "the accounts data base cannot be opened: is the provider's disk full to the last "
                "byte?"
            ) from error

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """A transaction that may write.

        :raises NoSpace: the disk is full or read-only
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.DatabaseError as error:
            code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_FULL:
                raise NoSpace("the provider's disk is full") from error
            if code == sqlite3.SQLITE_READONLY:
                raise NoSpace("the provider's disk is read-only") from error
            raise

    def _prepare(self) -> None:
        """Bring the data base to this release's revision."""
        with self._engine.connect() as connection:
            current = _revision(connection)
        if current != REVISION and (current is not None or not self._made()):
            self._migrate()

    def _made(self) -> bool:
        """Make all tables as they are today where there is none; False: there are some.

        Migrations lead to the same tables, and take their time.
        """
        with self._engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # its driver begins too late
            if sa.inspect(connection).get_table_names():
                return False
            metadata.create_all(connection, checkfirst=False)
            _version_table.create(connection)
            connection.execute(sa.insert(_version_table).values(version_num=REVISION))
        return True

    def _migrate(self) -> None:
        # Alembic takes a while to import, and a migration is rare.
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option(
            "script_location", str(Path(__file__).parent.with_name("migrations"))
        )
        known = {s.revision for s in ScriptDirectory.from_config(config).walk_revisions()}
        with self._engine.begin() as connection:
            current = _revision(connection)
            if current is not None and current not in known:
                raise UsageError(
                    f"the accounts data base is of revision {current}, which this release does "
                    "not know: it was written by a newer cloudconnect; upgrade this one"
                )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    # --- the provider's own values ---------------------------------------------------------------

    def provider_value(self, name: str, size: int) -> bytes:
        """``size`` random bytes under ``name``: made at the first call, the same ever after."""
        query = sa.select(settings_table.c.value).where(settings_table.c.name == name)
        with self._engine.connect() as connection:
            value = connection.execute(query).scalar()
        if value is None:
            with self._writing() as connection:
                value = connection.execute(query).scalar()
                if value is None:
                    value = secrets.token_bytes(size)
                    connection.execute(settings_table.insert().values(name=name, value=value))
        return bytes(value)

    def value(self, name: str) -> bytes | None:
        """What :meth:`keep_value` has kept under ``name``, or None."""
        query = sa.select(settings_table.c.value).where(settings_table.c.name == name)
        with self._engine.connect() as connection:
            found = connection.execute(query).scalar()
        return None if found is None else bytes(found)

    def keep_value(self, name: str, value: bytes) -> None:
        """Keep ``value`` under ``name``, in the place of what is there."""
        t = settings_table
        with self._writing() as connection:
            change = t.update().where(t.c.name == name).values(value=value)
            if connection.execute(change).rowcount == 0:
                connection.execute(t.insert().values(name=name, value=value))


def _revision(connection: sa.Connection) -> str | None:
    """The revision that the data base has; None for an empty one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(sa.select(_version_table.c.version_num)).scalar()
    return found


def _read_only(url: str) -> str | None:
    """The URL for reading only, where SQLite's file lies on a file system that is read-only."""
    made = sa.make_url(url)
    path = made.database
    if made.get_backend_name() != "sqlite" or not path or not Path(path).exists():
        return None
    if not os.statvfs(path).f_flag & os.ST_RDONLY:
        return None
    # A file that nobody can write needs no lock, and its directory no room for one.
    immutable = not Path(f"{path}-wal").exists()
    query = {"uri": "true", "mode": "ro", **({"immutable": "1"} if immutable else {})}
    return made.set(database=f"file:{quote(path)}", query=query).render_as_string()


def _durable_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    if not cursor.execute("PRAGMA page_count").fetchone()[0]:  # a new one, which can be told still
        cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.close()
