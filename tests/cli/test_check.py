"""Tests of :mod:`cloudconnect.cli.check`: which points, which part, and what is said."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from cloudconnect.backup.findings import CheckResult, Damage
from cloudconnect.cli import check as check_module
from cloudconnect.cli.check import chosen_points, damage_line, parse_part
from cloudconnect.errors import NotFound, UsageError
from tests.cli.commands import CommandCase
from tests.cli.test_points import Line, row


class ChoiceTests(CommandCase):
    """Which restore points, and how much of them."""

    def setUp(self) -> None:
        super().setUp()
        self.environment["CLOUDCONNECT_HOST"] = "here"
        self.line = Line(row("a1"), row("b2", 2), row("b3", 3, host="there"))

    def chosen(
        self, *wanted: str, host: str = "", job: str = "", deleted: bool = False
    ) -> list[str]:
        finding = chosen_points(self.line, wanted, host, job, deleted)  # type: ignore[arg-type]
        found = Deferred.fromCoroutine(finding)
        return [one["point"].rstrip("0") for one in self.successResultOf(found)]

    def test_points(self) -> None:
        """All of the tenant's, those of a host or job, or those that are named, each once."""
        self.assertEqual(["a1", "b2", "b3"], self.chosen())
        self.assertEqual(["b3"], self.chosen(host="there"))
        self.assertEqual([], self.chosen(job="none"))
        self.assertEqual(["b3", "a1"], self.chosen("b3", "a", "b3"))
        self.assertEqual(["b2"], self.chosen("latest"))

    def test_deleted_points(self) -> None:
        """What is in the bin, on request."""
        self.line.rows.append(row("d4", 4, state="deleted"))
        self.assertEqual(["a1", "b2", "b3"], self.chosen())
        self.assertEqual(["a1", "b2", "b3", "d4"], self.chosen(deleted=True))

    def test_wrong_points(self) -> None:
        """What is not there, or is several, is an error before anything is checked."""
        for word, kind in (("c", NotFound), ("b", UsageError)):
            finding = Deferred.fromCoroutine(chosen_points(self.line, (word,), "", ""))  # type: ignore
            self.failureResultOf(finding, kind)

    def test_parts(self) -> None:
        """Part n of t."""
        for text, part in ((None, (1, 1)), ("1/1", (1, 1)), (" 3/7 ", (3, 7))):
            self.assertEqual(part, parse_part(text))
        for text in ("", "1", "0/3", "4/3", "1/0", "-1/3", "a/b", "1/2/3", "1.5/2", "9" * 9 + "/1"):
            self.assertRaises(UsageError, parse_part, text)

    def test_wrong_use(self) -> None:
        """Both ways to read at once, or no part, are refused before anything is asked."""
        for words in (
            ("--read-data", "--read-data-subset", "1/2"),
            ("--read-data-subset", "2/1"),
            ("--at-provider",),
        ):
            self.assertEqual(2, self.call("check", *words).status, words)


class ReportTests(CommandCase):
    """What a check says."""

    POINT = bytes.fromhex("5f2a91c0" + "00" * 12)

    def report(self, as_json: bool = False, quiet: bool = False, **fields: Any) -> tuple[str, str]:
        console = check_module.Console(as_json, quiet)
        self.fresh_output()
        check_module._report(console, CheckResult(**fields), "session")
        return self.out.text(), self.err.text()

    def test_clean(self) -> None:
        """One sentence, and with --quiet nothing."""
        out, err = self.report(points=3, chunks=70, chunks_read=70, bytes_read=5000)
        self.assertIn("3 restore points", out)
        self.assertIn("nothing is damaged", out)
        self.assertIn("5.0 kB", out)
        self.assertEqual("", err)
        self.assertEqual(("", ""), self.report(quiet=True, points=3))

    def test_the_word_of_the_provider(self) -> None:
        """What only the provider has read is told as what the provider says."""
        out, _ = self.report(points=3, chunks=70, chunks_vouched=70, bytes_vouched=5000)
        self.assertIn("the provider says that it has read 70", out)
        self.assertIn("5.0 kB as stored", out)

    def test_damaged(self) -> None:
        """Each damaged thing is a line, also with --quiet; odd names move no cursor."""
        damage = [
            Damage(self.POINT, b"/a\x1b[2J\nb", "chunk 00 is missing"),
            Damage(self.POINT, None, "its manifest is damaged behind /\x9b"),
        ]
        for quiet in (False, True):
            out, err = self.report(
                quiet=quiet,
                points=1,
                damage=damage,
                chunks_missing=1,
                files_damaged=12,
                points_damaged=1,
                gone=[bytes(16)],
            )
            lines = err.splitlines()
            self.assertEqual(4, len(lines), err)
            self.assertTrue(all(line.isprintable() for line in lines), lines)
            self.assertIn("5f2a91c0: /a", lines[0])
            self.assertIn("11 more", lines[2])
            self.assertIn("removed", lines[3])
            self.assertEqual(quiet, out == "")
        self.assertIn("12 files", self.report(damage=damage, chunks_missing=1, files_damaged=12)[0])

    def test_json(self) -> None:
        """Programs get each damaged thing, then the summary."""
        damage = [Damage(self.POINT, b"/\xff", "gone"), Damage(self.POINT, None, "manifest")]
        out, err = self.report(True, points=2, damage=damage, files_damaged=1, points_damaged=1)
        records = json_lines(out)
        self.assertEqual(["damage", "damage", "summary"], [r["message_type"] for r in records])
        self.assertEqual("/\udcff", records[0]["path"])
        self.assertIsNone(records[1]["path"])
        self.assertEqual((2, 1), (records[2]["points"], records[2]["files_damaged"]))
        self.assertEqual("", err)

    def test_line(self) -> None:
        """The warning's stable word stands in front."""
        line = damage_line(Damage(self.POINT, b"/a", "why"))
        self.assertTrue(line.startswith("SECURITY WARNING stored_data_damaged: "), line)


def json_lines(out: str) -> list[dict[str, Any]]:

    return [json.loads(line) for line in out.splitlines()]
