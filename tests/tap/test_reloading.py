"""Tests of :mod:`cloudconnect.tap.reloading`: real files, a real signal."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cloudconnect.errors import UsageError
from cloudconnect.tap.reloading import ChangeWatch, SettingsFile


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


@attrs.frozen
class Settings:
    """What a process may be told."""

    rate: int = 1
    pool: str = "default"
    listen: str = "here"


class SettingsTests(SynchronousTestCase):
    """A file of settings that is read again."""

    def setUp(self) -> None:
        self.now: Any = Settings()
        self.used: list[Settings] = []
        self.log: list[str] = []
        observer = lambda event: self.log.append(eventAsText(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.file = SettingsFile(Settings(), self.load, ("rate", "pool"), self.use)

    def load(self) -> Settings:
        if isinstance(self.now, UsageError):
            raise self.now
        found: Settings = self.now
        return found

    def use(self, settings: Settings) -> None:
        if settings.pool == "wrong":
            raise UsageError("no pool")
        self.used.append(settings)

    def read(self, settings: Any) -> str:
        """What the log says of it."""
        self.now = settings
        self.log.clear()
        self.file.read_again()
        return "\n".join(self.log)

    def test_same(self) -> None:
        """Where nothing was changed nothing is said or done."""
        self.assertEqual("", self.read(Settings()))
        self.assertEqual([], self.used)

    def test_used(self) -> None:
        """What can be used is, and what cannot is said to need a new start; once."""
        said = self.read(Settings(2, "west", "there"))
        self.assertIn("pool, rate: used from now on", said)
        self.assertIn("listen: used from the next start on", said)
        self.assertEqual([Settings(2, "west", "there")], self.used)
        self.assertEqual("", self.read(Settings(2, "west", "there")))

    def test_late(self) -> None:
        """What cannot be used alone is not handed over."""
        self.assertIn("next start", self.read(Settings(listen="there")))
        self.assertEqual([], self.used)

    def test_wrong(self) -> None:
        """What cannot be read, or used, changes nothing, and what comes after it counts."""
        self.assertIn("not read again: half a line", self.read(UsageError("half a line")))
        self.assertIn("not read again: no pool", self.read(Settings(2, "wrong")))
        self.assertEqual([], self.used)
        self.assertIn("rate: used", self.read(Settings(2)))
        self.assertEqual([Settings(2)], self.used)
