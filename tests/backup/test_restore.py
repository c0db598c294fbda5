"""Whole restores: exact ones, chosen parts, and restore points and targets that attack."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

import cbor2
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import placing as placing_module
from cloudconnect.backup import planning as planning_module
from cloudconnect.backup import restore as restore_module
from cloudconnect.backup import writing as writing_module
from cloudconnect.backup.comparison import compare_trees
from cloudconnect.backup.metadata import MetadataWriter
from cloudconnect.backup.options import Overwrite, Progress, RestoreOptions, RestoreResult
from cloudconnect.backup.patterns import PathPatterns
from cloudconnect.backup.restore import RestoreRun
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys
from cloudconnect.content.manifest import Entry, EntryType, Run
from cloudconnect.errors import (
    Cancelled,
    CloudConnectError,
    NotFound,
    StoredDataDamaged,
)
from cloudconnect.keys import MasterKey
from cloudconnect.repository.serve import ServeResult
from tests.backup.support import Place
from tests.backup.trees import (
    OLD_NS,
    age_tree,
    allocated,
    deep_folder,
    is_root,
    make_odd_tree,
    remove_deep,
    write,
)


class Case(SynchronousTestCase):
    """A tree, a repository and a target."""

    def setUp(self) -> None:
        self.base = os.path.abspath(self.mktemp()).encode()
        self.top = self.base + b"/source"
        self.target = self.base + b"/target"
        self.outside = self.base + b"/outside"
        os.makedirs(self.top)
        os.makedirs(self.outside)
        write(self.outside + b"/secret", b"secret", 0o600, OLD_NS)
        self.place = Place(self.mktemp())

    def tearDown(self) -> None:
        with open(self.outside + b"/secret", "rb") as file:
            self.assertEqual(file.read(), b"secret")
        self.assertEqual(os.listdir(self.outside), [b"secret"])
        status = os.stat(self.outside + b"/secret")
        self.assertEqual((status.st_mode, status.st_mtime_ns), (0o100600, OLD_NS))

    def restore(self, point: bytes, **options: Any) -> RestoreResult:
        """Restore so that the tree lies directly in the target."""
        chosen = {"strip_components": self.base.count(b"/"), **options}
        return self.place.restore(point, self.target, **chosen)

    def names(self) -> list[bytes]:
        """All names below the target."""
        found = []
        for folder, folders, files in os.walk(self.target):
            for name in folders + files:
                found.append(os.path.join(folder, name)[len(self.target) :])
        return sorted(found)

    def read(self, name: bytes) -> bytes:
        with open(self.target + name, "rb") as file:
            return file.read()

    def assertClean(self, result: RestoreResult) -> None:
        """Nothing went wrong, and no temporary file is left."""
        self.assertEqual(result.problems.listed, [])
        self.assertEqual(result.damaged.listed, [])
        self.assertEqual([name for name in self.names() if b".cloudconnect-" in name], [])


class ExactTests(Case):
    """What comes back is what was there."""

    def test_odd_tree(self) -> None:
        """Every odd thing comes back exactly: content, names, links, holes, modes, times, owners,
        attributes; and the counts are those of the backup."""
        make_odd_tree(self.top + b"/odd")
        age_tree(self.top)
        result = self.place.backup(self.top)
        restored = self.restore(result.point)
        self.assertClean(restored)
        self.assertEqual(compare_trees(self.top, self.target + b"/source"), [])
        for name in ("files", "directories", "other"):
            self.assertEqual(getattr(restored, name), getattr(result, name), name)
        self.assertEqual(restored.bytes_restored, result.bytes_source)
        served = self.place.served
        assert served is not None
        served_result = served.wait()
        assert isinstance(served_result, ServeResult)
        self.assertEqual(served_result.bytes_sent, restored.bytes_received)
        self.assertEqual(served_result.bytes_received, restored.bytes_sent)

    def test_absolute_paths(self) -> None:
        """Without stripping, absolute source paths are made again below the target, and the
        folders on the way are as they were."""
        write(self.top + b"/a/file", b"x")
        os.chmod(self.base, 0o751)
        when = os.stat(self.base).st_mtime_ns
        result = self.place.backup(self.top + b"/a")
        restored = self.place.restore(result.point, self.target)
        self.assertClean(restored)
        self.assertEqual(compare_trees(self.top + b"/a", self.target + self.top + b"/a"), [])
        status = os.stat(self.target + self.base)
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o751)
        self.assertEqual(status.st_mtime_ns, when)

    def test_target_itself_is_left_alone(self) -> None:
        """The target's own mode and times are the user's, whatever is restored into it."""
        write(self.top + b"/file", b"x")
        os.chmod(self.top, 0o711)
        result = self.place.backup(self.top)
        os.mkdir(self.target, 0o750)
        self.restore(result.point, strip_components=self.base.count(b"/"))
        self.place.restore(result.point, self.target, strip_components=1 + self.base.count(b"/"))
        self.assertEqual(stat.S_IMODE(os.stat(self.target).st_mode), 0o750)

    def test_sparse_files_stay_sparse(self) -> None:
        """Holes take no space after a restore, large and small ones."""
        make_odd_tree(self.top + b"/odd")
        if allocated(self.top + b"/odd/sparse/all"):
            self.skipTest("this file system does not keep holes")
        result = self.place.backup(self.top)
        self.restore(result.point)
        for name in (b"start", b"middle", b"all"):
            path = b"/odd/sparse/" + name
            self.assertLessEqual(
                allocated(self.target + b"/source" + path), allocated(self.top + path) + 8192
            )

    def test_long_paths(self) -> None:
        """Paths longer than the system takes in one call are restored."""
        deep_folder(self.top + b"/deep", 60, b"d" * 200)
        result = self.place.backup(self.top)
        self.addCleanup(remove_deep, self.top + b"/deep")
        self.addCleanup(lambda: remove_deep(self.target))
        restored = self.restore(result.point)
        self.assertEqual(restored.problems.listed, [])
        self.assertEqual(compare_trees(self.top, self.target + b"/source"), [])

    def test_files_of_many_chunks(self) -> None:
        """A file that takes several steps, and more chunks than are asked for at a time."""
        self.patch(planning_module, "RUNS_STEP", 3)
        self.patch(writing_module, "CHUNKS_AHEAD", 4)
        for number in range(3):
            write(self.top + b"/large%d" % number, os.urandom(2_000_000))
        age_tree(self.top)
        result = self.place.backup(self.top)
        self.assertClean(self.restore(result.point))
        self.assertEqual(compare_trees(self.top, self.target + b"/source"), [])

    def test_many_small_files(self) -> None:
        """More files than are planned ahead, that share chunks."""
        self.patch(writing_module, "STEPS_AHEAD", 10)
        for number in range(300):
            write(self.top + b"/%d/%d" % (number % 7, number), b"%d" % number * 50)
        age_tree(self.top)
        result = self.place.backup(self.top)
        restored = self.restore(result.point)
        self.assertClean(restored)
        self.assertEqual(compare_trees(self.top, self.target + b"/source"), [])
        self.assertLess(restored.bytes_received, 60_000)

    def test_without_encryption(self) -> None:
        """The mode without encryption restores as exactly."""
        self.place = Place(self.mktemp(), EncryptionMode.NONE)
        make_odd_tree(self.top + b"/odd")
        result = self.place.backup(self.top + b"/odd")
        self.restore(result.point)
        self.assertEqual(compare_trees(self.top + b"/odd", self.target + b"/source/odd"), [])

    def test_twice(self) -> None:
        """A second restore over the first one gives the same, hard links and all."""
        make_odd_tree(self.top + b"/odd")
        result = self.place.backup(self.top)
        self.restore(result.point)
        again = self.restore(result.point)
        self.assertClean(again)
        self.assertEqual(again.files, result.files)
        self.assertEqual(compare_trees(self.top + b"/odd", self.target + b"/source/odd"), [])

    def test_verify(self) -> None:
        """With verify everything is read back, holes too, and is right."""
        make_odd_tree(self.top + b"/odd")
        result = self.place.backup(self.top)
        self.assertClean(self.restore(result.point, verify=True))
        self.assertEqual(compare_trees(self.top + b"/odd", self.target + b"/source/odd"), [])

    def test_without_privileges(self) -> None:
        """Who is not root gets everything but owners, privileged attributes and devices, and one
        note of each; FIFOs and sockets are made."""
        point = self.place.publish(
            [
                _file(b"/f", xattrs=((b"trusted.x", b"1"),)),
                _entry(b"/device", EntryType.CHARACTER, device=os.makedev(1, 3)),
                _entry(b"/fifo", EntryType.FIFO),
                _entry(b"/socket", EntryType.SOCKET),
                _entry(b"/other", EntryType.FILE, uid=os.geteuid() + 1),
            ]
        )
        self.patch(writing_module, "MetadataWriter", lambda problem: MetadataWriter(problem, False))
        restored = self.place.restore(point, self.target)
        self.assertClean(restored)
        self.assertEqual(self.names(), [b"/f", b"/fifo", b"/other", b"/socket"])
        self.assertEqual(len(restored.notes), 2)
        self.assertEqual(os.stat(self.target + b"/other").st_uid, os.geteuid())

    def test_progress(self) -> None:
        """Progress goes up to what the point's record says."""
        self.patch(restore_module, "LOOK_SECONDS", 0.0)
        for number in range(20):
            write(self.top + b"/%d" % number, os.urandom(50_000))
        result = self.place.backup(self.top)
        seen: list[Progress] = []
        channel = self.place.open("restore")
        run = RestoreRun(
            channel,
            self.place.keys,
            self.place.description,
            result.point,
            RestoreOptions(target=self.target),
            progress=seen.append,
        )
        run.run()
        self.assertEqual(seen[-1].bytes_done, 1_000_000)
        self.assertEqual((seen[-1].bytes_total, seen[-1].files_total), (1_000_000, 21))
        self.assertEqual(seen[-1].files, 21)


