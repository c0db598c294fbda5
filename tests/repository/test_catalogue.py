"""Tests for cloudconnect.repository.catalogue, its tables and its migrations."""

from __future__ import annotations

import errno
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import Busy, NoSpace, Refused, StoredDataDamaged, UsageError
from cloudconnect.repository import catalogue as catalogue_module
from cloudconnect.repository.catalogue import (
    LOOKUP_IDS,
    REVISION,
    Catalogue,
    current_revision,
    open_catalogue,
)
from cloudconnect.repository.database import make_engine, sqlite_url
from cloudconnect.repository.packs import Entry
from cloudconnect.repository.tables import blobs_table, metadata, packs_table, repository_table
from tests.repository.repositories import name_of
from tests.schemas import schema


def entry(number: int, offset: int = 7) -> Entry:
    return Entry(name_of(number), 0, offset, 100, 200, 0x11, name_of(-number))


class CatalogueCase(SynchronousTestCase):
    """A test with a catalogue."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = folder / "catalogue.sqlite"
        self.catalogue = self.another()

    def another(self, **options: Any) -> Catalogue:
        url = sqlite_url(str(self.path), options.get("read_only", False))
        catalogue = open_catalogue(url, **options)
        self.addCleanup(catalogue.close)
        return catalogue

    def add(self, name: str, *entries: Entry) -> None:
        with self.catalogue.writing() as connection:
            self.catalogue.add_pack(connection, name, 1000, entries, 5.0)

    def present(self, *numbers: int) -> set[bytes]:
        with self.catalogue.reading() as connection:
            return self.catalogue.present(connection, map(name_of, numbers))


class NearTests(CatalogueCase):
    """Looking up a part of a sorted list gives the same as looking up each."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(catalogue_module, "LOOKUP_IDS", 8)
        self.names = sorted(map(name_of, range(400)))
        number = {name_of(number): number for number in range(400)}
        self.add("packs/a", *(entry(number[name]) for name in self.names))
        self.catalogue.mark_damaged(self.names[100:110])
        with self.catalogue.writing() as connection:
            doomed = sa.update(blobs_table).where(blobs_table.c.id.in_(self.names[200:210]))
            connection.execute(doomed.values(condemned=5))

    def assertSame(self, ids: list[bytes]) -> None:
        with self.catalogue.reading() as connection:
            here = set(self.names) - set(self.names[100:110]) - set(self.names[200:210])
            found = self.catalogue.present_near(connection, ids)
        self.assertEqual(found, here.intersection(ids))

    def test_dense(self) -> None:
        """A list of all that is there, with ids between that are not."""
        strangers = [name_of(number) for number in range(1000, 1100)]
        self.assertSame(self.names)
        self.assertSame(sorted(self.names + strangers))
        self.assertSame(self.names[95:130])

    def test_sparse(self) -> None:
        """A list of little of what is there: the rest is looked up."""
        self.assertSame(self.names[::20])
        self.assertSame([*self.names[:10], *self.names[90::30]])

    def test_few_and_none(self) -> None:
        """A short list, and an empty one."""
        self.assertSame(self.names[98:102])
        self.assertSame([])

    def test_any_order(self) -> None:
        """The order is not relied upon."""
        self.assertSame(self.names[::-1])


