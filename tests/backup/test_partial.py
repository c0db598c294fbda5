"""Unfinished files, and who may go on with them."""

from __future__ import annotations

import fcntl
import os

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.partial import (
    check_name,
    create,
    is_partial_name,
    partial_name,
    resume,
)
from tests.backup.trees import is_root, set_attribute, write

NAME = partial_name(b"/home/a")


class PartialTests(SynchronousTestCase):
    """One folder."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        os.mkdir(self.top)
        self.path = self.top + b"/" + NAME
        self.parent = os.open(self.top, os.O_RDONLY)
        self.addCleanup(os.close, self.parent)

    def resumed(self) -> bytes | None:
        """What is found of an earlier restore."""
        descriptor = resume(self.parent, NAME)
        if descriptor is None:
            return None
        try:
            return os.pread(descriptor, 100, 0)
        finally:
            os.close(descriptor)

    def create(self) -> tuple[int, bytes]:
        descriptor, name = create(self.parent, NAME, b"other")
        self.addCleanup(os.close, descriptor)
        return descriptor, name

    def test_names(self) -> None:
        """A path always has the same name, and each path one of its own."""
        self.assertEqual(NAME, partial_name(b"/home/a"))
        self.assertNotEqual(NAME, partial_name(b"/home/b"))
        self.assertTrue(is_partial_name(NAME))
        self.assertLess(len(NAME), 100)
        for name in (b"a", b".cloudconnect-1", b"x.partial", b""):
            self.assertFalse(is_partial_name(name))

    def test_resume(self) -> None:
        """What was left is found again."""
        self.assertIsNone(self.resumed())
        descriptor, name = create(self.parent, NAME, b"other")
        self.assertEqual(name, NAME)
        os.write(descriptor, b"half")
        self.assertIsNone(self.resumed())  # it is still being written
        os.close(descriptor)
        self.assertEqual(self.resumed(), b"half")

    def test_not_ours(self) -> None:
        """What somebody else can have made or touched is not used, and goes when it is in the
        way."""
        write(self.top + b"/victim", b"victim", 0o600)
        cases = {
            "mode": lambda: write(self.path, b"x", 0o644),
            "group may write": lambda: write(self.path, b"x", 0o620),
            "symlink": lambda: os.symlink(b"victim", self.path),
            "hard link": lambda: os.link(self.top + b"/victim", self.path),
            "fifo": lambda: os.mkfifo(self.path, 0o600),
        }
        if is_root():
            cases["owner"] = lambda: (
                write(self.path, b"x", 0o600),
                os.chown(self.path, 12345, -1),
            )[0]
        if set_attribute(self.top + b"/victim", b"user.test", b"x"):
            cases["attribute"] = lambda: (
                write(self.path, b"x", 0o600),
                set_attribute(self.path, b"user.x", b"y"),
            )[0]
        for what, make in cases.items():
            make()
            self.assertIsNone(self.resumed(), what)
            descriptor, name = create(self.parent, NAME, b"other")
            self.assertEqual((name, os.fstat(descriptor).st_size), (NAME, 0), what)
            os.close(descriptor)
            os.unlink(self.path)
        with open(self.top + b"/victim", "rb") as file:
            self.assertEqual(file.read(), b"victim")

    def test_folder(self) -> None:
        """A folder of that name stays, and the file gets another one."""
        os.mkdir(self.path)
        self.assertIsNone(self.resumed())
        self.assertEqual(self.create()[1], b"other")
        self.assertTrue(os.path.isdir(self.path))

    def test_another_restore(self) -> None:
        """What another restore is writing is left to it."""
        first, _ = self.create()
        os.write(first, b"first")
        self.assertEqual(self.create()[1], b"other")
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"first")

    def test_finished_while_locking(self) -> None:
        """What gets its own name just then is not written to any more."""
        write(self.path, b"done", 0o600)
        real = fcntl.flock

        def finished(descriptor: int, how: int) -> None:
            os.rename(self.path, self.top + b"/own name")
            real(descriptor, how)

        self.patch(fcntl, "flock", finished)
        self.assertIsNone(self.resumed())

    def test_check_name(self) -> None:
        """A file that was exchanged, or moved away, does not have its name."""
        descriptor, _ = self.create()
        check_name(os.fstat(descriptor), self.parent, NAME)
        os.rename(self.path, self.top + b"/moved")
        self.assertRaises(OSError, check_name, os.fstat(descriptor), self.parent, NAME)
        write(self.path, b"another")
        self.assertRaises(OSError, check_name, os.fstat(descriptor), self.parent, NAME)

    def test_no_descriptor_is_left(self) -> None:
        """Whatever is found, nothing stays open."""
        before = len(os.listdir("/proc/self/fd"))
        for make in (
            lambda: None,
            lambda: write(self.path, b"x", 0o600),
            lambda: write(self.path, b"x", 0o644),
            lambda: os.chmod(self.path, 0o000),
        ):
            make()
            self.resumed()
        descriptor, _ = create(self.parent, NAME, b"other")
        os.close(descriptor)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
