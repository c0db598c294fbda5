"""The campaigns of ``make attack`` in their short form, with fixed seeds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.processes import means_nothing
from tests.crash.ledger import ROOT


class CampaignTests(SynchronousTestCase):
    """Each campaign in a process of its own."""

    def counts(self, campaign: str, most: int) -> dict[str, int]:
        """Run a campaign to its end, however slow the machine; what it counted."""
        ledger = os.path.abspath(self.mktemp())
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.attacks", "--campaign", campaign),
                *("--seed", "1", "--seconds", "1800", "--most", str(most), "--ledger", ledger),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        counts: dict[str, int] = json.loads(done.stdout)["counts"]
        return counts

    def test_codec(self) -> None:
        """What goes through the codec comes out as it was, whatever becomes of the caches."""
        counts = self.counts("codec", 12)
        self.assertEqual(12, counts["storms"])
        self.assertEqual(3, counts["storms over caches on disk"])
        self.assertGreater(counts["resent"], 0)

    def test_accelerator(self) -> None:
        """No accelerator is believed."""
        counts = self.counts("accelerator", 15)
        self.assertEqual(15, counts["attacks"])

    def test_processes(self) -> None:
        """A bit changed between real processes is noticed at both ends, and leaves no point."""
        counts = self.counts("processes", 4)
        self.assertEqual(4, counts["flips"])


class MeaningTests(SynchronousTestCase):
    """Which bytes of TLS mean nothing."""

    def test_versions(self) -> None:
        """Those of the version in front of a record in clear; none of what is encrypted."""
        clear, sealed = b"\x16\x03\x03\x00\x02ab", b"\x17\x03\x03\x00\x03abc"
        octets = clear + b"\x14\x03\x03\x00\x01\x01" + sealed
        found = [at for at in range(len(octets) + 9) if means_nothing(octets, at)]
        self.assertEqual([1, 2, 8, 9], found)