class OpeningTests(CatalogueCase):
    """A catalogue is always of this release's revision, and durable."""

    def test_tables(self) -> None:
        """What the migrations make, and what a new catalogue has, is what the tables say."""
        migrated = Catalogue(make_engine(sqlite_url(f"{self.path}-migrated"), False))
        self.addCleanup(migrated.close)
        catalogue_module._migrate(migrated)
        schemas = []
        for catalogue in (migrated, self.catalogue):
            with catalogue.reading() as connection:
                context = MigrationContext.configure(connection, opts={"compare_type": True})
                self.assertEqual(compare_metadata(context, metadata), [])
                self.assertEqual(current_revision(connection), REVISION)
                schemas.append(schema(connection))
        self.assertEqual(*schemas)
        self.assertIn("alembic_version", schemas[0])
        self.assertIn("WITHOUT ROWID", schemas[0]["blobs"][0])
        self.assertIn("AUTOINCREMENT", schemas[0]["packs"][0])

    def test_head(self) -> None:
        """The newest migration is the revision that the catalogue asks for."""
        config = Config()
        config.set_main_option("script_location", "cloudconnect.repository:migrations")
        self.assertEqual(ScriptDirectory.from_config(config).get_current_head(), REVISION)

    def test_durable(self) -> None:
        """Commits are synchronous, through a write-ahead log, in a file of the owner only."""
        with self.catalogue.reading() as connection:
            for pragma, value in (("synchronous", 2), ("journal_mode", "wal")):
                found = connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one()
                self.assertEqual(found, value)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_newer(self) -> None:
        """A catalogue of a newer release is refused, and left as it is."""
        with self.catalogue.writing() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num='9999'"))
        self.catalogue.close()
        error = self.assertRaises(UsageError, self.another)
        self.assertIn("newer release", str(error))
        self.assertRaises(UsageError, self.another, read_only=True)
        with self.catalogue.reading() as connection:
            self.assertEqual(current_revision(connection), "9999")

    def test_at_once(self) -> None:
        """Several that open a new catalogue at the same time all find it complete."""
        self.check_at_once(["other.sqlite"] * 4)

    def test_several_at_once(self) -> None:
        """So do several that each open a new catalogue of its own."""
        self.check_at_once([f"{number}.sqlite" for number in range(8)])

    def check_at_once(self, names: list[str]) -> None:
        revisions: list[str | None] = []
        start = threading.Barrier(len(names))

        def opening(url: str) -> None:
            start.wait(30)
            catalogue = open_catalogue(url)
            with catalogue.reading() as connection:
                revisions.append(current_revision(connection))
            catalogue.close()

        urls = [sqlite_url(str(self.path.with_name(name))) for name in names]
        threads = [threading.Thread(target=opening, args=(url,)) for url in urls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(revisions, [REVISION] * len(names))

    def test_read_only(self) -> None:
        """A read-only catalogue can be read and not written."""
        self.add("packs/a", entry(1))
        catalogue = self.another(read_only=True)
        self.assertIn(name_of(1), catalogue.locate([name_of(1)]))
        error = self.assertRaises(OSError, catalogue.mark_damaged, [name_of(1)])
        self.assertEqual(error.errno, errno.EROFS)

    def test_system_error(self) -> None:
        """What the system refuses is an OSError, by whatever name SQLite calls it."""
        self.path.with_name("folder").mkdir()
        url = sa.URL.create("sqlite", database=str(self.path.with_name("folder")))
        error = self.assertRaises(OSError, open_catalogue, url.render_as_string())
        self.assertEqual(error.errno, errno.EIO)

    def test_changed(self) -> None:
        """A schema, or a text in a row, that was changed is damage that has a name."""
        self.add("packs/a", entry(1))
        for change in (
            "UPDATE packs SET name = CAST(X'ff' AS TEXT)",
            "ALTER TABLE blobs RENAME COLUMN digest TO dagest",
        ):
            with self.catalogue.writing() as connection:
                connection.exec_driver_sql(change)
            self.assertRaises(StoredDataDamaged, self.catalogue.locate, [name_of(1)])

    def test_busy(self) -> None:
        """A writer that waits too long for another one is told so."""
        waiting = self.another()
        with waiting.reading() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=1")
        with self.catalogue.writing():
            self.assertRaises(Busy, waiting.mark_damaged, [name_of(1)])

    def test_odd_path(self) -> None:
        """A path with characters that mean something in a URL is a path."""
        folder = self.path.parent / "a?b#c%20d"
        folder.mkdir()
        self.path = folder / "x y.sqlite"
        self.another()
        self.assertTrue(self.path.exists())
        self.another(read_only=True)

    def test_damaged(self) -> None:
        """A file that is no data base is damaged data, and stays as it is."""
        path = self.path.with_name("junk.sqlite")
        path.write_bytes(b"junk" * 2000)
        self.assertRaises(StoredDataDamaged, open_catalogue, sqlite_url(str(path)))
        self.assertEqual(path.read_bytes(), b"junk" * 2000)

    def test_link(self) -> None:
        """A symbolic link is not followed."""
        path = self.path.with_name("link.sqlite")
        path.symlink_to(self.path.absolute())
        self.assertRaises(OSError, sqlite_url, str(path))


class BlobsTests(CatalogueCase):
    """The index of blobs."""

    def test_present(self) -> None:
        """More ids than one statement takes are looked up; only what is indexed is there."""
        count = LOOKUP_IDS + 5
        self.add("packs/a", *map(entry, range(count)))
        self.assertEqual(self.present(*range(2 * count)), set(map(name_of, range(count))))

    def test_locate(self) -> None:
        """A blob is found with everything that its pack says of it."""
        self.add("packs/a", entry(1))
        self.add("packs/b", entry(2, 9))
        found = self.catalogue.locate(map(name_of, (1, 2, 3)))
        expected = {name_of(1): ("packs/a", entry(1)), name_of(2): ("packs/b", entry(2, 9))}
        self.assertEqual(found, expected)

    def test_twice(self) -> None:
        """A blob that comes a second time stays where it was; a pack may be indexed again."""
        self.add("packs/a", entry(1))
        self.add("packs/b", entry(1, 99), entry(2))
        self.add("packs/b", entry(1, 99), entry(2))
        found = self.catalogue.locate([name_of(1), name_of(2)])
        self.assertEqual([found[name_of(n)][0] for n in (1, 2)], ["packs/a", "packs/b"])

    def test_damaged(self) -> None:
        """A damaged blob is as if it were not there, until it is stored again elsewhere."""
        self.add("packs/a", entry(1), entry(2))
        with self.catalogue.reading() as connection:
            self.assertEqual(self.catalogue.removals(connection) if self.described() else None, 0)
        self.catalogue.mark_damaged([name_of(1)])
        with self.catalogue.reading() as connection:
            self.assertEqual(self.catalogue.removals(connection), 1)
        self.assertEqual(self.present(1, 2), {name_of(2)})
        self.assertEqual(list(self.catalogue.locate([name_of(1)])), [])
        self.add("packs/b", entry(1, 50))
        self.assertEqual(self.catalogue.locate([name_of(1)])[name_of(1)], ("packs/b", entry(1, 50)))

    def test_damaged_there(self) -> None:
        """What was seen to be damaged in one pack and lies in another by now is not damaged."""
        self.described()
        self.add("packs/a", entry(1))
        self.add("packs/b", entry(2))
        self.catalogue.mark_damaged([name_of(1), name_of(2)], "packs/b")
        self.assertEqual(self.present(1, 2), {name_of(1)})

    def condemn(self, *numbers: int) -> None:
        with self.catalogue.writing() as connection:
            where = blobs_table.c.id.in_([name_of(number) for number in numbers])
            connection.execute(sa.update(blobs_table).where(where).values(condemned=3))

    def test_condemned(self) -> None:
        """Nobody is told of a condemned blob, and it can be read."""
        self.add("packs/a", entry(1), entry(2))
        self.condemn(1)
        self.assertEqual(self.present(1, 2), {name_of(2)})
        with self.catalogue.reading() as connection:
            near = self.catalogue.present_near(connection, map(name_of, (1, 2)))
            self.assertEqual(near, {name_of(2)})
        self.assertEqual(len(self.catalogue.locate(map(name_of, (1, 2)))), 2)

    def test_sent_again(self) -> None:
        """Stored once more, a condemned blob stays, in its new place."""
        self.add("packs/a", entry(1), entry(2))
        self.condemn(1)
        self.add("packs/b", entry(1, 50), entry(2, 60))
        self.assertEqual(self.present(1, 2), {name_of(1), name_of(2)})
        found = self.catalogue.locate(map(name_of, (1, 2)))
        self.assertEqual(found[name_of(1)], ("packs/b", entry(1, 50)))
        self.assertEqual(found[name_of(2)], ("packs/a", entry(2)))

    def test_rescue(self) -> None:
        """What is condemned and needed is kept; what is not there is not made up."""
        self.add("packs/a", *map(entry, range(4)))
        self.condemn(1, 2)
        with self.catalogue.writing() as connection:
            found = self.catalogue.rescue(connection, map(name_of, (1, 3, 9)))
        self.assertEqual(found, {name_of(1), name_of(3)})
        self.assertEqual(self.present(*range(4)), set(map(name_of, (0, 1, 3))))

    def test_epoch(self) -> None:
        """A pack has the epoch in which it was indexed."""
        self.described()
        for epoch in (0, 7):
            with self.catalogue.writing() as connection:
                connection.execute(sa.update(repository_table).values(epoch=epoch))
            self.add(f"packs/{epoch}", entry(epoch))
        with self.catalogue.reading() as connection:
            epochs = connection.execute(sa.select(packs_table.c.epoch)).scalars().all()
            self.assertEqual(self.catalogue.epoch(connection), 7)
        self.assertEqual(epochs, [0, 7])

    def test_frozen(self) -> None:
        """Whoever takes something away is refused while the repository is frozen."""
        self.described()
        with self.catalogue.writing() as connection:
            self.catalogue.refuse_frozen(connection)
            connection.execute(sa.update(repository_table).values(frozen=True))
            self.assertRaises(Refused, self.catalogue.refuse_frozen, connection)

    def described(self) -> bool:
        """Give the catalogue its one row."""
        with self.catalogue.writing() as connection:
            values = {"number": 1, "repository": b"", "format_version": 1, "description": b""}
            connection.execute(sa.insert(repository_table), {**values, "removals": 0})
        return True

    def test_rollback(self) -> None:
        """A transaction that fails leaves nothing."""

        def fail() -> None:
            with self.catalogue.writing() as connection:
                self.catalogue.add_pack(connection, "packs/a", 1, [entry(1)], 0.0)
                raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, fail)
        self.assertEqual(self.present(1), set())
        with self.catalogue.reading() as connection:
            self.assertEqual(connection.execute(sa.select(packs_table)).all(), [])

    def test_full(self) -> None:
        """A data base that cannot grow is NoSpace, and keeps what it had."""
        self.add("packs/a", entry(1))
        with self.catalogue.reading() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        self.assertRaises(NoSpace, self.add, "packs/b", *map(entry, range(2, 2000)))
        self.assertEqual(self.present(1, 2, 3), {name_of(1)})

    def test_waiting_writer(self) -> None:
        """Writers wait for each other: none fails, and nothing is lost."""
        start = threading.Barrier(3)

        def writing(worker: int) -> None:
            catalogue = open_catalogue(sqlite_url(str(self.path)))
            start.wait(30)
            for number in range(10):
                with catalogue.writing() as connection:
                    made = [entry(worker * 100 + number), entry(1000 + number)]
                    catalogue.add_pack(connection, f"packs/{worker}-{number}", 1, made, 0.0)
            catalogue.close()

        threads = [threading.Thread(target=writing, args=(worker,)) for worker in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        with self.catalogue.reading() as connection:
            count = sa.select(sa.func.count()).select_from(blobs_table)
            self.assertEqual(connection.execute(count).scalar_one(), 40)

    def test_snapshot(self) -> None:
        """A reader goes on seeing one state while another session writes."""
        with self.catalogue.reading() as connection:
            self.assertEqual(self.catalogue.present(connection, [name_of(1)]), set())
            other = self.another()
            with other.writing() as writing:
                other.add_pack(writing, "packs/a", 1, [entry(1)], 0.0)
            self.assertEqual(self.catalogue.present(connection, [name_of(1)]), set())
        self.assertEqual(self.present(1), {name_of(1)})

    def test_sqlite_has_no_old_errors(self) -> None:
        """The driver says which error it was: that is how a full disk is recognised."""
        connection = sqlite3.connect(":memory:")
        self.addCleanup(connection.close)
        error = self.assertRaises(sqlite3.OperationalError, connection.execute, "SELECT")
        self.assertEqual(error.sqlite_errorcode, sqlite3.SQLITE_ERROR)
