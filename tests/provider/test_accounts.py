"""Tests of :mod:`cloudconnect.provider.accounts`: the data base, in a temporary directory."""

from __future__ import annotations

import datetime
import os
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import LeaseEnded, NoSpace, NotFound, UsageError, WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.accounts import MAX_TASKS_DEFAULT, Accounts, metadata
from cloudconnect.wire.scram import Verifier

VERIFIER = Verifier(
    b"s" * 16, b"stored key of thirty-two bytes..", b"server key of thirty-two bytes..", 4096
)
SESSION = "ab" * 16


class AccountsCase(SynchronousTestCase):
    """A test with a data base."""

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.path = directory / "accounts.sqlite"
        self.accounts = self.opened()

    def opened(self) -> Accounts:
        accounts = Accounts(f"sqlite:///{self.path}")
        self.addCleanup(accounts.close)
        return accounts

    def execute(self, statement: str) -> list[Any]:
        """Run SQL beside the accounts."""
        engine = sa.create_engine(f"sqlite:///{self.path}")
        try:
            with engine.begin() as connection:
                result = connection.execute(sa.text(statement))
                return list(result) if result.returns_rows else []
        finally:
            engine.dispose()

    def start(self, session: str = SESSION, tenant: str = "acme", **values: Any) -> None:
        fields = {
            "session": session,
            "tenant": tenant,
            "kind": "backup",
            "job_id": "cd" * 16,
            "host": "host",
            "job": "job",
            "peer": "192.0.2.1",
            "started": 1.0,
            "key_a": "0123456789abcdef",
            "key_b": "",
            "summary": "{}",
        }
        self.accounts.session_started(**{**fields, **values})


class MigrationTests(AccountsCase):
    """How the data base comes to its tables."""

    def test_tables(self) -> None:
        """The migrations make exactly the tables that the code uses."""
        engine = sa.create_engine(f"sqlite:///{self.path}")
        self.addCleanup(engine.dispose)
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            self.assertEqual([], compare_metadata(context, metadata))

    def test_again(self) -> None:
        """What was stored is there when the data base is opened again."""
        self.accounts.add_tenant("acme", VERIFIER)
        self.accounts.close()
        self.assertEqual("acme", self.opened().tenant("acme").name)

    def test_older(self) -> None:
        """A data base of the first release is migrated, with its tenants and credentials."""
        self.accounts.add_tenant("acme", VERIFIER)
        self.accounts.close()
        for column in ("mode", "rules", "frozen", "told"):
            self.execute(f"ALTER TABLE tenants DROP COLUMN {column}")
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