class ChoiceTests(Case):
    """Parts of a restore point."""

    def setUp(self) -> None:
        super().setUp()
        write(self.top + b"/a/one.txt", b"1")
        write(self.top + b"/a/b/two.txt", b"2")
        write(self.top + b"/a/b/three.o", b"3")
        write(self.top + b"/c/four.txt", b"4")
        os.chmod(self.top + b"/a", 0o751)
        age_tree(self.top)
        self.point = self.place.backup(self.top).point

    def chosen(self, **options: Any) -> list[bytes]:
        restored = self.restore(self.point, **options)
        self.assertClean(restored)
        return [name[len(b"/source") :] for name in self.names()[1:]]

    def test_one_file(self) -> None:
        """Of one file, the folders on the way are made as they were, and nothing else."""
        found = self.chosen(paths=(self.top + b"/a/b/two.txt",))
        self.assertEqual(found, [b"/a", b"/a/b", b"/a/b/two.txt"])
        made, real = (os.stat(path + b"/a") for path in (self.target + b"/source", self.top))
        self.assertEqual((made.st_mode, made.st_mtime_ns), (real.st_mode, real.st_mtime_ns))

    def test_folders_on_the_way_are_left_alone(self) -> None:
        """A folder that exists and is only on the way keeps its mode and what is in it."""
        write(self.target + b"/source/a/mine", b"mine")
        os.chmod(self.target + b"/source/a", 0o700)
        self.chosen(paths=(self.top + b"/a/b",))
        self.assertEqual(stat.S_IMODE(os.stat(self.target + b"/source/a").st_mode), 0o700)
        self.assertEqual(self.read(b"/source/a/mine"), b"mine")

    def test_folder(self) -> None:
        """A folder comes with everything below it."""
        found = self.chosen(paths=(self.top + b"/a/b",))
        self.assertEqual(found, [b"/a", b"/a/b", b"/a/b/three.o", b"/a/b/two.txt"])

    def test_missing(self) -> None:
        """A path that is not in the point is named in the result."""
        restored = self.restore(self.point, paths=(self.top + b"/c", self.top + b"/none"))
        self.assertEqual(restored.missing, [self.top + b"/none"])
        self.assertEqual(restored.files, 1)

    def test_include(self) -> None:
        """Only what is included, with the folders that it needs."""
        found = self.chosen(include=PathPatterns([b"*.o"]))
        self.assertEqual(found, [b"/a", b"/a/b", b"/a/b/three.o"])

    def test_exclude(self) -> None:
        """What is excluded is left out, folders as a whole."""
        found = self.chosen(exclude=PathPatterns([b"b", b"four*"]))
        self.assertEqual(found, [b"/a", b"/a/one.txt", b"/c"])

    def test_strip_everything(self) -> None:
        """Entries that have no name left after stripping are not made."""
        depth = self.base.count(b"/") + 2
        restored = self.place.restore(self.point, self.target, strip_components=depth)
        self.assertClean(restored)
        self.assertEqual(
            self.names(), [b"/b", b"/b/three.o", b"/b/two.txt", b"/four.txt", b"/one.txt"]
        )

    def test_dry_run(self) -> None:
        """A dry run counts what would be restored, gets no content, and writes nothing."""
        restored = self.restore(self.point, dry_run=True, paths=(self.top + b"/a",))
        self.assertEqual((restored.files, restored.directories), (3, 2))
        self.assertEqual(restored.bytes_restored, 3)
        self.assertFalse(os.path.exists(self.target))
        os.mkdir(self.target)
        self.restore(self.point, dry_run=True, overwrite=Overwrite.NEVER)
        self.assertEqual(self.names(), [])


