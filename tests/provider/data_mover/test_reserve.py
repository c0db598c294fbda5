"""Tests of :mod:`cloudconnect.provider.data_mover.reserve`:
room that is kept for when there is none.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.provider.data_mover.reserve import ENOUGH, LOW, SIZE, Reserve, is_no_room
from cloudconnect.repository.blobs import FREE_MIN


class ReserveTests(SynchronousTestCase):
    """When the reserve is there."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.free = 1000
        self.patch(os, "statvfs", self.statvfs)
        self.reserve = Reserve(self.path, size=8192, low=100, enough=500)

    def statvfs(self, path: Any) -> Any:
        class Found:
            f_bavail, f_frsize = self.free, 1

        return Found

    def test_made(self) -> None:
        """It is made where there is room, takes it in fact, and nobody else can read it."""
        self.reserve.look()
        found = self.path.stat()
        self.assertEqual((8192, 0o600), (found.st_size, stat.S_IMODE(found.st_mode)))
        self.assertGreaterEqual(found.st_blocks * 512, 8192)

    def test_not_made(self) -> None:
        """It is not made where that would leave little."""
        self.free = 499
        self.reserve.look()
        self.assertFalse(self.reserve.held)

    def test_small_disk(self) -> None:
        """Where it never could be made nothing was given away: things are stored as ever."""
        self.free = 90
        self.reserve.look()
        self.assertEqual((False, False), (self.reserve.held, self.reserve.given))

    def test_given(self) -> None:
        """That its room was given away outlives the process."""
        self.reserve.look()
        self.assertFalse(self.reserve.given)
        self.free = 99
        self.reserve.look()
        again = Reserve(self.path, size=8192, low=100, enough=500)
        self.assertTrue(again.given)
        self.assertEqual(0, self.path.stat().st_blocks)
        self.free = 500
        again.look(make=False)
        self.assertTrue(again.given)
        again.look()
        self.assertFalse(self.reserve.given)

    def test_let_go(self) -> None:
        """It goes where the disk is nearly full, not before, and comes back after."""
        self.reserve.look()
        self.free = 100
        self.reserve.look()
        self.assertTrue(self.reserve.held)
        self.free = 99
        self.reserve.look()
        self.assertFalse(self.reserve.held)
        self.free = 500
        self.reserve.look()
        self.assertTrue(self.reserve.held)

    def test_released(self) -> None:
        """It can be let go of at once; the second time there is nothing to let go of."""
        self.reserve.look()
        self.assertTrue(self.reserve.release())
        self.assertFalse(self.reserve.release())
        self.assertFalse(self.reserve.held)

    def test_no_room_after_all(self) -> None:
        """Where it cannot be made nothing stays of it, and nobody is troubled."""

        def fallocate(descriptor: int, offset: int, length: int) -> None:
            raise OSError(errno.ENOSPC, "full")

        self.patch(os, "posix_fallocate", fallocate)
        self.reserve.look()
        self.assertEqual([], list(self.path.parent.glob(f"*{self.path.name}*")))

    def test_sizes(self) -> None:
        """What is kept is far less than what makes it come back, and more than the least."""
        self.assertTrue(LOW < FREE_MIN < SIZE < SIZE + FREE_MIN < ENOUGH)

    def test_errors(self) -> None:
        """Which errors say that there is no room."""
        self.assertTrue(is_no_room(OSError(errno.ENOSPC, "")))
        self.assertTrue(is_no_room(OSError(errno.EDQUOT, "")))
        self.assertFalse(is_no_room(OSError(errno.EIO, "")))
        self.assertFalse(is_no_room(ValueError()))
