"""Reading files that hold still, and files that do not."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from io import BytesIO

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import reader as reader_module
from cloudconnect.backup.drafts import Draft
from cloudconnect.backup.reader import FileReader
from cloudconnect.content.chunking import ChunkingParameters
from cloudconnect.content.entries import FLAG_CHANGED
from tests.backup.test_drafts import Chunks
from tests.backup.trees import allocated, write, write_sparse


class Case(SynchronousTestCase):
    """A reader with small thresholds, so that small files try all ways."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        os.makedirs(self.top)
        self.folder = os.open(self.top, os.O_RDONLY)
        self.addCleanup(os.close, self.folder)
        self.patch(reader_module, "SMALL_FILE", 4096)
        self.patch(reader_module, "BLOCK", 65536)
        self.patch(reader_module, "LARGE_FILE", 200_000)
        self.chunks = Chunks()
        parameters = ChunkingParameters(average=1024, minimum=256, maximum=4096)
        self.reader = FileReader(parameters, self.chunks.take, lambda: 77)

    def read(self, name: bytes = b"file") -> Draft:
        """Read a file to its end; the draft, complete."""
        status = os.lstat(name, dir_fd=self.folder)
        draft = self.reader.read(self.top + b"/" + name, name, self.folder, status)
        self.reader.finish()
        self.assertEqual(draft.missing, 0)
        return draft

    def content(self, draft: Draft) -> bytes:
        return self.chunks.content(draft.runs)


class ReadTests(Case):
    """Files that hold still."""

    def test_sizes(self) -> None:
        """Files of every size, around each threshold, come back byte for byte."""
        for size in (0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 199_999, 200_000, 300_001):
            data = os.urandom(size)
            write(self.top + b"/file", data)
            draft = self.read()
            self.assertEqual(self.content(draft), data, size)
            self.assertEqual(draft.size, size)
            self.assertFalse(draft.changed)
            self.assertEqual(draft.read_ns, 77)

    def test_sparse(self) -> None:
        """Holes are not read but recorded, wherever they are, in small and large files."""
        one = os.urandom(4096)
        cases: list[tuple[dict[int, bytes], int]] = [
            ({}, 3000),
            ({}, 500_000),
            ({0: one}, 400_000),
            ({131072: one}, 135168),
            ({131072: one}, 400_000),
            ({8192: one, 262144: one}, 266240),
            ({65536: b"x"}, 65537),
        ]
        for extents, size in cases:
            write_sparse(self.top + b"/file", extents, size)
            if allocated(self.top + b"/file") >= size:
                self.skipTest("this file system does not keep holes")
            draft = self.read()
            with open(self.top + b"/file", "rb") as file:
                self.assertEqual(self.content(draft), file.read(), (list(extents), size))
            self.assertEqual(draft.size, size)
            holes = sum(run.length for run in draft.runs if run.id is None)
            self.assertGreater(holes, 0)
            taken = sum(run.length for run in draft.runs if run.id is not None)
            self.assertLessEqual(taken, len(extents) * 8192)

    def test_small_sparse(self) -> None:
        """A small file with a hole shares the stream of the small ones."""
        write_sparse(self.top + b"/file", {8192: b"end"}, 12_000)
        self.patch(reader_module, "SMALL_FILE", 16384)
        draft = self.read()
        with open(self.top + b"/file", "rb") as file:
            self.assertEqual(self.content(draft), file.read())

    def test_unknown_holes(self) -> None:
        """Where the file system does not know holes, everything is read, and zeros are seen."""

        def refuse(descriptor: int, position: int, how: int) -> int:
            raise OSError(errno.EINVAL, "Invalid argument")

        write_sparse(self.top + b"/file", {100_000: b"x"}, 300_000)
        self.patch(os, "lseek", refuse)
        draft = self.read()
        self.assertEqual(self.content(draft), bytes(100_000) + b"x" + bytes(199_999))
        taken = sum(run.length for run in draft.runs if run.id is not None)
        self.assertEqual(taken, 65536)  # the block that is not all zeros

    def test_short_reads(self) -> None:
        """A file system that returns less than was asked for is asked again."""
        data = os.urandom(50_000)
        write(self.top + b"/file", data)
        real = os.read
        self.patch(os, "read", lambda descriptor, size: real(descriptor, min(size, 1000)))
        self.assertEqual(self.content(self.read()), data)

    def test_large_file_ends_the_small_stream(self) -> None:
        """Small files before a large one are complete before that is."""
        write(self.top + b"/a", b"small")
        write(self.top + b"/b", os.urandom(250_000))
        small = self.reader.read(b"/a", b"a", self.folder, os.lstat(b"a", dir_fd=self.folder))
        self.assertGreater(small.missing, 0)
        self.reader.read(b"/b", b"b", self.folder, os.lstat(b"b", dir_fd=self.folder))
        self.assertEqual(small.missing, 0)

    def test_stream(self) -> None:
        """A stream is read to its end."""
        data = os.urandom(200_001)
        draft = Draft(b"/stdin", os.stat(self.top))
        self.reader.read_stream(draft, BytesIO(data))
        self.assertEqual(self.content(draft), data)
        self.assertEqual((draft.missing, draft.size), (0, len(data)))


