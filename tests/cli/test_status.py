"""Tests of :mod:`cloudconnect.cli.status`: what a monitor is told."""

from __future__ import annotations

import os
import time
from typing import Any

from cloudconnect.agent.jobs import save_job
from cloudconnect.cli import status
from cloudconnect.cli.status import age_text
from cloudconnect.tenant.agreement import Agreement
from tests.agent.test_jobs import a_job
from tests.cli.commands import CommandCase, Done
from tests.cli.test_points import Line, row

HOUR = 3600.0


class StatusTests(CommandCase):
    """With a provider that lists some points."""

    def setUp(self) -> None:
        super().setUp()
        self.environment["CLOUDCONNECT_HOST"] = "here"
        now = time.time()
        self.agreed: Agreement | None = None
        self.rows = [row("a", now - 50 * HOUR), row("b", now - 5 * HOUR)]

        def on_line(settings: Any, work: Any, passphrase: bool = True) -> Any:
            self.assertFalse(passphrase)
            line = Line(*self.rows)
            line.agreed = self.agreed
            made = work(line, None)
            try:
                made.send(None)
            except StopIteration as end:
                return end.value

        self.patch(status, "on_line", on_line)

    def status(self, *words: str) -> Done:
        return self.call("status", "--provider", "x", "--tenant", "t", *words)

    def test_newest(self) -> None:
        """The newest of each host and job counts; without an age to hold it against all is well."""
        done = self.status()
        self.assertEqual(0, done.status)
        self.assertIn("here/default", done.out)
        self.assertIn("5 h ago", done.out)

    def test_age(self) -> None:
        """Younger is well, older is not."""
        self.assertEqual(0, self.status("--max-age", "6h").status)
        done = self.status("--max-age", "4h", "--json")
        self.assertEqual(1, done.status)
        self.assertEqual((1, False), (done.lines()[-1]["late"], done.lines()[-1]["ok"]))

    def test_each_job(self) -> None:
        """One late job among others is late, also one that has never made a point."""
        self.rows.append(row("c", time.time(), job="other"))
        self.assertEqual(0, self.status("--max-age", "6h").status)
        save_job(os.environ, a_job("new"))
        done = self.status("--max-age", "6h", "--json")
        self.assertEqual(1, done.status)
        late = [line["job"] for line in done.lines() if line.get("late") is True]
        self.assertEqual(["new"], late)
        self.assertEqual(0, self.status("--max-age", "6h", "--job", "other").status)

    def test_none(self) -> None:
        """Where there is no point at all nothing is well."""
        self.rows.clear()
        self.assertEqual(1, self.status("--max-age", "6h").status)
        self.assertIn("There are no restore points", self.status().out)

    def test_other_hosts(self) -> None:
        """Other machines count where they are asked for."""
        self.rows.append(row("d", time.time() - 90 * HOUR, host="there"))
        self.assertEqual(0, self.status("--max-age", "6h").status)
        self.assertEqual(1, self.status("--max-age", "6h", "--all-hosts").status)
        self.assertEqual(1, self.status("--max-age", "6h", "--host", "there").status)

    def test_quota(self) -> None:
        """How much is stored, and of how much, for a person and a program; nothing where the
        provider does not say."""
        self.assertNotIn("stored", self.status().out)
        self.assertNotIn("quota", self.status("--json").lines()[-1])
        agreed = {"quota": 8000, "max_tasks": 4, "bytes_counted": 2000, "lease_end": "2027-12-31"}
        for changes, text in (
            ({}, "stored: 2.0 kB of 8.0 kB (25%); the lease ends on 2027-12-31"),
            ({"quota": None, "lease_end": None}, "stored: 2.0 kB"),
            ({"quota": 0, "lease_end": None}, "stored: 2.0 kB of 0 B"),
            ({"bytes_counted": None, "lease_end": None}, "stored: not known now of 8.0 kB"),
        ):
            self.agreed = Agreement.from_map(agreed | changes)
            self.assertEqual(text, self.status().out.splitlines()[-1])
        summary = self.status("--json").lines()[-1]
        self.assertEqual((None, 8000), (summary["bytes_counted"], summary["quota"]))

    def test_ages(self) -> None:
        """An age for a person."""
        texts = [age_text(seconds) for seconds in (5, 200, HOUR, 30 * HOUR, 60 * HOUR)]
        self.assertEqual(["5 s", "3 min", "1 h", "30 h", "2 d"], texts)
