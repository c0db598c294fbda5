"""Restores that are run again: only what is missing or wrong is fetched."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

from cloudconnect.backup import placing
from cloudconnect.backup import planning as planning_module
from cloudconnect.backup import restore as restore_module
from cloudconnect.backup import resuming as resuming_module
from cloudconnect.backup import target as target_module
from cloudconnect.backup import writing as writing_module
from cloudconnect.backup.comparison import compare_trees
from cloudconnect.backup.metadata import MetadataWriter
from cloudconnect.backup.options import Overwrite, Progress, RestoreOptions, RestoreResult
from cloudconnect.backup.partial import partial_name
from cloudconnect.backup.planning import Plan, Step
from cloudconnect.backup.restore import RestoreRun
from cloudconnect.backup.resuming import Resumer
from cloudconnect.backup.target import Target
from cloudconnect.content.atrest import RepositoryKeys
from cloudconnect.content.entries import Entry
from cloudconnect.content.runs import Run
from cloudconnect.errors import Cancelled, Truncated
from cloudconnect.keys import MasterKey
from tests.backup.cases import RestoreCase, file_of
from tests.backup.trees import (
    OLD_NS,
    age_tree,
    allocated,
    is_root,
    make_odd_tree,
    write,
    write_sparse,
)


class ResumeCase(RestoreCase):
    """A tree that was restored once."""

    def restored(self, **options: Any) -> RestoreResult:
        """Restore; all is exact then."""
        result = self.restore(self.point, **options)
        self.assertClean(result)
        self.assertEqual(compare_trees(self.top, self.target + b"/source"), [])
        return result

    def back_up(self) -> None:
        age_tree(self.top)
        self.point = self.place.backup(self.top).point


class AgainTests(ResumeCase):
    """The same restore again."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(40):
            write(self.top + b"/small/%02d" % number, os.urandom(4000))
        for number in range(3):
            write(self.top + b"/medium%d" % number, os.urandom(400_000))
        write(self.top + b"/large", os.urandom(5_000_000))
        write_sparse(self.top + b"/sparse", {300_000: b"x" * 300_000, 2_000_000: b"y"}, 3_000_000)
        self.back_up()
        self.first = self.restored()

    def test_nothing_changed(self) -> None:
        """Nothing but the manifest is fetched, every file is left as it is, and counted."""
        self.assertGreater(self.first.bytes_received, 6_000_000)
        self.assertEqual((self.first.unchanged, self.first.bytes_there), (0, 0))
        inodes = {name: os.lstat(self.target + name).st_ino for name in self.names()}
        again = self.restored()
        self.assertLess(again.bytes_received, 60_000)
        self.assertEqual(again.files, self.first.files)
        self.assertEqual(again.bytes_restored, self.first.bytes_restored)
        self.assertEqual(again.bytes_there, self.first.bytes_restored)
        self.assertEqual(again.unchanged, self.first.files)
        for name, inode in inodes.items():
            self.assertEqual(os.lstat(self.target + name).st_ino, inode, name)

    def test_one_wrong_byte(self) -> None:
        """Of a large file with one wrong byte, whose size and time look right, one chunk is
        fetched; the others are copied."""
        path = self.target + b"/source/large"
        for position in (0, 2_500_000, 4_999_999):
            when = os.stat(path).st_mtime_ns
            with open(path, "r+b") as file:
                file.seek(position)
                byte = file.read(1)
                file.seek(position)
                file.write(bytes((byte[0] ^ 1,)))
            os.utime(path, ns=(when, when))
            again = self.restored()
            self.assertLess(again.bytes_received, 400_000)
            self.assertEqual(again.unchanged, self.first.files - 1)
            self.assertGreater(again.bytes_there, self.first.bytes_restored - 300_000)

    def test_changed_mode_only(self) -> None:
        """Where only metadata differs, nothing is fetched."""
        for name in (b"/large", b"/medium1", b"/small/07"):
            os.chmod(self.target + b"/source" + name, 0o777)
        again = self.restored()
        self.assertLess(again.bytes_received, 60_000)
        self.assertEqual(again.unchanged, self.first.files - 3)

    def test_small_files(self) -> None:
        """Of small files that share a chunk, those that are missing or wrong are fetched with the
        chunk."""
        os.unlink(self.target + b"/source/small/11")
        write(self.target + b"/source/small/23", os.urandom(4000))
        again = self.restored()
        self.assertLess(again.bytes_received, 700_000)
        self.assertGreater(again.unchanged, 4)

    def test_shorter_and_longer(self) -> None:
        """A file that was cut, or has grown, gives what of it is good."""
        path = self.target + b"/source/large"
        os.truncate(path, 3_000_000)
        self.assertLess(self.restored().bytes_received, 2_600_000)
        with open(path, "ab") as file:
            file.write(b"more")
        self.assertLess(self.restored().bytes_received, 60_000)

    def test_sparse(self) -> None:
        """Holes stay holes, and what was written into them goes."""
        path = self.target + b"/source/sparse"
        before = allocated(path)
        os.chmod(path, 0o600)
        self.restored()
        self.assertLessEqual(allocated(path), before + 8192)
        with open(path, "r+b") as file:
            file.seek(1_000_000)
            file.write(b"in a hole")
        again = self.restored()
        self.assertLess(again.bytes_received, 400_000)
        self.assertLessEqual(allocated(path), before + 8192)

    def test_if_changed(self) -> None:
        """With if-changed, what has its size and time is not even read; with verify, it is."""
        write(self.target + b"/source/medium1", b"z" * 400_000)
        when = os.stat(self.top + b"/medium1").st_mtime_ns
        os.utime(self.target + b"/source/medium1", ns=(when, when))
        result = self.restore(self.point, overwrite=Overwrite.IF_CHANGED)
        self.assertEqual((result.kept, result.files), (self.first.files, 0))
        self.assertEqual(result.bytes_kept, self.first.bytes_restored)
        self.assertNotEqual(compare_trees(self.top, self.target + b"/source"), [])
        again = self.restored(overwrite=Overwrite.IF_CHANGED, verify=True)
        self.assertEqual((again.kept, again.files), (0, self.first.files))
        self.assertLess(again.bytes_received, 500_000)

    def test_verify(self) -> None:
        """What is copied or left is verified as well."""
        os.chmod(self.target + b"/source/large", 0o600)
        self.restored(verify=True)

    def test_small_steps(self) -> None:
        """Whatever the sizes of steps and windows."""
        self.patch(planning_module, "RUNS_STEP", 2)
        self.patch(resuming_module, "WAITING_STEPS", 2)
        self.patch(writing_module, "AHEAD_BYTES", 150_000)
        self.patch(writing_module, "ASK_BYTES", 70_000)
        self.patch(resuming_module, "SMALL", 10_000)
        os.chmod(self.target + b"/source/large", 0o600)
        os.unlink(self.target + b"/source/small/30")
        self.restored()

    def test_other_names(self) -> None:
        """A file with a further name elsewhere is not left as it is, nor written to."""
        os.link(self.target + b"/source/large", self.base + b"/elsewhere")
        os.link(self.target + b"/source/small/05", self.base + b"/elsewhere2")
        again = self.restored()
        self.assertEqual(again.unchanged, self.first.files - 2)
        self.assertLess(again.bytes_received, 60_000)
        self.assertEqual(os.stat(self.target + b"/source/large").st_nlink, 1)

    def test_owner(self) -> None:
        """A file that somebody else owns is not left as it is, whatever is in it."""
        if not is_root():
            self.skipTest("only root gives files away")
        path = self.target + b"/source/large"
        inode = os.stat(path).st_ino
        os.chown(path, 12345, 12345)
        again = self.restored()
        self.assertEqual(again.unchanged, self.first.files - 1)
        self.assertNotEqual(os.stat(path).st_ino, inode)
        self.assertLess(again.bytes_received, 60_000)