class TenantTests(AccountsCase):
    """Tenants and what proves them."""

    def test_defaults(self) -> None:
        """A tenant without settings has no quota, no lease end, and may encrypt for itself."""
        self.accounts.add_tenant("acme", VERIFIER)
        tenant = self.accounts.tenant("acme")
        self.assertEqual(
            (None, None, MAX_TASKS_DEFAULT), (tenant.quota, tenant.lease_end, tenant.max_tasks)
        )
        self.assertEqual(
            (("tenant",), None, False), (tenant.modes, tenant.repository, tenant.disabled)
        )
        self.assertEqual(16, len(tenant.group))

    def test_settings(self) -> None:
        """What is set is kept."""
        self.accounts.add_tenant(
            "acme",
            VERIFIER,
            quota=1 << 50,
            lease_end="2030-01-31",
            max_tasks=2,
            modes=("tenant", "none"),
        )
        tenant = self.accounts.tenant("acme")
        self.assertEqual(
            (1 << 50, "2030-01-31", 2, ("tenant", "none")),
            (tenant.quota, tenant.lease_end, tenant.max_tasks, tenant.modes),
        )

    def test_names(self) -> None:
        """Only names that SCRAM, SQL and file names can all carry are tenants'."""
        for name in ("", "A", "ä", "a b", "a/b", "-a", ".a", "a" * 65, "a\n", "a'"):
            self.assertRaises(UsageError, self.accounts.add_tenant, name, VERIFIER)
        for name in ("a", "0", "a" * 64, "a.b-c_d"):
            self.accounts.add_tenant(name, VERIFIER)
        self.assertEqual(4, len(self.accounts.tenants()))

    def test_bad_settings(self) -> None:
        """Settings that cannot be are refused, and no tenant is made."""
        for values in (
            {"lease_end": "tomorrow"},
            {"lease_end": "2030-02-30"},
            {"max_tasks": 0},
            {"quota": -1},
        ):
            self.assertRaises(UsageError, self.accounts.add_tenant, "acme", VERIFIER, **values)
        self.assertEqual([], self.accounts.tenants())

    def test_taken(self) -> None:
        """A name is given once; the first tenant keeps its login."""
        self.accounts.add_tenant("acme", VERIFIER)
        other = Verifier(b"t" * 16, bytes(32), bytes(32), 4096)
        self.assertRaises(UsageError, self.accounts.add_tenant, "acme", other)
        self.assertEqual(VERIFIER, self.accounts.verifier("acme"))

    def test_unknown(self) -> None:
        """A tenant that is not there is not found, and nothing proves it."""
        self.assertRaises(NotFound, self.accounts.tenant, "nobody")
        self.assertIsNone(self.accounts.verifier("nobody"))
        self.assertIsNone(self.accounts.verifier(""))

    def test_revoked(self) -> None:
        """A revoked credential proves nothing any more."""
        self.accounts.add_tenant("acme", VERIFIER)
        self.execute("UPDATE credentials SET revoked = 1.0")
        self.assertIsNone(self.accounts.verifier("acme"))

    def test_listing(self) -> None:
        """A listing has every tenant by name, and nothing that helps a guesser."""
        for name in ("b", "a"):
            self.accounts.add_tenant(name, VERIFIER)
        rows = self.accounts.tenants()
        self.assertEqual(["a", "b"], [row["name"] for row in rows])
        printed = repr(rows)
        for octets in (VERIFIER.stored_key, VERIFIER.server_key):
            self.assertNotIn(octets.decode(), printed)
            self.assertNotIn(octets.hex(), printed)

    def test_repository(self) -> None:
        """A tenant gets its repository once."""
        self.accounts.add_tenant("acme", VERIFIER)
        self.accounts.set_repository("acme", b"r" * 16)
        self.assertEqual(b"r" * 16, self.accounts.tenant("acme").repository)
        self.assertRaises(UsageError, self.accounts.set_repository, "acme", b"s" * 16)
        self.assertEqual(b"r" * 16, self.accounts.tenant("acme").repository)

    def test_mode(self) -> None:
        """The encryption mode of a repository is kept with it; of older ones it is tenant."""
        for name, mode in (("acme", ()), ("other", ("none",))):
            self.accounts.add_tenant(name, VERIFIER)
            self.accounts.set_repository(name, name.encode() * 4, *mode)
        modes = [self.accounts.tenant(name).mode for name in ("acme", "other")]
        self.assertEqual(["tenant", "none"], modes)
        self.assertEqual(modes, [row["encryption"] for row in self.accounts.tenants()])

    def test_repository_of_another(self) -> None:
        """A repository belongs to one tenant: another one cannot be given it as well."""
        for name in ("acme", "thief"):
            self.accounts.add_tenant(name, VERIFIER)
        self.accounts.set_repository("acme", b"r" * 16)
        self.assertRaises(UsageError, self.accounts.set_repository, "thief", b"r" * 16)
        self.assertIsNone(self.accounts.tenant("thief").repository)


class LeaseTests(AccountsCase):
    """Who may begin a backup."""

    def check(self, lease_end: str | None, today: str) -> None:
        self.accounts.add_tenant("acme", VERIFIER, lease_end=lease_end)
        self.accounts.tenant("acme").check_active(datetime.date.fromisoformat(today))

    def test_no_lease(self) -> None:
        """Without an end, at any time."""
        self.check(None, "2999-01-01")

    def test_last_day(self) -> None:
        """On the last day of the lease still."""
        self.check("2030-01-31", "2030-01-31")

    def test_over(self) -> None:
        """Not on the day after it; the text says when it ended."""
        error = self.assertRaises(LeaseEnded, self.check, "2030-01-31", "2030-02-01")
        self.assertIn("2030-01-31", str(error))

    def test_disabled(self) -> None:
        """Not while the tenant is disabled."""
        self.accounts.add_tenant("acme", VERIFIER)
        self.execute("UPDATE tenants SET disabled = 1")
        self.assertRaises(
            LeaseEnded, self.accounts.tenant("acme").check_active, datetime.date(2026, 1, 1)
        )


