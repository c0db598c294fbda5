"""Tests of :mod:`cloudconnect.provider.alarms.jumps`: much that is new, against a job's history."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.provider.alarms import jumps
from cloudconnect.provider.alarms.jumps import FLOOR, HISTORY_MIN, JumpWatch, is_jump, usual
from tests.provider.stage import StageCase

MB = 1_000_000


class JumpTests(SynchronousTestCase):
    """What is out of all proportion."""

    def test_usual(self) -> None:
        """The most but for one exception; nothing where too little is known."""
        self.assertEqual(50, usual([10, 50, 20, 9000]))
        self.assertIsNone(usual([10] * (HISTORY_MIN - 1)))
        self.assertEqual(10, usual([9000, 8000, *[10] * jumps.HISTORY]))

    def test_jump(self) -> None:
        """Many times more than usual, and not little."""
        days = [90 * MB, 110 * MB, 100 * MB, 400 * MB, 80 * MB]
        self.assertFalse(is_jump(days, 430 * MB))
        self.assertTrue(is_jump(days, 5000 * MB))
        self.assertFalse(is_jump([0, 0, 0, 0], FLOOR))
        self.assertTrue(is_jump([0, 0, 0, 0], FLOOR + 1))
        self.assertFalse(is_jump([0, 0, 0], 10**12))


class WatchTests(StageCase):
    """With a whole provider; small files, and a floor as low."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(jumps, "FLOOR", 10_000)
        self.watch = JumpWatch(self.provider.service)
        self.provider.service.watchers.add(self.watch)

    def compared(self) -> None:
        """Wait for what was begun."""
        self.reactor.result_of(self.watch.compared())

    def test_told(self) -> None:
        """Days of little, then everything at once is new: an event names the backup."""
        tenant = self.connected()
        source = Path(self.source())
        files = [source / f"file-{number}" for number in range(20)]
        for path in files:
            path.write_bytes(os.urandom(300_000))
        for _ in range(6):
            files[0].write_bytes(os.urandom(3_000))
            self.reactor.result_of(tenant.back_up(str(source)))
        self.compared()
        self.assertEqual([], self.provider.events(name="new_bytes_jumped"))
        for path in files:  # what ransomware does
            path.write_bytes(os.urandom(300_000))
        result = self.reactor.result_of(tenant.back_up(str(source)))
        self.compared()
        (event,) = self.provider.events(name="new_bytes_jumped")
        self.assertEqual(("acme", result.point.hex()), (event["tenant"], event["fields"]["point"]))
        self.assertGreater(event["fields"]["added"], 4_000_000)
        self.assertLess(event["fields"]["usual"], 1_000_000)
        files[0].write_bytes(os.urandom(3_000))
        self.reactor.result_of(tenant.back_up(str(source)))
        self.compared()
        self.assertEqual(1, len(self.provider.events(name="new_bytes_jumped")))
