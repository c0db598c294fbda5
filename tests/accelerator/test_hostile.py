"""What a peer that has proved Key B can make an accelerator hold, and how such sessions end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.accelerator.hostile import ATTACKS, SENDING

ROOT = Path(__file__).resolve().parent.parent.parent
#: Most memory that an attack may take beside what any session takes, in bytes.
MEMORY_MAX = 32 << 20
#: Attacks that only cost time: the session lives until its tunnel or its control channel ends.
PATIENT = {"ahead": "Truncated", "lying_digest": "DigestMismatch"}


class HostileTests(SynchronousTestCase):
    """Each attack in a process of its own."""

    def measured(self, *names: str) -> list[dict[str, Any]]:
        """Run some attacks, at most two at the same time; what each came to."""
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.accelerator.hostile", *some],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for some in (names[::2], names[1::2])
            if some
        ]
        found = []
        for one in running:
            out, err = one.communicate()
            self.assertEqual(0, one.returncode, err)
            found += map(json.loads, out.splitlines())
        self.assertEqual(sorted(names), sorted(one["attack"] for one in found))
        return found

    def test_all(self) -> None:
        """Bombs, malformed and endless messages, ends at the wrong time, and peers that answer
        nothing or read nothing: a typed error, and within 32 MiB."""
        names = [*ATTACKS, "ahead"]
        # What a session holds whose far end takes its time: the attack is only that it stays so.
        (ordinary,) = self.measured("silent")
        for one in self.measured(*names):
            wanted = PATIENT.get(one["attack"], "ProtocolViolation")
            self.assertEqual(wanted, one["error"], one)
            base = ordinary["grown"] if one["attack"] in SENDING else 0
            self.assertLessEqual(one["grown"] - base, MEMORY_MAX, one)