class OverwriteTests(Case):
    """Files that are there already."""

    def setUp(self) -> None:
        super().setUp()
        write(self.top + b"/file", b"backup", mtime_ns=OLD_NS)
        self.point = self.place.backup(self.top).point

    def over(
        self, content: bytes, mtime_ns: int, overwrite: Overwrite
    ) -> tuple[bytes, RestoreResult]:
        """Restore over a file; what is there then."""
        write(self.target + b"/source/file", content, mtime_ns=mtime_ns)
        result = self.restore(self.point, overwrite=overwrite)
        return self.read(b"/source/file"), result

    def test_always(self) -> None:
        """Always replaces, also what looks the same."""
        content, result = self.over(b"edited", OLD_NS, Overwrite.ALWAYS)
        self.assertEqual((content, result.kept, result.files), (b"backup", 0, 1))

    def test_never(self) -> None:
        """Never keeps whatever is there, and makes what is not; content is not even got."""
        content, result = self.over(b"other", 5, Overwrite.NEVER)
        self.assertEqual((content, result.kept, result.files), (b"other", 1, 0))
        os.unlink(self.target + b"/source/file")
        self.restore(self.point, overwrite=Overwrite.NEVER)
        self.assertEqual(self.read(b"/source/file"), b"backup")

    def test_never_keeps_folders_metadata(self) -> None:
        """Never leaves a folder's mode as it is."""
        os.makedirs(self.target + b"/source")
        os.chmod(self.target + b"/source", 0o711)
        self.restore(self.point, overwrite=Overwrite.NEVER)
        self.assertEqual(stat.S_IMODE(os.stat(self.target + b"/source").st_mode), 0o711)

    def test_if_changed(self) -> None:
        """A file of the same size and time is kept; another size or time is replaced."""
        for content, mtime, kept in (
            (b"edited", OLD_NS, True),
            (b"edited", OLD_NS + 1, False),
            (b"longer than that", OLD_NS, False),
        ):
            found, result = self.over(content, mtime, Overwrite.IF_CHANGED)
            self.assertEqual(found, content if kept else b"backup")
            self.assertEqual(result.kept, int(kept))

    def test_if_newer(self) -> None:
        """A file is replaced if the point's is newer."""
        for mtime, kept in ((OLD_NS - 1, False), (OLD_NS, True), (OLD_NS + 1, True)):
            found, _ = self.over(b"there", mtime, Overwrite.IF_NEWER)
            self.assertEqual(found, b"there" if kept else b"backup")

    def test_link_in_the_place_of_a_file(self) -> None:
        """A link that has the file's name is replaced; what it points to is not written to."""
        os.makedirs(self.target + b"/source")
        os.symlink(self.outside + b"/secret", self.target + b"/source/file")
        self.assertClean(self.restore(self.point))
        self.assertFalse(os.path.islink(self.target + b"/source/file"))
        self.assertEqual(self.read(b"/source/file"), b"backup")

    def test_hard_link_in_the_place_of_a_file(self) -> None:
        """A file with further names elsewhere is replaced, not written to."""
        os.makedirs(self.target + b"/source")
        os.link(self.outside + b"/secret", self.target + b"/source/file")
        self.assertClean(self.restore(self.point))
        self.assertEqual(self.read(b"/source/file"), b"backup")

    def test_hard_link_is_kept_untouched(self) -> None:
        """A kept file's metadata is not changed either: it may have further names elsewhere."""
        point = self.place.publish([_file(b"/file", size=6, mtime_ns=OLD_NS, mode=0o777)], [b"x"])
        os.makedirs(self.target)
        os.link(self.outside + b"/secret", self.target + b"/file")
        result = self.place.restore(point, self.target, overwrite=Overwrite.IF_CHANGED)
        self.assertEqual(result.kept, 1)

    def test_folder_in_the_place_of_a_file(self) -> None:
        """An empty folder goes; one with something in it is reported and stays."""
        os.makedirs(self.target + b"/source/file")
        self.assertClean(self.restore(self.point))
        os.unlink(self.target + b"/source/file")
        write(self.target + b"/source/file/mine", b"mine")
        result = self.restore(self.point)
        self.assertEqual(result.problems.listed[0].reason, "a folder is in the way")
        self.assertEqual(self.read(b"/source/file/mine"), b"mine")
        self.assertEqual(self.names(), [b"/source", b"/source/file", b"/source/file/mine"])

    def test_file_in_the_place_of_a_folder(self) -> None:
        """A file that has a folder's name goes, or is reported where it is to be kept."""
        write(self.target + b"/source", b"a file")
        result = self.restore(self.point, overwrite=Overwrite.NEVER)
        self.assertEqual(result.problems.count, 2)
        self.assertEqual(self.read(b"/source"), b"a file")
        self.assertClean(self.restore(self.point))
        self.assertEqual(self.read(b"/source/file"), b"backup")


