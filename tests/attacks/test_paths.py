"""Restores that are attacked by their restore point, or by somebody in their target.

Whatever is tried, a tree outside the target stays as it was, bytes and metadata.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import target as target_module
from cloudconnect.backup import writing as writing_module
from cloudconnect.backup.metadata import MetadataWriter, read_attributes
from cloudconnect.backup.options import Overwrite, RestoreResult
from cloudconnect.backup.partial import partial_name
from cloudconnect.backup.target import TEMPORARY
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.runs import Run
from cloudconnect.errors import StoredDataDamaged
from tests.attacks.path_cases import EVIL, Case, Scene, all_cases
from tests.attacks.sentinel import make_sentinel, snapshot
from tests.backup.cases import entry_of, file_of
from tests.backup.support import Place
from tests.backup.trees import is_root, write

#: Fewer would leave out something that was promised.
CASES_MIN = 60


class PathCase(SynchronousTestCase):
    """A scene with a sentinel tree."""

    linked = False

    def setUp(self) -> None:
        base = os.path.abspath(self.mktemp()).encode()
        os.makedirs(base + b"/target")
        self.scene = Scene(Place(self.mktemp()), base + b"/outside", base + b"/target")
        make_sentinel(self.scene.outside)
        self.before: dict[bytes, Any] | None = None

    def begin(self, loose: bool = False) -> None:
        """From now on nothing outside may change.

        :param loose: the attacker himself makes further names of what is there
        """
        self.loose = loose
        self.before = snapshot(self.scene.outside, not loose)

    def tearDown(self) -> None:
        self.assertEqual(snapshot(self.scene.outside, not self.loose), self.before)
        beside = os.listdir(os.path.dirname(self.scene.target))
        self.assertEqual(sorted(beside), [b"outside", b"target"])

    def restore(self, entries: list[Entry | bytes], **options: Any) -> RestoreResult:
        place = self.scene.place
        point = place.publish(entries, [EVIL, b"secret", b"plain"])
        return place.restore(point, self.scene.target, **options)


class TableTests(PathCase):
    """One test for each case of the table."""

    def attack(self, case: Case) -> None:
        scene = self.scene
        if case.unprivileged:
            self.patch(
                writing_module, "MetadataWriter", lambda problem: MetadataWriter(problem, False)
            )
        case.prepare(scene)
        self.begin()
        entries = case.entries(scene)
        if case.refused:
            with self.assertRaises(StoredDataDamaged):
                self.restore(entries, **case.options)
            self.assertEqual(os.listdir(scene.target), [])
            return
        if case.linked:
            # Replacing the attacker's further name takes one away from what is outside.
            self.begin(loose=True)
        result = self.restore(entries, **case.options)
        self.assertGreaterEqual(result.problems.count, case.problems, result.problems.listed)
        for name in case.there:
            self.assertTrue(os.path.lexists(scene.target + name), name)
        for name in case.absent:
            self.assertFalse(os.path.lexists(scene.target + name), name)
        self.check_left(case)

    def check_left(self, case: Case) -> None:
        """What was made in the target is what it should be, and no more."""
        outside = {os.lstat(path).st_ino for path in everything(self.scene.outside)}
        for path in case.there:
            whole = self.scene.target + path
            status = os.lstat(whole)
            self.assertNotIn(status.st_ino, outside, path)
            if stat.S_ISREG(status.st_mode) and case.unprivileged:
                self.assertFalse(status.st_mode & 0o6000, path)
                self.assertEqual(read_attributes(whole), ())
            if "access list that a folder" in case.name:
                self.assertEqual(read_attributes(whole), ())
        for name in os.listdir(self.scene.target):
            if name.startswith(TEMPORARY) and b"/" + name not in case.there:
                made_here = os.path.isdir(self.scene.target + b"/" + name)
                self.assertTrue(made_here, name)  # a folder from before, or of the point


def everything(top: bytes) -> Iterator[bytes]:
    """All paths below a folder."""
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            yield os.path.join(folder, name)


def _add(number: int, case: Case) -> None:
    def test(self: TableTests) -> None:
        self.attack(case)

    test.__doc__ = f"{case.name}: nothing outside the target is touched."
    word = re.sub(r"[^a-z0-9]+", "_", case.name.lower()).strip("_")
    setattr(TableTests, f"test_{number:03d}_{word}", test)


_CASES = list(all_cases())
for _number, _case in enumerate(_CASES):
    _add(_number, _case)


class CountTests(SynchronousTestCase):
    """The table itself."""

    def test_enough(self) -> None:
        """There are as many different attacks as were promised."""
        names = [case.name for case in _CASES]
        self.assertEqual(len(names), len(set(names)))
        self.assertGreaterEqual(len(names), CASES_MIN)


class TargetTests(PathCase):
    """Where the target itself is said to be."""

    def test_target_is_a_link(self) -> None:
        """A target that is a link is followed, as the user gave it; links in it are not."""
        scene = self.scene
        real = scene.target + b"/real"
        os.mkdir(real)
        os.symlink(real, scene.target + b"/link")
        os.symlink(scene.outside, real + b"/way")
        self.begin()
        point = scene.place.publish([scene.evil(b"/x"), scene.evil(b"/way/secret")], [EVIL])
        result = scene.place.restore(point, scene.target + b"/link")
        self.assertEqual(result.problems.count, 1)
        self.assertEqual(sorted(os.listdir(real)), [b"way", b"x"])

    def test_target_below_a_link(self) -> None:
        """So is a link on the way to the target."""
        scene = self.scene
        os.makedirs(scene.target + b"/real/deep")
        os.symlink(scene.target + b"/real", scene.target + b"/link")
        self.begin()
        point = scene.place.publish([scene.evil(b"/x")], [EVIL])
        scene.place.restore(point, scene.target + b"/link/deep")
        self.assertEqual(os.listdir(scene.target + b"/real/deep"), [b"x"])


class OpenFileTests(PathCase):
    """Somebody keeps a file of the target open, to write to it once root has made it safe."""

    def keep_open(self, mode: int, owner: int) -> int:
        path = self.scene.put(b"/x", EVIL, mode)
        os.utime(path, ns=(5, 5))
        descriptor = os.open(path, os.O_WRONLY)
        self.addCleanup(os.close, descriptor)
        if owner != os.geteuid():
            os.chown(path, owner, owner)
        return descriptor

    def attacked(self, descriptor: int) -> None:
        self.begin()
        entry = self.scene.evil(b"/x", mtime_ns=5, mode=0o644)
        self.restore([entry])
        os.pwrite(descriptor, b"CHANGED", 0)
        with open(self.scene.target + b"/x", "rb") as file:
            self.assertEqual(file.read(), EVIL)

    def test_loose_mode(self) -> None:
        """A file of the right content that others could write to is made anew."""
        self.attacked(self.keep_open(0o666, os.geteuid()))

    def test_other_owner(self) -> None:
        """So is one that somebody else owns."""
        if not is_root():
            self.skipTest("only root gives files away")
        self.attacked(self.keep_open(0o644, 12345))


class ExchangeTests(PathCase):
    """Somebody exchanges things in the target between two steps of the restore."""

    def during(self, name: bytes, action: Callable[[], Any]) -> None:
        """Do something while the metadata of an entry is set, just before it gets its name."""
        real = MetadataWriter.set_time

        def apply(writer: MetadataWriter, entry: Entry, descriptor: int) -> None:
            if entry.path.endswith(name):
                action()
            real(writer, entry, descriptor)

        self.patch(MetadataWriter, "set_time", apply)

    def test_folder_for_a_link(self) -> None:
        """A folder that is exchanged for a link while it is filled leads nowhere."""
        scene, way = self.scene, self.scene.target + b"/way"

        def exchange() -> None:
            os.rename(way, way + b"-moved")
            os.symlink(scene.outside, way)

        self.begin()
        self.during(b"/file1", exchange)
        files = [scene.evil(b"/way/file%d" % number) for number in range(5)]
        self.restore([scene.folder(b"/way", mode=0o777), *files])
        self.assertEqual(len(os.listdir(way + b"-moved")), 5)

    def test_folder_for_a_link_between_folders(self) -> None:
        """Also where the restore comes back to it for the next folder."""
        scene, way = self.scene, self.scene.target + b"/way"

        def exchange() -> None:
            os.rename(way, way + b"-moved")
            os.symlink(scene.outside, way)

        self.begin()
        self.during(b"/a/x", exchange)
        entries: list[Entry | bytes] = [scene.folder(b"/way")]
        for name in (b"a", b"folder"):
            entries += [
                scene.folder(b"/way/" + name, mode=0o777),
                scene.evil(b"/way/" + name + b"/x"),
            ]
        self.restore(entries)

    def test_unfinished_file_for_a_link(self) -> None:
        """An unfinished file that is exchanged does not give its name to something else."""
        scene = self.scene
        temporary = scene.target + b"/" + partial_name(b"/x")

        def exchange() -> None:
            os.unlink(temporary)
            os.symlink(scene.outside + b"/secret", temporary)

        self.begin()
        self.during(b"/x", exchange)
        result = self.restore([scene.evil(b"/x", mode=0o666)])
        self.assertEqual(result.problems.count, 1)
        self.assertFalse(os.path.lexists(scene.target + b"/x"))

    def test_first_name_of_a_hard_link(self) -> None:
        """When the first name is exchanged for something outside, no further name of that is
        made."""
        scene = self.scene
        self.begin(loose=True)
        real = writing_module.place_link

        def exchange(*arguments: Any) -> None:
            os.unlink(scene.target + b"/a")
            os.link(scene.outside + b"/secret", scene.target + b"/a")
            real(*arguments)

        self.patch(writing_module, "place_link", exchange)
        first = scene.evil(b"/a", flags=2)
        result = self.restore([first, file_of(b"/b", link=b"/a")])
        self.assertEqual(result.problems.count, 1)
        self.assertFalse(os.path.lexists(scene.target + b"/b"))

    def test_special_thing(self) -> None:
        """What is exchanged for a further name of a FIFO outside is not given that one's owner,
        mode or times."""
        scene = self.scene
        self.begin(loose=True)
        real = MetadataWriter.apply_to_name

        def exchange(writer: MetadataWriter, entry: Entry, parent: int, name: bytes) -> None:
            os.unlink(name, dir_fd=parent)
            os.link(scene.outside + b"/fifo", name, dst_dir_fd=parent)
            real(writer, entry, parent, name)

        self.patch(MetadataWriter, "apply_to_name", exchange)
        owner = 12345 if is_root() else os.geteuid()
        result = self.restore([entry_of(b"/x", EntryType.FIFO, mode=0o666, uid=owner)])
        self.assertEqual(result.problems.count, 1)
        self.assertFalse(os.path.lexists(scene.target + b"/x"))


class RaceTests(PathCase):
    """Somebody exchanges things all the time, while a restore runs."""

    @contextlib.contextmanager
    def attacker(self, act: Callable[[], Any]) -> Iterator[None]:
        """Do ``act`` again and again, in a thread."""
        over, acted = threading.Event(), threading.Event()

        def run() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):
                    act()
                acted.set()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            acted.wait(60)
            yield
        finally:
            over.set()
            thread.join(60)

    def entries(self) -> list[Entry | bytes]:
        """Many things in one folder, some of them large enough to be written piece by piece."""
        scene = self.scene
        made: list[Entry | bytes] = [scene.folder(b"/way", mode=0o777)]
        large = (Run(scene.place.keys.chunk_id(EVIL), 0, len(EVIL)),) * 200
        for number in range(60):
            name = b"/way/%03d" % number
            kind = number % 4
            if kind == 0:
                made.append(file_of(name, size=200 * len(EVIL), runs=large, mode=0o666))
            elif kind == 1:
                made.append(scene.evil(name, mode=0o666))
            elif kind == 2:
                made.append(scene.link(name, scene.outside + b"/secret"))
            else:
                made.append(entry_of(name, EntryType.FIFO, mode=0o666))
        return [*made, scene.folder(b"/way2"), scene.evil(b"/way2/secret")]

    def race(self, act: Callable[[], Any], loose: bool = False) -> None:
        os.makedirs(self.scene.target + b"/way", exist_ok=True)
        entries = self.entries()
        point = self.scene.place.publish(entries, [EVIL])
        self.begin(loose)
        with self.attacker(act):
            for _ in range(3):
                self.scene.place.restore(point, self.scene.target)

    def test_folder_and_link(self) -> None:
        """The folder is a link to the outside half of the time."""
        way, outside = self.scene.target + b"/way", self.scene.outside

        def act() -> None:
            os.rename(way, way + b"-real")
            os.symlink(outside, way)
            os.unlink(way)
            os.rename(way + b"-real", way)

        self.race(act)

    def test_deep_folders(self) -> None:
        """The same, high above where the restore is, so that it has to find its way again."""
        self.patch(target_module, "OPEN_FOLDERS_MAX", 2)
        scene, way = self.scene, self.scene.target + b"/way"
        os.makedirs(way + b"/folder")

        def act() -> None:
            os.rename(way, way + b"-real")
            os.symlink(scene.outside, way)
            os.unlink(way)
            os.mkdir(way)
            os.rmdir(way)
            os.rename(way + b"-real", way)

        entries: list[Entry | bytes] = [scene.folder(b"/way")]
        for number in range(40):
            deep = b"/way/folder" + b"/%d" % number * 4
            entries += [scene.evil(deep + b"/inside", mode=0o777), scene.link(deep + b"/link")]
        point = scene.place.publish(entries, [EVIL])
        self.begin()
        with self.attacker(act):
            for overwrite in Overwrite:
                scene.place.restore(point, scene.target, overwrite=overwrite)

    def test_links_where_files_belong(self) -> None:
        """Links to the outside appear where files belong."""
        way, secret = self.scene.target + b"/way", self.scene.outside + b"/secret"
        numbers = iter(range(1 << 30))

        def act() -> None:
            name = way + b"/%03d" % (next(numbers) % 60)
            os.symlink(secret, way + b"/new")
            os.rename(way + b"/new", name)

        self.race(act)

    def test_temporary_names(self) -> None:
        """Whatever has a temporary name is exchanged for a further name of something outside."""
        way, outside = self.scene.target + b"/way", self.scene.outside

        def act() -> None:
            for name in os.listdir(way):
                if name.startswith(TEMPORARY):
                    what = b"/fifo" if not name.endswith(b".partial") else b"/secret"
                    with contextlib.suppress(OSError):
                        os.unlink(way + b"/" + name)
                        os.link(outside + what, way + b"/" + name)

        self.race(act, loose=True)

    def test_temporary_links(self) -> None:
        """Or for a symlink to it."""
        way, outside = self.scene.target + b"/way", self.scene.outside

        def act() -> None:
            for name in os.listdir(way):
                if name.startswith(TEMPORARY):
                    with contextlib.suppress(OSError):
                        os.unlink(way + b"/" + name)
                        os.symlink(outside + b"/secret", way + b"/" + name)

        self.race(act)

    def test_what_is_kept(self) -> None:
        """A file that is right when it is looked at is a link when it is passed by."""
        scene, way = self.scene, self.scene.target + b"/way"
        write(way + b"/001", EVIL, 0o666)

        def act() -> None:
            os.symlink(scene.outside + b"/secret", way + b"/l")
            os.rename(way + b"/l", way + b"/001")
            write(way + b"/f", EVIL, 0o666)
            os.rename(way + b"/f", way + b"/001")

        self.race(act)
