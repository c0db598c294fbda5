"""Writing a restored tree: over what is there, against attacks, and in trouble."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from typing import Any

import cbor2

from cloudconnect.backup import names as names_module
from cloudconnect.backup import placing as placing_module
from cloudconnect.backup import planning as planning_module
from cloudconnect.backup import restore as restore_module
from cloudconnect.backup import target as target_module
from cloudconnect.backup import writing as writing_module
from cloudconnect.backup.comparison import compare_trees
from cloudconnect.backup.metadata import MetadataWriter
from cloudconnect.backup.options import Overwrite, RestoreOptions, RestoreResult
from cloudconnect.backup.restore import RestoreRun
from cloudconnect.backup.spilling import PathTable
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.runs import Run
from cloudconnect.errors import (
    Cancelled,
    StoredDataDamaged,
)
from tests.backup.cases import RestoreCase, entry_of, file_of
from tests.backup.trees import (
    OLD_NS,
    age_tree,
    is_root,
    write,
)


class OverwriteTests(RestoreCase):
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
        point = self.place.publish([file_of(b"/file", size=6, mtime_ns=OLD_NS, mode=0o777)], [b"x"])
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


class HardLinkTests(RestoreCase):
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

    def relinked(self, overwrite: Overwrite, kept: int | None = None) -> RestoreResult:
        """Restore over what is there; the names are links of each other again."""
        restored = self.restore(self.point, overwrite=overwrite)
        self.assertClean(restored)
        differences = compare_trees(self.top, self.target + b"/source")
        if overwrite is Overwrite.NEVER:  # which leaves a folder that is there as it is
            differences = [one for one in differences if one.aspect != "mtime"]
        self.assertEqual(differences, [])
        self.assertEqual(len({self.inode(name) for name in (b"/a/one", b"/b", b"/c")}), 1)
        self.assertEqual(self.inode(b"/s1"), self.inode(b"/s2"))
        if kept is not None:
            self.assertEqual(restored.kept, kept)
        return restored

    def apart(self, name: bytes) -> None:
        """Make one name a file of its own, with the same content and metadata."""
        path = self.target + b"/source" + name
        shutil.copy2(path, path + b".copy")
        os.replace(path + b".copy", path)

    def test_missing_name(self) -> None:
        """A name that is missing, be it the first or another one, becomes a link to those that are
        there: nothing is written again, whatever is to happen to what is there."""
        self.restore(self.point)
        for overwrite in (Overwrite.IF_CHANGED, Overwrite.IF_NEWER, Overwrite.NEVER):
            for name in (b"/a/one", b"/b", b"/c", b"/s1", b"/s2"):
                there = self.inode(b"/b" if name == b"/a/one" else b"/a/one")
                os.unlink(self.target + b"/source" + name)
                restored = self.relinked(overwrite, kept=5)
                self.assertEqual(restored.bytes_restored, 0)
                self.assertEqual(self.inode(b"/a/one"), there)

    def test_changed_name(self) -> None:
        """A name that is another file by now becomes a link again where it may be replaced."""
        self.restore(self.point)
        for overwrite in (Overwrite.IF_CHANGED, Overwrite.IF_NEWER):
            for name in (b"/a/one", b"/b", b"/c"):
                there = self.inode(b"/b" if name == b"/a/one" else b"/a/one")
                os.unlink(self.target + b"/source" + name)
                write(self.target + b"/source" + name, b"edited", mtime_ns=OLD_NS)
                self.assertEqual(self.relinked(overwrite, kept=5).bytes_restored, 0)
                self.assertEqual(self.inode(b"/a/one"), there)

    def test_newer_name(self) -> None:
        """A name that is a newer file by now, or any other one, stays where such are kept."""
        self.restore(self.point)
        for overwrite in (Overwrite.IF_NEWER, Overwrite.NEVER):
            there = self.inode(b"/b")
            os.unlink(self.target + b"/source/a/one")
            write(self.target + b"/source/a/one", b"edited")
            os.unlink(self.target + b"/source/c")
            self.assertClean(self.restore(self.point, overwrite=overwrite))
            self.assertEqual(self.read(b"/source/a/one"), b"edited")
            self.assertEqual((self.inode(b"/b"), self.inode(b"/c")), (there, there))

    def test_separate_copy(self) -> None:
        """A name that is a file of its own, but looks the same, becomes a link again where what
        differs is replaced; its content is not got again."""
        self.restore(self.point)
        for name in (b"/a/one", b"/b", b"/c"):
            self.apart(name)
            self.assertEqual(self.relinked(Overwrite.IF_CHANGED).bytes_restored, 0)

    def test_all_edited(self) -> None:
        """What was edited through one of its names is written anew, once, with all its names."""
        self.restore(self.point)
        write(self.target + b"/source/b", b"edited", mtime_ns=OLD_NS)
        self.assertEqual(self.relinked(Overwrite.IF_CHANGED).bytes_restored, 100_000)

    def test_other_metadata(self) -> None:
        """No link is made to what has another mode by now: it is replaced with all its names where
        what differs is, and kept otherwise."""
        self.restore(self.point)
        os.chmod(self.target + b"/source/b", 0o666)
        os.unlink(self.target + b"/source/a/one")
        self.assertClean(self.restore(self.point, overwrite=Overwrite.IF_NEWER))
        self.assertNotEqual(self.inode(b"/a/one"), self.inode(b"/b"))
        self.assertEqual(stat.S_IMODE(os.stat(self.target + b"/source/b").st_mode), 0o666)
        os.chmod(self.target + b"/source/a/one", 0o666)
        self.relinked(Overwrite.IF_CHANGED)

    def test_changed_meanwhile(self) -> None:
        """What is there may be a link's target when a name is planned, and another thing of the
        same number when the link is made: then it stays without that name."""
        self.restore(self.point)
        os.unlink(self.target + b"/source/c")
        real = writing_module.place_link

        def exchange(*arguments: Any) -> None:
            os.chmod(self.target + b"/source/b", 0o666)
            real(*arguments)

        self.patch(writing_module, "place_link", exchange)
        restored = self.restore(self.point, overwrite=Overwrite.IF_CHANGED)
        self.assertIn("exchanged", restored.problems.listed[0].reason)
        self.assertFalse(os.path.exists(self.target + b"/source/c"))

    def test_chosen_names(self) -> None:
        """Of chosen names, those that are missing become links to those that are there."""
        self.restore(self.point)
        there = self.inode(b"/b")
        os.unlink(self.target + b"/source/c")
        os.unlink(self.target + b"/source/a/one")
        paths = (self.top + b"/b", self.top + b"/c")
        restored = self.restore(self.point, paths=paths, overwrite=Overwrite.IF_CHANGED)
        self.assertEqual((restored.kept, restored.files, restored.bytes_restored), (1, 1, 0))
        self.assertEqual((self.inode(b"/b"), self.inode(b"/c")), (there, there))
        self.assertFalse(os.path.exists(self.target + b"/source/a/one"))

    def test_other_target_of_a_link(self) -> None:
        """A symbolic link that leads elsewhere by now gets no further names."""
        self.restore(self.point)
        os.unlink(self.target + b"/source/s1")
        os.unlink(self.target + b"/source/s2")
        os.symlink(b"targeT", self.target + b"/source/s2")
        when = os.lstat(self.top + b"/s2").st_mtime_ns
        os.utime(self.target + b"/source/s2", ns=(when, when), follow_symlinks=False)
        self.relinked(Overwrite.IF_CHANGED)

    def test_many(self) -> None:
        """It is the same where what is known of them does not fit into memory."""
        for module in (names_module, planning_module):
            self.patch(module, "PathTable", lambda: PathTable(0))
        self.restore(self.point)
        os.unlink(self.target + b"/source/a/one")
        self.relinked(Overwrite.IF_CHANGED, kept=5)
        self.apart(b"/c")
        self.relinked(Overwrite.IF_CHANGED, kept=5)
        write(self.target + b"/source/b", b"edited", mtime_ns=OLD_NS)
        self.relinked(Overwrite.IF_CHANGED)
        self.relinked(Overwrite.ALWAYS)
        self.test_chosen_names()

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
            entry_of(b"/link", EntryType.FILE, link=self.outside + b"/secret"),
            entry_of(b"/link2", EntryType.FILE, link=b"/link"),
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


class AttackTests(RestoreCase):
    """Restore points and targets that try to make a restore write elsewhere.

    ``tearDown`` looks whether anything outside the target was changed.
    """

    def test_link_and_file_below_it(self) -> None:
        """A link in the point, with a file below the link's path, is not written through."""
        content = b"evil"
        chunk = self.place.keys.chunk_id(content)
        entries = [
            entry_of(b"/way", EntryType.SYMLINK, target=self.outside),
            file_of(b"/way/secret", size=4, runs=(Run(chunk, 0, 4),)),
            entry_of(b"/way/below", EntryType.DIRECTORY),
            entry_of(b"/way/fifo", EntryType.FIFO),
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
        point = self.place.publish([file_of(b"/" + b"x" * 300), file_of(b"/good")])
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
        real = MetadataWriter.set_time
        way = self.target + b"/source/way"

        def exchange(writer: MetadataWriter, entry: Entry, descriptor: int) -> None:
            if entry.path.endswith(b"file1"):
                os.rename(way, way + b"-moved")
                os.symlink(self.outside, way)
            real(writer, entry, descriptor)

        self.patch(MetadataWriter, "set_time", exchange)
        self.restore(point)
        self.assertTrue(os.path.islink(way))
        self.assertEqual(len(os.listdir(way + b"-moved")), 4)

    def test_folder_moved_away(self) -> None:
        """A folder that is moved away while the restore is deep in it is reported, not chased."""
        self.patch(target_module, "OPEN_FOLDERS_MAX", 2)
        write(self.top + b"/a/b/c/d/e/file", b"x")
        point = self.place.backup(self.top).point
        real = MetadataWriter.set_time
        moved = self.target + b"/source/a"

        def move(writer: MetadataWriter, entry: Entry, descriptor: int) -> None:
            if entry.path.endswith(b"file"):
                os.rename(moved, self.target + b"/elsewhere")
            real(writer, entry, descriptor)

        self.patch(MetadataWriter, "set_time", move)
        restored = self.restore(point)
        reasons = {item.reason for item in restored.problems.listed}
        self.assertEqual(reasons, {"it was moved while the restore ran"})
        self.assertFalse(os.path.exists(moved))

    def test_file_twice(self) -> None:
        """A path that comes as a link first and as a file then is not written through."""
        chunk = self.place.keys.chunk_id(b"evil")
        entries = [
            entry_of(b"/x", EntryType.SYMLINK, target=self.outside + b"/secret"),
            file_of(b"/x", size=4, runs=(Run(chunk, 0, 4),)),
        ]
        point = self.place.publish(entries, [b"evil"])
        self.assertClean(self.place.restore(point, self.target))
        self.assertEqual(self.read(b"/x"), b"evil")
        self.assertFalse(os.path.islink(self.target + b"/x"))

    def test_metadata_of_a_link(self) -> None:
        """A link's owner and times are set on the link."""
        entry = entry_of(
            b"/x",
            EntryType.SYMLINK,
            target=self.outside + b"/secret",
            mode=0o777,
            uid=12345 if is_root() else os.geteuid(),
        )
        self.assertClean(self.place.restore(self.place.publish([entry]), self.target))
        self.assertEqual(os.lstat(self.target + b"/x").st_mtime_ns, entry.mtime_ns)


class TroubleTests(RestoreCase):
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