class ChangeTests(Case):
    """Files that do not hold still."""

    def during(self, *actions: Callable[[], None]) -> None:
        """Do the next action after the content was read, before the last look at the file."""
        waiting = list(actions)
        real = reader_module.read_attributes

        def act(where: int | bytes) -> tuple[tuple[bytes, bytes], ...]:
            if waiting:
                waiting.pop(0)()
            return real(where)

        self.patch(reader_module, "read_attributes", act)

    def rewrite(self, data: bytes, mtime_ns: int) -> Callable[[], None]:
        return lambda: write(self.top + b"/file", data, mtime_ns=mtime_ns)

    def test_read_again(self) -> None:
        """A file that changed while it was read is read once more, and is as it is then."""
        for size in (100, 20_000, 250_000):
            new = os.urandom(size)
            write(self.top + b"/file", os.urandom(size), mtime_ns=1)
            self.during(self.rewrite(new, 2))
            draft = self.read()
            self.assertEqual(self.content(draft), new)
            self.assertEqual(draft.status.st_mtime_ns, 2)
            self.assertFalse(draft.changed)

    def test_nothing_is_left_of_the_first_attempt(self) -> None:
        """Content of a small file that was read in vain is in no chunk."""
        write(self.top + b"/file", b"first attempt", mtime_ns=1)
        self.during(self.rewrite(b"second", 2))
        self.read()
        self.assertEqual(list(self.chunks.taken.values()), [b"second"])

    def test_goes_on_changing(self) -> None:
        """A file that changes both times is kept as it was read, with a mark."""
        for size in (100, 20_000, 250_000):
            second = os.urandom(size)
            write(self.top + b"/file", os.urandom(size), mtime_ns=1)
            self.during(self.rewrite(second, 2), self.rewrite(os.urandom(size), 3))
            draft = self.read()
            self.assertEqual(self.content(draft), second)
            self.assertTrue(draft.flags & FLAG_CHANGED)
            self.assertEqual(draft.status.st_mtime_ns, 2)

    def test_grows(self) -> None:
        """A log that always grows is kept up to the size that it had."""
        write(self.top + b"/file", b"a" * 100)

        def grow() -> None:
            with open(self.top + b"/file", "ab") as file:
                file.write(b"b" * 100)

        self.during(grow, grow)
        draft = self.read()
        self.assertEqual(self.content(draft), b"a" * 100 + b"b" * 100)
        self.assertTrue(draft.changed)

    def test_shrinks(self) -> None:
        """A file that is cut while it is read is kept as long as it was then."""
        for size in (20_000, 250_000):
            write(self.top + b"/file", b"x" * size)
            os.truncate(self.top + b"/file", 10)
            wrong = os.lstat(b"file", dir_fd=self.folder)
            write(self.top + b"/file", b"x" * size)
            status = os.lstat(b"file", dir_fd=self.folder)
            self.assertEqual(wrong.st_ino, status.st_ino)
            os.truncate(self.top + b"/file", 10)
            draft = self.reader.read(b"/file", b"file", self.folder, status)
            self.reader.finish()
            self.assertEqual(self.content(draft), b"x" * 10)
            self.assertFalse(draft.changed)

    def test_replaced(self) -> None:
        """A file that is exchanged for another one of the same size and time is read again."""
        write(self.top + b"/file", b"old", mtime_ns=5)
        write(self.top + b"/new", b"new", mtime_ns=5)
        self.during(lambda: os.rename(self.top + b"/new", self.top + b"/file"))
        draft = self.read()
        # The first look was at the old file's descriptor, which did not change.
        self.assertEqual(self.content(draft), b"old")
        write(self.top + b"/new", b"new", mtime_ns=5)
        status = os.lstat(b"file", dir_fd=self.folder)
        os.rename(self.top + b"/new", self.top + b"/file")
        draft = self.reader.read(b"/file", b"file", self.folder, status)
        self.reader.finish()
        self.assertEqual(self.content(draft), b"new")

    def test_metadata_changes(self) -> None:
        """A file of which only the mode changes is not read again, but not trusted later."""
        write(self.top + b"/file", b"content")
        self.during(lambda: os.chmod(self.top + b"/file", 0o600))
        draft = self.read()
        self.assertFalse(draft.changed)
        self.assertEqual(draft.read_ns, 0)

    def test_becomes_a_link(self) -> None:
        """A file that becomes a link is not followed."""
        write(self.top + b"/secret", b"secret")
        write(self.top + b"/file", b"content")
        status = os.lstat(b"file", dir_fd=self.folder)
        os.unlink(self.top + b"/file")
        os.symlink(b"secret", self.top + b"/file")
        with self.assertRaises(OSError):
            self.reader.read(b"/file", b"file", self.folder, status)
        self.assertEqual(self.chunks.taken, {})

    def test_becomes_a_fifo(self) -> None:
        """A file that becomes a FIFO between the attempts does not hang the backup."""
        write(self.top + b"/file", b"content", mtime_ns=1)

        def exchange() -> None:
            os.utime(self.top + b"/file", ns=(2, 2))
            os.unlink(self.top + b"/file")
            os.mkfifo(self.top + b"/file")

        self.during(exchange)
        with self.assertRaises(OSError) as caught:
            self.read()
        self.assertIn("something else", str(caught.exception))

    def test_vanishes(self) -> None:
        """A file that is gone is an error of the system."""
        write(self.top + b"/file", b"content")
        status = os.lstat(b"file", dir_fd=self.folder)
        os.unlink(self.top + b"/file")
        with self.assertRaises(FileNotFoundError):
            self.reader.read(b"/file", b"file", self.folder, status)

    def test_disk_error(self) -> None:
        """A file that the disk cannot read to its end is an error, and closed."""

        def fail(descriptor: int, size: int, position: int) -> bytes:
            if position:
                raise OSError(errno.EIO, "Input/output error")
            return b"x" * size

        write(self.top + b"/file", b"x" * 250_000)
        before = os.listdir("/proc/self/fd")
        self.patch(os, "pread", fail)
        with self.assertRaises(OSError) as caught:
            self.read()
        self.assertEqual(caught.exception.errno, errno.EIO)
        self.assertEqual(len(os.listdir("/proc/self/fd")), len(before))
