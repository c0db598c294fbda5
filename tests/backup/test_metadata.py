"""Owner, mode, times and extended attributes: read, and given again."""

from __future__ import annotations

import contextlib
import os
import stat

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.metadata import (
    MetadataWriter,
    group_name,
    read_attributes,
    through_proc,
    type_of,
    user_name,
)
from cloudconnect.content.entries import Entry, EntryType
from tests.backup.trees import OLD_NS, access_list, is_root, make_socket, set_attribute, write


class Case(SynchronousTestCase):
    """A folder to work in."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        os.makedirs(self.top)
        self.folder = os.open(self.top, os.O_RDONLY)
        self.addCleanup(os.close, self.folder)

    def need_attributes(self, name: bytes = b"user.test", value: bytes = b"v") -> None:
        write(self.top + b"/probe", b"")
        if not set_attribute(self.top + b"/probe", name, value):
            self.skipTest("this file system, or this user, cannot set such attributes")


class ReadTests(Case):
    """What is read."""

    def test_types(self) -> None:
        """Every kind of thing has its type."""
        write(self.top + b"/file", b"")
        os.symlink(b"file", self.top + b"/link")
        os.mkfifo(self.top + b"/fifo")
        make_socket(self.top + b"/socket")
        found = {
            name: type_of(os.lstat(name, dir_fd=self.folder))
            for name in (b"file", b"link", b"fifo", b"socket", b".")
        }
        self.assertEqual(
            found,
            {
                b"file": EntryType.FILE,
                b"link": EntryType.SYMLINK,
                b"fifo": EntryType.FIFO,
                b"socket": EntryType.SOCKET,
                b".": EntryType.DIRECTORY,
            },
        )
        self.assertIs(type_of(os.stat("/dev/null")), EntryType.CHARACTER)

    def test_names_of_owners(self) -> None:
        """Owners have the names of this machine; a number without one has no name."""
        self.assertEqual(user_name(0), "root")
        self.assertEqual(group_name(0), "root")
        self.assertEqual(user_name(0x7FFFFFF0), "")
        self.assertEqual(group_name(0x7FFFFFF0), "")

    def test_attributes(self) -> None:
        """Attributes come sorted, by descriptor and by path, and a link's own are meant."""
        self.need_attributes()
        write(self.top + b"/file", b"")
        os.symlink(b"file", self.top + b"/link")
        for name in (b"user.b", b"user.a", b"user.c"):
            os.setxattr(self.top + b"/file", name, b"value of " + name)
        expected = tuple((name, b"value of " + name) for name in (b"user.a", b"user.b", b"user.c"))
        descriptor = os.open(self.top + b"/file", os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        self.assertEqual(read_attributes(descriptor), expected)
        self.assertEqual(read_attributes(through_proc(self.folder, b"file")), expected)
        self.assertEqual(read_attributes(through_proc(self.folder, b"link")), ())

    def test_attributes_of_what_is_not_there(self) -> None:
        """What is gone has no attributes; that is for somebody else to notice."""
        self.assertEqual(read_attributes(through_proc(self.folder, b"none")), ())


class WriteTests(Case):
    """What is given again."""

    def setUp(self) -> None:
        super().setUp()
        self.problems: list[tuple[bytes, str]] = []
        self.entry = Entry(b"/x", EntryType.FILE, 0o640, os.geteuid(), os.getegid(), "", "", OLD_NS)

    def writer(self, privileged: bool | None = None) -> MetadataWriter:
        return MetadataWriter(lambda path, reason: self.problems.append((path, reason)), privileged)

    def apply(self, entry: Entry, privileged: bool | None = None) -> os.stat_result:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.top + b"/file")
        write(self.top + b"/file", b"")
        descriptor = os.open(self.top + b"/file", os.O_RDWR)
        try:
            self.writer(privileged).apply(entry, descriptor)
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def test_mode_and_times(self) -> None:
        """Set-id bits and nanoseconds are kept, times before 1970 too."""
        for mode, mtime in ((0o4755, OLD_NS), (0o2070, -1_500_000_001), (0o1000, 0)):
            entry = self.entry._replace(mode=mode, mtime_ns=mtime)
            status = self.apply(entry)
            self.assertEqual(stat.S_IMODE(status.st_mode), mode)
            self.assertEqual(status.st_mtime_ns, mtime)
        self.assertEqual(self.problems, [])

    def test_owner_keeps_set_id_bits(self) -> None:
        """A new owner, which clears set-id bits, comes before the mode."""
        if not is_root():
            self.skipTest("only root gives files away")
        entry = self.entry._replace(mode=0o6755, uid=12345, gid=54321)
        status = self.apply(entry)
        self.assertEqual((status.st_uid, status.st_gid), (12345, 54321))
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o6755)

    def test_set_id_bits_without_the_owner(self) -> None:
        """Where the owner or group could not be set, nobody gets to run it with another's
        rights; a folder's bit, which says whom new files belong to, stays."""
        for changes, mode in (
            ({"uid": 12345}, 0o2755),
            ({"gid": 12345}, 0o4755),
            ({"uid": 12345, "gid": 12345}, 0o755),
            ({}, 0o6755),
        ):
            entry = self.entry._replace(mode=0o6755, **changes)  # type: ignore[arg-type]
            self.assertEqual(stat.S_IMODE(self.apply(entry, False).st_mode), mode)
        os.mkdir(self.top + b"/folder")
        descriptor = os.open(self.top + b"/folder", os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        entry = self.entry._replace(
            type=EntryType.DIRECTORY, mode=0o2755, gid=12345, size=0, runs=()
        )
        self.writer(False).apply(entry, descriptor)
        self.assertEqual(stat.S_IMODE(os.fstat(descriptor).st_mode), 0o2755)

    def test_owner_without_privileges(self) -> None:
        """Without privileges owners are left alone, and that is noted, not reported each time."""
        entry = self.entry._replace(uid=12345)
        write(self.top + b"/file", b"")
        descriptor = os.open(self.top + b"/file", os.O_RDWR)
        self.addCleanup(os.close, descriptor)
        writer = self.writer(privileged=False)
        writer.apply(self.entry, descriptor)
        self.assertFalse(writer.skipped_privileged)
        writer.apply(entry, descriptor)
        self.assertTrue(writer.skipped_privileged)
        self.assertEqual(os.fstat(descriptor).st_uid, os.geteuid())
        self.assertEqual(self.problems, [])

    def test_privileged_attributes_without_privileges(self) -> None:
        """Attributes that only root can set are not tried by others."""
        entry = self.entry._replace(xattrs=((b"security.x", b"1"), (b"trusted.x", b"1")))
        write(self.top + b"/file", b"")
        descriptor = os.open(self.top + b"/file", os.O_RDWR)
        self.addCleanup(os.close, descriptor)
        writer = self.writer(privileged=False)
        writer.apply(entry, descriptor)
        self.assertTrue(writer.skipped_privileged)
        self.assertEqual(read_attributes(descriptor), ())
        self.assertEqual(self.problems, [])

    def test_attributes_of_a_read_only_file(self) -> None:
        """Attributes are set although the mode forbids writing."""
        self.need_attributes()
        entry = self.entry._replace(mode=0o400, xattrs=((b"user.test", b"\0\xff"),))
        self.apply(entry)
        self.assertEqual(read_attributes(self.top + b"/file"), ((b"user.test", b"\0\xff"),))
        self.assertEqual(self.problems, [])

    def test_access_list(self) -> None:
        """An access control list comes after the mode, whose group bits are its mask."""
        value = access_list(12345)
        self.need_attributes(b"system.posix_acl_access", value)
        os.chmod(self.top + b"/probe", 0o640)
        os.setxattr(self.top + b"/probe", b"system.posix_acl_access", value)
        mode = stat.S_IMODE(os.stat(self.top + b"/probe").st_mode)
        entry = self.entry._replace(mode=mode, xattrs=((b"system.posix_acl_access", value),))
        status = self.apply(entry)
        self.assertEqual(stat.S_IMODE(status.st_mode), mode)
        again = dict(read_attributes(self.top + b"/file"))
        self.assertEqual(again[b"system.posix_acl_access"], value)

    def test_inherited_access_list(self) -> None:
        """A list that comes from the folder, and not from the backup, goes."""
        value = access_list(12345)
        self.need_attributes(b"system.posix_acl_access", value)
        os.setxattr(self.top, b"system.posix_acl_default", value)
        self.apply(self.entry)
        self.assertEqual(read_attributes(self.top + b"/file"), ())
        os.mkdir(self.top + b"/folder")
        self.assertEqual(len(read_attributes(self.top + b"/folder")), 2)
        descriptor = os.open(self.top + b"/folder", os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        entry = self.entry._replace(type=EntryType.DIRECTORY, size=0, runs=())
        self.writer().apply(entry, descriptor)
        self.assertEqual(read_attributes(self.top + b"/folder"), ())
        os.mkfifo(self.top + b"/fifo")
        entry = self.entry._replace(type=EntryType.FIFO, mode=0o622)
        self.writer().apply_to_name(entry, self.folder, b"fifo")
        self.assertEqual(read_attributes(self.top + b"/fifo"), ())

    def test_what_cannot_be_set_is_reported(self) -> None:
        """An attribute that the system refuses is reported with the path, and the rest goes on."""
        entry = self.entry._replace(xattrs=((b"nonsense", b"1"),))
        status = self.apply(entry)
        self.assertEqual(status.st_mtime_ns, OLD_NS)
        self.assertEqual(len(self.problems), 1)
        self.assertEqual(self.problems[0][0], b"/x")
        self.assertIn("attribute 'nonsense' could not be set", self.problems[0][1])

    def test_link(self) -> None:
        """A link gets its own times and owner; what it points to stays as it is."""
        write(self.top + b"/file", b"", 0o600, mtime_ns=5)
        os.symlink(b"file", self.top + b"/link")
        owner = 12345 if is_root() else os.geteuid()
        entry = self.entry._replace(type=EntryType.SYMLINK, target=b"file", mode=0o777, uid=owner)
        self.writer().apply_to_name(entry, self.folder, b"link")
        status = os.lstat(self.top + b"/link")
        self.assertEqual((status.st_mtime_ns, status.st_uid), (OLD_NS, owner))
        other = os.lstat(self.top + b"/file")
        self.assertEqual((other.st_mtime_ns, other.st_uid), (5, os.geteuid()))
        self.assertEqual(stat.S_IMODE(other.st_mode), 0o600)
        self.assertEqual(self.problems, [])

    def test_exchanged(self) -> None:
        """What is not the thing that was made, or has other names, is left alone."""
        write(self.top + b"/victim", b"", 0o600, mtime_ns=5)
        os.mkfifo(self.top + b"/fifo", 0o600)
        os.link(self.top + b"/fifo", self.top + b"/fifo2")
        os.symlink(b"fifo", self.top + b"/link")
        os.link(self.top + b"/victim", self.top + b"/other")
        entry = self.entry._replace(type=EntryType.FIFO, mode=0o777)
        for name in (b"victim", b"fifo2", b"link", b"other"):
            with self.assertRaises(OSError):
                self.writer().apply_to_name(entry, self.folder, name)
        self.assertEqual(os.stat(self.top + b"/victim").st_mtime_ns, 5)
        for name in (b"victim", b"fifo"):
            self.assertEqual(stat.S_IMODE(os.stat(self.top + b"/" + name).st_mode), 0o600)

    def test_fifo(self) -> None:
        """A FIFO, which must not be opened, gets everything too."""
        os.mkfifo(self.top + b"/fifo", 0o600)
        entry = self.entry._replace(type=EntryType.FIFO, mode=0o622)
        self.writer().apply_to_name(entry, self.folder, b"fifo")
        status = os.lstat(self.top + b"/fifo")
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o622)
        self.assertEqual(status.st_mtime_ns, OLD_NS)
        self.assertEqual(self.problems, [])
