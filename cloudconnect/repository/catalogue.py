"""Layer 3: a repository's catalogue: which blob lies where, and which restore points there are.

SQLAlchemy Core, over the data base of :mod:`cloudconnect.repository.database`. Tables change
through Alembic migrations only (``repository/migrations``), which :func:`open_catalogue` runs. All
that it holds can be made again from the blob store (:mod:`cloudconnect.repository.rebuild`).
"""

from __future__ import annotations

import contextlib
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.errors import Refused, UsageError
from cloudconnect.repository.database import LAZY, WRITES, errors_by_name, make_engine
from cloudconnect.repository.packs import Entry
from cloudconnect.repository.statements import addition, lookup, upsert
from cloudconnect.repository.tables import blobs_table, metadata, packs_table, repository_table

#: The newest revision that this release knows; a test compares it with the migrations.
REVISION: Final = "0003"
#: Ids looked up by one statement: best of 256 to 8192, measured with a million rows.
LOOKUP_IDS: Final = 1024
#: So many by another one: of large files a batch has some 60 chunks, and the ids that only fill up
#: a statement are compared too.
LOOKUP_FEW: Final = 128
#: Up to so many rows for each id that is looked for are read in a row: a lookup costs as much as
#: that.
SCAN_RATIO: Final = 4
#: Alembic keeps the connection that it works on in a module: of two migrations at once in a
#: process, one would be done on the other's data base.
_migrating: Final = threading.Lock()
#: As Alembic makes it.
_version_table: Final = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
#: The fields of an entry, in their order: to take them from a row one by one, by their names, is
#: half of what looking up many takes.
_FIELDS = tuple(blobs_table.c[field.name] for field in attrs.fields(Entry))
_located = sa.select(*_FIELDS, packs_table.c.name).where(
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
        with errors_by_name(), self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self, durable: bool = True) -> Iterator[sa.Connection]:
        """A transaction that may write, one at a time over all sessions; durable at its end.

        :param durable: False: a power cut may undo it, as long as no other one follows
        :raises NoSpace: the disk is full
        :raises OSError: the system reports anything else
        :raises Busy: another session writes and does not end
        """
        writer = self.engine.execution_options(**{WRITES: True, LAZY: not durable})
        with errors_by_name(), writer.begin() as connection:
            yield connection

    def present(self, connection: sa.Connection, ids: Iterable[bytes]) -> set[bytes]:
        """Those of ``ids`` that are stored to stay, and not known to be damaged.

        Not those that are condemned: see :meth:`rescue`.
        """
        found: set[bytes] = set()
        for batch in _batches(ids):
            count = LOOKUP_IDS if len(batch) > LOOKUP_FEW else LOOKUP_FEW
            statement, positional = lookup(self.engine.dialect, count)
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
                for *fields, name in connection.execute(_located, {"ids": batch}):
                    entry = Entry(*fields)
                    found[entry.id] = (name, entry)
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
            statement, names = addition(self.engine.dialect)
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
        insert = upsert(self.engine.dialect, packs_table)
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
    catalogue = Catalogue(make_engine(url, read_only), read_only)
    try:
        with catalogue.reading() as connection:
            revision = current_revision(connection)
        if revision != REVISION:
            if read_only:
                raise UsageError(f"the catalogue is of revision {revision}, and read-only")
            if revision is not None or not _made(catalogue):
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


def _made(catalogue: Catalogue) -> bool:
    """Make all tables as they are today where there is none; False: there are some.

    Migrations lead to the same tables, and take their time.
    """
    with catalogue.writing() as connection:
        if current_revision(connection) == REVISION:
            return True  # another session was faster
        if sa.inspect(connection).get_table_names():
            return False
        metadata.create_all(connection, checkfirst=False)
        _version_table.create(connection)
        connection.execute(sa.insert(_version_table), {"version_num": REVISION})
    return True


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
