"""The comparison must find every way in which trees differ, or the other tests prove nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.comparison import compare_trees
from tests.backup.trees import ODD_NAMES, age_tree, is_root, set_attribute, write


class CompareTests(SynchronousTestCase):
    """Two trees that are the same, and then one difference at a time."""

    def setUp(self) -> None:
        top = os.path.abspath(self.mktemp()).encode()
        self.left, self.right = top + b"/left", top + b"/right"
        for side in (self.left, self.right):
            write(side + b"/folder/file", b"x" * 3_000_000)
            write(side + b"/folder/other", b"other")
            for name in ODD_NAMES:
                write(side + b"/odd/" + name, name)
            os.link(side + b"/folder/other", side + b"/folder/again")
            os.symlink(b"file", side + b"/folder/link")
            os.mkfifo(side + b"/folder/fifo")
            age_tree(side)

    def differences(self) -> list[tuple[bytes, str]]:
        found = compare_trees(self.left, self.right)
        for difference in found:
            self.assertIn(difference.aspect, str(difference))
        return [(difference.path, difference.aspect) for difference in found]

    def check(self, change: Callable[[bytes], object], *expected: tuple[bytes, str]) -> None:
        """``change`` the right side, with its times kept, and see what is found."""
        change(self.right)
        age_tree(self.right)
        self.assertEqual(self.differences(), list(expected))

    def test_same(self) -> None:
        """Equal trees have no differences, with a slash at their ends too."""
        self.assertEqual(self.differences(), [])
        self.assertEqual(compare_trees(self.left + b"/", self.right + b"//"), [])

    def test_relative_paths(self) -> None:
        """The roots may be relative paths, one name too."""
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(os.path.dirname(self.left))
        self.assertEqual(compare_trees(b"left", b"right"), [])
        self.assertEqual(compare_trees(b"left", b"./right"), [])

    def test_content(self) -> None:
        """One bit near the end of a large file."""

        def flip(side: bytes) -> None:
            with open(side + b"/folder/file", "r+b") as file:
                file.seek(2_999_999)
                file.write(b"y")

        self.check(flip, (b"folder/file", "content"))

    def test_size(self) -> None:
        """A byte more."""
        self.check(
            lambda side: os.truncate(side + b"/folder/file", 3_000_001), (b"folder/file", "size")
        )

    def test_missing_on_either_side(self) -> None:
        """A name that only one side has, as the first thing that is looked at in its folder."""
        os.unlink(self.left + b"/odd/" + ODD_NAMES[0])
        os.unlink(self.right + b"/odd/" + ODD_NAMES[1])
        age_tree(self.left)
        age_tree(self.right)
        found = set(self.differences())
        self.assertIn((b"odd/" + ODD_NAMES[0], "missing"), found)
        self.assertIn((b"odd/" + ODD_NAMES[1], "missing"), found)

    def test_type(self) -> None:
        """A link in the place of a file."""

        def exchange(side: bytes) -> None:
            os.unlink(side + b"/folder/file")
            os.symlink(b"other", side + b"/folder/file")

        self.check(exchange, (b"folder/file", "type"))

    def test_mode(self) -> None:
        """Other permission bits, of a folder and of the root itself too."""

        def change(side: bytes) -> None:
            os.chmod(side + b"/folder/file", 0o600)
            os.chmod(side + b"/folder", 0o700)
            os.chmod(side, 0o711)

        self.check(change, (b".", "mode"), (b"folder", "mode"), (b"folder/file", "mode"))

    def test_time(self) -> None:
        """A nanosecond, of a file, a link and a folder."""
        for name in (b"/folder/file", b"/folder/link", b"/odd"):
            when = os.lstat(self.right + name).st_mtime_ns + 1
            os.utime(self.right + name, ns=(when, when), follow_symlinks=False)
        found = [(b"folder/file", "mtime"), (b"folder/link", "mtime"), (b"odd", "mtime")]
        self.assertEqual(self.differences(), found)

    def test_target(self) -> None:
        """A link that points elsewhere."""

        def change(side: bytes) -> None:
            os.unlink(side + b"/folder/link")
            os.symlink(b"./file", side + b"/folder/link")

        self.check(change, (b"folder/link", "target"))

    def test_links(self) -> None:
        """Two files of equal content that are not two names of one."""

        status = os.stat(self.right + b"/folder/other")
        os.unlink(self.right + b"/folder/other")
        shutil.copy2(self.right + b"/folder/again", self.right + b"/folder/other")
        os.utime(self.right + b"/folder/other", ns=(0, status.st_mtime_ns))
        when = os.stat(self.left + b"/folder").st_mtime_ns
        os.utime(self.right + b"/folder", ns=(0, when))
        self.assertEqual(self.differences(), [(b"folder/other", "links")])

    def test_attributes(self) -> None:
        """An attribute that only one side has."""
        if not set_attribute(self.right + b"/folder/file", b"user.test", b"1"):
            self.skipTest("this file system has no attributes")
        self.assertEqual(self.differences(), [(b"folder/file", "attributes")])

    def test_owner(self) -> None:
        """Another owner, where this is root; others do not compare owners."""
        if not is_root():
            self.skipTest("only root gives files away")
        os.chown(self.right + b"/folder/fifo", 12345, 0)
        self.assertEqual(self.differences(), [(b"folder/fifo", "owner")])
        self.assertEqual(compare_trees(self.left, self.right, privileged=False), [])

    def test_device(self) -> None:
        """Another device behind a special file."""
        if not is_root():
            self.skipTest("only root makes devices")
        os.mknod(self.left + b"/device", 0o20600, os.makedev(1, 3))
        os.mknod(self.right + b"/device", 0o20600, os.makedev(1, 5))
        age_tree(self.left)
        age_tree(self.right)
        self.assertEqual(self.differences(), [(b"device", "device")])

    def test_single_files(self) -> None:
        """The roots may be files."""
        left, right = self.left + b"/folder/file", self.right + b"/folder/file"
        self.assertEqual(compare_trees(left, right), [])
        with open(right, "ab") as file:
            file.write(b"!")
        self.assertEqual(
            {difference.aspect for difference in compare_trees(left, right)}, {"size", "mtime"}
        )
