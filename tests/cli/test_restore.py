"""Tests of :mod:`cloudconnect.cli.restore`: what a restore says of what it did."""

from __future__ import annotations

from typing import Any

from cloudconnect.backup.options import RestoreResult
from cloudconnect.cli import restore as restore_module
from cloudconnect.cli.wan import WAN
from cloudconnect.config.profile import Profile, save
from cloudconnect.content.atrest import EncryptionMode
from cloudconnect.content.points import PointRecord
from tests.cli.commands import CommandCase, Done

RECORD = PointRecord(
    point=b"p" * 16,
    repository=bytes(16),
    session=bytes(16),
    job_id=bytes(16),
    host="h",
    job="j",
    started_ns=0,
    finished_ns=0,
    mode=EncryptionMode.TENANT,
    manifest=(),
    manifest_length=0,
)


class ReportTests(CommandCase):
    """The end of a restore."""

    def report(self, *options: bool, dry_run: bool = False, **fields: Any) -> Done:
        self.fresh_output()
        result = RestoreResult(record=RECORD, **fields)
        for path in (b"/a\x1b", b"/b\n"):
            result.damaged.add(path, "chunk is lost")
        console = restore_module.Console(*options)
        restore_module._report(console, result, "session", "/target", dry_run, (WAN(False, ""), {}))
        return Done(0, self.out.text(), self.err.text())

    def test_what_was_there(self) -> None:
        """What did not need to be fetched, and what was left as it is, is said."""
        fields = {"files": 9, "bytes_restored": 5000, "bytes_there": 3000, "unchanged": 4}
        out = self.report(**fields, kept=2).out
        for words in ("Restored 9 files", "5.0 kB", "3.0 kB of it", "4 files", "2 files were left"):
            self.assertIn(words, out)
        self.assertNotIn("already", self.report(files=9).out)
        self.assertIn("Would restore", self.report(dry_run=True, files=9).out)

    def test_which(self) -> None:
        """It is said which restore point it was, as latest does not say it; links are counted."""
        out = self.report(files=1, other=2).out
        self.assertIn("1 file, 0 folders and 2 other things", out)
        self.assertIn("of restore point 70707070 (h/j) below /target", out)

    def test_empty(self) -> None:
        """What restored nothing, left nothing and failed at nothing is empty."""
        result = RestoreResult(record=RECORD)
        self.assertTrue(result.empty)
        result.damaged.add(b"/a", "lost")
        self.assertFalse(result.empty)
        for name in ("files", "directories", "other", "kept"):
            self.assertFalse(RestoreResult(record=RECORD, **{name: 1}).empty, name)  # type: ignore[arg-type]

    def test_programs(self) -> None:
        """Programs get the same as numbers."""
        fields = self.report(True, files=9, bytes_there=3000, unchanged=4).lines()[-1]
        self.assertEqual(
            ("summary", 3000, 4),
            tuple(fields[name] for name in ("message_type", "bytes_there", "unchanged")),
        )
        self.assertEqual(2, len(fields["damaged"]))

    def test_damage(self) -> None:
        """Damage is a line for each file, also with --quiet, and moves no cursor."""
        done = self.report(False, True)
        self.assertEqual("", done.out)
        lines = done.err.splitlines()
        self.assertEqual(2, len(lines))
        for line in lines:
            self.assertTrue(line.startswith("SECURITY WARNING stored_data_damaged: /"), line)
            self.assertTrue(line.isprintable(), line)


class WantedTests(CommandCase):
    """What is refused before the provider is asked."""

    def test_time_of_a_point(self) -> None:
        """``--at`` chooses among the newest ones; beside an id it would be ignored."""
        save(self.environment, "default", Profile(provider="p.example", tenant="acme"))
        done = self.call("restore", "5f2a91c0", "--target", "r", "--at", "2026-11-20")
        self.assertEqual(2, done.status)
        self.assertIn("--at goes with latest", done.err)
