"""Entries whose content other names have too."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.drafts import FLAG_LINKED
from cloudconnect.backup.linked import LinkedEntries
from cloudconnect.content.manifest import EntryType, Run
from cloudconnect.settings import MANIFEST_PIECE_RUNS
from tests.backup.cases import entry_of, file_of


class LinkedEntriesTests(SynchronousTestCase):
    """What the first name had is known when a further one comes."""

    def setUp(self) -> None:
        self.linked = LinkedEntries()
        self.addCleanup(self.linked.close)

    def test_short(self) -> None:
        """A further name has the content of the first one, and others are what they are."""
        first = file_of(b"/a", size=10, flags=FLAG_LINKED)
        plain = file_of(b"/b", size=5)
        folder = entry_of(b"/d", EntryType.DIRECTORY)
        for one in (first, plain, folder):
            self.assertIs(self.linked.resolve(one), one)
        self.assertEqual(self.linked.resolve(file_of(b"/c", size=10, link=b"/a", runs=())), first)

    def test_long(self) -> None:
        """Also of a file of very many runs."""
        runs = tuple(Run(b"%032d" % at, 0, 7) for at in range(2 * MANIFEST_PIECE_RUNS + 1))
        first = file_of(b"/a", size=7 * len(runs), runs=runs, flags=FLAG_LINKED)
        self.linked.resolve(first)
        self.assertEqual(
            self.linked.resolve(file_of(b"/c", size=first.size, link=b"/a", runs=())), first
        )

    def test_unknown(self) -> None:
        """Where the first name did not come, the link is all that is known."""
        link = file_of(b"/c", size=10, link=b"/a", runs=())
        self.assertIs(self.linked.resolve(link), link)
