"""Tests of :mod:`cloudconnect.cli.diff`: how changes are shown."""

from __future__ import annotations

from typing import Any

from cloudconnect.backup.changes import Change, ChangeKind, DiffResult
from cloudconnect.cli import diff as diff_module
from cloudconnect.cli.diff import change_line, change_map
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.runs import Run
from tests.backup.cases import entry_of
from tests.cli.commands import CommandCase, Done


def file_of(size: int) -> Entry:
    runs = (Run(None, 0, size),) if size else ()
    return entry_of(b"/a", EntryType.FILE, size=size, runs=runs)


class ShownTests(CommandCase):
    """One line for each change, and a sentence at the end."""

    def test_lines(self) -> None:
        """The sign, the size, the path, and what a person wants to know of it."""
        small, large = file_of(1000), file_of(2_500_000)
        link = entry_of(b"/a", EntryType.SYMLINK, target=b"x\n")
        other = entry_of(b"/a", EntryType.SYMLINK, target=b"y")
        for change, words in (
            (Change(ChangeKind.ADDED, b"/a", None, large), ("+ ", "2.5 MB", "/a")),
            (Change(ChangeKind.REMOVED, b"/a", small, None), ("- ", "1.0 kB", "/a")),
            (Change(ChangeKind.CONTENT, b"/a", small, large), ("M ", "2.5 MB", "was 1.0 kB")),
            (Change(ChangeKind.CONTENT, b"/a", link, other), ("M ", "x\\n -> y")),
            (Change(ChangeKind.METADATA, b"/a", small, small, ("mode", "mtime")), ("mode, mtime",)),
            (Change(ChangeKind.TYPE, b"/a", small, link), ("T ", "was a file, is a link")),
            (Change(ChangeKind.ADDED, b"/a\x1b\xff", None, small), ("/a\\x1b\\xff",)),
        ):
            line = change_line(change)
            self.assertTrue(line.isprintable(), line)
            for word in words:
                self.assertIn(word, line)

    def test_maps(self) -> None:
        """Programs get both entries."""
        change = Change(ChangeKind.CONTENT, b"/\xff", file_of(1), file_of(2), ("content", "size"))
        fields = change_map(change)
        self.assertEqual(("content", "/\udcff"), (fields["kind"], fields["path"]))
        self.assertEqual((1, 2), (fields["before"]["size"], fields["after"]["size"]))
        self.assertIsNone(change_map(Change(ChangeKind.ADDED, b"/", None, file_of(1)))["before"])

    def report(self, result: DiffResult, **options: Any) -> Done:
        self.fresh_output()
        diff_module._report(diff_module.Console(**options), result)
        return Done(0, self.out.text(), self.err.text())

    def test_summary(self) -> None:
        """How many of each kind; with --quiet nothing; damage is never silenced."""
        result = DiffResult(unchanged=7, bytes_added=2000, bytes_removed=1)
        result.counts.update({ChangeKind.ADDED: 3, ChangeKind.METADATA: 2})
        out = self.report(result).out
        for words in ("3 added", "0 removed", "2 with other metadata", "7 unchanged", "2.0 kB"):
            self.assertIn(words, out)
        fields = self.report(result, as_json=True).lines()[0]
        self.assertEqual((3, 0, 7), (fields["added"], fields["type"], fields["unchanged"]))
        result.damaged.add(b"/x\n", "is missing")
        done = self.report(result, quiet=True)
        self.assertEqual(("", 1), (done.out, len(done.err.splitlines())))
