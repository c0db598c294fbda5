"""Tests of :mod:`cloudconnect.provider.admin.agreed`: what an admin may agree with a tenant."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import UsageError
from cloudconnect.provider.admin.agreed import agreed, changed_rules, check_settings
from cloudconnect.repository.rules import Rules


class AgreedTests(SynchronousTestCase):
    """Settings and rules."""

    def test_agreed(self) -> None:
        """What is None was not said; modes become what a record has."""
        given = {"quota": None, "max_tasks": 3, "modes": ["none", "tenant"]}
        self.assertEqual({"max_tasks": 3, "modes": ("none", "tenant")}, agreed(given))

    def test_refused(self) -> None:
        """An unknown setting is named; modes are of the three that there are, and at least one."""
        error = self.assertRaises(UsageError, check_settings, {"quoat": 1, "colour": 2})
        self.assertIn("colour, quoat", str(error))
        for modes in ([], ["open"], ["tenant", "open"]):
            self.assertRaises(UsageError, agreed, {"modes": modes})

    def test_rules(self) -> None:
        """A changed rule stands beside those that were changed before; one that cannot be changes
        nothing."""
        once = changed_rules({}, {"bin_days": 3})
        twice = Rules.from_map(changed_rules(once, {"lock_days": 1}))
        self.assertEqual((3, 1), (twice.bin_days, twice.lock_days))
        for wrong in ({"bin_days": -1}, {"colour": 1}, {"bin_days": "x"}):
            self.assertRaises(UsageError, changed_rules, once, wrong)
