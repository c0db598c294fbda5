"""Restores that were killed, and what the next one makes of what they have left."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

from cloudconnect.backup import at_once as at_once_module
from cloudconnect.backup import maker as maker_module
from cloudconnect.backup import restore as restore_module
from cloudconnect.backup import unfinished as unfinished_module
from cloudconnect.backup.comparison import compare_trees
from cloudconnect.backup.doubtful import DoubtfulNames
from cloudconnect.backup.maker import FileMaker
from cloudconnect.backup.options import Overwrite, RestoreOptions, RestoreResult
from cloudconnect.backup.patterns import PathPatterns
from cloudconnect.backup.restore import RestoreRun
from cloudconnect.backup.target import UNFINISHED
from cloudconnect.backup.unfinished import DOUBTFUL
from cloudconnect.errors import Cancelled, LocalError
from tests.backup.cases import RestoreCase
from tests.backup.trees import age_tree, write

#: With these a file is kept that was cut short, unless it is known to be.
KEEPING = (Overwrite.IF_NEWER, Overwrite.NEVER)


def mode_of(path: bytes) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def copy(tree: bytes, to: bytes) -> None:
    """A tree once more, with all that it has."""
    subprocess.run(["cp", "-a", tree, to], check=True)


class KilledCase(RestoreCase):
    """A tree of small files that was backed up."""

    def setUp(self) -> None:
        super().setUp()
        write(self.top + b"/a/one", b"one " * 1000, mode=0o640)
        write(self.top + b"/a/two", b"two " * 500)
        write(self.top + b"/a/empty", b"")
        write(self.top + b"/a/b/odd", b"odd " * 100, mode=0o4755)
        write(self.top + b"/c/three", b"three")
        os.setxattr(self.top + b"/c/three", "user.a", b"1")
        os.symlink(b"three", self.top + b"/c/symlink")
        os.chmod(self.top + b"/a/b", 0o750)
        age_tree(self.top)
        self.point = self.place.backup(self.top).point

    def assertWhole(self, result: RestoreResult) -> None:
        """Everything is as it was; but links that a killed restore has left under a name that
        nobody knows may be there."""
        self.assertEqual((result.problems.listed, result.damaged.listed), ([], []))
        different = compare_trees(self.top, self.target + b"/source")
        self.assertEqual([one for one in different if b".cloudconnect-" not in one.path], [])

    def cut(self, name: bytes, content: bytes | None = None) -> bytes:
        """What a restore leaves that is killed while it writes a file; the file's path.

        :param content: what of it is there
        """
        self.restore(self.point)
        path = self.target + b"/source" + name
        with open(path, "r+b") as file:
            if content is None:
                file.truncate(7)
            else:
                file.truncate()
                file.write(content)
        os.utime(path)
        folder = os.path.dirname(path)
        while folder != self.target:
            os.chmod(folder, UNFINISHED)
            os.utime(folder)
            folder = os.path.dirname(folder)
        return path


class AnyMomentTests(KilledCase):
    """A restore that is killed at any of its calls of the system."""

    def moments(self) -> Iterator[bytes]:
        """What is in the target at each of these moments: folders that may be used once."""
        taken: list[bytes] = []
        thread, busy = threading.get_ident(), [False]

        def take() -> None:
            if threading.get_ident() != thread or busy[0] or not os.path.exists(self.target):
                return
            busy[0] = True
            taken.append(self.base + b"/moment-%d" % len(taken))
            copy(self.target, taken[-1])
            busy[0] = False

        def before(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **more: Any) -> Any:
                take()
                return real(*arguments, **more)

            return call

        real_write = os.pwrite

        def half(descriptor: int, data: bytes, position: int) -> int:
            written = real_write(descriptor, data[: (len(data) + 1) // 2], position)
            take()
            return written

        patches = [self.patch(os, "pwrite", half)]
        for name in ("mkdir", "chmod", "utime", "rename", "setxattr", "symlink", "link"):
            patches.append(self.patch(os, name, before(getattr(os, name))))
        self.assertWhole(self.restore(self.point))
        for patch in patches:
            patch.restore()
        self.assertGreater(len(taken), 40)
        yield from taken

    def test_any(self) -> None:
        """Whatever a restore leaves that is killed, the next one mends it, whatever is to happen to
        files that are there."""
        for number, moment in enumerate(self.moments()):
            for overwrite in (*KEEPING, (Overwrite.ALWAYS, Overwrite.IF_CHANGED)[number % 2]):
                shutil.rmtree(self.target)
                copy(moment, self.target)
                self.assertWhole(self.restore(self.point, overwrite=overwrite))


class KeptTests(KilledCase):
    """Files that are kept, or not, where a restore was killed."""

    def test_other_content(self) -> None:
        """What is not how the file begins, somebody has written: it is kept, and told of."""
        for overwrite in KEEPING:
            path = self.cut(b"/a/one", b"one mine")
            result = self.restore(self.point, overwrite=overwrite)
            problems = [(item.path, item.reason) for item in result.problems.listed]
            self.assertEqual(problems, [(self.top + b"/a/one", DOUBTFUL)])
            self.assertEqual(self.read(b"/source/a/one"), b"one mine")
            self.assertEqual(mode_of(os.path.dirname(path)), mode_of(self.top + b"/a"))
            shutil.rmtree(self.target)

    def test_longer(self) -> None:
        """So has somebody what goes on behind the file's end."""
        self.cut(b"/c/three", b"three and more")
        self.assertEqual(self.restore(self.point, overwrite=Overwrite.NEVER).kept, 6)
        self.assertEqual(self.read(b"/source/c/three"), b"three and more")

    def test_whole_but_not_finished(self) -> None:
        """A file that has all its content, but not its time, gets what it lacks."""
        for overwrite in KEEPING:
            self.cut(b"/c/three", b"three")
            self.assertWhole(self.restore(self.point, overwrite=overwrite))

    def test_finished_folder(self) -> None:
        """In a folder that was finished a file with a time of its own is kept, as it was asked."""
        self.restore(self.point)
        write(self.target + b"/source/a/one", b"one ")
        for overwrite in KEEPING:
            result = self.restore(self.point, overwrite=overwrite)
            self.assertEqual((result.kept, result.problems.listed), (6, []))
            self.assertEqual(self.read(b"/source/a/one"), b"one ")

    def test_time_without_content(self) -> None:
        """A file that has its time, but not its content, as after a power failure, gets it; one
        whose content is another one is kept."""
        self.restore(self.point)
        path, when = self.target + b"/source/a/one", os.stat(self.top + b"/a/one").st_mtime_ns
        for overwrite in KEEPING:
            for content, whole in ((b"", True), (b"one one", True), (b"else", False)):
                with open(path, "wb") as file:
                    file.write(content)
                os.utime(path, ns=(when, when))
                self.assertClean(self.restore(self.point, overwrite=overwrite))
                expected = b"one " * 1000 if whole else content
                self.assertEqual(self.read(b"/source/a/one"), expected)

    def test_dry_run(self) -> None:
        """A dry run counts what would be mended, and changes nothing."""
        path = self.cut(b"/a/one")
        result = self.restore(self.point, overwrite=Overwrite.NEVER, dry_run=True)
        self.assertEqual((result.files, result.kept), (1, 5))
        self.assertEqual(
            (os.path.getsize(path), mode_of(self.target + b"/source")), (7, UNFINISHED)
        )


