"""Tests of :mod:`cloudconnect.cli.agreement`: what options say of a new tenant."""

from __future__ import annotations

from typing import Any

import click
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli.agreement import READERS, agreement_options, new_settings
from cloudconnect.errors import UsageError
from cloudconnect.provider.admin.agreed import TENANT_SETTINGS


class AgreementTests(SynchronousTestCase):
    """Options and settings."""

    def settings(self, *words: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        @click.command()
        @agreement_options
        def command(**choices: Any) -> None:
            found.append(new_settings(choices))

        result = CliRunner().invoke(command, words, catch_exceptions=False)
        self.assertEqual(0, result.exit_code, result.output)
        return found[0]

    def test_all(self) -> None:
        """Each option is a setting of a tenant, in bytes and seconds, and every setting is one."""
        self.assertEqual(
            {
                "quota": 50_000_000_000,
                "soft_quota": 40_000_000_000,
                "lease_end": "2027-12-31",
                "max_tasks": 2,
                "bandwidth": 20_000_000,
                "expect_every": 93_600,
                "modes": ["tenant", "provider"],
                "pool": "west",
            },
            self.settings(
                *("--quota", "50GB", "--soft-quota", "40GB", "--lease", "2027-12-31"),
                *("--max-tasks", "2", "--bandwidth", "20MB/s", "--expect-every", "26h"),
                *("--encryption", "tenant, provider", "--pool", "west"),
            ),
        )
        self.assertEqual(set(TENANT_SETTINGS), {setting for setting, _ in READERS.values()})

    def test_nothing(self) -> None:
        """What is left out is the provider's to say."""
        self.assertEqual({}, self.settings())

    def test_wrong(self) -> None:
        """What is no size, rate or time is refused."""
        for option in ("quota", "bandwidth", "expect_every"):
            self.assertRaises(UsageError, new_settings, {option: "much"})
