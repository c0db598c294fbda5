"""Small files in folders that the restore has just made."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from cloudconnect.backup import small_files
from cloudconnect.backup.small_files import SmallFiles, is_small
from cloudconnect.content.runs import Run
from tests.backup.test_placing import Case
from tests.backup.trees import OLD_NS, is_root, write


class SmallFilesTests(Case):
    """Single files."""

    def setUp(self) -> None:
        super().setUp()
        self.files = SmallFiles(self.metadata)
        self.us = (os.geteuid(), os.getegid())

    def make(
        self, name: bytes, owner: tuple[int, int] | None, *pieces: bytes, **changes: Any
    ) -> tuple[int, int]:
        entry = self.entry._replace(**changes)
        return self.files.write(entry, self.parent, name, pieces, owner)

    def look(self, name: bytes) -> tuple[int, int, bytes]:
        """Mode, time and content of a file."""
        path = self.top + b"/" + name
        status = os.lstat(path)
        with open(path, "rb") as file:
            return stat.S_IMODE(status.st_mode), status.st_mtime_ns, file.read()

    def test_first_and_next(self) -> None:
        """The first file tells who owns what is made here; the next ones rely on it."""
        owner = self.make(b"first", None, b"one ", b"two")
        self.assertEqual(owner, self.us)
        self.assertEqual(self.look(b"first"), (0o640, OLD_NS, b"one two"))
        self.assertEqual(self.make(b"next", owner, b"three"), self.us)
        self.assertEqual(self.look(b"next"), (0o640, OLD_NS, b"three"))
        self.make(b"empty", owner)
        self.assertEqual(self.look(b"empty"), (0o640, OLD_NS, b""))

    def test_modes(self) -> None:
        """Whatever the umask, and with set-id bits, the mode is the entry's."""
        before = os.umask(0o027)
        self.addCleanup(os.umask, before)
        files = SmallFiles(self.metadata)
        for mode in (0o000, 0o444, 0o640, 0o666, 0o755, 0o777, 0o4755, 0o1644):
            entry = self.entry._replace(mode=mode)
            files.write(entry, self.parent, b"%o" % mode, [b"x"], self.us)
            found = stat.S_IMODE(os.lstat(self.top + b"/%o" % mode).st_mode)
            self.assertEqual(found, mode)

    def test_unknown_umask(self) -> None:
        """Where the umask cannot be read every mode is set."""
        self.patch(small_files, "_STATUS", small_files.Path(os.fsdecode(self.top)) / "none")
        files = SmallFiles(self.metadata)
        entry = self.entry._replace(mode=0o666)
        files.write(entry, self.parent, b"x", [], self.us)
        self.assertEqual(self.look(b"x")[0], 0o666)

    def test_another_owner(self) -> None:
        """A file of somebody else's gets its owner where that can be, or says that it has not."""
        self.make(b"x", self.us, b"x", uid=12345, gid=54321, mode=0o755)
        status = os.lstat(self.top + b"/x")
        owner = (12345, 54321) if is_root() else self.us
        self.assertEqual((status.st_uid, status.st_gid), owner)
        self.assertEqual(self.metadata.skipped_privileged, not is_root())

    def test_attributes(self) -> None:
        """Extended attributes are set."""
        self.make(b"x", self.us, b"x", xattrs=((b"user.a", b"1"),))
        self.assertEqual(os.getxattr(self.top + b"/x", "user.a"), b"1")

    def test_taken(self) -> None:
        """What has the name already is neither written to nor removed."""
        write(self.top + b"/victim", b"victim")
        os.symlink(self.top + b"/victim", self.top + b"/x")
        self.assertRaises(FileExistsError, self.make, b"x", self.us, b"evil")
        self.assertEqual(self.names(), [b"victim", b"x"])
        self.assertEqual(self.look(b"victim")[2], b"victim")

    def test_short_writes(self) -> None:
        """A file system that takes less than it was given gets the rest again."""
        real = os.pwrite
        self.patch(os, "pwrite", lambda fd, data, position: real(fd, data[:3], position))
        self.make(b"x", self.us, b"01234567", b"89")
        self.assertEqual(self.look(b"x")[2], b"0123456789")

    def test_full(self) -> None:
        """Of a file that cannot be written nothing is left, no descriptor either."""
        before = len(os.listdir("/proc/self/fd"))

        def full(descriptor: int, data: bytes, position: int) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(os, "pwrite", full)
        self.assertRaises(OSError, self.make, b"x", self.us, b"x")
        self.assertEqual(self.names(), [])
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_time_that_cannot_be(self) -> None:
        """A time that the system refuses is told of, and the file stays."""

        def refuse(*arguments: Any, **more: Any) -> None:
            raise OverflowError("too far")

        self.patch(os, "utime", refuse)
        self.make(b"x", self.us, b"x")
        self.assertEqual(self.problems, ["its times could not be set: too far"])
        self.assertEqual(self.names(), [b"x"])

    def test_small(self) -> None:
        """Large files, the content of devices, and what has further names are not for this."""
        runs = [
            (),
            (Run(None, 0, small_files.SMALL_MAX),),
            (Run(None, 0, small_files.SMALL_MAX + 1),),
        ]
        entries = [self.entry._replace(size=sum(run.length for run in of), runs=of) for of in runs]
        entries += [self.entry._replace(flags=flags) for flags in (1, 2, 8)]
        found = [is_small(entry) for entry in entries]
        self.assertEqual(found, [True, True, False, True, False, False])
