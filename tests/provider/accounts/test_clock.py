"""Tests of :mod:`cloudconnect.provider.accounts.clock`: what a clock that jumps does to it."""

from __future__ import annotations

from cloudconnect.provider.accounts.clock import STEP_MAX
from tests.provider.accounts.case import AccountsCase

#: Some day.
NOW = 1793491200.0


class ClockTests(AccountsCase):
    """The seconds that have surely passed."""

    def test_passes(self) -> None:
        """It begins at nothing, and counts what lies between two looks, in another process too."""
        self.assertEqual(0.0, self.accounts.pass_time(NOW))
        self.assertEqual(3600.0, self.accounts.pass_time(NOW + 3600))
        self.accounts.close()
        self.accounts = self.opened()
        self.assertEqual(3610.0, self.accounts.pass_time(NOW + 3610))

    def test_jumps(self) -> None:
        """A year forward is no more than one step, and a year back is nothing."""
        self.accounts.pass_time(NOW)
        year = 365 * 86400.0
        self.assertEqual(STEP_MAX, self.accounts.pass_time(NOW + year))
        self.assertEqual(STEP_MAX, self.accounts.pass_time(NOW))
        self.assertEqual(STEP_MAX + 60, self.accounts.pass_time(NOW + 60))
