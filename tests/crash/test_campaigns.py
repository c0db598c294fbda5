"""The campaigns in their short form, with fixed seeds; ``make crash`` runs the long one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.crash.ledger import ROOT


class CampaignTests(SynchronousTestCase):
    """Each campaign in a process of its own, which has no reactor."""

    def counts(self, campaign: str, most: int) -> dict[str, int]:
        """Run a campaign to its end, however slow the machine; what it counted."""
        ledger = os.path.abspath(self.mktemp())
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.crash", "--campaign", campaign),
                *("--seed", "1", "--seconds", "1800", "--most", str(most), "--ledger", ledger),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        line: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        if "skipped" in line:
            raise SkipTest(line["skipped"])
        self.assertEqual(done.returncode, 0, done.stderr)
        counts: dict[str, int] = line["counts"]
        return counts

    def test_kills(self) -> None:
        """What was acknowledged outlives kills of tenant and provider, and the next run goes on."""
        counts = self.counts("kills", 4)
        self.assertGreaterEqual(counts["kills"], 4)
        self.assertGreaterEqual(counts["points compared"], 2)

    def test_churn(self) -> None:
        """Jobs outlive a mover and a gateway that are killed, and a mover that is drained: each
        ends with one exact point, and no key is used twice."""
        counts = self.counts("churn", 3)
        self.assertEqual((counts["rounds"], counts["jobs"]), (3, 6))
        self.assertGreaterEqual(counts["points compared"], 2)
        self.assertGreaterEqual(counts["different key_as"], counts["different key_bs"])
        self.assertGreaterEqual(counts["different key_bs"], 6)

    def test_cuts(self) -> None:
        """What was acknowledged outlives power cuts on ext4 and xfs."""
        counts = self.counts("cuts", 4)
        self.assertEqual((counts["cuts of ext4"], counts["cuts of xfs"]), (2, 2))
        self.assertGreater(counts["acknowledged blobs compared"], 0)

    def test_faults(self) -> None:
        """Calls that fail end in a named error or in success, and damage nothing."""
        counts = self.counts("faults", 8)
        self.assertEqual(counts["faults"], 8)
        self.assertGreater(counts["ended with a named error"], 0)

    def test_flips(self) -> None:
        """Whatever is changed in what is stored is found, and named."""
        counts = self.counts("flips", 6)
        self.assertEqual(counts["damages"], 6)
        self.assertGreater(counts["found by scrub"], 0)

    def test_states(self) -> None:
        """A repository keeps its word through deletions, locks, collections, jumps and crashes."""
        counts = self.counts("states", 60)
        self.assertGreaterEqual(counts["steps"], 60)
