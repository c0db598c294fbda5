"""A whole backup, against a real repository in the same process and against hostile ones."""

from __future__ import annotations

import errno
import os
import stat
from io import BytesIO
from pathlib import Path
from typing import Any

import attrs

from cloudconnect.backup import leading as leading_module
from cloudconnect.backup import reader as reader_module
from cloudconnect.backup import source as source_module
from cloudconnect.backup import upload as upload_module
from cloudconnect.backup import walk as walk_module
from cloudconnect.backup.options import BackupOptions, BackupResult, Progress, StandardInput
from cloudconnect.backup.patterns import PathPatterns
from cloudconnect.backup.rules import ExcludeRules
from cloudconnect.backup.upload import BackupRun
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys
from cloudconnect.content.entries import FLAG_CHANGED, EntryType
from cloudconnect.errors import (
    SourceCommandFailed,
    UsageError,
)
from cloudconnect.keys import MasterKey
from cloudconnect.repository.serve import ServeResult
from cloudconnect.repository.store import Repository
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import Coding, unpack_chunk
from tests.backup.cases import BackupCase
from tests.backup.support import SESSION, Listening, Place
from tests.backup.trees import ODD_NAMES, OLD_NS, make_odd_tree, write


class BackupTests(BackupCase):
    """What a backup stores and says."""

    def test_counts(self) -> None:
        """The result and the point's record count files, folders and bytes."""
        make_odd_tree(self.top + b"/odd")
        result = self.place.backup(self.top)
        record = self.place.record_of(result.point)
        files = folders = other = size = 0
        inodes = set()
        for folder, names, leaves in os.walk(self.top):
            folders += 1
            for name in names + leaves:
                status = os.lstat(os.path.join(folder, name))
                if stat.S_ISREG(status.st_mode):
                    files += 1
                    size += 0 if status.st_ino in inodes else status.st_size
                    inodes.add(status.st_ino)
                elif not stat.S_ISDIR(status.st_mode):
                    other += 1
        self.assertEqual(
            (result.files, result.directories, result.other, result.bytes_source),
            (files, folders, other, size),
        )
        expected = {
            "files": files,
            "directories": folders,
            "other": other,
            "bytes_source": size,
            "bytes_new": result.bytes_new,
            "unreadable": 0,
        }
        self.assertEqual(record.statistics, expected)
        self.assertEqual(result.record, record)
        self.assertLess(result.bytes_stored, result.bytes_sent)
        served = self.place.served
        assert served is not None
        served_result = served.wait()
        assert isinstance(served_result, ServeResult)
        self.assertEqual(served_result.bytes_received, result.bytes_sent)
        self.assertEqual(served_result.bytes_sent, result.bytes_received)

    def test_record(self) -> None:
        """The record has the labels, and the paths only sealed."""
        write(self.top + b"/file", b"content")
        self.place.labels = attrs.evolve(self.place.labels, tags=("a", "b"))
        result = self.place.backup(self.top)
        record = self.place.record_of(result.point)
        self.assertEqual((record.host, record.job, record.tags), ("host", "job", ("a", "b")))
        self.assertEqual((record.session, record.job_id), (SESSION, b"j" * 16))
        self.assertNotIn(self.top, record.encode())
        self.assertEqual(self.place.keys.open_private(result.point, record.private), (self.top,))

    def test_nothing_new_the_second_time(self) -> None:
        """A second backup without a cache reads everything and sends no content."""
        self.tree()
        first = self.place.backup(self.top)
        second = self.place.backup(self.top)
        self.assertGreater(first.bytes_new, 0)
        self.assertEqual((second.bytes_new, second.files_unchanged), (0, 0))
        self.assertEqual(second.bytes_source, first.bytes_source)
        self.assertNotEqual(first.point, second.point)
        self.assertEqual(self.entries(first.point), self.entries(second.point))

    def test_equal_content_is_sent_once(self) -> None:
        """Content that is in several places of one backup is sent once."""
        data = os.urandom(500_000)
        for name in (b"/a", b"/b", b"/c"):
            write(self.top + name, data)
        result = self.place.backup(self.top)
        self.assertEqual(result.bytes_source, 1_500_000)
        self.assertEqual(result.bytes_new, 500_000)

    def test_entries_are_in_walk_order(self) -> None:
        """However late a small file's chunk is known, its entry stands where the walk found it."""
        self.patch(source_module, "BATCH_BYTES", 10_000)
        self.tree(60)
        result = self.place.backup(self.top)
        paths = list(self.entries(result.point))
        keys = [path.split(b"/") for path in paths]
        self.assertEqual(keys, sorted(keys))
        self.assertEqual(len(paths), 60 + 4)

    def test_without_encryption(self) -> None:
        """In the mode without encryption, content is stored compressed only, and readable."""
        self.place = Place(self.mktemp(), EncryptionMode.NONE)
        write(self.top + b"/file", b"can be read by anybody" * 1000)
        result = self.place.backup(self.top)
        self.assertEqual(self.content(result.point, b"/file"), b"can be read by anybody" * 1000)

    def test_plain_on_the_wire(self) -> None:
        """With an accelerator on the way content and manifest go plain, are stored compressed, and
        come back in a restore as exactly the CHUNKs that they were."""
        own = RepositoryKeys(MasterKey.generate(), bytes(16), EncryptionMode.PROVIDER)
        for mode in (EncryptionMode.NONE, EncryptionMode.PROVIDER):
            self.place = place = Place(self.mktemp(), mode)
            keys = own if mode is EncryptionMode.PROVIDER else None
            place.serve_options = {"plain_on_wire": True, "keys": keys}
            heard: list[Listening] = []

            def listen(channel: FrameChannel, heard: list[Listening] = heard) -> FrameChannel:
                heard.append(Listening(channel))
                return heard[-1]

            place.wrap = listen
            write(self.top + b"/text", b"".join(b"line %d\n" % number for number in range(40_000)))
            write(self.top + b"/noise", os.urandom(300_000))
            result = place.backup(self.top, compression=0)
            target = os.path.abspath(self.mktemp()).encode()
            place.restore(result.point, target)
            up, down = (set(channel.chunks) for channel in heard)
            codings = {unpack_chunk(body).coding for body in up}
            self.assertEqual(codings, {Coding.PLAIN})
            self.assertGreater(len(up), 3)
            self.assertEqual(up, down)
            with open(target + self.top + b"/text", "rb") as file:
                self.assertEqual(len(file.read()), os.path.getsize(self.top + b"/text"))
            with Repository.open(place.directory) as repository:
                stored = repository.statistics()
            self.assertLess(stored["bytes_stored"], stored["bytes_plain"] - 200_000)

    def test_empty_files_only(self) -> None:
        """A backup that needs no chunk at all is a backup."""
        write(self.top + b"/empty", b"")
        result = self.place.backup(self.top)
        self.assertEqual((result.files, result.bytes_new), (1, 0))
        self.assertIn(b"/empty", self.entries(result.point))

    def test_odd_names(self) -> None:
        """Names of any bytes are kept exactly."""
        for name in ODD_NAMES:
            write(self.top + b"/" + name, name)
        result = self.place.backup(self.top)
        self.assertEqual(
            set(self.entries(result.point)), {b"", *(b"/" + name for name in ODD_NAMES)}
        )

    def test_excludes(self) -> None:
        """What the rules exclude is not in the point."""
        self.tree(9)
        rules = ExcludeRules(patterns=PathPatterns([b"d1"]))
        result = self.place.backup(self.top, rules=rules)
        self.assertFalse(any(path.startswith(b"/d1") for path in self.entries(result.point)))
        self.assertEqual(result.files, 6)

    def test_hard_links(self) -> None:
        """Further names of a file are links to the first one, and count no bytes."""
        write(self.top + b"/a", b"x" * 1000)
        os.link(self.top + b"/a", self.top + b"/b")
        os.symlink(b"nowhere", self.top + b"/s")
        os.link(self.top + b"/s", self.top + b"/t", follow_symlinks=False)
        result = self.place.backup(self.top)
        entries = self.entries(result.point)
        self.assertEqual(entries[b"/b"].link, self.top + b"/a")
        self.assertIsNone(entries[b"/a"].link)
        self.assertEqual(entries[b"/t"].link, self.top + b"/s")
        self.assertEqual((result.bytes_source, result.files, result.other), (1000, 2, 2))

    def test_small_files_share_chunks(self) -> None:
        """10,000 files of 200 bytes make as few chunks as one file of their size."""
        os.makedirs(self.top + b"/many")
        for number in range(10_000):
            with open(self.top + b"/many/%04d" % number, "wb", buffering=0) as file:
                file.write(os.urandom(200))
        result = self.place.backup(self.top)
        self.assertEqual(result.files, 10_000)
        with Repository.open(self.place.directory) as repository:
            stored = repository.statistics()["blobs"]
            (point,) = repository.points()
        self.assertEqual(result.bytes_source, 2_000_000)
        self.assertLess(point.reference_count, 60)
        self.assertLess(stored, 80)  # with the manifest's

    def test_progress(self) -> None:
        """Progress goes up to what the result says, and never back."""
        self.patch(upload_module, "LOOK_SECONDS", 0.0)
        self.patch(source_module, "BATCH_BYTES", 10_000)
        self.tree(40)
        seen: list[Progress] = []
        channel = self.place.open("backup")
        options = BackupOptions(paths=(self.top,))
        run = BackupRun(
            channel,
            self.place.keys,
            self.place.description,
            options,
            self.place.labels,
            SESSION,
            progress=seen.append,
        )
        result = run.run()
        for name in ("files", "bytes_done", "bytes_new", "bytes_sent", "bytes_received"):
            values = [getattr(progress, name) for progress in seen]
            self.assertEqual(values, sorted(values), name)
        self.assertEqual(seen[-1].bytes_done, result.bytes_source)
        self.assertTrue(seen[-1].path.startswith(self.top))


