"""Tests of :mod:`cloudconnect.tap.accelerators`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks, maybeDeferred
from twisted.logger import eventAsText, globalLogPublisher
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cloudconnect.accelerator.room import cache_folder
from cloudconnect.accelerator.target import TargetAccelerator
from cloudconnect.config.provider import ProviderSettings, initialize
from cloudconnect.errors import UsageError
from cloudconnect.tap.accelerators import GIB, accelerator_of, caches_in


def nowhere(backend: str) -> Any:
    """Where movers are: nobody asks."""
    raise AssertionError(backend)


class SettingsTests(SynchronousTestCase):
    """Whether a provider's process has an accelerator."""

    def setUp(self) -> None:
        self.settings: ProviderSettings = initialize(Path(self.mktemp()), ("localhost",))
        self.logged: list[str] = []
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)

    def log(self, event: Any) -> None:
        self.logged.append(eventAsText(event, includeTimestamp=False, includeSystem=False))

    def test_made(self) -> None:
        """It has one, as a rule, with a node key that only its user may read."""
        make = accelerator_of(reactor, self.settings)
        assert make is not None
        accelerator, fill = make(nowhere)
        self.assertIsInstance(accelerator, TargetAccelerator)
        self.assertEqual(accelerator.fill, fill)
        self.assertEqual(0o600, os.stat(self.settings.node_key).st_mode & 0o777)

    def test_not_wanted(self) -> None:
        """Without room for caches it has none, and needs no key."""
        self.assertIsNone(accelerator_of(reactor, attrs.evolve(self.settings, wan_cache_gb=0)))
        self.assertFalse(self.settings.node_key.exists())

    def test_no_key(self) -> None:
        """A node key that cannot be used is a warning: the provider does without."""
        self.settings.node_key.write_bytes(b"short")
        self.settings.node_key.chmod(0o600)
        self.assertIsNone(accelerator_of(reactor, self.settings))
        self.assertIn("no WAN acceleration", self.logged[-1])
        self.assertIn(str(self.settings.node_key), self.logged[-1])

    def test_open_key(self) -> None:
        """So is one that others may read: it is not used."""
        self.settings.node_key.write_bytes(bytes(32))
        self.settings.node_key.chmod(0o644)
        self.assertIsNone(accelerator_of(reactor, self.settings))
        self.assertIn("chmod 600", self.logged[-1])
        self.assertRaises(
            UsageError, caches_in, reactor, Path("x"), self.settings.node_key, GIB, GIB
        )


class CacheTests(TestCase):
    """The caches that it gets."""

    timeout = 60

    @inlineCallbacks
    def test_limits(self) -> Any:
        """They lie below the folder that was named, and take what was allowed."""
        top = Path(self.mktemp()).resolve()
        top.mkdir()
        pool = ThreadPool(0, 1)
        pool.start()
        self.addCleanup(pool.stop)
        caches = caches_in(reactor, top / "wan", top / "key", GIB, 3 * GIB)(pool)
        lease = yield caches.lease("acme")
        self.assertEqual((None, GIB), (lease.trouble, lease.limit))
        self.assertTrue((cache_folder(top / "wan", "acme") / "key").is_file())
        lease.release()
        yield caches.close()

    @inlineCallbacks
    def test_accelerator(self) -> Any:
        """The provider's accelerator keeps its caches where the settings say."""
        settings = initialize(Path(self.mktemp()), ("localhost",))
        make = accelerator_of(reactor, settings)
        assert make is not None
        accelerator, fill = make(nowhere)
        accelerator.startService()
        self.addCleanup(lambda: maybeDeferred(accelerator.stopService))
        found = yield fill("acme", lambda cache, limit, stopping: {"limit": limit})
        self.assertEqual({"limit": settings.wan_cache_gb * GIB}, found)
        folder = cache_folder(settings.directory / settings.wan_caches, "acme")
        self.assertTrue((folder / "key").is_file())
