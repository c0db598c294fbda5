"""Which files are written under their own names at once, by the restore or by a process."""

from __future__ import annotations

import errno
import os
import shutil
from typing import Any

from cloudconnect.backup import at_once as at_once_module
from cloudconnect.backup import maker as maker_module
from cloudconnect.backup import placing as placing_module
from cloudconnect.backup import restore as restore_module
from cloudconnect.backup import small_files
from cloudconnect.backup.comparison import compare_trees
from cloudconnect.backup.maker import FileMaker
from cloudconnect.backup.metadata import MetadataWriter
from cloudconnect.backup.options import Overwrite, RestoreOptions
from cloudconnect.backup.placing import NewFile
from cloudconnect.backup.restore import RestoreRun
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.runs import Run
from cloudconnect.errors import Cancelled, LocalError
from tests.backup.cases import RestoreCase, entry_of, file_of
from tests.backup.trees import access_list, age_tree, is_root, write


class WhereTests(RestoreCase):
    """Which files of a restore are written so."""

    def setUp(self) -> None:
        super().setUp()
        self.usual: list[bytes] = []
        real = NewFile.finish

        def finish(
            new: NewFile, entry: Entry, metadata: MetadataWriter, name: bytes
        ) -> os.stat_result | None:
            self.usual.append(name)
            return real(new, entry, metadata, name)

        self.patch(NewFile, "finish", finish)
        for name in (b"/a/one", b"/a/two", b"/a/b/three"):
            write(self.top + name, name * 20, mode=0o640)
        write(self.top + b"/a/large", os.urandom(small_files.SMALL_MAX + 1))
        age_tree(self.top)
        self.point = self.place.backup(self.top).point

    def check(self, usual: list[bytes], **options: Any) -> None:
        """Restore; which files were written under another name first."""
        self.usual.clear()
        self.assertClean(self.restore(self.point, **options))
        self.assertEqual(sorted(self.usual), sorted(usual))
        self.assertEqual(compare_trees(self.top, self.target + b"/source"), [])

    def test_new_folders(self) -> None:
        """In new folders all but large files, whatever is to happen to what is there."""
        for overwrite in Overwrite:
            self.check([b"large"], overwrite=overwrite)
            shutil.rmtree(self.target)

    def test_further_names(self) -> None:
        """Files with further names get their own when they are whole."""
        os.link(self.top + b"/a/one", self.top + b"/a/one-too")
        age_tree(self.top)
        self.point = self.place.backup(self.top).point
        self.check([b"large", b"one"])

    def test_symbolic_links(self) -> None:
        """Symbolic links in new folders get their own names at once, but for those that have more
        than a target and a time."""
        other = self.top + b"/a/other"
        os.symlink(b"one", self.top + b"/a/usual")
        os.symlink(b"nowhere", other)
        os.link(other, self.top + b"/a/other-too", follow_symlinks=False)
        age_tree(self.top)
        if is_root():
            os.symlink(b"two", self.top + b"/a/given")
            os.chown(self.top + b"/a/given", 12345, 54321, follow_symlinks=False)
        self.point = self.place.backup(self.top).point
        placed: list[bytes] = []
        real = placing_module.put_in_place

        def put(parent: int, temporary: bytes, name: bytes) -> None:
            placed.append(name)
            real(parent, temporary, name)

        self.patch(placing_module, "put_in_place", put)
        for overwrite in (Overwrite.ALWAYS, Overwrite.NEVER):
            placed.clear()
            self.check([b"large"], overwrite=overwrite)
            expected = {b"large", b"other", b"other-too"} | ({b"given"} if is_root() else set())
            self.assertEqual(set(placed), expected)
            shutil.rmtree(self.target)
        self.check([b"large"])
        os.unlink(self.target + b"/source/a/usual")
        os.symlink(b"elsewhere", self.target + b"/source/a/usual")
        self.assertClean(self.restore(self.point))
        self.assertEqual(compare_trees(self.top, self.target + b"/source"), [])

    def test_lists_from_above(self) -> None:
        """Folders, files and links that would inherit an access control list do not have it."""
        os.symlink(b"one", self.top + b"/a/link")
        age_tree(self.top)
        self.point = self.place.backup(self.top).point
        os.makedirs(self.target)
        try:
            os.setxattr(self.target, "system.posix_acl_default", access_list(12345))
        except OSError:
            self.skipTest("this file system has no access control lists")
        self.check([b"large", b"one", b"three", b"two"])

    def test_lists_that_were_backed_up(self) -> None:
        """A folder's own list does not come to what is restored in it."""
        try:
            os.setxattr(self.top + b"/a", "system.posix_acl_default", access_list(12345))
        except OSError:
            self.skipTest("this file system has no access control lists")
        self.point = self.place.backup(self.top).point
        self.check([b"large"])

    def test_verify(self) -> None:
        """So do files that are read back first."""
        self.check([b"large", b"one", b"two", b"three"], verify=True)

    def test_folder_that_was_there(self) -> None:
        """In a folder that was there somebody else may be: nothing is written at once."""
        os.makedirs(self.target + b"/source/a")
        self.check([b"large", b"one", b"two"])


class ProcessTests(RestoreCase):
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
