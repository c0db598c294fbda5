"""Entries that have further names."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import linked as linked_module
from cloudconnect.backup.drafts import FLAG_LINKED
from cloudconnect.backup.linked import LinkedEntries
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.runs import Run
from tests.backup.cases import entry_of, file_of


class LinkedTests(SynchronousTestCase):
    """First names, found again by the further ones."""

    def setUp(self) -> None:
        self.linked = LinkedEntries()
        self.addCleanup(self.linked.close)

    def first(self, path: bytes, runs: int = 2) -> Entry:
        made = tuple(Run(b"%032d" % number, 0, 10) for number in range(runs))
        return file_of(path, size=10 * runs, runs=made, flags=FLAG_LINKED)

    def test_content(self) -> None:
        """A further name leads to the entry that has the content, whatever came in between."""
        first = self.first(b"/a")
        self.assertIs(self.linked.resolve(first), first)
        other = file_of(b"/b", size=3)
        self.assertIs(self.linked.resolve(other), other)
        found = self.linked.resolve(file_of(b"/c", link=b"/a"))
        self.assertEqual(found, first)

    def test_long_files(self) -> None:
        """Files of very many runs are held as they are, a few of them."""
        self.patch(linked_module, "LONG_RUNS", 3)
        self.patch(linked_module, "LONG_MAX", 1)
        entries = [self.first(b"/%d" % number, 5) for number in range(3)]
        for entry in entries:
            self.linked.resolve(entry)
        found = [self.linked.resolve(file_of(b"/x", link=entry.path)) for entry in entries]
        self.assertEqual(found, entries)
        self.assertIs(found[0], entries[0])

    def test_unknown(self) -> None:
        """Without its first name a further one is all that is known; links to links have what they
        need themselves."""
        for entry in (
            file_of(b"/x", link=b"/none"),
            entry_of(b"/y", EntryType.SYMLINK, target=b"t", link=b"/none"),
        ):
            self.assertIs(self.linked.resolve(entry), entry)