class CacheTests(BackupCase):
    """Unchanged files."""

    def setUp(self) -> None:
        super().setUp()
        real = leading_module.FileCache

        def trusting(directory: Path, repository: bytes, check: bytes) -> Any:
            return real(directory, repository, check, lambda: 1 << 62)

        self.patch(leading_module, "FileCache", trusting)

    def backup(self, *paths: bytes) -> BackupResult:
        return self.place.backup(*(paths or (self.top,)), cache=self.cache)

    def test_unchanged_files_are_not_read(self) -> None:
        """The second backup opens no file, and its point is the same."""
        self.tree()
        first = self.backup()

        def refuse(*arguments: object) -> int:
            raise AssertionError("an unchanged file was opened")

        self.patch(reader_module, "open_quietly", refuse)
        second = self.backup()
        self.assertEqual(second.files_unchanged, first.files)
        self.assertEqual(second.unreadable.count, 0)
        self.assertEqual(second.bytes_source, first.bytes_source)
        self.assertEqual(self.entries(first.point), self.entries(second.point))

    def test_waiting_is_bounded(self) -> None:
        """Where one small file changed, the unchanged ones behind it do not wait for the end."""
        self.patch(source_module, "WAITING_ENTRIES", 50)
        self.patch(source_module, "BATCH_ENTRIES", 20)
        for number in range(400):
            write(self.top + b"/%03d" % number, b"content %d" % number)
        self.backup()
        write(self.top + b"/000", b"changed")
        waiting: list[int] = []
        real = source_module.Source._settle

        def settle(source: Any) -> None:
            real(source)
            waiting.append(len(source._order))

        self.patch(source_module.Source, "_settle", settle)
        second = self.backup()
        self.assertEqual(second.files_unchanged, 399)
        self.assertLess(max(waiting), 60)
        self.assertEqual(len(self.entries(second.point)), 401)

    def test_changed_file_among_unchanged_ones(self) -> None:
        """Only what changed is read and sent."""
        self.tree()
        first = self.backup()
        write(self.top + b"/d0/f000", b"new content")
        write(self.top + b"/d0/new", b"a new file")
        second = self.backup()
        self.assertEqual(second.files_unchanged, first.files - 1)
        self.assertEqual(second.bytes_new, len(b"new content" + b"a new file"))
        self.assertEqual(self.content(second.point, b"/d0/f000"), b"new content")
        self.assertEqual(self.content(second.point, b"/d0/new"), b"a new file")

    def test_changed_mode_is_noticed(self) -> None:
        """A file of which only the mode changed has its new mode in the point."""
        self.tree(3)
        self.backup()
        os.chmod(self.top + b"/d0/f000", 0o751)
        second = self.backup()
        self.assertEqual(self.entries(second.point)[b"/d0/f000"].mode, 0o751)
        self.assertEqual(second.bytes_new, 0)

    def test_young_files_are_read_again(self) -> None:
        """With the real clock, files that were written just now are not trusted."""
        self.tree(5)
        real = leading_module.FileCache

        def now(directory: Path, repository: bytes, check: bytes) -> Any:
            cache = real(directory, repository, check)
            cache.now_ns = lambda: os.stat(self.top + b"/d0/f000").st_ctime_ns
            return cache

        self.patch(leading_module, "FileCache", now)
        self.backup()
        self.assertEqual(self.backup().files_unchanged, 0)

    def test_everything_lost(self) -> None:
        """When the repository has lost everything, unchanged files are read again and sent."""
        self.tree()
        os.link(self.top + b"/d0/f000", self.top + b"/d2/link")
        first = self.backup()
        expected = {name: self.content(first.point, name) for name in self.files(first)}
        empty = Path(os.path.abspath(self.mktemp()))
        Repository.create(empty, self.place.description).close()
        self.place.directory = empty
        second = self.backup()
        self.assertEqual(second.files, first.files)
        self.assertEqual(second.files_unchanged, self.empty_files())
        self.assertEqual(second.bytes_new, first.bytes_new)
        self.assertEqual({n: self.content(second.point, n) for n in self.files(second)}, expected)
        keys = [path.split(b"/") for path in self.entries(second.point)]
        self.assertEqual(keys, sorted(keys))

    def files(self, result: BackupResult) -> list[bytes]:
        entries = self.entries(result.point)
        return [name for name, entry in entries.items() if entry.type is EntryType.FILE]

    def empty_files(self) -> int:
        found = 0
        for folder, _, names in os.walk(self.top):
            found += sum(os.path.getsize(os.path.join(folder, name)) == 0 for name in names)
        return found

    def test_one_chunk_lost(self) -> None:
        """When one chunk is damaged, the files that need it are read again, and only those."""
        for number in range(5):
            write(self.top + b"/large%d" % number, os.urandom(400_000))
        first = self.backup()
        lost = self.entries(first.point)[b"/large2"].runs[1].id
        assert lost is not None
        self.place.damage(lost)
        with Repository.open(self.place.directory) as repository:
            list(repository.read_each([lost]))  # notices it
        second = self.backup()
        self.assertEqual(second.files_unchanged, 4)
        self.assertEqual(second.bytes_new, self.entries(first.point)[b"/large2"].runs[1].length)
        with open(self.top + b"/large2", "rb") as file:
            self.assertEqual(self.content(second.point, b"/large2"), file.read())

    def test_lost_and_gone(self) -> None:
        """A file whose chunk is lost and that vanishes is reported; the rest is stored."""
        write(self.top + b"/a", os.urandom(100_000))
        write(self.top + b"/b", os.urandom(100_000))
        first = self.backup()
        empty = Path(os.path.abspath(self.mktemp()))
        Repository.create(empty, self.place.description).close()
        self.place.directory = empty
        real = source_module.open_below

        def vanish(sources: list[bytes], path: bytes) -> int:
            if path.endswith(b"/a"):
                os.unlink(path)
            return real(sources, path)

        self.patch(source_module, "open_below", vanish)
        second = self.backup()
        self.assertEqual(set(self.entries(second.point)), {b"", b"/b"})
        self.assertEqual(second.unreadable.listed[0].path, self.top + b"/a")
        self.assertEqual((first.files, second.files), (2, 1))

    def test_damaged_cache(self) -> None:
        """A damaged cache costs reading everything, and nothing else."""
        self.tree()
        first = self.backup()
        for path in self.cache.iterdir():
            path.write_bytes(b"garbage" * 1000)
        second = self.backup()
        self.assertEqual((second.files_unchanged, second.bytes_new), (0, 0))
        self.assertEqual(self.entries(first.point), self.entries(second.point))

    def test_damaged_chunk_of_a_file_that_also_changed(self) -> None:
        """A chunk that an unchanged file needs and the repository lacks comes from any file."""
        data = os.urandom(300_000)
        write(self.top + b"/a", data)
        self.backup()
        empty = Path(os.path.abspath(self.mktemp()))
        Repository.create(empty, self.place.description).close()
        self.place.directory = empty
        write(self.top + b"/b", data)  # new, with the same chunks
        result = self.backup()
        self.assertEqual(self.content(result.point, b"/a"), data)
        self.assertEqual(self.content(result.point, b"/b"), data)
        self.assertEqual(result.unreadable.count, 0)