class SessionTests(AccountsCase):
    """What is kept of sessions."""

    def rows(self, tenant: str = "", after: int = 0, limit: int = 100) -> list[dict[str, Any]]:
        return self.accounts.sessions(tenant, after, limit)

    def test_life(self) -> None:
        """A session is started, and ends as it was said; its summary comes back as it was."""
        self.start()
        (row,) = self.rows()
        self.assertEqual(("started", None, {}), (row["state"], row["ended"], row["summary"]))
        self.accounts.session_ended(SESSION, "done", {"files": 3})
        (row,) = self.rows()
        self.assertEqual(("done", {"files": 3}), (row["state"], row["summary"]))
        self.assertIsInstance(row["ended"], float)

    def test_first_word_stands(self) -> None:
        """How a session ended is said once."""
        self.start()
        self.accounts.session_ended(SESSION, "security_warning", {})
        self.accounts.session_ended(SESSION, "done", {"files": 3})
        (row,) = self.rows()
        self.assertEqual(("security_warning", {}), (row["state"], row["summary"]))

    def test_restart(self) -> None:
        """After a restart what ran is interrupted, and what had ended stays as it was."""
        self.start()
        self.start("ef" * 16)
        self.accounts.session_ended(SESSION, "done", {})
        self.accounts.abandon_sessions()
        self.assertEqual(["done", "interrupted"], [row["state"] for row in self.rows()])

    def test_pages(self) -> None:
        """Sessions come in order, a page at a time, of one tenant or of all."""
        for number in range(5):
            self.start(f"{number:032x}", "acme" if number % 2 else "other")
        first = self.rows(limit=3)
        then = self.rows(after=first[-1]["cursor"], limit=3)
        self.assertEqual(
            [f"{number:032x}" for number in range(5)], [row["session"] for row in first + then]
        )
        self.assertEqual(["acme"] * 2, [row["tenant"] for row in self.rows("acme")])

    def test_key_b_identifier(self) -> None:
        """The identifier of Key B is kept with its session, once the mover has told it."""
        self.start()
        self.start("ef" * 16)
        event = SessionEvent(
            time=1.0,
            name="key_b_received",
            session=SESSION,
            text="Key B received",
            fields={"key": "fedcba9876543210 and more"},
        )
        self.accounts.keep_event(event, "acme", "target-mover")
        self.assertEqual(["fedcba9876543210", ""], [row["key_b"] for row in self.rows()])


class EventTests(AccountsCase):
    """What is kept of what happened."""

    def setUp(self) -> None:
        super().setUp()
        for number, tenant in enumerate(("acme", "other", "acme")):
            event = SessionEvent(
                time=float(number), name=f"step_{number}", session=SESSION, text="a step"
            )
            self.accounts.keep_event(event, tenant, "service")
        self.warning = SecurityWarning(
            time=9.0, kind=WarningKind.TAMPERED, session=SESSION, tenant="acme", text="changed"
        )
        self.accounts.keep_warning(self.warning, "target-mover")

    def names(self, **filters: str) -> list[str]:
        return [row["name"] for row in self.accounts.events(filters, 0, 100)]

    def test_order(self) -> None:
        """Events and warnings come in the order in which they were kept."""
        self.assertEqual(["step_0", "step_1", "step_2", "tampered"], self.names())

    def test_filters(self) -> None:
        """Each filter leaves only what is equal; an empty one leaves all."""
        self.assertEqual(["step_1"], self.names(tenant="other"))
        self.assertEqual(["tampered"], self.names(type="warning"))
        self.assertEqual(["step_2"], self.names(name="step_2", tenant="acme"))
        self.assertEqual([], self.names(session="ff" * 16))
        self.assertEqual(4, len(self.names(tenant="", session=SESSION)))

    def test_pages(self) -> None:
        """Pages go on behind the last row's cursor."""
        first = self.accounts.events({}, 0, 3)
        then = self.accounts.events({}, first[-1]["cursor"], 3)
        self.assertEqual((3, ["tampered"]), (len(first), [row["name"] for row in then]))

    def test_warning_comes_back(self) -> None:
        """A warning is kept whole: its fields make the same warning again."""
        (row,) = self.accounts.events({"type": "warning"}, 0, 10)
        self.assertEqual(self.warning, SecurityWarning.from_dict(row["fields"]))
        self.assertEqual("target-mover", row["reported_by"])


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
