"""Whole restores: exact ones, chosen parts, and restore points and targets that attack."""

from __future__ import annotations

import os
import stat
from typing import Any

from cloudconnect.backup import planning as planning_module
from cloudconnect.backup import restore as restore_module
from cloudconnect.backup import writing as writing_module
from cloudconnect.backup.comparison import compare_trees
from cloudconnect.backup.metadata import MetadataWriter
from cloudconnect.backup.options import Overwrite, Progress, RestoreOptions
from cloudconnect.backup.patterns import PathPatterns
from cloudconnect.backup.restore import RestoreRun
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys
from cloudconnect.content.entries import EntryType
from cloudconnect.content.runs import Run
from cloudconnect.errors import (
    CloudConnectError,
    NotFound,
    StoredDataDamaged,
)
from cloudconnect.keys import MasterKey
from cloudconnect.repository.serve import ServeResult
from tests.backup.cases import RestoreCase, entry_of, file_of
from tests.backup.support import Place
from tests.backup.trees import (
    age_tree,
    allocated,
    deep_folder,
    make_odd_tree,
    remove_deep,
    write,
)


class ExactTests(RestoreCase):
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
        self.patch(writing_module, "AHEAD_BYTES", 200_000)
        self.patch(writing_module, "ASK_BYTES", 100_000)
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
                file_of(b"/f", xattrs=((b"trusted.x", b"1"),)),
                entry_of(b"/device", EntryType.CHARACTER, device=os.makedev(1, 3)),
                entry_of(b"/fifo", EntryType.FIFO),
                entry_of(b"/socket", EntryType.SOCKET),
                entry_of(b"/other", EntryType.FILE, uid=os.geteuid() + 1),
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


class ChoiceTests(RestoreCase):
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


class DamageTests(RestoreCase):
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
        point = self.place.publish([file_of(b"/x", size=4, runs=(Run(good, 0, 4),))], [b"evil"])
        restored = self.place.restore(point, self.target)
        self.assertEqual(restored.damaged.count, 1)
        self.assertEqual(self.names(), [])

    def test_run_beyond_its_chunk(self) -> None:
        """A file that needs more of a chunk than there is, is damaged."""
        name = self.place.keys.chunk_id(b"short")
        entries = [file_of(b"/x", size=9, runs=(Run(name, 0, 9),)), file_of(b"/y")]
        restored = self.place.restore(self.place.publish(entries, [b"short"]), self.target)
        self.assertEqual((restored.damaged.count, restored.files), (1, 1))

    def test_damaged_manifest(self) -> None:
        """A damaged manifest is reported: nothing that stands behind the damage is restored."""
        write(self.top + b"/file", b"x")
        result = self.place.backup(self.top)
        assert result.record is not None
        self.place.damage(result.record.manifest[0])
        restored = self.restore(result.point)
        self.assertEqual((restored.damaged.count, restored.files), (1, 0))
        self.assertIn("manifest", restored.damaged.listed[0].reason)

    def test_end_of_a_manifest(self) -> None:
        """What stands before the damage is restored, folders' metadata and all, also where it was
        chosen."""
        for number in range(9000):
            write(self.top + b"/d/%04d" % number, b"")
        age_tree(self.top)
        result = self.place.backup(self.top)
        assert result.record is not None
        self.assertGreater(len(result.record.manifest), 2)
        self.place.damage(result.record.manifest[-1])
        for paths in ((), (self.top + b"/d",)):
            restored = self.restore(result.point, paths=paths)
            self.assertEqual((restored.damaged.count, restored.problems.count), (1, 0))
            self.assertTrue(1000 < restored.files < 9000, restored.files)
            made, real = (os.stat(path + b"/d") for path in (self.target + b"/source", self.top))
            self.assertEqual(made.st_mtime_ns, real.st_mtime_ns)

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
