"""Tests of :mod:`cloudconnect.provider.accounts.tenants`."""

from __future__ import annotations

import datetime

from cloudconnect.errors import LeaseEnded, NotFound, UsageError
from cloudconnect.provider.accounts import MAX_TASKS_DEFAULT
from cloudconnect.wire.login import Verifier
from tests.provider.accounts.case import VERIFIER, AccountsCase


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
            soft_quota=1 << 49,
            bandwidth=20_000_000,
            expect_every=93_600,
        )
        tenant = self.accounts.tenant("acme")
        self.assertEqual(
            (1 << 50, "2030-01-31", 2, ("tenant", "none")),
            (tenant.quota, tenant.lease_end, tenant.max_tasks, tenant.modes),
        )
        self.assertEqual(
            (1 << 49, 20_000_000, 93_600),
            (tenant.soft_quota, tenant.bandwidth, tenant.expect_every),
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
            {"soft_quota": -1},
            {"bandwidth": 0},
            {"expect_every": 0},
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