class StaysTests(KilledCase):
    """Folders stay unfinished as long as something in them may be cut short."""

    def check(self, path: bytes) -> None:
        """The folder is unfinished, and a restore that keeps what is there mends it."""
        self.assertEqual(mode_of(os.path.dirname(path)), UNFINISHED)
        self.assertWhole(self.restore(self.point, overwrite=Overwrite.NEVER))

    def test_left_out(self) -> None:
        """Where a file that may be cut short is left out, it is told of."""
        path = self.cut(b"/a/one")
        exclude = PathPatterns((b"one",))
        result = self.restore(self.point, exclude=exclude)
        problems = [(item.path, item.reason) for item in result.problems.listed]
        self.assertEqual(problems, [(self.top + b"/a/one", DOUBTFUL)])
        self.check(path)

    def test_whole_files_left_out(self) -> None:
        """Files that are whole may be left out."""
        self.cut(b"/a/one")
        os.unlink(self.target + b"/source/c/symlink")
        result = self.restore(self.point, include=PathPatterns((b"one", b"symlink")))
        self.assertClean(result)
        self.assertEqual(mode_of(self.target + b"/source/a"), mode_of(self.top + b"/a"))

    def test_folder_on_the_way(self) -> None:
        """A folder that is only on the way to what is restored is finished too."""
        self.cut(b"/a/one")
        self.assertWhole(self.restore(self.point, include=PathPatterns((b"one",))))

    def test_interrupted_again(self) -> None:
        """Where the next restore is interrupted as well."""
        path = self.cut(b"/a/one")
        self.patch(restore_module, "LOOK_SECONDS", 0.0)
        run = RestoreRun(
            self.place.open("restore"),
            self.place.keys,
            self.place.description,
            self.point,
            RestoreOptions(target=self.target, strip_components=self.base.count(b"/")),
            cancelled=lambda: True,
        )
        self.assertRaises(Cancelled, run.run)
        self.check(path)

    def test_somebody_elses(self) -> None:
        """A file that is not in the restore point is told of, and the folder is finished."""
        self.cut(b"/a/one")
        write(self.target + b"/source/a/new", b"new")
        result = self.restore(self.point, overwrite=Overwrite.NEVER)
        problems = [(item.path, item.reason) for item in result.problems.listed]
        self.assertEqual(problems, [(self.top + b"/a/new", DOUBTFUL)])
        os.unlink(self.target + b"/source/a/new")
        self.assertEqual(mode_of(self.target + b"/source/a"), mode_of(self.top + b"/a"))

    def test_file_maker_killed(self) -> None:
        """Where the process that makes files is killed its folders stay unfinished."""
        for number in range(60):
            write(self.top + b"/many/%d" % number, b"%d" % number * 100)
        age_tree(self.top)
        self.point = self.place.backup(self.top).point
        self.patch(maker_module, "READY_SECONDS", 60.0)
        self.patch(maker_module, "BATCH_FILES", 7)
        self.patch(at_once_module, "MAKER_AFTER", 1)
        real = FileMaker.add

        def add(maker: FileMaker[Any], *arguments: Any) -> None:
            real(maker, *arguments)
            if arguments[2] == b"30":
                maker._process.kill()

        self.patch(FileMaker, "add", add)
        self.assertRaises(LocalError, self.restore, self.point)
        write(self.target + b"/source/many/30", b"30303")
        self.patch(at_once_module, "MAKER_AFTER", 0)
        self.check(self.target + b"/source/many/30")


class ManyKeptTests(KeptTests):
    """The same where the folders' names do not fit into memory."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(unfinished_module, "DoubtfulNames", lambda: DoubtfulNames(0))


class ManyStayTests(StaysTests):
    """Likewise."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(unfinished_module, "DoubtfulNames", lambda: DoubtfulNames(2))
