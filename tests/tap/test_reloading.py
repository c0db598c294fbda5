"""Tests of :mod:`cloudconnect.tap.reloading`: real files, a real signal."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import TestCase

from cloudconnect.tap.reloading import ChangeWatch


class ChangeTests(TestCase):
    """What is noticed."""

    timeout = 60

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "file"
        self.path.write_text("old")
        self.changed: Deferred[None] = Deferred()

    def begin(self) -> ChangeWatch:
        def changed() -> None:
            waiting, self.changed = self.changed, Deferred()
            waiting.callback(None)

        watch = ChangeWatch(reactor, [self.path], changed)
        watch.startService()
        self.addCleanup(lambda: watch.running and watch.stopService())
        return watch

    @inlineCallbacks
    def test_written(self) -> Any:
        """A file that was written, and one that another was moved over."""
        self.begin()
        changed = self.changed
        self.path.write_text("new")
        yield changed
        changed = self.changed
        other = self.folder / "other"
        other.write_text("newer")
        other.replace(self.path)
        yield changed

    @inlineCallbacks
    def test_link(self) -> Any:
        """A file behind a link, as tools that renew certificates lay it out."""
        elsewhere = Path(self.mktemp())
        elsewhere.mkdir()
        (elsewhere / "real").write_text("old")
        self.path.unlink()
        self.path.symlink_to((elsewhere / "real").absolute())
        self.begin()
        changed = self.changed
        (elsewhere / "real").write_text("new")
        yield changed

    @inlineCallbacks
    def test_signal(self) -> Any:
        """SIGHUP, and afterwards the handler that was there before is there again."""
        before = signal.getsignal(signal.SIGHUP)
        watch = self.begin()
        changed = self.changed
        os.kill(os.getpid(), signal.SIGHUP)
        yield changed
        watch.stopService()
        self.assertEqual(before, signal.getsignal(signal.SIGHUP))
