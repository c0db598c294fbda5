"""Tests of :mod:`cloudconnect.config.history`: how long what happened is kept, as it is set."""

from __future__ import annotations

from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config.history import KEPT, bounds_of_kept, check_kept, keep_of
from cloudconnect.config.provider import CONFIGURATION, ProviderSettings, load
from cloudconnect.errors import UsageError
from cloudconnect.provider.history.keep import Keep


class KeptTests(SynchronousTestCase):
    """What ``provider.toml`` says of it."""

    def test_defaults(self) -> None:
        """Where nothing is said, and where a new provider's file says it, the defaults hold."""
        directory = Path(self.mktemp())
        directory.mkdir()
        made = ProviderSettings(directory=directory.absolute(), hosts=("a",))
        self.assertEqual(Keep(), keep_of(made))
        (directory / CONFIGURATION).write_text(made.to_toml())
        self.assertEqual(made, load(directory))
        self.assertEqual({field.name for field in attrs.fields(Keep)}, set(KEPT))

    def test_bounds(self) -> None:
        """Defaults are within the bounds; 0 is for ever where it is days, and nothing between it
        and the least will do."""
        for name, (least, most) in bounds_of_kept().items():
            self.assertTrue(least <= getattr(Keep(), name) <= most)
        check_kept({"events_days": 0, "sessions_days": 180, "audit_days": 3650})
        check_kept({"audit_gb": 0})
        for name in ("events_days", "sessions_days", "audit_days"):
            error = self.assertRaises(UsageError, check_kept, {name: KEPT[name][0] - 1})
            self.assertIn(name, str(error))
