"""Tests of :mod:`cloudconnect.cli.importing`."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli.importing import import_in_turns, uncollected


class ImportingTests(SynchronousTestCase):
    """Late, and without the collector."""

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

    def test_turns(self) -> None:
        """Between two modules the reactor gets a turn."""
        folder = Path(self.mktemp())
        folder.mkdir()
        first, second = "cloudconnect_first_of_a_test", "cloudconnect_second_of_a_test"
        for name in (first, second):
            (folder / f"{name}.py").touch()
            self.addCleanup(sys.modules.pop, name, None)
        self.patch(sys, "path", [str(folder), *sys.path])
        clock = Clock()
        done = Deferred.fromCoroutine(import_in_turns(clock, (first, second)))
        self.assertIn(first, sys.modules)
        self.assertNotIn(second, sys.modules)
        clock.advance(0)
        self.assertIn(second, sys.modules)
        self.successResultOf(done)

    def test_missing(self) -> None:
        """A module that cannot be imported is an error."""
        done = Deferred.fromCoroutine(import_in_turns(Clock(), ("cloudconnect.nothing",)))
        self.failureResultOf(done, ModuleNotFoundError)