class TroubleTests(BackupCase):
    """Sources that make trouble."""

    def test_unreadable_files(self) -> None:
        """What cannot be read is reported with path and reason; everything else is stored."""
        self.tree(9)
        real = reader_module.open_quietly

        def refuse(name: bytes, flags: int, parent: int, owner: int) -> int:
            if name == b"f004":
                raise PermissionError(errno.EACCES, "Permission denied")
            if name == b"f005":
                raise FileNotFoundError(errno.ENOENT, "No such file or directory")
            if name == b"f006":
                raise OSError(errno.EIO, "Input/output error")
            return real(name, flags, parent, owner)

        self.patch(reader_module, "open_quietly", refuse)
        result = self.place.backup(self.top)
        self.assertEqual(
            {(item.path[len(self.top) :], item.reason) for item in result.unreadable.listed},
            {
                (b"/d1/f004", "Permission denied"),
                (b"/d2/f005", "vanished while the backup ran"),
                (b"/d0/f006", "Input/output error"),
            },
        )
        self.assertEqual((result.files, result.unreadable.count), (6, 3))
        self.assertEqual(len(self.entries(result.point)), 6 + 4)
        self.assertEqual(self.place.record_of(result.point).statistics["unreadable"], 3)

    def test_permission_denied_for_real(self) -> None:
        """A file without read permission, where this user needs one."""
        if os.geteuid() == 0:
            self.skipTest("root may read everything")
        write(self.top + b"/closed", b"x", 0o000)
        write(self.top + b"/open", b"y")
        result = self.place.backup(self.top)
        self.assertEqual(result.unreadable.listed[0].reason, "Permission denied")
        self.assertIn(b"/open", self.entries(result.point))

    def test_first_name_of_a_link_is_unreadable(self) -> None:
        """Where the first name of a file cannot be read, the next one is tried."""
        write(self.top + b"/a", b"content")
        os.link(self.top + b"/a", self.top + b"/b")
        real = reader_module.open_quietly

        def refuse(name: bytes, *arguments: int) -> int:
            if name == b"a":
                raise OSError(errno.EIO, "Input/output error")
            return real(name, *arguments)

        self.patch(reader_module, "open_quietly", refuse)
        result = self.place.backup(self.top)
        self.assertIsNone(self.entries(result.point)[b"/b"].link)
        self.assertEqual(self.content(result.point, b"/b"), b"content")

    def test_changing_file(self) -> None:
        """A file that changes each time it is read is stored, marked and reported."""
        write(self.top + b"/log", b"0")
        real = reader_module.read_attributes

        def grow(where: int | bytes) -> Any:
            with open(self.top + b"/log", "ab") as file:
                file.write(b"1")
            return real(where)

        self.patch(reader_module, "read_attributes", grow)
        result = self.place.backup(self.top)
        self.assertEqual([item.path for item in result.changed.listed], [self.top + b"/log"])
        self.assertTrue(self.entries(result.point)[b"/log"].flags & FLAG_CHANGED)
        self.assertEqual(self.content(result.point, b"/log"), b"01")

    def test_path_too_long_for_a_manifest(self) -> None:
        """A path that a manifest cannot hold is reported, and the rest is stored."""
        self.tree(3)
        deep = self.top + b"/replaced-below"
        os.mkdir(deep)
        real = walk_module.Found.__init__

        def long(self: Any, path: bytes, *arguments: Any) -> None:
            real(self, path.replace(b"replaced-below", b"y" * 70_000), *arguments)

        self.patch(walk_module.Found, "__init__", long)
        result = self.place.backup(self.top)
        self.assertEqual(result.unreadable.count, 1)
        self.assertEqual((result.files, result.directories), (3, 4))

    def test_nothing_there(self) -> None:
        """When nothing of what was named exists, no point is made."""
        with self.assertRaises(UsageError):
            self.place.backup(self.top + b"/none", self.top + b"/neither")
        self.assertEqual(self.points(), 0)

    def test_one_of_two_sources_is_missing(self) -> None:
        """A source that does not exist is reported, and the others are backed up."""
        write(self.top + b"/there", b"x")
        result = self.place.backup(self.top + b"/there", self.top + b"/none")
        self.assertEqual(result.unreadable.listed[0].reason, "does not exist")
        self.assertEqual(result.files, 1)

    def test_labels(self) -> None:
        """Labels that cannot be used are noticed before anything is sent."""
        self.place.labels = attrs.evolve(self.place.labels, host="bad\nhost")
        channel = self.place.open("backup")
        run = BackupRun(
            channel,
            self.place.keys,
            self.place.description,
            BackupOptions(paths=(self.top,)),
            self.place.labels,
            SESSION,
        )
        self.assertRaises(UsageError, run.run)
        self.assertEqual(channel.bytes_sent, 0)


