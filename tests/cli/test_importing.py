"""Tests of :mod:`cloudconnect.cli.importing`."""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli.importing import uncollected


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
