"""Campaigns over a product with a flaw planted in it: each of them finds it."""

from __future__ import annotations

import subprocess
import sys
import tempfile

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from cloudconnect.repository import packs
from cloudconnect.repository.bin import Bin
from cloudconnect.repository.clock import Moment
from tests.crash import cuts
from tests.crash.ledger import ROOT
from tests.crash.machine import RepositoryMachine

_BEGIN = """
import random, sys, tempfile
from collections import Counter
from pathlib import Path
from tests.crash.forks import import_everything
from tests.crash.stage import Failed
import_everything()
folder = Path(tempfile.mkdtemp(dir=sys.argv[1]))
"""

_LOST_PACK = """
from tests.crash.kills import Lengths, Life
life = Life(folder / "life", random.Random(1), Lengths(), Counter(), False)
life.look()
pack = max((life.stage.repository / "packs").iterdir(), key=lambda path: path.stat().st_size)
pack.unlink()
try:
    life.look()
except Failed as failure:
    print("found:", failure)
life.stage.kill_provider()
"""

_UNFOUND = """
from tests.crash.flips import Damage, _House
house = _House(folder / "house", random.Random(1))
try:
    house.judge(Damage("flip", "description", lambda top: None), 1, Counter())
except Failed as failure:
    print("found:", failure)
"""

_TOO_EARLY = """
from cloudconnect.repository import blobs
from tests.crash import cuts
import os
without = {name: staticmethod(lambda *arguments: None) for name in ("fsync", "posix_fadvise")}
blobs.os = type("Os", (), {**vars(os), **without})
try:
    cuts.run(1, 60, Counter(), 30)
except Failed as failure:
    print("found:", failure)
"""


class PlantedTests(SynchronousTestCase):
    """A flaw in what runs, each in a process of its own."""

    def found(self, script: str) -> str:
        # Not below trial's own folder: the path of a socket has at most 107 bytes.
        with tempfile.TemporaryDirectory(prefix="cloudconnect-") as folder:
            done = subprocess.run(
                [sys.executable, "-c", _BEGIN + script, folder],
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_kills(self) -> None:
        """A pack that is lost is seen by the points that needed it."""
        self.assertIn("found: a listed point does not restore exactly", self.found(_LOST_PACK))

    def test_flips(self) -> None:
        """A damage that nobody finds is a finding."""
        self.assertIn("found: nobody finds it", self.found(_UNFOUND))

    def test_states(self) -> None:
        """A bin from which nothing comes back is found, and one that keeps nothing."""
        self.patch(packs, "PACK_SIZE", packs.PACK_SIZE)  # which the machine changes
        machine = RepositoryMachine()
        self.patch(machine, "check_all", lambda: None)
        self.addCleanup(machine.teardown)
        machine.begin(bin_days=3, shorten=1, lock_days=0, grace=1)
        machine.delete(which=[0, 1])
        machine.states_hold()
        patcher = self.patch(Bin, "undelete", lambda self, points: [])
        machine.undelete(which=[0])
        self.assertRaises(AssertionError, machine.states_hold)
        patcher.restore()
        machine.undelete(which=[0])
        machine.states_hold()
        self.patch(Moment, "over", lambda self, until, clock: until.is_not(None))
        self.assertRaises(AssertionError, machine.expire)

    def test_cuts(self) -> None:
        """Packs that are acknowledged before they are durable are found."""
        if why := cuts.missing():
            raise SkipTest(why)
        self.assertIn("found: seed 1", self.found(_TOO_EARLY))
