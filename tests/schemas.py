"""What tables a data base has, so that two can be compared."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa


def schema(connection: sa.Connection) -> dict[str, tuple[Any, ...]]:
    """By name of a table: its options, columns, foreign keys and indexes, as SQLite has them."""
    found = {}
    tables = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type='table'")
    for name, sql in tables.all():
        options = [word for word in ("AUTOINCREMENT", "WITHOUT ROWID") if word in sql]

        def told(pragma: str, of: str = name) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in connection.exec_driver_sql(f"PRAGMA {pragma}('{of}')")]

        columns = sorted(told("table_xinfo"), key=lambda column: column[1])
        listed = sorted(row[1:] for row in told("index_list"))
        indexes = [(row, told("index_xinfo", row[0])) for row in listed]
        found[name] = (
            options,
            [column[1:] for column in columns],
            told("foreign_key_list"),
            indexes,
        )
    partial = "SELECT name, sql FROM sqlite_master WHERE type='index' AND sql LIKE '%WHERE%'"
    found["indexes"] = tuple(tuple(row) for row in connection.exec_driver_sql(partial).all())
    return found