class OddTests(ResumeCase):
    """Everything that a backup keeps, over itself."""

    def test_odd_tree(self) -> None:
        """Again and again the same, hard links and attributes and all, and next to nothing is
        fetched."""
        make_odd_tree(self.top + b"/odd")
        self.back_up()
        first = self.restored()
        again = self.restored()
        self.assertEqual((again.files, again.other), (first.files, first.other))
        self.assertLess(again.bytes_received * 10, first.bytes_received)

    def test_another_point(self) -> None:
        """Of a newer point, only what is new is fetched."""
        write(self.top + b"/large", os.urandom(3_000_000))
        self.back_up()
        self.restored()
        with open(self.top + b"/large", "r+b") as file:
            file.seek(1_000_000)
            file.write(b"changed")
        self.back_up()
        self.assertLess(self.restored().bytes_received, 500_000)


class GenerationTests(ResumeCase):
    """A repository whose master key was replaced."""

    def test_older_key(self) -> None:
        """What was named with an older key is known again."""
        write(self.top + b"/large", os.urandom(2_000_000))
        self.back_up()
        self.restored()
        old, real = self.place.keys, RepositoryKeys
        fresh = real(MasterKey.generate(), old.repository, old.mode, [old])
        fresh.__class__ = type("Keys", (real,), {"id_check": old.id_check})
        self.place.keys = fresh
        again = self.restored()
        self.assertEqual(again.unchanged, 1)
        self.assertLess(again.bytes_received, 60_000)


