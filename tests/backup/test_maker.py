"""Having small files made by a process: the restore's side, with real processes."""

from __future__ import annotations

import errno
import os
import signal
import stat
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import at_once as at_once_module
from cloudconnect.backup import maker as maker_module
from cloudconnect.backup import restore as restore_module
from cloudconnect.backup.comparison import compare_trees
from cloudconnect.backup.maker import FileMaker
from cloudconnect.backup.options import RestoreOptions
from cloudconnect.backup.restore import RestoreRun
from cloudconnect.content.manifest import EntryType, Run
from cloudconnect.errors import Cancelled, LocalError
from tests.backup.cases import RestoreCase, entry_of, file_of
from tests.backup.trees import OLD_NS, age_tree, write


class FileMakerTests(SynchronousTestCase):
    """The object by itself."""

    def setUp(self) -> None:
        self.patch(maker_module, "READY_SECONDS", 60.0)
        self.top = os.path.abspath(self.mktemp()).encode()
        self.before = len(os.listdir("/proc/self/fd"))
        self.told: list[tuple[str, int]] = []
        self.maker: FileMaker[str] = FileMaker(
            lambda whose, failed: self.told.append((whose, failed))
        )
        self.addCleanup(self.maker.close)
        self.assertTrue(self.maker.ready)

    def add(self, folder: int, name: str, *pieces: bytes) -> None:
        """A file in the folder of this number."""
        path = self.top + b"/%d" % folder
        os.makedirs(path, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        encoded = name.encode()
        self.maker.add(folder, descriptor, encoded, 0o600, OLD_NS, list(pieces), name)
        os.close(descriptor)

    def content(self, name: str) -> bytes:
        with open(self.top + b"/" + name.encode(), "rb") as file:
            return file.read()

    def test_many(self) -> None:
        """Many files in many folders, small and larger than a batch."""
        large = os.urandom(maker_module.BATCH_BYTES * 2)
        for number in range(1500):
            self.add(number // 5, f"{number}", b"%d" % number, b"" if number % 2 else b"x")
        self.add(7, "large", large)
        self.add(8, "pieces", *[b"piece"] * 2000)
        self.maker.finish()
        self.assertEqual([failed for _, failed in self.told], [0] * 1502)
        self.assertEqual(self.content("299/1499"), b"1499")
        self.assertEqual(self.content("298/1490"), b"1490x")
        self.assertEqual(self.content("7/large"), large)
        self.assertEqual(self.content("8/pieces"), b"piece" * 2000)
        status = os.lstat(self.top + b"/0/0")
        self.assertEqual((stat.S_IMODE(status.st_mode), status.st_mtime_ns), (0o600, OLD_NS))

    def test_failures(self) -> None:
        """What cannot be made is told of, and the rest is made."""
        write(self.top + b"/1/taken", b"old")
        for name in ("one", "taken", "n" * 300, "two"):
            self.add(1, name, b"new")
        self.maker.finish()
        failed = [failed for _, failed in self.told]
        self.assertEqual(failed, [0, errno.EEXIST, errno.ENAMETOOLONG, 0])
        self.assertEqual((self.content("1/taken"), self.content("1/two")), (b"old", b"new"))

    def test_afterwards(self) -> None:
        """What is to be done afterwards is done when everything before it was made."""
        seen: list[list[bytes]] = []
        self.add(1, "one", b"x")
        self.assertTrue(self.maker.has(1))
        self.assertFalse(self.maker.has(2))
        self.maker.afterwards(lambda: seen.append(os.listdir(self.top + b"/1")))
        self.assertEqual(seen, [])
        self.maker.finish()
        self.assertEqual(seen, [[b"one"]])
        self.assertFalse(self.maker.has(1))
        self.maker.afterwards(lambda: seen.append([]))
        self.maker.finish()
        self.assertEqual(len(seen), 2)

    def test_closed_early(self) -> None:
        """When it is closed nothing is left behind, and what was to be done afterwards is done."""
        seen: list[int] = []
        self.add(1, "one", b"x")
        self.maker.afterwards(lambda: seen.append(1))
        self.maker.close()
        self.assertEqual((seen, self.told), ([1], []))
        self.assertEqual(len(os.listdir("/proc/self/fd")), self.before)
        self.assertEqual(self.maker._process.returncode, 0)

    def test_interrupt(self) -> None:
        """An interrupt of the terminal is not for the process."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(self.maker._process.pid, number)
        self.add(1, "one", b"x")
        self.maker.finish()
        self.assertEqual(self.told, [("one", 0)])

    def test_killed(self) -> None:
        """A process that was killed is an error, not a restore that waits for ever."""
        self.maker._process.kill()
        self.maker._process.wait()
        self.add(1, "one", b"x")
        self.assertRaises(LocalError, self.maker.finish)
        self.maker.close()
        self.assertEqual(len(os.listdir("/proc/self/fd")), self.before)


class RestoreTests(RestoreCase):
    """Restores that have files made."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(maker_module, "READY_SECONDS", 60.0)
        self.patch(maker_module, "BATCH_FILES", 7)
        self.patch(at_once_module, "MAKER_AFTER", 1)
        self.added: list[bytes] = []
        real = FileMaker.add

        def add(maker: FileMaker[Any], *arguments: Any) -> None:
            self.added.append(arguments[2])
            real(maker, *arguments)

        self.patch(FileMaker, "add", add)

    def back_up(self) -> bytes:
        """Many small files and a few others."""
        for number in range(120):
            name = self.top + b"/%d/in/%03d" % (number % 9, number)
            write(name, b"%d" % number * number, mode=0o640 if number % 5 else 0o600)
        write(self.top + b"/0/large", os.urandom(2_000_000))
        os.link(self.top + b"/1/in/001", self.top + b"/2/link")
        os.chmod(self.top + b"/3/in", 0o555)
        os.chmod(self.top + b"/3", 0o500)
        os.setxattr(self.top + b"/4/in/004", "user.a", b"1")
        os.symlink(b"nowhere", self.top + b"/5/symlink")
        age_tree(self.top)
        return self.place.backup(self.top).point

    def test_exact(self) -> None:
        """Everything is as it was, folders that were left before their files were made too."""
        point = self.back_up()
        restored = self.restore(point)
        self.assertClean(restored)
        self.assertEqual(compare_trees(self.top, self.target + b"/source"), [])
        self.assertEqual(restored.files, 122)
        self.assertGreater(len(self.added), 90)
        self.assertNotIn(b"004", self.added)

    def test_cannot_start(self) -> None:
        """Where the process cannot be started, or ends at once, files are made without."""
        point = self.back_up()
        for executable in ("/nonexistent", "/bin/false"):
            self.patch(maker_module.sys, "executable", executable)
            result = self.place.restore(
                point,
                self.target + executable.encode(),
                strip_components=self.base.count(b"/"),
            )
            self.assertClean(result)
            restored = self.target + executable.encode() + b"/source"
            self.assertEqual(compare_trees(self.top, restored), [])
        self.assertEqual(self.added, [])

    def test_path_twice(self) -> None:
        """A path that comes twice is a file in the end, and nothing is written through a link."""
        chunk = self.place.keys.chunk_id(b"evil")
        entries = [entry_of(b"/d", EntryType.DIRECTORY)]
        for name in (b"a", b"b", b"c"):
            entries.append(file_of(b"/d/" + name, size=4, runs=(Run(chunk, 0, 4),)))
        entries += [
            entry_of(b"/d/x", EntryType.SYMLINK, target=self.outside + b"/secret"),
            file_of(b"/d/x", size=4, runs=(Run(chunk, 0, 4),)),
        ]
        point = self.place.publish(entries, [b"evil"])
        result = self.place.restore(point, self.target)
        self.assertClean(result)
        self.assertEqual(self.read(b"/d/x"), b"evil")
        self.assertIn(b"x", self.added)
        self.assertEqual(result.files, 4)

    def test_failure(self) -> None:
        """What cannot be made is reported with its path, and the rest goes on."""
        chunk = self.place.keys.chunk_id(b"data")
        entries = [entry_of(b"/d", EntryType.DIRECTORY)]
        for number in range(6):
            run = Run(chunk, 0, 4)
            entries.append(file_of(b"/d/%d" % number, size=4, runs=(run,)))
        point = self.place.publish(entries, [b"data"])
        real = FileMaker.add

        def add(maker: FileMaker[Any], folder: int, parent: int, name: bytes, *rest: Any) -> None:
            real(maker, folder, parent, b"n" * 300 if name == b"4" else name, *rest)

        self.patch(FileMaker, "add", add)
        result = self.place.restore(point, self.target)
        problems = [(item.path, item.reason) for item in result.problems.listed]
        self.assertEqual(problems, [(b"/d/4", os.strerror(errno.ENAMETOOLONG))])
        self.assertEqual(result.files, 5)

    def test_killed(self) -> None:
        """When the process is killed the restore fails, and says why."""
        point = self.back_up()
        real = FileMaker.add

        def add(maker: FileMaker[Any], *arguments: Any) -> None:
            maker._process.kill()
            real(maker, *arguments)

        self.patch(FileMaker, "add", add)
        error = self.assertRaises(LocalError, self.restore, point)
        self.assertIn("process that makes files", str(error))

    def test_cancelled(self) -> None:
        """A cancelled restore leaves whole files only, in folders that are as they were."""
        self.patch(restore_module, "LOOK_SECONDS", 0.0)
        point = self.back_up()
        asked: list[int] = []

        def cancelled() -> bool:
            asked.append(1)
            return len(asked) > 80

        run = RestoreRun(
            self.place.open("restore"),
            self.place.keys,
            self.place.description,
            point,
            RestoreOptions(target=self.target, strip_components=self.base.count(b"/")),
            cancelled=cancelled,
        )
        self.assertRaises(Cancelled, run.run)
        folders = [name for name in self.names() if name.endswith(b"/in")]
        self.assertGreater(len(folders), 2)
        count = 0
        for folder in folders:
            for name in os.listdir(self.target + folder):
                count += 1
                here = self.target + folder + b"/" + name
                there = self.base + folder + b"/" + name
                self.assertEqual(compare_trees(there, here), [])
            status, wanted = os.stat(self.target + folder), os.stat(self.base + folder)
            self.assertEqual(status.st_mode, wanted.st_mode)
        self.assertTrue(0 < count < 120)
