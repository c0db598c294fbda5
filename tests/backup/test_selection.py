"""Which entries of a restore point are meant."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.drafts import FLAG_ON_THE_WAY
from cloudconnect.backup.options import RestoreOptions
from cloudconnect.backup.patterns import PathPatterns
from cloudconnect.backup.selection import Selection
from cloudconnect.content.entries import Entry, EntryType

TREE = (
    b"/home",
    b"/home/ann",
    b"/home/ann/.cache",
    b"/home/ann/.cache/big",
    b"/home/ann/note.txt",
    b"/home/anna",
    b"/home/anna/note.txt",
)


class SelectionTests(SynchronousTestCase):
    """Paths, includes and excludes."""

    def select(self, **options: Any) -> tuple[list[bytes], Selection]:
        selection = Selection(RestoreOptions(target=b"/t", **options))
        chosen = []
        for path in TREE:
            folder = b"." not in path.rpartition(b"/")[2].lstrip(b".") and b"big" not in path
            entry = Entry(
                path,
                EntryType.DIRECTORY if folder else EntryType.FILE,
                0,
                0,
                0,
                "",
                "",
                0,
                flags=FLAG_ON_THE_WAY if path == b"/home" else 0,
            )
            if selection.selects(entry):
                chosen.append(path)
        return chosen, selection

    def test_everything(self) -> None:
        """Without a choice all is meant, but for folders that are only on the way."""
        chosen, selection = self.select()
        self.assertEqual(chosen, list(TREE[1:]))
        self.assertFalse(selection.partial)

    def test_paths(self) -> None:
        """A path means itself and what is below it, not what merely begins like it."""
        chosen, selection = self.select(paths=(b"/home/ann",))
        self.assertEqual(chosen, list(TREE[1:5]))
        self.assertTrue(selection.partial)
        self.assertEqual(selection.missing, [])
        self.assertEqual(self.select(paths=(b"/home/ann/",))[0], list(TREE[1:5]))

    def test_root(self) -> None:
        """The root means everything."""
        chosen, selection = self.select(paths=(b"/",))
        self.assertEqual(chosen, list(TREE[1:]))
        self.assertEqual(selection.missing, [])

    def test_folder_on_the_way(self) -> None:
        """A path that is only on the way means what is below it."""
        chosen, selection = self.select(paths=(b"/home",))
        self.assertEqual(chosen, list(TREE[1:]))
        self.assertEqual(selection.missing, [])

    def test_missing(self) -> None:
        """Paths of which nothing came are known in the end."""
        _, selection = self.select(paths=(b"/home/ann", b"/none", b"/home/an"))
        self.assertEqual(selection.missing, [b"/home/an", b"/none"])

    def test_include(self) -> None:
        """What an include means is chosen, folders with everything below them."""
        include = PathPatterns([b"*.txt"])
        self.assertEqual(self.select(include=include)[0], [TREE[4], TREE[6]])
        include = PathPatterns([b"ann"])
        self.assertEqual(self.select(include=include)[0], list(TREE[1:5]))

    def test_exclude(self) -> None:
        """What an exclude means is left out, folders with everything below them."""
        exclude = PathPatterns([b".cache"])
        chosen, selection = self.select(exclude=exclude)
        self.assertEqual(chosen, [TREE[1], *TREE[4:]])
        self.assertTrue(selection.partial)

    def test_all_at_once(self) -> None:
        """Only what is below the paths, is included and is not excluded."""
        chosen, _ = self.select(
            paths=(b"/home/ann",),
            include=PathPatterns([b"*.txt", b".cache"]),
            exclude=PathPatterns([b"big"]),
        )
        self.assertEqual(chosen, [TREE[2], TREE[4]])
