"""Tests of :mod:`cloudconnect.provider.control.logins`:
what names that do not exist are answered.
"""

from __future__ import annotations

from cloudconnect.settings import (
    PASSWORD_ITERATIONS_MIN,
    TOKEN_ITERATIONS_MIN,
)
from tests.provider.stage import StageCase


class DecoyTests(StageCase):
    """What tenants that do not exist are told."""

    def test_iterations(self) -> None:
        """Always the same for one name, and over many names as often the one as the other number
        that real tenants have."""
        service = self.provider.service
        names = [f"tenant-{number}" for number in range(200)]
        told = [service.logins.decoy_iterations(name) for name in names]
        self.assertEqual(told, [service.logins.decoy_iterations(name) for name in names])
        self.assertEqual({TOKEN_ITERATIONS_MIN, PASSWORD_ITERATIONS_MIN}, set(told))
        self.assertTrue(60 < told.count(TOKEN_ITERATIONS_MIN) < 140)