class HardLinkTests(Case):
    """Several names of one file."""

    def setUp(self) -> None:
        super().setUp()
        write(self.top + b"/a/one", os.urandom(100_000))
        write(self.top + b"/z", b"another")
        os.link(self.top + b"/a/one", self.top + b"/b")
        os.link(self.top + b"/a/one", self.top + b"/c")
        os.symlink(b"target", self.top + b"/s1")
        os.link(self.top + b"/s1", self.top + b"/s2", follow_symlinks=False)
        age_tree(self.top)
        self.point = self.place.backup(self.top).point

    def inode(self, name: bytes) -> int:
        return os.lstat(self.target + b"/source" + name).st_ino

    def test_all(self) -> None:
        """All names come back as names of one file, links to links too."""
        self.assertClean(self.restore(self.point))
        self.assertEqual(compare_trees(self.top, self.target + b"/source"), [])
        self.assertEqual(self.inode(b"/b"), self.inode(b"/a/one"))
        self.assertEqual(self.inode(b"/s1"), self.inode(b"/s2"))

    def test_without_the_first_name(self) -> None:
        """Where the name that has the content is not chosen, the others get it, as one file."""
        paths = (self.top + b"/b", self.top + b"/c", self.top + b"/s2")
        restored = self.restore(self.point, paths=paths)
        self.assertClean(restored)
        self.assertEqual(self.inode(b"/b"), self.inode(b"/c"))
        with open(self.top + b"/b", "rb") as file:
            self.assertEqual(self.read(b"/source/c"), file.read())
        self.assertEqual(os.readlink(self.target + b"/source/s2"), b"target")
        self.assertFalse(os.path.exists(self.target + b"/source/a"))
        self.assertEqual((restored.files, restored.other), (2, 1))

    def test_first_name_is_kept(self) -> None:
        """Where the first name is kept as it is, the others get content of their own."""
        write(self.target + b"/source/a/one", b"mine")
        restored = self.restore(self.point, overwrite=Overwrite.NEVER)
        self.assertClean(restored)
        self.assertEqual(self.read(b"/source/a/one"), b"mine")
        with open(self.top + b"/b", "rb") as file:
            self.assertEqual(self.read(b"/source/b"), file.read())
        self.assertEqual(self.inode(b"/b"), self.inode(b"/c"))

    def test_kept_links(self) -> None:
        """Links that are there and unchanged are kept as they are."""
        self.restore(self.point)
        before = self.inode(b"/b")
        restored = self.restore(self.point, overwrite=Overwrite.IF_CHANGED)
        self.assertEqual(restored.kept, 6)
        self.assertEqual(self.inode(b"/b"), before)

    def test_first_name_fails(self) -> None:
        """Where the first name could not be restored, the others are reported, too."""
        write(self.target + b"/source/a/one/in the way", b"")
        restored = self.restore(self.point)
        self.assertEqual(
            {item.path[len(self.top) :] for item in restored.problems.listed},
            {b"/a/one", b"/b", b"/c"},
        )
        self.assertEqual(self.read(b"/source/z"), b"another")

    def test_link_to_what_is_not_there(self) -> None:
        """A point whose link names nothing that was restored cannot reach out of the target."""
        entries = [
            _entry(b"/link", EntryType.FILE, link=self.outside + b"/secret"),
            _entry(b"/link2", EntryType.FILE, link=b"/link"),
        ]
        restored = self.place.restore(self.place.publish(entries), self.target)
        self.assertEqual(restored.problems.count, 2)
        self.assertEqual(self.names(), [])

    def test_exchanged_first_name(self) -> None:
        """When somebody exchanges the first name meanwhile, no link to the other thing is made."""
        real = writing_module.place_link

        def exchange(*arguments: Any) -> None:
            path = self.target + b"/source/a/one"
            os.rename(path, path + b".moved")
            os.link(self.outside + b"/secret", path)
            real(*arguments)

        self.patch(writing_module, "place_link", exchange)
        restored = self.restore(self.point, paths=(self.top + b"/a/one", self.top + b"/b"))
        self.assertIn("exchanged", restored.problems.listed[0].reason)
        self.assertFalse(os.path.exists(self.target + b"/source/b"))