class StandardInputTests(BackupCase):
    """A stream that is backed up as a file."""

    def test_stored_under_its_name(self) -> None:
        """All of it is in the point, with today's time and nobody else's to read."""
        data = os.urandom(3_000_000)
        result = self.place.backup(stdin=StandardInput(b"dumps/data.sql", BytesIO(data)))
        with self.place.reader(result.point) as reader:
            (entry,) = reader.entries()
            self.assertEqual(entry.path, b"/dumps/data.sql")
            self.assertEqual(b"".join(reader.read(entry)), data)
        self.assertEqual(entry.mode, 0o600)
        self.assertGreater(entry.mtime_ns, OLD_NS)
        self.assertEqual((result.files, result.bytes_source), (1, len(data)))

    def test_empty(self) -> None:
        """An empty stream is an empty file."""
        result = self.place.backup(stdin=StandardInput(b"/x", BytesIO(b"")))
        self.assertEqual((result.files, result.bytes_source), (1, 0))

    def test_command_failed(self) -> None:
        """When the check at the end says that the command failed, no point is published."""

        def check() -> None:
            raise SourceCommandFailed("pg_dump ended with status 1")

        with self.assertRaises(SourceCommandFailed):
            self.place.backup(stdin=StandardInput(b"/x", BytesIO(b"half a dump"), check))
        self.assertEqual(self.points(), 0)

    def test_name_that_cannot_be_used(self) -> None:
        """A name that is no path is refused."""
        for name in (b"/", b"a/../b", b"a\0b"):
            with self.assertRaises(UsageError, msg=repr(name)):
                self.place.backup(stdin=StandardInput(name, BytesIO(b"x")))
        self.assertEqual(self.points(), 0)

    def test_options(self) -> None:
        """Paths and standard input at once, or neither, is a mistake."""
        stdin = StandardInput(b"/x", BytesIO(b""))
        self.assertRaises(UsageError, BackupOptions)
        self.assertRaises(UsageError, BackupOptions, paths=(b"/a",), stdin=stdin)


class DryRunTests(BackupCase):
    """Looking and counting only."""

    def test_counts_and_sends_nothing(self) -> None:
        """A dry run needs no repository and counts what a backup counts."""
        make_odd_tree(self.top + b"/odd")
        options = BackupOptions(paths=(self.top, self.top + b"/none"), dry_run=True)
        run = BackupRun(
            None, self.place.keys, self.place.description, options, self.place.labels, SESSION
        )
        dry = run.run()
        result = self.place.backup(self.top, self.top + b"/none")
        for name in ("files", "directories", "other", "bytes_source"):
            self.assertEqual(getattr(dry, name), getattr(result, name), name)
        self.assertEqual(dry.unreadable, result.unreadable)
        self.assertEqual((dry.point, dry.record), (b"", None))
