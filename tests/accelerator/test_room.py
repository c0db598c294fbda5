"""Tests of :mod:`cloudconnect.accelerator.room`."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.accelerator.room import DISK_MIN, Room, cache_folder
from cloudconnect.cache.opening import hold
from cloudconnect.errors import UsageError


class RoomTests(SynchronousTestCase):
    """Who may take how many bytes."""

    def setUp(self) -> None:
        self.top = Path(self.mktemp()).resolve()
        self.top.mkdir()

    def cache(self, tenant: str, size: int, used: int) -> Path:
        """The folder of a cache that takes so many bytes and was used at that time."""
        folder = cache_folder(self.top, tenant)
        (folder / "segments").mkdir(parents=True)
        (folder / "lock").touch()
        os.utime(folder / "lock", (used, used))
        (folder / "segments" / "1").touch()
        os.truncate(folder / "segments" / "1", size)
        return folder

    def test_no_total(self) -> None:
        """Without a total each has its limit."""
        room = Room(self.top, DISK_MIN + 1)
        for tenant in "abc":
            self.assertEqual(DISK_MIN + 1, room.grant(self.top / tenant))
        self.assertRaises(UsageError, Room(self.top, DISK_MIN - 1).grant, self.top / "a")

    def test_total(self) -> None:
        """What others take, or may take, is not granted again before it is given back."""
        room = Room(self.top, 3 * DISK_MIN, 4 * DISK_MIN)
        one, two = cache_folder(self.top, "one"), cache_folder(self.top, "two")
        self.assertEqual(3 * DISK_MIN, room.grant(one))
        self.assertEqual(DISK_MIN, room.grant(two))
        self.assertRaises(UsageError, room.grant, cache_folder(self.top, "three"))
        room.give_back(one)
        self.assertEqual(3 * DISK_MIN, room.grant(cache_folder(self.top, "three")))

    def test_removed(self) -> None:
        """The cache that was not used for longest is removed for a new one, and no more than it."""
        old = self.cache("old", 2 * DISK_MIN, 1000)
        new = self.cache("new", 2 * DISK_MIN, 2000)
        room = Room(self.top, 3 * DISK_MIN, 4 * DISK_MIN)
        self.assertEqual(2 * DISK_MIN, room.grant(cache_folder(self.top, "another")))
        self.assertEqual((False, True), (old.exists(), new.exists()))

    def test_own(self) -> None:
        """What a cache takes itself does not count against it."""
        own = self.cache("own", 3 * DISK_MIN, 1000)
        room = Room(self.top, 4 * DISK_MIN, 4 * DISK_MIN)
        self.assertEqual(4 * DISK_MIN, room.grant(own))
        self.assertTrue(own.exists())

    def test_used_last(self) -> None:
        """One that is given back was used last."""
        one = self.cache("one", 2 * DISK_MIN, 1000)
        two = self.cache("two", 2 * DISK_MIN, 2000)
        room = Room(self.top, 4 * DISK_MIN, 4 * DISK_MIN + 8192)
        room.grant(one)
        room.give_back(one)
        room.grant(cache_folder(self.top, "another"))
        self.assertEqual((True, False), (one.exists(), two.exists()))

    def test_in_use(self) -> None:
        """One that is granted, that another process uses, or that is none, stays."""
        granted = self.cache("granted", DISK_MIN, 1000)
        held = self.cache("held", DISK_MIN, 2000)
        strange = self.top / "strange"
        strange.mkdir()
        (strange / "file").touch()
        os.truncate(strange / "file", DISK_MIN)
        self.addCleanup(os.close, hold(held / "lock"))
        room = Room(self.top, DISK_MIN, 3 * DISK_MIN)
        room.grant(granted)
        self.assertRaises(UsageError, room.grant, cache_folder(self.top, "another"))
        self.assertTrue(all(one.exists() for one in (granted, held, strange)))
