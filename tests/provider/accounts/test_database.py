"""Tests of :mod:`cloudconnect.provider.accounts.database`: in a temporary directory."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from cloudconnect.errors import NoSpace, UsageError
from cloudconnect.provider.accounts import Accounts, metadata
from cloudconnect.provider.accounts.database import Database
from cloudconnect.provider.accounts.tables import REVISION
from tests.provider.accounts.case import VERIFIER, AccountsCase
from tests.schemas import schema

#: The columns that came after the first release.
ADDED = {
    "tenants": (
        "mode",
        "rules",
        "frozen",
        "told",
        "soft_quota",
        "soft_warned",
        "bandwidth",
        "expect_every",
        "removed",
        "removal_left",
        "removal_seen",
        "pool",
    ),
    "credentials": ("invitation", "expires", "certificate"),
}


class MigrationTests(AccountsCase):
    """How the data base comes to its tables."""

    def test_tables(self) -> None:
        """The migrations make exactly the tables that the code uses, and that a new data base has
        without them."""
        migrated = Path(self.mktemp())
        self.patch(Database, "_made", lambda _: False)
        Accounts(f"sqlite:///{migrated}").close()
        schemas = []
        for path in (migrated, self.path):
            engine = sa.create_engine(f"sqlite:///{path}")
            self.addCleanup(engine.dispose)
            with engine.connect() as connection:
                context = MigrationContext.configure(connection, opts={"compare_type": True})
                self.assertEqual([], compare_metadata(context, metadata))
                self.assertEqual(REVISION, context.get_current_revision())
                schemas.append(schema(connection))
        self.assertIn("alembic_version", schemas[0])
        self.assertEqual(*schemas)

    def test_head(self) -> None:
        """The newest migration is the revision that a new data base gets."""
        config = Config()
        config.set_main_option("script_location", "cloudconnect.provider:migrations")
        self.assertEqual(REVISION, ScriptDirectory.from_config(config).get_current_head())

    def test_again(self) -> None:
        """What was stored is there when the data base is opened again."""
        self.accounts.add_tenant("acme", VERIFIER)
        self.accounts.close()
        self.assertEqual("acme", self.opened().tenant("acme").name)

    def test_older(self) -> None:
        """A data base of the first release is migrated, with its tenants and credentials."""
        self.accounts.add_tenant("acme", VERIFIER)
        self.accounts.close()
        for table, columns in ADDED.items():
            for column in columns:
                self.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        self.execute("DROP INDEX ix_events_tenant_type")
        for table in ("nodes", "untold"):
            self.execute(f"DROP TABLE {table}")
        self.execute("UPDATE alembic_version SET version_num = 'accounts_0001'")
        tenant = self.opened().tenant("acme")
        self.assertEqual(("tenant", {}, False), (tenant.mode, tenant.rules, tenant.frozen))
        self.assertEqual(VERIFIER, self.opened().verifier("acme"))

    def test_newer(self) -> None:
        """A data base of a newer release is refused and not touched."""
        self.accounts.close()
        self.execute("UPDATE alembic_version SET version_num = 'accounts_9999'")
        before = self.path.read_bytes()
        error = self.assertRaises(UsageError, Accounts, f"sqlite:///{self.path}")
        self.assertIn("accounts_9999", str(error))
        self.assertIn("upgrade", str(error))
        self.assertEqual(before, self.path.read_bytes())

    def test_durable(self) -> None:
        """What has been committed survives a power cut: WAL, and every commit synced."""
        with self.accounts._engine.connect() as connection:
            found = [
                connection.execute(sa.text(f"PRAGMA {name}")).scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        self.assertEqual(["wal", 2, 1], found)


class ValueTests(AccountsCase):
    """The provider's own values."""

    def test_made_once(self) -> None:
        """A value is made at the first call and stays, also for another process."""
        value = self.accounts.provider_value("provider-id", 16)
        self.assertEqual(16, len(value))
        self.assertEqual(value, self.accounts.provider_value("provider-id", 16))
        self.assertEqual(value, self.opened().provider_value("provider-id", 16))

    def test_each_its_own(self) -> None:
        """Values of two names differ."""
        values = {self.accounts.provider_value(name, 32) for name in ("one", "two")}
        self.assertEqual(2, len(values))


class DiskTests(AccountsCase):
    """A disk that is full, or read-only."""

    def full(self, name: str) -> None:
        """From now on SQLite says this of each commit."""

        def fail(connection: Any) -> None:
            error = sqlite3.OperationalError(name)
            error.sqlite_errorcode = getattr(sqlite3, name)  # type: ignore[attr-defined]
            raise sa.exc.OperationalError("COMMIT", None, error)

        sa.event.listen(self.accounts._engine, "commit", fail)

    def test_no_room(self) -> None:
        """What cannot be written is said by name; what is there can be read."""
        self.accounts.add_tenant("acme", VERIFIER)
        for name, word in (("SQLITE_FULL", "full"), ("SQLITE_READONLY", "read-only")):
            self.accounts.close()
            self.accounts = self.opened()
            self.full(name)
            error = self.assertRaises(NoSpace, self.accounts.add_tenant, "b", VERIFIER)
            self.assertIn(word, str(error))
            self.assertEqual("acme", self.accounts.tenant("acme").name)

    def test_read_only(self) -> None:
        """On a read-only file system it is opened for reading, and nothing is made beside it."""
        self.accounts.add_tenant("acme", VERIFIER)
        value = self.accounts.provider_value("provider-id", 16)
        self.accounts.close()
        real = os.statvfs

        class ReadOnly:
            f_flag = os.ST_RDONLY

        self.patch(os, "statvfs", lambda path: ReadOnly)
        accounts = self.opened()
        self.patch(os, "statvfs", real)
        self.assertEqual("acme", accounts.tenant("acme").name)
        self.assertEqual(value, accounts.provider_value("provider-id", 16))
        self.assertRaises(NoSpace, accounts.change_tenant, "acme", {"frozen": True})
        self.assertRaises(NoSpace, accounts.abandon_sessions)
        accounts.close()
        self.assertFalse(Path(f"{self.path}-shm").exists())
        self.assertFalse(self.opened().tenant("acme").frozen)