class AttackTests(Case):
    """Restore points and targets that try to make a restore write elsewhere.

    ``tearDown`` looks whether anything outside the target was changed.
    """

    def test_link_and_file_below_it(self) -> None:
        """A link in the point, with a file below the link's path, is not written through."""
        content = b"evil"
        chunk = self.place.keys.chunk_id(content)
        entries = [
            _entry(b"/way", EntryType.SYMLINK, target=self.outside),
            _file(b"/way/secret", size=4, runs=(Run(chunk, 0, 4),)),
            _entry(b"/way/below", EntryType.DIRECTORY),
            _entry(b"/way/fifo", EntryType.FIFO),
        ]
        point = self.place.publish(entries, [content])
        for overwrite in Overwrite:
            restored = self.place.restore(point, self.target, overwrite=overwrite)
            self.assertGreaterEqual(restored.problems.count, 3)
            self.assertTrue(os.path.islink(self.target + b"/way"))

    def test_dotted_paths(self) -> None:
        """Entries with dotted, relative or empty names are refused as a whole."""
        for path in (b"/../evil", b"/a/../../evil", b"evil", b"/./evil", b"//evil", b"/a\0b"):
            fields = {"g": 0, "m": 0o644, "n": 0, "p": path, "t": "f", "u": 0}
            point = self.place.publish([cbor2.dumps(cbor2.dumps(fields))])
            with self.assertRaises(StoredDataDamaged, msg=repr(path)):
                self.place.restore(point, self.target)
            self.assertEqual(self.names(), [])
            self.assertEqual(sorted(os.listdir(self.base)), [b"outside", b"source", b"target"])

    def test_name_that_is_too_long(self) -> None:
        """An entry with an impossible name is reported, and the others are restored."""
        point = self.place.publish([_file(b"/" + b"x" * 300), _file(b"/good")])
        restored = self.place.restore(point, self.target)
        self.assertEqual(restored.problems.count, 1)
        self.assertEqual(self.names(), [b"/good"])

    def test_link_in_the_target(self) -> None:
        """A link that waits in the target where the point has a folder is replaced by one, or
        reported, and never followed."""
        write(self.top + b"/way/secret", b"from the backup")
        point = self.place.backup(self.top).point
        for overwrite, replaced in ((Overwrite.NEVER, False), (Overwrite.ALWAYS, True)):
            os.makedirs(self.target + b"/source", exist_ok=True)
            if not os.path.islink(self.target + b"/source/way"):
                os.symlink(self.outside, self.target + b"/source/way")
            restored = self.restore(point, overwrite=overwrite)
            self.assertEqual(restored.problems.count, 0 if replaced else 2)
            self.assertEqual(os.path.islink(self.target + b"/source/way"), not replaced)
        self.assertEqual(self.read(b"/source/way/secret"), b"from the backup")

    def test_link_on_the_way_to_what_was_chosen(self) -> None:
        """A link where a folder is only on the way is reported: it may well belong there."""
        write(self.top + b"/way/secret", b"from the backup")
        point = self.place.backup(self.top).point
        os.makedirs(self.target + b"/source")
        os.symlink(self.outside, self.target + b"/source/way")
        restored = self.restore(point, paths=(self.top + b"/way/secret",))
        self.assertEqual(restored.problems.count, 1)
        self.assertIn("in the way", restored.problems.listed[0].reason)
        self.assertTrue(os.path.islink(self.target + b"/source/way"))

    def test_folder_exchanged_meanwhile(self) -> None:
        """A folder that is exchanged for a link while it is filled leads nowhere."""
        for number in range(4):
            write(self.top + b"/way/file%d" % number, b"x")
        point = self.place.backup(self.top).point
        real = MetadataWriter.apply
        way = self.target + b"/source/way"

        def exchange(writer: MetadataWriter, entry: Entry, descriptor: int) -> None:
            if entry.path.endswith(b"file1"):
                os.rename(way, way + b"-moved")
                os.symlink(self.outside, way)
            real(writer, entry, descriptor)

        self.patch(MetadataWriter, "apply", exchange)
        self.restore(point)
        self.assertTrue(os.path.islink(way))
        self.assertEqual(len(os.listdir(way + b"-moved")), 4)

    def test_file_twice(self) -> None:
        """A path that comes as a link first and as a file then is not written through."""
        chunk = self.place.keys.chunk_id(b"evil")
        entries = [
            _entry(b"/x", EntryType.SYMLINK, target=self.outside + b"/secret"),
            _file(b"/x", size=4, runs=(Run(chunk, 0, 4),)),
        ]
        point = self.place.publish(entries, [b"evil"])
        self.assertClean(self.place.restore(point, self.target))
        self.assertEqual(self.read(b"/x"), b"evil")
        self.assertFalse(os.path.islink(self.target + b"/x"))

    def test_metadata_of_a_link(self) -> None:
        """A link's owner and times are set on the link."""
        entry = _entry(
            b"/x",
            EntryType.SYMLINK,
            target=self.outside + b"/secret",
            mode=0o777,
            uid=12345 if is_root() else os.geteuid(),
        )
        self.assertClean(self.place.restore(self.place.publish([entry]), self.target))
        self.assertEqual(os.lstat(self.target + b"/x").st_mtime_ns, entry.mtime_ns)


