"""Tests for cloudconnect.repository.blobs."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cloudconnect.errors import NoSpace, NotFound, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore, IBlobWriter
from cloudconnect.repository import blobs
from cloudconnect.repository.blobs import LocalBlobStore
from tests.repository.repositories import failing

#: Writes a temporary file as a session would, says so, and waits to be killed.
WRITER = """
import sys
from cloudconnect.repository.blobs import LocalBlobStore
store = LocalBlobStore(sys.argv[1])
writer = store.begin()
writer.write(b"unfinished")
writer.read(0, 1)
print("ready", flush=True)
sys.stdin.read()
"""


class StoreCase(SynchronousTestCase):
    """A test with a store in a directory."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.store = self.another()

    def another(self, **options: Any) -> LocalBlobStore:
        store = LocalBlobStore(str(self.directory), **options)
        self.addCleanup(store.close)
        return store

    def temporary(self) -> list[str]:
        return os.listdir(self.directory / "temporary")


class StoreTests(StoreCase):
    """Blobs come and go by name."""

    def test_interfaces(self) -> None:
        """Both classes provide what they say."""
        verifyObject(IBlobStore, self.store)
        writer = self.store.begin()
        self.addCleanup(writer.discard)
        verifyObject(IBlobWriter, writer)

    def test_round_trip(self) -> None:
        """What was put can be read by position, also by another store on the directory."""
        self.assertEqual(self.store.put("packs/ab", [b"hello", memoryview(b"world")]), 10)
        for store in (self.store, self.another()):
            self.assertEqual(store.size("packs/ab"), 10)
            self.assertEqual(store.read("packs/ab", 0, 10), b"helloworld")
            self.assertEqual(store.read("packs/ab", 4, 3), b"owo")
            self.assertEqual(store.read("packs/ab", 10, 0), b"")

    def test_missing(self) -> None:
        """What is not there is not found, in a folder that is not there neither."""
        for name in ("a", "packs/a", "a/b/c"):
            self.assertRaises(NotFound, self.store.read, name, 0, 1)
            self.assertRaises(NotFound, self.store.size, name)
            self.store.remove(name)

    def test_short(self) -> None:
        """Bytes behind the end are damage, not an empty answer."""
        self.store.put("a", [b"12345"])
        self.assertRaises(StoredDataDamaged, self.store.read, "a", 3, 3)

    def test_remove(self) -> None:
        """What was removed is not found, and its name is free again."""
        self.store.put("a/b", [b"one"])
        self.store.remove("a/b")
        self.assertRaises(NotFound, self.store.size, "a/b")
        self.store.put("a/b", [b"two"])
        self.assertEqual(self.store.read("a/b", 0, 3), b"two")

    def test_no_overwriting(self) -> None:
        """A name that is taken stays what it is, and the attempt leaves nothing behind."""
        self.store.put("a", [b"one"])
        self.assertRaises(FileExistsError, self.store.put, "a", [b"two"])
        self.assertEqual(self.store.read("a", 0, 3), b"one")
        self.assertEqual(self.temporary(), [])

    def test_names(self) -> None:
        """Names come in order, below a prefix, and without what is unfinished or not ours."""
        for name in ("b/two", "a-b", "a/b", "b/one", "c"):
            self.store.put(name, [b"x"])
        (self.directory / "catalogue.sqlite").write_bytes(b"")
        writer = self.store.begin()
        self.addCleanup(writer.discard)
        self.assertEqual(list(self.store.names()), ["a-b", "a/b", "b/one", "b/two", "c"])
        self.assertEqual(list(self.store.names("b/")), ["b/one", "b/two"])
        self.assertEqual(list(self.store.names("b/t")), ["b/two"])
        self.assertEqual(list(self.store.names("a")), ["a-b", "a/b"])
        self.assertEqual(list(self.store.names("x/y")), [])

    def test_bad_names(self) -> None:
        """A name that could leave the directory, or is none, is refused before anything is done."""
        for name in (
            "",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a/..",
            ".",
            "A",
            "a b",
            "ä",
            "a\n",
            "a" * 201,
        ):
            with self.subTest(name=name):
                self.assertRaises(ValueError, self.store.put, name, [b"x"])
                self.assertRaises(ValueError, self.store.read, name, 0, 1)

    def test_modes(self) -> None:
        """Nobody but the owner can look in."""
        self.store.put("packs/a", [b"x"])
        for path, mode in ((".", 0o700), ("packs", 0o700), ("packs/a", 0o600)):
            found = stat.S_IMODE((self.directory / path).stat().st_mode)
            self.assertEqual(found & ~mode, 0, path)

    def test_links(self) -> None:
        """A symbolic link is not followed, neither as a blob nor as a folder nor as the whole."""
        elsewhere = Path(self.mktemp())
        elsewhere.mkdir()
        (elsewhere / "secret").write_bytes(b"secret")
        (self.directory / "link").symlink_to(elsewhere / "secret")
        (self.directory / "folder").symlink_to(elsewhere)
        for name in ("link", "folder/secret"):
            self.assertRaises(OSError, self.store.read, name, 0, 1)
        self.assertRaises(OSError, self.store.put, "folder/new", [b"x"])
        self.assertEqual(os.listdir(elsewhere), ["secret"])
        whole = Path(self.mktemp())
        whole.symlink_to(self.directory.absolute())
        self.assertRaises(OSError, LocalBlobStore, str(whole))

    def test_closed(self) -> None:
        """A closed store does nothing more."""
        self.store.close()
        self.store.close()
        self.assertRaises(ValueError, self.store.begin)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.binary(max_size=40), max_size=12))
    def test_any_parts(self, parts: list[bytes]) -> None:
        """Whatever the sizes of the parts, the blob is their sum, and is readable as it grows."""
        self.patch(blobs, "BUFFER_SIZE", 16)
        writer = self.store.begin()
        whole = b""
        for part in parts:
            reused = bytearray(part)
            writer.write(reused)
            reused[:] = bytes(len(reused))
            whole += part
            self.assertEqual(writer.size, len(whole))
        self.assertEqual(writer.read(3, 1000), whole[3:])
        self.assertEqual(writer.commit("a"), len(whole))
        self.assertEqual(self.store.read("a", 0, len(whole)), whole)
        self.store.remove("a")


