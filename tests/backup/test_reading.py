"""Looking into restore points."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import reading
from cloudconnect.backup.reading import PointReader, piece_of
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.runs import Run
from cloudconnect.errors import LocalError, NotFound, StoredDataDamaged, UsageError
from cloudconnect.repository.serve import ServeResult
from tests.backup.support import Place
from tests.backup.trees import write, write_sparse


class ReadingTests(SynchronousTestCase):
    """A point with a few files in it."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        self.large = os.urandom(3_000_000)
        write(self.top + b"/large", self.large)
        write(self.top + b"/small", b"small")
        write_sparse(self.top + b"/sparse", {1 << 20: b"x" * 5000, 5 << 20: b"y"}, 7 << 20)
        os.link(self.top + b"/small", self.top + b"/z-link")
        os.symlink(b"small", self.top + b"/symlink")
        os.link(self.top + b"/symlink", self.top + b"/z-symlink", follow_symlinks=False)
        self.place = Place(self.mktemp())
        self.point = self.place.backup(self.top).point

    def content(self, name: bytes) -> bytes:
        with self.place.reader(self.point) as reader:
            return b"".join(reader.read(reader.find(self.top + name)))

    def test_content(self) -> None:
        """Files are read byte for byte, holes as zeros, hard links by their first name."""
        for name in (b"/large", b"/small", b"/sparse", b"/z-link"):
            with open(self.top + name, "rb") as file:
                self.assertEqual(self.content(name), file.read(), name)

    def test_pieces_are_bounded(self) -> None:
        """A hole does not come in one piece, however large it is."""
        with self.place.reader(self.point) as reader:
            pieces = list(reader.read(reader.find(self.top + b"/sparse")))
        self.assertLessEqual(max(map(len, pieces)), 1 << 20)

    def test_many_chunks(self) -> None:
        """More chunks than are asked for ahead."""
        self.patch(reading, "CHUNKS", 2)
        self.assertEqual(self.content(b"/large"), self.large)

    def test_entries(self) -> None:
        """The entries are those of the backup, and may be asked for again."""
        with self.place.reader(self.point) as reader:
            first = [entry.path for entry in reader.entries()]
            second = [entry.path for entry in reader.entries()]
        self.assertEqual(first, second)
        names = [path[len(self.top) :] for path in first if path.startswith(self.top)]
        self.assertEqual(names[0], b"")
        self.assertEqual(len(names), 7)

    def test_one_of_the_entries(self) -> None:
        """An entry out of the listing can be read at once, a hard link's too."""
        with self.place.reader(self.point) as reader:
            entries = {entry.path[len(self.top) :]: entry for entry in reader.entries()}
            self.assertEqual(b"".join(reader.read(entries[b"/z-link"])), b"small")

    def test_not_there(self) -> None:
        """A path that is not in the point is not found, and the dialogue goes on."""
        with self.place.reader(self.point) as reader:
            with self.assertRaises(NotFound):
                reader.find(self.top + b"/none")
            self.assertEqual(b"".join(reader.read(reader.find(self.top + b"/small"))), b"small")

    def test_only_files(self) -> None:
        """Folders and links, by whatever name, have no content."""
        for name in (b"", b"/symlink", b"/z-symlink"):
            with self.place.reader(self.point) as reader:
                entry = next(e for e in reader.entries() if e.path == self.top + name)
                with self.assertRaises(UsageError):
                    reader.read(entry)

    def test_link_to_no_file(self) -> None:
        """A hard link that leads to something else, or nowhere, is refused."""

        def linked(path: bytes, link: bytes | None, kind: EntryType = EntryType.FILE) -> Entry:
            return Entry(path, kind, 0, 0, 0, "", "", 0, link=link)

        entries = [
            linked(b"/folder", None, EntryType.DIRECTORY),
            linked(b"/a", b"/folder"),
            linked(b"/b", b"/none"),
        ]
        point = self.place.publish(entries)
        with self.place.reader(point) as reader:
            with self.assertRaises(StoredDataDamaged):
                reader.read(entries[1])
            with self.assertRaises(NotFound):
                reader.read(entries[2])

    def test_links_in_a_circle(self) -> None:
        """Hard links that lead to one another end in an error, not in an endless search."""

        def linked(path: bytes, link: bytes) -> Entry:
            return Entry(path, EntryType.FILE, 0, 0, 0, "", "", 0, link=link)

        entries = [linked(b"/a", b"/b"), linked(b"/b", b"/a")]
        with self.place.reader(self.place.publish(entries)) as reader:
            with self.assertRaises(StoredDataDamaged):
                reader.find(b"/a")
            with self.assertRaises(StoredDataDamaged):
                reader.read(entries[0])

    def test_damaged_chunk(self) -> None:
        """A damaged chunk is an error at its place; what stands before it is given."""
        with self.place.reader(self.point) as reader:
            runs = reader.find(self.top + b"/large").runs
        assert runs[3].id is not None
        self.place.damage(runs[3].id)
        got = b""
        with self.place.reader(self.point) as reader:
            entry = reader.find(self.top + b"/large")
            with self.assertRaises(StoredDataDamaged):
                for piece in reader.read(entry):
                    got += piece
        self.assertEqual(got, self.large[: sum(run.length for run in runs[:3])])

    def test_proper_end(self) -> None:
        """Leaving the context ends the dialogue properly, also in the middle of a file."""
        with self.place.reader(self.point) as reader:
            next(reader.read(reader.find(self.top + b"/large")))
        assert self.place.served is not None
        self.assertIsInstance(self.place.served.wait(), ServeResult)

    def test_error_inside(self) -> None:
        """An error inside the context aborts the dialogue and is not hidden."""
        with self.assertRaises(ZeroDivisionError), self.place.reader(self.point):
            raise ZeroDivisionError
        assert self.place.served is not None
        self.assertIsInstance(self.place.served.wait(), BaseException)

    def test_not_opened(self) -> None:
        """A reader that has opened nothing has no entries."""
        reader = PointReader(self.place.open("read"), self.place.keys, self.place.description)
        self.assertRaises(LocalError, reader.entries)
        reader.close()

    def test_piece(self) -> None:
        """A run is a piece of a chunk, and never more than there is."""
        self.assertEqual(piece_of(b"0123456789", Run(bytes(32), 2, 3)), b"234")
        self.assertEqual(piece_of(b"0123456789", Run(bytes(32), 0, 10)), b"0123456789")
        for run in (Run(bytes(32), 0, 11), Run(bytes(32), 10, 1), Run(bytes(32), 8, 3)):
            self.assertRaises(StoredDataDamaged, piece_of, b"0123456789", run)