class DamageTests(Case):
    """Stored data that is not what was stored."""

    def test_damaged_chunk(self) -> None:
        """Files that need a damaged chunk are reported and left out; all others are restored."""
        for number in range(5):
            write(self.top + b"/large%d" % number, os.urandom(400_000))
        write(self.top + b"/small", b"small")
        age_tree(self.top)
        point = self.place.backup(self.top).point
        with self.place.reader(point) as reader:
            name = reader.find(self.top + b"/large2").runs[2].id
        assert name is not None
        self.place.damage(name)
        write(self.target + b"/source/large2", b"what was there before")
        restored = self.restore(point)
        self.assertEqual([item.path for item in restored.damaged.listed], [self.top + b"/large2"])
        self.assertEqual(restored.problems.listed, [])
        self.assertEqual(restored.files, 5)
        self.assertEqual(self.read(b"/source/large2"), b"what was there before")
        for name in (b"/large0", b"/large4", b"/small"):
            self.assertEqual(compare_trees(self.top + name, self.target + b"/source" + name), [])
        self.assertEqual([name for name in self.names() if b".cloudconnect-" in name], [])

    def test_chunk_of_other_content(self) -> None:
        """A chunk under a name that is not its content's is not written, though its seal holds."""
        good = self.place.keys.chunk_id(b"good")
        self.patch(self.place.keys, "chunk_id", lambda data: good)
        point = self.place.publish([_file(b"/x", size=4, runs=(Run(good, 0, 4),))], [b"evil"])
        restored = self.place.restore(point, self.target)
        self.assertEqual(restored.damaged.count, 1)
        self.assertEqual(self.names(), [])

    def test_run_beyond_its_chunk(self) -> None:
        """A file that needs more of a chunk than there is, is damaged."""
        name = self.place.keys.chunk_id(b"short")
        entries = [_file(b"/x", size=9, runs=(Run(name, 0, 9),)), _file(b"/y")]
        restored = self.place.restore(self.place.publish(entries, [b"short"]), self.target)
        self.assertEqual((restored.damaged.count, restored.files), (1, 1))

    def test_damaged_manifest(self) -> None:
        """A damaged manifest ends the restore with that error."""
        write(self.top + b"/file", b"x")
        result = self.place.backup(self.top)
        assert result.record is not None
        self.place.damage(result.record.manifest[0])
        with self.assertRaises(StoredDataDamaged):
            self.restore(result.point)

    def test_point_signed_by_somebody_else(self) -> None:
        """A point that this master key did not sign is not restored from."""
        write(self.top + b"/file", b"x")
        result = self.place.backup(self.top)
        keys = RepositoryKeys(MasterKey.generate(), self.place.description.repository)
        real = self.place.keys
        keys.__class__ = type("Keys", (RepositoryKeys,), {"id_check": real.id_check})
        self.place.keys = keys
        with self.assertRaises(StoredDataDamaged):
            self.restore(result.point)
        self.assertFalse(os.path.exists(self.target))

    def test_wrong_keys(self) -> None:
        """A repository is not restored from with other keys."""
        write(self.top + b"/file", b"x")
        result = self.place.backup(self.top)
        self.place.keys = RepositoryKeys(MasterKey.generate(), self.place.description.repository)
        with self.assertRaises(CloudConnectError):
            self.restore(result.point)

    def test_no_such_point(self) -> None:
        """A point that does not exist is not found, and no target is made."""
        with self.assertRaises(NotFound):
            self.restore(bytes(16))
        self.assertFalse(os.path.exists(self.target))


