"""Block devices, raw images, and files of very many runs: there and back."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

from cloudconnect.backup import drafts as drafts_module
from cloudconnect.backup import leading as leading_module
from cloudconnect.backup import reader as reader_module
from cloudconnect.backup.options import BackupResult, StandardInput
from cloudconnect.backup.zeros import ZERO_BLOCK
from cloudconnect.content import manifest as manifest_module
from cloudconnect.content import runs as runs_module
from cloudconnect.content.entries import EntryType
from tests.backup.cases import RestoreCase
from tests.backup.loops import loop_device
from tests.backup.trees import allocated, write, write_sparse

MIB = 1 << 20


class ImageCase(RestoreCase):
    """An image, and what is in a restore point."""

    def image(self, size: int = 24 * MIB) -> bytes:
        """Zeros that are written, data, and holes."""
        path = self.top + b"/image"
        write(path, bytes(size))
        with open(path, "r+b") as file:
            for at in (0, 5 * MIB + 4096, size - 1000):
                file.seek(at)
                file.write(os.urandom(900))
        self.assertGreaterEqual(allocated(path), size)
        return path

    def entry(self, point: bytes, path: bytes) -> Any:
        with self.place.reader(point) as reader:
            return reader.find(path)

    def content(self, point: bytes, path: bytes) -> bytes:
        with self.place.reader(point) as reader:
            return b"".join(reader.read(reader.find(path)))

    def assertSameContent(self, one: bytes, other: bytes) -> None:
        with open(one, "rb") as a, open(other, "rb") as b:
            self.assertTrue(a.read() == b.read(), "the content is not the same")


class ImageTests(ImageCase):
    """What is read of images, and what comes back."""

    def test_zeros_are_not_sent(self) -> None:
        """Of a raw image only blocks that are not all zeros are chunks; the same bytes return."""
        path = self.image()
        result = self.place.backup(path)
        self.assertEqual(result.bytes_source, 24 * MIB)
        self.assertLessEqual(result.bytes_new, 3 * ZERO_BLOCK)
        self.assertClean(self.restore(result.point))
        self.assertSameContent(self.target + b"/source/image", path)
        self.assertLess(allocated(self.target + b"/source/image"), MIB)
        with open(path, "rb") as file:
            self.assertTrue(self.content(result.point, path) == file.read())

    def test_zeros_in_a_stream(self) -> None:
        """Standard input is looked at in the same way."""
        content = bytes(3 * MIB) + b"x" * 1000 + bytes(5 * MIB)
        result = self.place.backup(stdin=StandardInput(b"image", BytesIO(content)))
        self.assertLessEqual(result.bytes_new, ZERO_BLOCK)
        self.assertTrue(self.content(result.point, b"/image") == content)

    def test_zeros_in_a_file_that_is_read_at_once(self) -> None:
        """The same for files of less than a block of reading; small ones are content like any."""
        write(self.top + b"/medium", os.urandom(ZERO_BLOCK) + bytes(5 * ZERO_BLOCK + 7))
        write(self.top + b"/small", bytes(1000))
        result = self.place.backup(self.top)
        self.assertEqual(result.bytes_new, ZERO_BLOCK + 1000)
        self.assertClean(self.restore(result.point))
        for name in (b"/medium", b"/small"):
            self.assertSameContent(self.target + b"/source" + name, self.top + name)

    def test_huge_sparse_file(self) -> None:
        """A file of 200 GB with little in it is backed up and restored as such."""
        path, size = self.top + b"/huge", 200_000_000_000
        write_sparse(path, {at * size // 9: os.urandom(5000) for at in range(9)}, size)
        result = self.place.backup(self.top)
        self.assertEqual(result.bytes_source, size)
        self.assertLess(result.bytes_sent, 9 * 2 * ZERO_BLOCK)
        self.assertClean(self.restore(result.point))
        restored = self.target + b"/source/huge"
        self.assertEqual(os.stat(restored).st_size, size)
        self.assertLess(allocated(restored), MIB)
        with open(path, "rb") as one, open(restored, "rb") as other:
            for at in range(9):
                start = at * size // 9
                self.assertEqual(
                    os.pread(one.fileno(), 6000, start), os.pread(other.fileno(), 6000, start)
                )

    def test_changed_block_of_an_image(self) -> None:
        """After a change in an image only what is around it is sent."""
        path = self.top + b"/image"
        write(path, os.urandom(8 * MIB))
        self.place.backup(path)
        with open(path, "r+b") as file:
            file.seek(3 * MIB)
            file.write(b"changed")
        self.assertLess(self.place.backup(path).bytes_new, MIB)


class DeviceTests(ImageCase):
    """Block devices."""

    def test_device(self) -> None:
        """A device that was named is a file of its content; zeros in it are holes."""
        path = self.image()
        device = loop_device(self, path)
        result = self.place.backup(device)
        self.assertEqual((result.files, result.other), (1, 0))
        self.assertEqual(result.devices, [device])
        self.assertEqual(result.bytes_source, 24 * MIB)
        self.assertLessEqual(result.bytes_new, 3 * ZERO_BLOCK)
        entry = self.entry(result.point, device)
        self.assertIs(entry.type, EntryType.FILE)
        self.assertEqual((entry.size, entry.device), (24 * MIB, None))
        self.assertEqual(entry.mode, os.stat(device).st_mode & 0o7777)
        self.assertClean(self.place.restore(result.point, self.target))
        self.assertSameContent(self.target + device, path)
        with open(path, "rb") as file:
            self.assertTrue(self.content(result.point, device) == file.read())

    def test_restore_over_the_device(self) -> None:
        """A restore to where it came from leaves the device alone, and says so."""
        device = loop_device(self, self.image())
        result = self.place.backup(device)
        node = self.target + device
        os.makedirs(os.path.dirname(node))
        os.mknod(node, os.stat(device).st_mode, os.stat(device).st_rdev)
        restored = self.place.restore(result.point, self.target)
        self.assertEqual([problem.path for problem in restored.problems.listed], [device])
        self.assertIn("in the way", restored.problems.listed[0].reason)
        self.assertEqual(os.stat(node).st_rdev, os.stat(device).st_rdev)
        self.assertEqual(os.listdir(os.path.dirname(node)), [os.path.basename(node)])

    def test_link_to_a_device(self) -> None:
        """A named link to a device means the device, under the name that was given."""
        path = self.image()
        link = self.top + b"/volume"
        os.symlink(loop_device(self, path), link)
        result = self.place.backup(link)
        self.assertEqual(result.devices, [link])
        self.assertEqual(self.entry(result.point, link).size, 24 * MIB)

    def test_device_in_a_folder(self) -> None:
        """A device that was only found, and a link to one, are recorded as what they are."""
        device = loop_device(self, self.image())
        status = os.stat(device)
        os.mknod(self.top + b"/node", status.st_mode, status.st_rdev)
        os.symlink(device, self.top + b"/link")
        result = self.place.backup(self.top)
        self.assertEqual((result.files, result.other, result.devices), (1, 2, []))
        node = self.entry(result.point, self.top + b"/node")
        self.assertEqual((node.type, node.device), (EntryType.BLOCK, status.st_rdev))

    def test_device_is_read_each_time(self) -> None:
        """Nothing tells whether a device was written to: it is never taken as unchanged."""
        path = self.image()
        device = loop_device(self, path)
        cache = Path(os.path.abspath(self.mktemp()))
        self.place.backup(device, cache=cache)
        with open(device, "r+b") as file:
            file.seek(10 * MIB)
            file.write(b"changed")
        second = self.place.backup(device, cache=cache)
        self.assertEqual(second.files_unchanged, 0)
        self.assertEqual(self.content(second.point, device)[10 * MIB :][:7], b"changed")

    def test_dry_run(self) -> None:
        """A dry run counts its bytes."""
        device = loop_device(self, self.image())
        result = self.place.backup(device, dry_run=True)
        self.assertEqual((result.files, result.bytes_source), (1, 24 * MIB))


class ManyRunsTests(RestoreCase):
    """Files of more runs than are held as objects, with limits that small files reach."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(drafts_module, "LONG_RUNS", 20)
        self.patch(runs_module, "IN_MEMORY", 400)
        self.patch(manifest_module, "MANIFEST_PIECE_RUNS", 30)
        self.patch(leading_module, "MANIFEST_OFFERS", 1)
        self.patch(reader_module, "BLOCK", 64 << 10)
        self.cache = Path(os.path.abspath(self.mktemp()))
        real = leading_module.FileCache

        def trusting(directory: Path, repository: bytes, check: bytes) -> Any:
            return real(directory, repository, check, lambda: 1 << 62)

        self.patch(leading_module, "FileCache", trusting)
        self.sparse = {at * 64 << 10: os.urandom(4096) for at in range(150)}
        write_sparse(self.top + b"/a", self.sparse, 150 * 64 << 10)
        write(self.top + b"/b", b"short")
        write(self.top + b"/c", os.urandom(6 << 20))

    def backup(self) -> BackupResult:
        return self.place.backup(self.top, cache=self.cache)

    def assertRestored(self, point: bytes) -> None:
        self.assertClean(self.restore(point))
        for name in (b"/a", b"/b", b"/c"):
            with (
                open(self.top + name, "rb") as one,
                open(self.target + b"/source" + name, "rb") as other,
            ):
                self.assertTrue(one.read() == other.read(), name)

    def test_there_and_back(self) -> None:
        """Every byte comes back, and the point needs what it needs."""
        result = self.backup()
        with self.place.reader(result.point) as reader:
            runs = reader.find(self.top + b"/a").runs
        self.assertGreaterEqual(len(runs), 300)
        self.assertRestored(result.point)

    def test_unchanged(self) -> None:
        """They are not read again, and the second point is as good as the first."""
        self.backup()

        def refuse(*arguments: object) -> int:
            raise AssertionError("an unchanged file was opened")

        self.patch(reader_module, "open_quietly", refuse)
        second = self.backup()
        self.assertEqual((second.files_unchanged, second.bytes_new), (3, 0))
        self.assertRestored(second.point)

    def test_lost_chunk(self) -> None:
        """Where the repository lost a chunk of an unchanged one, it is read after all."""
        first = self.backup()
        with self.place.reader(first.point) as reader:
            lost = reader.find(self.top + b"/c").runs[40].id
        assert lost is not None
        self.place.damage(lost)
        with self.assertRaises(Exception), self.place.reader(first.point) as reader:
            b"".join(reader.read(reader.find(self.top + b"/c")))
        second = self.backup()
        self.assertEqual(second.files_unchanged, 2)
        self.assertRestored(second.point)

    def test_everything_lost(self) -> None:
        """Where it lost more than is kept in mind, every unchanged file is read again."""
        self.patch(leading_module, "LOST_MAX", 5)
        self.backup()
        place, self.place = self.place, type(self.place)(self.mktemp())
        self.place.description, self.place.keys = place.description, place.keys
        self.recreate()
        second = self.backup()
        self.assertEqual(second.files_unchanged, 0)
        self.assertRestored(second.point)

    def recreate(self) -> None:
        """An empty repository of the same description in the place of the new one."""
        from cloudconnect.repository.store import Repository

        self.place.directory = Path(os.path.abspath(self.mktemp()))
        Repository.create(self.place.directory, self.place.description).close()
