"""Making things under temporary names, and giving them their own."""

from __future__ import annotations

import errno
import os
import stat

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.metadata import MetadataWriter
from cloudconnect.backup.options import Overwrite
from cloudconnect.backup.placing import (
    NewFile,
    place_link,
    place_special,
    put_in_place,
    replaces,
)
from cloudconnect.backup.target import Target
from cloudconnect.content.entries import Entry, EntryType
from tests.backup.trees import OLD_NS, allocated, is_root, write

TEMPORARY = b".temporary"


class Case(SynchronousTestCase):
    """A folder to make things in."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        self.target = Target(self.top, create=True)
        self.addCleanup(self.target.close)
        self.parent = self.target.enter(())
        self.problems: list[str] = []
        self.metadata = MetadataWriter(lambda path, reason: self.problems.append(reason))
        self.entry = Entry(b"/x", EntryType.FILE, 0o640, os.geteuid(), os.getegid(), "", "", OLD_NS)

    def names(self) -> list[bytes]:
        return sorted(os.listdir(self.top))


class NewFileTests(Case):
    """Files."""

    def test_whole(self) -> None:
        """A file appears under its name when it is whole, with its metadata."""
        new = NewFile(self.parent, TEMPORARY, verify=False)
        new.write(b"one ")
        new.write(b"two")
        self.assertEqual(self.names(), [TEMPORARY])
        self.assertEqual(stat.S_IMODE(os.stat(self.top + b"/" + TEMPORARY).st_mode), 0o600)
        new.finish(self.entry, self.metadata, b"x")
        self.assertEqual(self.names(), [b"x"])
        with open(self.top + b"/x", "rb") as file:
            self.assertEqual(file.read(), b"one two")
        status = os.stat(self.top + b"/x")
        self.assertEqual((stat.S_IMODE(status.st_mode), status.st_mtime_ns), (0o640, OLD_NS))

    def test_holes(self) -> None:
        """Holes in the middle and at the end are zeros that take no space."""
        new = NewFile(self.parent, TEMPORARY, verify=True)
        new.hole(1 << 20)
        new.write(b"x" * 4096)
        new.hole(3 << 20)
        new.finish(self.entry, self.metadata, b"x")
        with open(self.top + b"/x", "rb") as file:
            self.assertEqual(file.read(), bytes(1 << 20) + b"x" * 4096 + bytes(3 << 20))
        self.assertLess(allocated(self.top + b"/x"), 1 << 20)

    def test_short_writes(self) -> None:
        """A file system that takes less than it was given gets the rest again."""
        real = os.pwrite
        self.patch(os, "pwrite", lambda fd, data, position: real(fd, data[:3], position))
        new = NewFile(self.parent, TEMPORARY, verify=True)
        new.write(b"0123456789")
        new.finish(self.entry, self.metadata, b"x")
        with open(self.top + b"/x", "rb") as file:
            self.assertEqual(file.read(), b"0123456789")

    def test_discard(self) -> None:
        """Of a file that is given up nothing is left."""
        before = len(os.listdir("/proc/self/fd"))
        new = NewFile(self.parent, TEMPORARY, verify=False)
        new.write(b"x")
        new.discard()
        self.assertEqual(self.names(), [])
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_temporary_name_is_taken(self) -> None:
        """What has the temporary name already, a link say, is not written to: it goes, or a folder
        stays and the file gets another name."""
        write(self.top + b"/victim", b"victim")
        for make in (os.symlink, os.link):
            make(self.top + b"/victim", self.top + b"/" + TEMPORARY)
            new = NewFile(self.parent, TEMPORARY, verify=False)
            new.write(b"content")
            new.finish(self.entry, self.metadata, b"x")
            self.assertEqual(self.names(), [b"victim", b"x"])
        os.mkdir(self.top + b"/" + TEMPORARY)
        new = NewFile(self.parent, TEMPORARY, verify=False, other=b".other")
        self.assertEqual(self.names(), [b".other", TEMPORARY, b"victim", b"x"])
        new.finish(self.entry, self.metadata, b"x")
        with open(self.top + b"/victim", "rb") as file:
            self.assertEqual(file.read(), b"victim")

    def test_status_for_further_names(self) -> None:
        """The status comes back only where the entry says that there are further names."""
        new = NewFile(self.parent, TEMPORARY, verify=False)
        self.assertIsNone(new.finish(self.entry, self.metadata, b"x"))
        new = NewFile(self.parent, TEMPORARY, verify=False)
        status = new.finish(self.entry._replace(flags=2), self.metadata, b"y")
        assert status is not None
        self.assertEqual(status.st_ino, os.stat(self.top + b"/y").st_ino)

    def test_name_cannot_be_given(self) -> None:
        """When the name cannot be given, nothing is left."""
        write(self.top + b"/x/below", b"")
        new = NewFile(self.parent, TEMPORARY, verify=False)
        with self.assertRaises(IsADirectoryError):
            new.finish(self.entry, self.metadata, b"x")
        self.assertEqual(self.names(), [b"x"])


class SpecialTests(Case):
    """Links, FIFOs, sockets, devices."""

    def place(self, entry: Entry) -> os.stat_result:
        status = place_special(entry, self.parent, TEMPORARY, b"x", self.metadata)
        self.assertEqual(self.names(), [b"x"])
        self.assertEqual(status.st_ino, os.lstat(self.top + b"/x").st_ino)
        self.assertEqual(status.st_mtime_ns, OLD_NS)
        self.assertEqual(self.problems, [])
        return status

    def test_kinds(self) -> None:
        """Each kind replaces what was there."""
        link = self.entry._replace(type=EntryType.SYMLINK, target=b"\xff/../nowhere")
        self.place(link)
        self.assertEqual(os.readlink(self.top + b"/x"), b"\xff/../nowhere")
        status = self.place(self.entry._replace(type=EntryType.FIFO, mode=0o622))
        self.assertEqual(status.st_mode, stat.S_IFIFO | 0o622)
        status = self.place(self.entry._replace(type=EntryType.SOCKET, mode=0o700))
        self.assertEqual(status.st_mode, stat.S_IFSOCK | 0o700)

    def test_devices(self) -> None:
        """Devices have their numbers."""
        if not is_root():
            self.skipTest("only root makes devices")
        for kind, mode in ((EntryType.CHARACTER, stat.S_IFCHR), (EntryType.BLOCK, stat.S_IFBLK)):
            device = os.makedev(123, 45678)
            status = self.place(self.entry._replace(type=kind, device=device))
            self.assertEqual((stat.S_IFMT(status.st_mode), status.st_rdev), (mode, device))

    def test_cannot_be_made(self) -> None:
        """When something cannot be put in place, nothing is left."""
        write(self.top + b"/x/below", b"")
        entry = self.entry._replace(type=EntryType.FIFO)
        with self.assertRaises(IsADirectoryError):
            place_special(entry, self.parent, TEMPORARY, b"x", self.metadata)
        self.assertEqual(self.names(), [b"x"])


class LinkTests(Case):
    """Further names."""

    def test_link(self) -> None:
        """A further name is made, also where something else has it, or it itself is there."""
        write(self.top + b"/folder/first", b"first")
        status = os.stat(self.top + b"/folder/first")
        place = ((b"folder", b"first"), status.st_dev, status.st_ino)
        for prepare in (lambda: None, lambda: write(self.top + b"/y", b"z"), lambda: None):
            prepare()
            place_link(self.target, place, self.parent, b"y")
            self.assertEqual(os.stat(self.top + b"/y").st_ino, status.st_ino)
            self.assertEqual(self.names(), [b"folder", b"y"])

    def test_another_inode(self) -> None:
        """Where another thing is in the first name's place now, no name of that is made."""
        write(self.top + b"/first", b"first")
        status = os.stat(self.top + b"/first")
        for place in (
            ((b"first",), status.st_dev, status.st_ino + 1),
            ((b"first",), status.st_dev + 1, status.st_ino),
        ):
            with self.assertRaises(OSError):
                place_link(self.target, place, self.parent, b"y")
            self.assertEqual(self.names(), [b"first"])

    def test_not_right(self) -> None:
        """Where what was there is not what it should be any more, no name of it is made."""
        write(self.top + b"/first", b"first")
        status = os.stat(self.top + b"/first")
        place = ((b"first",), status.st_dev, status.st_ino)
        with self.assertRaises(OSError):
            place_link(self.target, place, self.parent, b"y", lambda found: found.st_size != 5)
        self.assertEqual(self.names(), [b"first"])

    def test_first_name_is_a_link_now(self) -> None:
        """A symlink in the place of the first name is not followed."""
        write(self.top + b"/victim", b"")
        status = os.stat(self.top + b"/victim")
        os.symlink(b"victim", self.top + b"/first")
        with self.assertRaises(OSError):
            place_link(self.target, ((b"first",), status.st_dev, status.st_ino), self.parent, b"y")
        self.assertEqual(self.names(), [b"first", b"victim"])


