"""Tests of :mod:`cloudconnect.cli.own_cache`."""

from __future__ import annotations

import os
from typing import Any

from cloudconnect.accelerator.caches import TenantCaches
from cloudconnect.accelerator.room import cache_folder
from cloudconnect.cache.keys import read_node_key
from cloudconnect.cli.own_cache import CACHE_GB, OwnCache
from cloudconnect.errors import UsageError
from cloudconnect.tap.accelerators import GIB
from tests.accelerator.parts import Pool, Turns
from tests.cli.commands import CommandCase
from tests.dedup.pairs import noise

PROVIDER, REPOSITORY = b"p" * 16, b"r" * 16


class CacheTests(CommandCase):
    """This machine's own cache."""

    def test_size(self) -> None:
        """It is 4 GiB, or what the environment says."""
        self.assertEqual(CACHE_GB * GIB, OwnCache.of(PROVIDER, REPOSITORY).limit)
        self.environment["CLOUDCONNECT_WAN_CACHE_GB"] = "7"
        self.assertEqual(7 * GIB, OwnCache.of(PROVIDER, REPOSITORY).limit)

    def test_wrong_size(self) -> None:
        """What is no number of GiB is refused, with the variable's name."""
        for text in ("", "0", "-1", "1.5", "4GB", "10001", "٣"):
            self.environment["CLOUDCONNECT_WAN_CACHE_GB"] = text
            error = self.assertRaises(UsageError, OwnCache.of, PROVIDER, REPOSITORY)
            self.assertIn("CLOUDCONNECT_WAN_CACHE_GB", str(error))

    def test_place(self) -> None:
        """The cache lies below the cache folder and its key below the state folder, both named
        after provider and repository: another repository has another one."""
        self.environment["XDG_CACHE_HOME"] = str(self.home / "caches")
        self.environment["XDG_STATE_HOME"] = str(self.home / "states")
        own = OwnCache.of(PROVIDER, REPOSITORY)
        self.assertIn(self.home / "caches", own.folder.parents)
        self.assertIn(self.home / "states", own.key.parents)
        self.assertEqual(PROVIDER + REPOSITORY, own.name)
        for other in (OwnCache.of(PROVIDER, b"s" * 16), OwnCache.of(b"q" * 16, REPOSITORY)):
            self.assertNotEqual(own.folder, other.folder)
            self.assertNotEqual(own.key, other.key)

    def test_same_as_the_accelerators(self) -> None:
        """What is put into it an accelerator of this machine finds: same folder, key and name."""
        self.environment["CLOUDCONNECT_WAN_CACHE_GB"] = "1"
        own = OwnCache.of(PROVIDER, REPOSITORY)
        data = noise(5000)
        cache = own.open()
        appender = cache.appender()
        appender.append(b"n" * 32, data)
        appender.close()
        cache.close()
        clock, pool = Turns(), Pool()
        anything: Any = pool
        caches = TenantCaches(
            clock, anything, own.folder.parent, read_node_key(own.key), own.limit, own.limit
        )
        self.assertEqual(own.folder, cache_folder(own.folder.parent, own.name.hex()))
        leasing = caches.lease(own.name.hex())
        clock.settle()
        lease = self.successResultOf(leasing)
        self.assertIsNone(lease.trouble)
        self.assertEqual(own.limit, lease.limit)
        place = lease.cache.find(b"n" * 32)
        assert place is not None
        self.assertEqual((b"n" * 32, data), lease.cache.read(place))
        lease.release()
        caches.close()
        clock.settle()

    def test_private(self) -> None:
        """Nobody else may read the key or look into the folder."""
        self.environment["CLOUDCONNECT_WAN_CACHE_GB"] = "1"
        own = OwnCache.of(PROVIDER, REPOSITORY)
        own.open().close()
        self.assertEqual(0o600, os.stat(own.key).st_mode & 0o777)
        self.assertEqual(0o700, os.stat(own.folder).st_mode & 0o777)

    def test_taken(self) -> None:
        """While somebody has it open, nobody else gets it."""
        self.environment["CLOUDCONNECT_WAN_CACHE_GB"] = "1"
        own = OwnCache.of(PROVIDER, REPOSITORY)
        cache = own.open()
        error = self.assertRaises(UsageError, own.open)
        self.assertIn("another process", str(error))
        cache.close()
        own.open().close()
