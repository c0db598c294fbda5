"""Layer 3: the statements that have to be fast, compiled once for all engines of a kind.

SQLAlchemy spends as long on each row of them as the data base does, all of it in Python.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from cloudconnect.repository.tables import blobs_table

_lookups: dict[tuple[str, str, str, int], tuple[str, bool]] = {}
_additions: dict[tuple[str, str, str], tuple[str, list[str] | None]] = {}


def lookup(dialect: sa.Dialect, count: int) -> tuple[str, bool]:
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


def addition(dialect: sa.Dialect) -> tuple[str, list[str] | None]:
    """How blobs are added, compiled once for all: 8192 rows of a pack are the most that one
    statement is executed for, and SQLAlchemy spends as long on each as SQLite does.

    :return: the statement, and the names of its parameters in order; None: it takes them by name
    """
    key = (dialect.name, dialect.driver, dialect.paramstyle)
    if key not in _additions:
        insert = upsert(dialect, blobs_table)
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


def upsert(dialect: sa.Dialect, table: sa.Table) -> Any:
    """An INSERT that knows ON CONFLICT: both dialects have it, SQLAlchemy's core does not."""
    if dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
