"""The folder that a restore writes below: nothing leads out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import target as target_module
from cloudconnect.backup.target import UNFINISHED, Parts, PathParts, Target, is_unfinished, parts_of
from cloudconnect.errors import UnsafePath
from tests.backup.trees import remove_deep, write


class PartsTests(SynchronousTestCase):
    """Paths as restore points have them."""

    def test_good(self) -> None:
        """Absolute paths of plain names, of any bytes."""
        self.assertEqual(parts_of(b"/"), ())
        self.assertEqual(parts_of(b"/a/b\xff/c\n"), (b"a", b"b\xff", b"c\n"))
        self.assertEqual(parts_of(b"/..."), (b"...",))
        self.assertEqual(parts_of(b"/" + b"x" * 255), (b"x" * 255,))

    def test_in_a_row(self) -> None:
        """Paths that come one behind the other are split as each by itself, and what is stripped is
        taken from each."""
        paths = (b"/", b"/a", b"/a/b", b"/a/c", b"/a/c/d", b"/e", b"/a/b/c", b"/a/b/d")
        for strip in range(4):
            split = PathParts(strip)
            for path in paths:
                self.assertEqual(split.of(path), parts_of(path)[strip:])
        split = PathParts()
        for bad in (b"/a/..", b"/a/.", b"/a/", b"a", b"", b"/a/x\0", b"/a//x", b"/a/" + b"n" * 256):
            split.of(b"/a/b")
            self.assertRaises(UnsafePath, split.of, bad)

    def test_refused(self) -> None:
        """What is relative, dotted, empty, has NUL, or a name that is too long."""
        bad = [b"", b"a", b"a/b", b"/a/../b", b"/..", b"/.", b"/a/.", b"//", b"/a//b", b"/a/"]
        bad += [b"/a\0b", b"../a", b"/" + b"x" * 256]
        for path in bad:
            with self.assertRaises(UnsafePath, msg=repr(path)):
                parts_of(path)

    @given(st.binary(max_size=30))
    def test_accepted_paths_stay_below(self, path: bytes) -> None:
        """Whatever is accepted names a place below, however the system would resolve it."""
        try:
            parts = parts_of(path)
        except UnsafePath:
            return
        joined = os.path.normpath(b"/target/" + b"/".join(parts))
        self.assertTrue((joined + b"/").startswith(b"/target/"))
        self.assertEqual(joined.count(b"/"), 1 + len(parts))


class TargetTests(SynchronousTestCase):
    """Going from folder to folder."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        os.makedirs(self.top + b"/outside")
        self.target = Target(self.top + b"/target", create=True)
        self.open = True
        self.left: list[tuple[Parts, int]] = []

    def tearDown(self) -> None:
        self.close()

    def close(self) -> None:
        if self.open:
            self.open = False
            self.target.close()

    def make(self, parts: Parts) -> Callable[[int], None]:
        def leave(descriptor: int) -> None:
            self.left.append((parts, descriptor))

        return leave

    def put(self, *parts: bytes) -> None:
        """Make a file in a folder, folders on the way too."""
        folder = self.target.enter(parts[:-1], self.make)
        os.close(os.open(parts[-1], os.O_WRONLY | os.O_CREAT, dir_fd=folder))

    def test_make(self) -> None:
        """Missing folders are made, for nobody else to enter until they are finished."""
        self.put(b"a", b"b", b"file")
        self.assertTrue(os.path.exists(self.top + b"/target/a/b/file"))
        mode = stat.S_IMODE(os.stat(self.top + b"/target/a").st_mode)
        self.assertEqual(mode, UNFINISHED)
        self.assertEqual(UNFINISHED & 0o777, 0o700)

    def test_unfinished(self) -> None:
        """What another restore has left unfinished is finished when it is left, and is not new."""
        os.makedirs(self.top + b"/target/a")
        os.makedirs(self.top + b"/target/b/c", 0o700)
        self.target.enter((b"a",), self.make)
        os.chmod(self.top + b"/target/b/c", UNFINISHED | stat.S_ISGID)
        self.target.enter((b"b", b"c"), self.make)
        self.assertIsNone(self.target.fresh)
        self.target.enter(())
        self.assertEqual([parts for parts, _ in self.left], [(b"b", b"c")])

    def test_two_restores(self) -> None:
        """An unfinished folder is finished by the restore that made it, should another one come,
        and by the other one once the first is gone."""
        self.put(b"a", b"file")
        finished: list[str] = []
        for who in ("early", "late"):
            other = Target(self.top + b"/target", create=False)
            other.enter((b"a",), lambda parts: lambda descriptor: finished.append("made"))
            self.assertIsNone(other.fresh)
            other.on_leave(lambda descriptor, who=who: finished.append(who))  # type: ignore[misc]
            other.close()
            self.close()
        self.assertEqual(([parts for parts, _ in self.left], finished), ([(b"a",)], ["late"]))

    def test_ignored_mode(self) -> None:
        """Where the file system ignores what says so, no folder is taken for new."""
        real = os.mkdir
        self.patch(os, "mkdir", lambda path, mode, **more: real(path, mode & 0o777, **more))
        self.target.enter((b"a",), self.make)
        self.assertIsNone(self.target.fresh)

    def test_is_unfinished(self) -> None:
        """Only a folder of just that mode is unfinished; the set-group-id bit does not count."""
        folder, file = self.top + b"/folder", self.top + b"/file"
        os.mkdir(folder)
        write(file, b"")
        found = []
        for mode in (0o700, 0o1700, 0o3700, 0o1710, 0o1777, 0o5700):
            os.chmod(folder, mode)
            found.append(is_unfinished(os.stat(folder)))
        os.chmod(file, 0o1700)
        found.append(is_unfinished(os.stat(file)))
        self.assertEqual(found, [False, True, True, False, False, False, False])

    def test_status(self) -> None:
        """What is in a place is looked at without following links; what cannot be is nothing."""
        write(self.top + b"/target/a/file", b"four")
        os.symlink(b"a", self.top + b"/target/link")
        status = self.target.status((b"a", b"file"))
        assert status is not None
        self.assertEqual(status.st_size, 4)
        link = self.target.status((b"link",))
        assert link is not None
        self.assertTrue(stat.S_ISLNK(link.st_mode))
        for parts in ((b"none",), (b"none", b"x"), (b"link", b"file")):
            self.assertIsNone(self.target.status(parts))

    def test_fresh(self) -> None:
        """A folder is known as new from when it was made until it is left."""
        os.makedirs(self.top + b"/target/old")
        fresh = []
        for parts in ((b"old",), (b"new",), (b"new", b"in"), (b"new",), (b"old",), (b"new",), ()):
            self.target.enter(parts, self.make)
            fresh.append(self.target.fresh is not None)
        self.assertEqual(fresh, [False, True, True, True, False, False, False])

    def test_leaving(self) -> None:
        """A folder is left after everything in it, the lower ones first."""
        self.put(b"a", b"b", b"x")
        self.put(b"a", b"c", b"x")
        self.assertEqual([parts for parts, _ in self.left], [(b"a", b"b")])
        self.put(b"x")
        self.assertEqual([parts for parts, _ in self.left], [(b"a", b"b"), (b"a", b"c"), (b"a",)])
        self.put(b"d", b"x")
        self.close()
        self.assertEqual(self.left[-1][0], (b"d",))

    def test_without_making(self) -> None:
        """Where nothing is to be made, what is missing is missing."""
        with self.assertRaises(FileNotFoundError):
            self.target.enter((b"a",))
        self.assertEqual(os.listdir(self.top + b"/target"), [])
        with self.assertRaises(FileNotFoundError):
            Target(self.top + b"/none", create=False)

    def test_links_are_not_followed(self) -> None:
        """A link in the place of a folder is an obstacle, wherever it stands."""
        os.symlink(b"../outside", self.top + b"/target/link")
        for parts in ((b"link",), (b"link", b"below")):
            with self.assertRaises(NotADirectoryError):
                self.target.enter(parts, self.make)
        with self.assertRaises(OSError):
            self.target.enter((b"link",))
        self.assertEqual(os.listdir(self.top + b"/outside"), [])

    def test_replace(self) -> None:
        """If so asked, a link or file that has the folder's own name goes; one above stays."""
        os.symlink(b"../outside", self.top + b"/target/link")
        write(self.top + b"/target/file", b"x")
        with self.assertRaises(NotADirectoryError):
            self.target.enter((b"link", b"below"), self.make, replace=True)
        self.assertTrue(os.path.islink(self.top + b"/target/link"))
        self.target.enter((b"link",), self.make, replace=True)
        self.target.enter((b"file",), self.make, replace=True)
        self.put(b"link", b"inside")
        self.assertEqual(os.listdir(self.top + b"/target/link"), [b"inside"])
        self.assertEqual(os.listdir(self.top + b"/outside"), [])

    def test_exchanged_while_inside(self) -> None:
        """A folder that is moved and exchanged for a link meanwhile is still the real one."""
        folder = self.target.enter((b"a",), self.make)
        os.rename(self.top + b"/target/a", self.top + b"/target/moved")
        os.symlink(b"../outside", self.top + b"/target/a")
        os.close(os.open(b"file", os.O_WRONLY | os.O_CREAT, dir_fd=folder))
        self.assertEqual(os.listdir(self.top + b"/target/moved"), [b"file"])
        with self.assertRaises(OSError):
            self.put(b"b", b"x")
            self.put(b"a", b"x")
        self.assertEqual(os.listdir(self.top + b"/outside"), [])

    def test_beside(self) -> None:
        """Another folder can be looked into without leaving; links are not followed there."""
        self.put(b"a", b"file")
        self.put(b"b", b"file")
        self.left.clear()
        with self.target.beside((b"a",)) as folder:
            self.assertEqual(os.listdir(folder), ["file"])
        self.assertEqual(self.left, [])
        os.symlink(b"../outside", self.top + b"/target/link")
        with self.assertRaises(OSError), self.target.beside((b"link",)):
            self.fail("a link was followed")

    def test_deep(self) -> None:
        """However deep a branch, few folders are open, and all are left with a descriptor."""
        self.patch(target_module, "OPEN_FOLDERS_MAX", 4)
        baseline = len(os.listdir("/proc/self/fd"))
        deep = tuple(b"d" * 200 for _ in range(40))
        self.addCleanup(lambda: remove_deep(self.top + b"/target"))
        self.put(*deep, b"bottom")
        self.assertLess(len(os.listdir("/proc/self/fd")) - baseline, 8)
        self.put(*deep[:20], b"middle")
        self.put(b"top")
        self.assertEqual(len(self.left), 40)
        self.assertTrue(all(descriptor >= 0 for _, descriptor in self.left))
        self.close()
        self.assertLess(len(os.listdir("/proc/self/fd")), baseline)

    def test_exchanged_while_closed(self) -> None:
        """A folder that was closed as the branch is deep, and exchanged, is not entered again."""
        self.patch(target_module, "OPEN_FOLDERS_MAX", 2)
        self.put(b"a", b"b", b"c", b"d", b"x")
        os.rename(self.top + b"/target/a", self.top + b"/target/old")
        os.makedirs(self.top + b"/target/a/b")
        with self.assertRaises(UnsafePath):
            self.put(b"a", b"b", b"y")
        self.assertEqual(os.listdir(self.top + b"/target/a/b"), [])
        self.close()
        self.assertIn(((b"a",), -1), self.left)

    def test_read_only_folder(self) -> None:
        """A folder of one's own without write permission is made writable when it is entered."""
        if os.geteuid() == 0:
            self.skipTest("root may write everywhere")
        os.makedirs(self.top + b"/target/a")
        os.chmod(self.top + b"/target/a", 0o500)
        self.target.enter((b"a",), self.make)
        self.target.make_writable()
        self.put(b"a", b"file")

    def test_temporary_names(self) -> None:
        """Temporary names differ, within a restore and between two."""
        names = {self.target.temporary_name() for _ in range(100)}
        self.assertEqual(len(names), 100)
        other = Target(self.top + b"/target", create=False)
        self.addCleanup(other.close)
        self.assertNotIn(other.temporary_name(), names)