class PartialTests(ResumeCase):
    """Restores that were interrupted in the middle of a large file."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(restore_module, "LOOK_SECONDS", 0.0)
        self.patch(planning_module, "RUNS_STEP", 4)
        write(self.top + b"/a", b"before")
        write(self.top + b"/large", os.urandom(12_000_000))
        write(self.top + b"/z", b"behind")
        self.back_up()
        self.unfinished = self.target + b"/source/" + partial_name(self.top + b"/large")

    def interrupt(self, done: int, **options: Any) -> None:
        """Restore until so many bytes are there."""
        chosen: dict[str, Any] = {"strip_components": self.base.count(b"/"), **options}
        seen: list[Progress] = []
        run = RestoreRun(
            self.place.open("restore"),
            self.place.keys,
            self.place.description,
            self.point,
            RestoreOptions(target=self.target, **chosen),
            progress=seen.append,
            cancelled=lambda: bool(seen) and seen[-1].bytes_done >= done,
        )
        self.assertRaises(Cancelled, run.run)

    def test_goes_on(self) -> None:
        """The unfinished file is found, and only the rest of it fetched; none is left at the
        end."""
        self.interrupt(6_000_000)
        self.assertTrue(os.path.exists(self.unfinished))
        self.assertEqual(stat.S_IMODE(os.stat(self.unfinished).st_mode), 0o600)
        self.assertFalse(os.path.exists(self.target + b"/source/large"))
        result = self.restored()
        self.assertLess(result.bytes_received, 6_500_000)
        self.assertGreater(result.bytes_there, 5_500_000)

    def test_several_times(self) -> None:
        """It gets further each time."""
        for done in (3_000_000, 6_000_000, 9_000_000):
            self.interrupt(done)
        self.assertLess(self.restored(verify=True).bytes_received, 3_500_000)

    def test_every_choice(self) -> None:
        """Whatever happens to files that are there: this one is not."""
        for overwrite in Overwrite:
            self.interrupt(6_000_000, overwrite=overwrite)
            result = self.restore(self.point, overwrite=overwrite)
            self.assertClean(result)
            self.assertLess(result.bytes_received, 6_500_000)
            whole = self.target + b"/source/large"
            self.assertEqual(compare_trees(self.top + b"/large", whole), [])
            os.unlink(whole)

    def test_damaged_meanwhile(self) -> None:
        """What is wrong in the unfinished file is fetched again; what is behind its end goes."""
        self.interrupt(6_000_000)
        with open(self.unfinished, "r+b") as file:
            file.write(b"wrong")
            file.seek(13_000_000)
            file.write(b"behind the end")
        self.assertLess(self.restored().bytes_received, 7_000_000)

    def test_of_another_point(self) -> None:
        """What is good of it is used for another point, too."""
        self.interrupt(6_000_000)
        with open(self.top + b"/large", "r+b") as file:
            file.write(b"changed")
        self.back_up()
        self.assertLess(self.restored().bytes_received, 7_000_000)

    def test_holes(self) -> None:
        """Where there is a hole now, what an earlier restore wrote goes."""
        self.interrupt(6_000_000)
        os.unlink(self.top + b"/large")
        write_sparse(self.top + b"/large", {0: b"x", 3_000_000: b"y" * 100_000}, 9_000_000)
        self.back_up()
        self.restored()

    def test_with_an_old_file(self) -> None:
        """An unfinished file and the file that it is to replace: the best of both."""
        with open(self.top + b"/large", "rb") as file:
            content = file.read()
        old = bytes(6_000_000) + content[6_000_000:]
        write(self.target + b"/source/large", old)
        self.interrupt(5_000_000)
        self.assertEqual(self.read(b"/source/large"), old)
        self.assertLess(self.restored().bytes_received, 2_500_000)

    def test_done_by_hand(self) -> None:
        """Where the file itself is right meanwhile, the unfinished one goes."""
        self.interrupt(6_000_000)
        with open(self.top + b"/large", "rb") as file:
            write(self.target + b"/source/large", file.read())
        when = os.stat(self.top + b"/large").st_mtime_ns
        os.utime(self.target + b"/source/large", ns=(when, when))
        # Of the two small files, which share a chunk, one is not there yet.
        self.assertEqual(self.restored().unchanged, 1)

    def test_little(self) -> None:
        """What is not worth while is not left."""
        self.patch(placing, "WORTH_KEEPING", 1 << 30)
        self.interrupt(500_000)
        self.assertEqual([n for n in self.names() if b".cloudconnect-" in n], [])

    def test_hostile(self) -> None:
        """What somebody else can have put there is not used, and not written to."""
        with open(self.top + b"/large", "rb") as file:
            content = file.read()

        def link() -> None:
            os.link(self.outside + b"/secret", self.unfinished)

        def symlink() -> None:
            os.symlink(self.outside + b"/secret", self.unfinished)

        def loose() -> None:
            write(self.unfinished, content, 0o666)

        cases: list[Callable[[], None]] = [link, symlink, loose]
        os.makedirs(self.target + b"/source")
        for make in cases:
            make()
            result = self.restored()
            self.assertGreater(result.bytes_received, 12_000_000, make)
            os.unlink(self.target + b"/source/large")

    def test_in_the_restore_point(self) -> None:
        """An unfinished file that was backed up is a file like any other."""
        name = partial_name(self.top + b"/large")
        write(self.top + b"/" + name, os.urandom(2_000_000), 0o600)
        self.back_up()
        for _ in range(2):
            result = self.restore(self.point)
            self.assertEqual(result.problems.listed, [])
            self.assertEqual(compare_trees(self.top, self.target + b"/source"), [])

    def test_line_breaks(self) -> None:
        """Also where it was not a person who interrupted it."""
        real, count = RestoreRun._look, [0]

        def broken(run: RestoreRun, result: RestoreResult, path: bytes) -> None:
            real(run, result, path)
            if result.bytes_restored > 6_000_000:
                count[0] += 1
                run._channel.abort(Truncated("the line broke"))

        self.patch(RestoreRun, "_look", broken)
        with self.assertRaises(Truncated):
            self.restore(self.point)
        self.assertGreater(count[0], 0)
        self.patch(RestoreRun, "_look", real)
        self.assertTrue(os.path.exists(self.unfinished))
        self.assertLess(self.restored().bytes_received, 6_500_000)


class TotalsTests(ResumeCase):
    """How much there is to do."""

    def totals(self, **options: Any) -> tuple[Progress, RestoreResult]:
        self.patch(restore_module, "LOOK_SECONDS", 0.0)
        seen: list[Progress] = []
        chosen = {"strip_components": self.base.count(b"/"), **options}
        run = RestoreRun(
            self.place.open("restore"),
            self.place.keys,
            self.place.description,
            self.point,
            RestoreOptions(target=self.target, **chosen),
            progress=seen.append,
        )
        result = run.run()
        return seen[-1], result

    def test_selected_paths(self) -> None:
        """Of chosen paths, the totals are theirs; what is kept counts as done."""
        write(self.top + b"/a/one", b"1" * 100)
        write(self.top + b"/a/two", b"2" * 50)
        write(self.top + b"/b", b"3" * 1000)
        self.back_up()
        last, _ = self.totals(paths=(self.top + b"/a",))
        self.assertEqual((last.files_total, last.bytes_total), (3, 150))
        self.assertEqual((last.files, last.bytes_done), (3, 150))
        last, result = self.totals(paths=(self.top + b"/a",), overwrite=Overwrite.NEVER)
        self.assertEqual((last.bytes_total, last.bytes_done, result.kept), (150, 150, 2))
        last, _ = self.totals()
        self.assertEqual(last.bytes_total, 1150)

    def test_listed(self) -> None:
        """Each thing that is restored, or would be, is told once."""
        self.patch(planning_module, "RUNS_STEP", 2)
        write(self.top + b"/a/large", os.urandom(1_000_000))
        os.symlink(b"x", self.top + b"/link")
        self.back_up()
        listed: list[bytes] = []
        for dry in (True, False):
            listed.clear()
            run = RestoreRun(
                self.place.open("restore"),
                self.place.keys,
                self.place.description,
                self.point,
                RestoreOptions(target=self.target, dry_run=dry, paths=(self.top,)),
                listed=lambda entry: listed.append(entry.path[len(self.top) :]),
            )
            run.run()
            self.assertEqual(sorted(listed), [b"", b"/a", b"/a/large", b"/link"])


class ExchangedTests(RestoreCase):
    """Folders of the target that are exchanged while it is looked at."""

    def test_folder(self) -> None:
        """What cannot be looked at any more is taken as not there, and the restore goes on."""
        self.patch(target_module, "OPEN_FOLDERS_MAX", 1)
        for name in (b"/a/b/c/x", b"/a/y"):
            write(self.target + name, b"1234567890")
        target = Target(self.target, create=False)
        self.addCleanup(target.close)
        entries = [
            file_of(path, size=10, runs=(Run(b"r" * 32, 0, 10),)) for path in (b"/a/b/c/x", b"/a/y")
        ]

        def planned() -> Iterator[Step]:
            yield Step(entries[0], (b"a", b"b", b"c", b"x"), runs=entries[0].runs)
            os.rename(self.target + b"/a", self.target + b"/moved")
            os.mkdir(self.target + b"/a")
            yield Step(entries[1], (b"a", b"y"), runs=entries[1].runs)

        metadata = MetadataWriter(lambda path, reason: None)
        resumer = Resumer(target, lambda name, data: True, metadata, lambda path: None)
        found = [step.found for step in resumer.steps(planned())]
        self.assertEqual(found, [[b"1234567890"], []])

    def test_folder_when_planning(self) -> None:
        """Likewise where it is only asked whether a file is there."""
        self.patch(target_module, "OPEN_FOLDERS_MAX", 1)
        for name in (b"/a/b/c/x", b"/a/y"):
            write(self.target + name, b"")
        target = Target(self.target, create=False)
        self.addCleanup(target.close)

        def entries() -> Iterator[Entry]:
            yield file_of(b"/a/b/c/x")
            os.rename(self.target + b"/a", self.target + b"/moved")
            os.mkdir(self.target + b"/a")
            yield file_of(b"/a/y")

        options = RestoreOptions(target=b"", overwrite=Overwrite.NEVER)
        result = self.result()
        steps = list(
            Plan(options, result, MetadataWriter(result.problems.add, True)).steps(
                entries(), target
            )
        )
        self.assertEqual([step.entry.path for step in steps], [b"/a/y"])
        self.assertEqual(result.kept, 1)

    def result(self) -> RestoreResult:
        write(self.top + b"/any", b"x")
        point = self.place.backup(self.top).point
        return RestoreResult(record=self.place.record_of(point))


class ForgedTests(ResumeCase):
    """Points that lie."""

    def test_run_of_no_chunk(self) -> None:
        """A file that is there is not good because a point says that it needs nothing of it."""
        name = self.place.keys.chunk_id(b"good")
        runs = (Run(name, 0, 4), Run(name, 1, 2))
        point = self.place.publish([file_of(b"/x", size=6, runs=runs)], [b"good"])
        for there in (b"goodoo", b"goodxx", b"evil!!"):
            write(self.target + b"/x", there, mtime_ns=OLD_NS + 1)
            self.assertClean(self.place.restore(point, self.target))
            self.assertEqual(self.read(b"/x"), b"goodoo")