class PlaceTests(Case):
    """Names."""

    def test_empty_folder_goes(self) -> None:
        """An empty folder gives way, one with something in it does not."""
        for below, gives_way in ((False, True), (True, False)):
            write(self.top + b"/" + TEMPORARY, b"new")
            os.makedirs(self.top + b"/x")
            if below:
                write(self.top + b"/x/below", b"")
            if gives_way:
                put_in_place(self.parent, TEMPORARY, b"x")
                os.unlink(self.top + b"/x")
            else:
                with self.assertRaises(OSError) as caught:
                    put_in_place(self.parent, TEMPORARY, b"x")
                self.assertEqual(caught.exception.errno, errno.ENOTEMPTY)

    def test_replaces(self) -> None:
        """What each choice does with files, links and other things that are there."""
        write(self.top + b"/x", b"12345", mtime_ns=OLD_NS)
        os.symlink(b"x", self.top + b"/link")
        os.utime(self.top + b"/link", ns=(OLD_NS, OLD_NS), follow_symlinks=False)
        file, link = os.stat(self.top + b"/x"), os.lstat(self.top + b"/link")
        same = self.entry._replace(size=5, runs=(), link=b"/other")
        newer = same._replace(mtime_ns=OLD_NS + 1)
        symlink = self.entry._replace(type=EntryType.SYMLINK, target=b"x")
        fifo = self.entry._replace(type=EntryType.FIFO)
        cases = [
            (same, file, {"always": True, "if-changed": False, "if-newer": False}),
            (newer, file, {"always": True, "if-changed": True, "if-newer": True}),
            (symlink, link, {"always": True, "if-changed": False, "if-newer": False}),
            (symlink, file, {"always": True, "if-changed": True, "if-newer": False}),
            (same, link, {"always": True, "if-changed": True, "if-newer": False}),
            (fifo, file, {"always": True, "if-changed": True, "if-newer": False}),
        ]
        for entry, there, expected in cases:
            for overwrite in Overwrite:
                self.assertEqual(
                    replaces(entry, there, overwrite),
                    expected.get(overwrite.value, False),
                    (entry.type, overwrite),
                )
