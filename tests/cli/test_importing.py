"""Tests of :mod:`cloudconnect.cli.importing`."""

from __future__ import annotations

import gc
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli.importing import THRESHOLDS, uncollected
from cloudconnect.cli.main import _COMMANDS


class ImportingTests(SynchronousTestCase):
    """Without the collector."""

    def test_uncollected(self) -> None:
        """The collector rests inside, also where that fails, and works again behind it."""
        with self.assertRaises(ValueError), uncollected():
            self.assertFalse(gc.isenabled())
            raise ValueError
        self.assertTrue(gc.isenabled())

    def test_stays_off(self) -> None:
        """A collector that somebody has switched off stays off."""
        self.addCleanup(gc.enable)
        gc.disable()
        with uncollected():
            pass
        self.assertFalse(gc.isenabled())

    def test_for_good(self) -> None:
        """What is there at the end is never looked at again, unless it failed."""
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        with self.assertRaises(ValueError), uncollected(for_good=True):
            raise ValueError
        self.assertEqual(gc.get_freeze_count(), 0)
        with uncollected(for_good=True):
            pass
        self.assertGreater(gc.get_freeze_count(), 0)
        self.assertEqual(gc.get_threshold(), THRESHOLDS)


class StartTests(SynchronousTestCase):
    """What a command does not import."""

    def test_light(self) -> None:
        """A tenant's command starts without the provider's modules and their SQL."""
        commands = ("backup", "check", "diff", "find", "points", "restore")
        names = sorted({_COMMANDS[command][0] for command in commands})
        program = f"import sys, {', '.join(names)}; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        loaded = set(done.stdout.split())
        self.assertIn("cloudconnect.cli.backup", loaded, done.stderr)
        heavy = ("sqlalchemy", "alembic", "cloudconnect.provider", "cloudconnect.repository")
        self.assertEqual([name for name in sorted(loaded) if name.startswith(heavy)], [])