class DurabilityTests(StoreCase):
    """A name means complete and durable; what cannot be made durable gets no name."""

    def test_order(self) -> None:
        """The file's bytes first, then its name, then the folder that holds the name."""
        steps: list[str] = []
        real_fsync, real_link = os.fsync, os.link

        def fsync(descriptor: int) -> None:
            kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
            if kind == "file":
                self.assertEqual(os.pread(descriptor, 10, 0), b"content")
            steps.append(kind)
            real_fsync(descriptor)

        def link(*arguments: Any, **options: Any) -> None:
            steps.append("name")
            real_link(*arguments, **options)

        self.store.put("packs/first", [b""])
        self.patch(os, "fsync", fsync)
        self.patch(os, "link", link)
        self.store.put("packs/a", [b"content"])
        self.assertEqual(steps[0], "file")
        self.assertEqual(steps[-2:], ["name", "folder"])

    def test_not_before_commit(self) -> None:
        """Nobody sees a blob before its commit, and nothing is left of one that was discarded."""
        writer = self.store.begin()
        writer.write(b"x" * 100)
        self.assertEqual(list(self.store.names()), [])
        self.assertEqual(len(self.temporary()), 1)
        writer.discard()
        writer.discard()
        self.assertEqual(self.temporary(), [])
        self.assertRaises(ValueError, writer.write, b"x" * (2 << 20))

    def test_fsync_error(self) -> None:
        """EIO from fsync fails the blob for good: fsync is not asked a second time."""
        writer = self.store.begin()
        writer.write(b"x")
        call, calls = failing(OSError(errno.EIO, "I/O error"), os.fsync)
        self.patch(os, "fsync", call)
        error = self.assertRaises(OSError, writer.commit, "a")
        self.assertEqual(error.errno, errno.EIO)
        self.assertRaises(ValueError, writer.commit, "a")
        self.assertEqual(len(calls), 1)
        self.assertEqual(list(self.store.names()), [])
        writer.discard()
        self.assertEqual(self.temporary(), [])

    def test_folder_fsync_error(self) -> None:
        """So does EIO when the name was to be made durable."""
        writer = self.store.begin()
        call, calls = failing(OSError(errno.EIO, "I/O error"), os.fsync, after=1)
        self.patch(os, "fsync", call)
        self.assertRaises(OSError, writer.commit, "a")
        self.assertRaises(ValueError, writer.commit, "b")
        self.assertEqual(len(calls), 2)

    def test_full(self) -> None:
        """A full disk, or a full quota of the file system, is NoSpace wherever it shows."""
        for code in (errno.ENOSPC, errno.EDQUOT):
            for function in ("write", "fsync", "link", "open"):
                call, _ = failing(OSError(code, "full"), getattr(os, function))
                patch = self.patch(os, function, call)
                self.assertRaises(NoSpace, self.store.put, "a", [b"x"])
                patch.restore()
                self.assertEqual(list(self.store.names()), [])
                self.assertEqual(self.temporary(), [])

    def test_short_writes(self) -> None:
        """What the system takes only in part is offered again."""
        real = os.write
        self.patch(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
        self.store.put("a", [b"0123456789"])
        self.assertEqual(self.store.read("a", 0, 10), b"0123456789")

    def test_reserve(self) -> None:
        """Nothing is begun when the file system has less room than must stay free."""
        store = self.another(free_min=1 << 62)
        self.assertRaises(NoSpace, store.begin)
        self.assertRaises(NoSpace, store.put, "a", [b"x"])

    def test_read_only(self) -> None:
        """A store that may not make anything can be read."""
        self.store.put("a", [b"x"])
        self.patch(os, "mkdir", failing(OSError(errno.EROFS, "read-only"), os.mkdir)[0])
        self.assertEqual(self.another(create=False).read("a", 0, 1), b"x")


class CleanTests(StoreCase):
    """What killed sessions left behind goes, what living ones write stays."""

    def test_living(self) -> None:
        """Unfinished blobs of living writers survive a cleaning by another store."""
        writer = self.store.begin()
        writer.write(b"x")
        self.assertEqual(self.another().clean(), 0)
        writer.commit("a")
        self.assertEqual(self.store.read("a", 0, 1), b"x")

    def test_killed(self) -> None:
        """While the other process lives its file stays; once it was killed the file goes."""
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.__exit__, None, None, None)
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "ready\n")
        self.assertEqual(self.store.clean(), 0)
        self.assertEqual(len(self.temporary()), 1)
        process.kill()
        self.assertEqual(process.wait(), -signal.SIGKILL)
        self.assertEqual(self.store.clean(), 1)
        self.assertEqual(self.temporary(), [])

    def test_between_making_and_locking(self) -> None:
        """A cleaning between the making and the locking of a file takes nothing away."""
        real = fcntl.flock
        other = self.another()
        cleaned: list[int] = []

        def flock(descriptor: int, operation: int) -> None:
            if not cleaned and not operation & fcntl.LOCK_NB:
                cleaned.append(0)
                cleaned[0] = other.clean()
            real(descriptor, operation)

        self.patch(fcntl, "flock", flock)
        writer = self.store.begin()
        self.assertEqual(cleaned, [1])
        writer.write(b"x")
        writer.commit("a")
        self.assertEqual(self.store.read("a", 0, 1), b"x")