class TroubleTests(Case):
    """Targets that make trouble, and interruptions."""

    def test_disk_full(self) -> None:
        """What cannot be written is reported, leaves nothing, and the rest goes on."""
        for number in range(3):
            write(self.top + b"/%d" % number, b"%d" % number * 100)
        point = self.place.backup(self.top).point
        real = os.pwrite

        def full(descriptor: int, data: memoryview, position: int) -> int:
            if bytes(data[:1]) == b"1":
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(descriptor, data, position)

        self.patch(placing_module.os, "pwrite", full)
        restored = self.restore(point)
        self.assertEqual(restored.problems.listed[0].reason, "No space left on device")
        self.assertEqual(self.names(), [b"/source", b"/source/0", b"/source/2"])

    def test_verify_finds_what_the_disk_changed(self) -> None:
        """With verify, a file that reads back differently is reported and not put in place."""
        write(self.top + b"/file", b"x" * 5000)
        point = self.place.backup(self.top).point

        def corrupt(descriptor: int) -> None:
            os.pwrite(descriptor, b"y", 4000)

        self.patch(placing_module.os, "fdatasync", corrupt)
        restored = self.restore(point, verify=True)
        self.assertIn("other bytes", restored.problems.listed[0].reason)
        self.assertEqual(self.names(), [b"/source"])

    def test_cancelled(self) -> None:
        """A cancelled restore leaves whole files only, in folders that are as they were."""
        self.patch(restore_module, "LOOK_SECONDS", 0.0)
        for number in range(30):
            write(self.top + b"/d/%02d" % number, os.urandom(20_000))
        os.chmod(self.top + b"/d", 0o755)
        point = self.place.backup(self.top).point
        asked: list[int] = []

        def cancelled() -> bool:
            asked.append(1)
            return len(asked) > 20

        channel = self.place.open("restore")
        options = RestoreOptions(target=self.target, strip_components=self.base.count(b"/"))
        run = RestoreRun(
            channel,
            self.place.keys,
            self.place.description,
            point,
            options,
            cancelled=cancelled,
        )
        self.assertRaises(Cancelled, run.run)
        made = os.listdir(self.target + b"/source/d")
        self.assertTrue(0 < len(made) < 30)
        for name in made:
            self.assertEqual(
                compare_trees(self.top + b"/d/" + name, self.target + b"/source/d/" + name), []
            )
        self.assertEqual(stat.S_IMODE(os.stat(self.target + b"/source/d").st_mode), 0o755)

    def test_target_that_is_a_file(self) -> None:
        """A target that cannot be a folder is an error of the system."""
        write(self.top + b"/file", b"x")
        point = self.place.backup(self.top).point
        write(self.target, b"a file")
        with self.assertRaises(OSError):
            self.restore(point)

    def test_restored_before_without_write_permission(self) -> None:
        """A folder of mode 0555 is filled again, as far as its owner can, and is 0555 again."""
        write(self.top + b"/d/file", b"x")
        os.chmod(self.top + b"/d", 0o555)
        self.addCleanup(os.chmod, self.top + b"/d", 0o755)
        point = self.place.backup(self.top).point
        self.restore(point)
        self.addCleanup(os.chmod, self.target + b"/source/d", 0o755)
        self.assertClean(self.restore(point))
        self.assertEqual(stat.S_IMODE(os.stat(self.target + b"/source/d").st_mode), 0o555)


def _entry(path: bytes, kind: EntryType, **fields: Any) -> Entry:
    values: dict[str, Any] = {
        "mode": 0o644,
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "user": "",
        "group": "",
        "mtime_ns": OLD_NS + 1,
    }
    return Entry(path=path, type=kind, **{**values, **fields})


def _file(path: bytes, **fields: Any) -> Entry:
    if fields.get("size") and "runs" not in fields:
        fields["runs"] = (Run(None, 0, fields["size"]),)
    return _entry(path, EntryType.FILE, **fields)
