"""Tests of :mod:`cloudconnect.provider.accounts.removals`."""

from __future__ import annotations

import time

from cloudconnect.errors import NotFound, UsageError, WarningKind
from cloudconnect.events import SecurityWarning
from tests.provider.accounts.case import VERIFIER, AccountsCase

DAY = 86400.0


class RemovalCase(AccountsCase):
    """A data base with a tenant, and a clock."""

    def setUp(self) -> None:
        super().setUp()
        self.now = 1_000_000.0
        self.patch(time, "time", lambda: self.now)
        self.accounts.add_tenant("acme", VERIFIER)

    def over(self, seconds: float = 0.0) -> list[str]:
        """Whose time is over when so many seconds have gone by."""
        self.now += seconds
        return [tenant.name for tenant in self.accounts.count_removals(7200)]


class DisableTests(RemovalCase):
    """Tenants that may do nothing."""

    def test_there_and_back(self) -> None:
        """Each switch says whether it changed anything."""
        self.assertTrue(self.accounts.disable("acme"))
        self.assertFalse(self.accounts.disable("acme"))
        self.assertTrue(self.accounts.tenant("acme").disabled)
        self.assertTrue(self.accounts.enable("acme"))
        self.assertFalse(self.accounts.enable("acme"))
        self.assertFalse(self.accounts.tenant("acme").disabled)

    def test_nobody(self) -> None:
        """A tenant that is not there cannot be switched."""
        for act in (self.accounts.disable, self.accounts.enable):
            self.assertRaises(NotFound, act, "nobody")
        self.assertRaises(NotFound, self.accounts.remove, "nobody", DAY)


class BinTests(RemovalCase):
    """Tenants in the bin."""

    def test_taken_back(self) -> None:
        """A removed tenant is disabled; taken back it is as before."""
        before = self.accounts.tenant("acme")
        self.assertTrue(self.accounts.remove("acme", DAY))
        self.assertFalse(self.accounts.remove("acme", 1.0))
        tenant = self.accounts.tenant("acme")
        self.assertEqual((True, self.now, DAY), (tenant.disabled, tenant.removed, 86400.0))
        (row,) = self.accounts.tenants()
        self.assertEqual((self.now, DAY), (row["removed"], row["removal_left"]))
        self.accounts.enable("acme")
        self.assertEqual(before, self.accounts.tenant("acme"))

    def test_in_time(self) -> None:
        """Its time passes while a provider counts it, and not before the end is it over."""
        self.accounts.remove("acme", 7300.0)
        self.assertEqual([], self.over(7200))
        self.assertEqual([], self.over(99))
        self.assertEqual(["acme"], self.over(1))

    def test_clock_that_jumps(self) -> None:
        """A clock that jumps takes no more than one round does, and gives nothing."""
        self.accounts.remove("acme", 30 * DAY)
        self.assertEqual([], self.over(1000 * DAY))
        self.assertEqual([], self.over(-1000 * DAY))
        self.assertEqual(30 * DAY - 7200, self.accounts.tenant("acme").removal_left)

    def test_going(self) -> None:
        """Once its repository is being deleted nobody takes it back, unless that was given up."""
        self.accounts.remove("acme", 0.0)
        self.assertTrue(self.accounts.begin_drop("acme"))
        self.assertRaises(UsageError, self.accounts.enable, "acme")
        self.assertEqual(["acme"], self.over(10))  # also after a restart in the middle of it
        self.assertRaises(UsageError, self.accounts.enable, "acme")
        self.accounts.give_up_drop("acme")
        self.assertTrue(self.accounts.enable("acme"))
        self.assertFalse(self.accounts.begin_drop("acme"))

    def test_dropped(self) -> None:
        """Who has gone is forgotten with its credentials; nobody else, and not before its time."""
        self.accounts.add_tenant("other", VERIFIER)
        self.accounts.drop_tenant("acme")
        self.accounts.remove("acme", DAY)
        self.accounts.drop_tenant("acme")
        self.assertEqual("acme", self.accounts.tenant("acme").name)
        self.execute("UPDATE tenants SET removal_left = 0 WHERE name = 'acme'")
        self.accounts.drop_tenant("acme")
        self.assertRaises(NotFound, self.accounts.tenant, "acme")
        self.assertEqual([], self.accounts.credentials("acme", 0, 10))
        self.assertEqual(VERIFIER, self.accounts.verifier("other"))

    def test_name_given_again(self) -> None:
        """Another tenant of the same name hears nothing of what was found in the old one's."""
        warning = SecurityWarning(
            time=1.0, kind=WarningKind.STORED_DATA_DAMAGED, tenant="acme", text="damaged"
        )
        self.accounts.keep_warning(warning, "target-mover")
        self.assertEqual(1, len(self.accounts.untold("acme", 5)))
        self.accounts.remove("acme", 0.0)
        self.accounts.drop_tenant("acme")
        self.accounts.add_tenant("acme", VERIFIER)
        self.assertEqual([], self.accounts.untold("acme", 5))


class SoftQuotaTests(AccountsCase):
    """Whether it is news that a tenant is over its soft quota."""

    def test_news(self) -> None:
        """Once when it begins, and once more when it had ended or was changed."""
        self.accounts.add_tenant("acme", VERIFIER, soft_quota=10)
        told = [self.accounts.warn_soft("acme", over) for over in (False, True, True, False, True)]
        self.assertEqual([False, True, False, True, True], told)
        self.accounts.change_tenant("acme", {"soft_quota": 20})
        self.assertTrue(self.accounts.warn_soft("acme", True))
