"""Tests of :mod:`cloudconnect.cli.retention`: policies as people write and read them."""

from __future__ import annotations

import sys
from typing import Any

import cloudconnect.cli.retention
from cloudconnect.repository.rules import Rules
from tests.cli.test_keeping import KeepingCase, ToldLine
from tests.cli.test_points import row

module = sys.modules[cloudconnect.cli.retention.__name__]
DAILY: dict[str, int] = {
    "keep_last": 0,
    "keep_hourly": 0,
    "keep_daily": 7,
    "keep_weekly": 0,
    "keep_monthly": 0,
    "keep_yearly": 0,
    "keep_within": 30 * 86400,
}


class PolicyLine(ToldLine):
    """A line whose provider keeps policies."""

    pending = False

    def _row(self, host: str, job: str, policy: dict[str, int] | None) -> dict[str, Any]:
        made = {"host": host, "job": job, "policy": policy, "set_time": 1.0}
        if self.pending:
            made |= {"policy": None, "pending": policy, "pending_time": 2_000_000_000.0}
        return {**made, "has_pending": self.pending}

    async def set_retention(
        self, host: str, job: str, policy: dict[str, int] | None
    ) -> dict[str, Any]:
        self.acts.append((host, job, policy))
        return self._row(host, job, policy)

    async def retention(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        rows = [self._row("", "", DAILY), self._row("here", "photos", None)]
        return rows, Rules(bin_days=5, lock_days=3, bin_bytes=20_000_000).as_map()

    async def preview_retention(self, proposed: Any) -> list[dict[str, Any]]:
        self.acts.append((proposed,))
        return [
            {**row("abc1"), "keep": False, "why": []},
            {**row("abd2"), "keep": True, "why": ["newest", "last"]},
        ]


class RetentionTests(KeepingCase):
    """The three commands."""

    def setUp(self) -> None:
        super().setUp()
        self.line = self.policies = PolicyLine()
        self.patch(module, "on_line", self.on_line)

    def on_line(self, settings: Any, work: Any, **options: Any) -> Any:
        self.assertEqual({"passphrase": False}, options)
        coroutine = work(self.line, None)
        try:
            coroutine.send(None)
        except StopIteration as done:
            return done.value

    def test_set(self) -> None:
        """Every option arrives as it was meant, in seconds and counts."""
        words = ("--keep-daily", "7", "--keep-within", "30d", "--host", "here")
        done = self.call("retention", "set", *words)
        self.assertEqual(0, done.status, done.err)
        self.assertEqual([("here", "", DAILY)], self.line.acts)
        self.assertIn("here, every job: keeps daily=7,within=30d", done.out)

    def test_pending(self) -> None:
        """What takes force later is said with its time, and what counts until then."""
        self.policies.pending = True
        done = self.call("retention", "set", "--keep-daily", "7", "--keep-within", "30d")
        for words in ("keeps everything", "from 2033", "daily=7,within=30d", "until then"):
            self.assertIn(words, done.out)

    def test_everything(self) -> None:
        """Everything is kept by a word of its own."""
        self.assertEqual(0, self.call("retention", "set", "--keep-everything").status)
        self.assertEqual([("", "", None)], self.line.acts)

    def test_unclear(self) -> None:
        """Nothing, nothing at all, or both: nobody guesses what was meant."""
        for words in (
            (),
            ("--keep-last", "0"),
            ("--keep-everything", "--keep-last", "3"),
            ("--keep-last", "-1"),
            ("--keep-within", "soon"),
        ):
            self.assertEqual(2, self.call("retention", "set", *words).status, words)
        self.assertEqual([], self.line.acts)

    def test_show(self) -> None:
        """The policies, then what the provider demands and allows."""
        done = self.call("retention", "show")
        for words in (
            "every host, every job: keeps daily=7,within=30d",
            "here, photos: keeps everything",
            "in the bin for 5 days",
            "locked for 3 days",
            "the bin holds 20.0 MB",
        ):
            self.assertIn(words, done.out)
        lines = self.call("retention", "show", "--json").lines()
        self.assertEqual(
            ["retention", "retention", "rules"], [line["message_type"] for line in lines]
        )
        self.assertEqual((DAILY, 5), (lines[0]["policy"], lines[2]["bin_days"]))

    def test_dry_run(self) -> None:
        """Each point with what becomes of it and why, then how many; of what is set, or given."""
        done = self.call("retention", "dry-run")
        self.assertIn("remove  abc10000", done.out)
        self.assertIn("keep    abd20000", done.out)
        self.assertIn("(newest, last)", done.out)
        self.assertIn("1 restore points would be kept, 1 put into the bin", done.out)
        done = self.call("retention", "dry-run", "--keep-last", "1", "--job", "j", "--json")
        self.assertEqual({"kept": 1, "removed": 1, "message_type": "summary"}, done.lines()[-1])
        self.assertEqual([(None,)], self.line.acts[:1])
        host, job, policy = self.line.acts[1][0]
        self.assertEqual(("", "j", 1), (host, job, policy["keep_last"]))

    def test_dry_run_of_a_job(self) -> None:
        """A host or job alone asks nothing that could be answered."""
        self.assertEqual(2, self.call("retention", "dry-run", "--job", "j").status)
