"""Checks with the tenant's keys: what is damaged is found, named, and healed by the next backup."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cloudconnect.backup import check as check_module
from cloudconnect.backup import dialogue as dialogue_module
from cloudconnect.backup import fetching as fetching_module
from cloudconnect.backup import filecache
from cloudconnect.backup import findings as findings_module
from cloudconnect.backup import options as options_module
from cloudconnect.backup.check import CheckRun
from cloudconnect.backup.comparison import compare_trees
from cloudconnect.backup.findings import CheckOptions, CheckResult
from cloudconnect.backup.options import Progress
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys
from cloudconnect.content.runs import Run
from cloudconnect.errors import (
    Cancelled,
    CloudConnectError,
    ProtocolViolation,
    Refused,
    UsageError,
)
from cloudconnect.keys import MasterKey
from cloudconnect.repository import serve as serve_module
from cloudconnect.repository.store import Repository
from cloudconnect.repository.tables import points_table
from cloudconnect.wire.frames import Frame, FrameKind, encode_body
from tests.backup.cases import RestoreCase, file_of
from tests.backup.support import Place
from tests.backup.trees import age_tree, make_odd_tree, write


class CheckCase(RestoreCase):
    """A repository that is checked."""

    cache: Path | None = None

    def check(
        self,
        *points: bytes,
        read_data: bool = False,
        at_provider: bool = False,
        part: tuple[int, int] = (1, 1),
    ) -> CheckResult:
        """Check these points, or all."""
        wanted = points or self.points()
        options = CheckOptions(read_data=read_data, at_provider=at_provider, part=part)
        channel = self.place.open("check")
        run = CheckRun(channel, self.place.keys, self.place.description, wanted, options)
        return run.run()

    def points(self) -> tuple[bytes, ...]:
        with Repository.open(self.place.directory) as repository:
            return tuple(row.point for row in repository.points())

    def backup(self) -> bytes:
        return self.place.backup(self.top, cache=self.cache).point

    def runs_of(self, point: bytes, name: bytes) -> list[bytes]:
        """Ids of a file's chunks."""
        with self.place.reader(point) as reader:
            return [run.id for run in reader.find(self.top + name).runs if run.id is not None]

    def assertIntact(self, result: CheckResult) -> None:
        self.assertEqual(result.damage, [])
        self.assertFalse(result.damaged)
        self.assertEqual(result.gone, [])

    def lose(self, name: bytes) -> None:
        """Let the repository know that it has no such chunk."""
        with Repository.open(self.place.directory) as repository:
            repository.catalogue.mark_damaged([name])


class IntactTests(CheckCase):
    """Nothing is wrong."""

    def test_clean(self) -> None:
        """Points of all sorts of things are clean, with and without reading; each chunk is read
        once however many points have it."""
        make_odd_tree(self.top + b"/odd")
        first = self.place.backup(self.top)
        write(self.top + b"/more", os.urandom(300_000))
        self.place.backup(self.top)
        result = self.check()
        self.assertIntact(result)
        self.assertEqual((result.points, result.chunks_read), (2, 0))
        self.assertGreater(result.entries, 2 * first.files)
        read = self.check(read_data=True)
        self.assertIntact(read)
        self.assertEqual(read.chunks_read, read.chunks)
        self.assertEqual(read.chunks, result.chunks)
        self.assertLess(read.bytes_read, first.bytes_source + 400_000)

    def test_parts(self) -> None:
        """All parts together read each chunk once."""
        write(self.top + b"/large", os.urandom(3_000_000))
        self.backup()
        results = [self.check(read_data=True, part=(number, 3)) for number in (1, 2, 3)]
        self.assertEqual(sum(r.chunks_read for r in results), results[0].chunks)
        self.assertTrue(all(0 < r.chunks_read < r.chunks for r in results))
        self.assertEqual(sum(r.bytes_read for r in results), 3_000_000)

    def test_at_provider(self) -> None:
        """Read where it lies, each chunk once and in parts, and hardly anything on the line."""
        for mode in (EncryptionMode.TENANT, EncryptionMode.NONE):
            self.place = Place(self.mktemp(), mode)
            write(self.top + b"/large", os.urandom(3_000_000))
            self.backup()
            whole = self.check(read_data=True, at_provider=True)
            self.assertIntact(whole)
            self.assertEqual((whole.chunks_vouched, whole.chunks_read), (whole.chunks, 0))
            self.assertGreaterEqual(whole.bytes_vouched, 3_000_000)
            self.assertLess(whole.bytes_received, 100_000)
            parts = [
                self.check(read_data=True, at_provider=True, part=(number, 3))
                for number in (1, 2, 3)
            ]
            self.assertEqual(sum(r.chunks_vouched for r in parts), whole.chunks)
            self.assertEqual(sum(r.bytes_vouched for r in parts), whole.bytes_vouched)

    def test_damage_at_provider(self) -> None:
        """What is missing is found, however few are asked for at a time, and named by its file."""
        self.patch(check_module, "READ_EVERY", 1)
        self.patch(check_module, "QUESTIONS_AHEAD", 1)
        self.patch(fetching_module.Fetcher, "verify_max", 3)
        write(self.top + b"/large", os.urandom(3_000_000))
        for number in range(20):
            write(self.top + b"/%d" % number, os.urandom(300_000))
        point = self.backup()
        lost = self.runs_of(point, b"/large")[-1]
        self.lose(lost)
        for part in ((1, 1), (1, 2)):
            result = self.check(read_data=True, at_provider=True, part=part)
            self.assertEqual(result.chunks_missing + result.chunks_damaged, 1)
            self.assertEqual([item.path for item in result.damage], [self.top + b"/large"])
            self.assertIn(lost[:8].hex(), result.damage[0].reason)
        self.assertEqual(self.check(read_data=True, at_provider=True).chunks_damaged, 1)

    def test_word_that_is_none(self) -> None:
        """A VERIFIED that cannot be used ends the check, and does not look like damage."""
        write(self.top + b"/file", b"x")
        self.backup()
        self.patch(check_module, "READ_EVERY", 1)
        for fields in (
            {"bytes": -1, "damaged": b"\0"},
            {"bytes": 5 << 20, "damaged": b"\0"},
            {"bytes": 1, "damaged": b"\2"},
            {"bytes": 1, "damaged": b"\0\0"},
            {"bytes": True, "damaged": b"\0"},
            {"bytes": 1},
            {"bytes": 1, "damaged": b"\0", "more": 1},
        ):

            def word(dialogue: Any, frame: Frame, fields: Any = fields) -> None:
                body = encode_body(**fields)
                dialogue._channel.send(FrameKind.VERIFIED, frame.request, body)

            self.patch(serve_module._Dialogue, "_verify", word)
            with self.assertRaises(ProtocolViolation):
                self.check(read_data=True, at_provider=True)

    def test_older_provider(self) -> None:
        """A repository that does not know of it is not asked; the check says what to do."""
        write(self.top + b"/large", os.urandom(300_000))
        self.backup()
        self.patch(dialogue_module, "VERIFY_IDS_MAX", 0)
        error = self.assertRaises(Refused, self.check, read_data=True, at_provider=True)
        self.assertIn("--read-data alone", str(error))

    def test_parts_that_are_none(self) -> None:
        """A part is one of a whole."""
        for part in ((0, 1), (2, 1), (1, 0), (-1, -1)):
            self.assertRaises(UsageError, CheckOptions, part=part)

    def test_without_encryption(self) -> None:
        """The mode without encryption is checked as well."""
        self.place = Place(self.mktemp(), EncryptionMode.NONE)
        write(self.top + b"/large", os.urandom(300_000))
        self.backup()
        self.assertIntact(self.check(read_data=True))

    def test_small_questions(self) -> None:
        """More chunks than fit into one question, and than are asked for ahead."""
        self.patch(check_module, "CHUNKS", 2)
        self.patch(check_module, "QUESTIONS_AHEAD", 1)
        self.patch(fetching_module.Fetcher, "ids_max", 3)
        write(self.top + b"/large", os.urandom(3_000_000))
        point = self.backup()
        lost = self.runs_of(point, b"/large")[-1]
        self.lose(lost)
        result = self.check(read_data=True)
        self.assertEqual(result.chunks_missing, 1)
        self.assertEqual(result.chunks_read, result.chunks - 1)

    def test_no_points(self) -> None:
        """Nothing to check is no damage."""
        self.assertIntact(self.check())

    def test_point_that_is_gone(self) -> None:
        """A point that went away since it was listed is told as such, and is no damage."""
        write(self.top + b"/file", b"x")
        point = self.backup()
        result = self.check(bytes(16), point)
        self.assertEqual((result.gone, result.points, result.damaged), ([bytes(16)], 1, False))

    def test_progress_and_cancelling(self) -> None:
        """Progress is reported; an interrupt ends it."""
        self.patch(check_module, "LOOK_SECONDS", 0.0)
        self.patch(check_module, "LOOK_EVERY", 1)
        write(self.top + b"/large", os.urandom(300_000))
        point = self.backup()
        seen: list[Progress] = []
        place = self.place
        arguments = (place.keys, place.description, [point], CheckOptions(read_data=True))
        CheckRun(place.open("check"), *arguments, progress=seen.append).run()
        self.assertEqual(seen[-1].bytes_done, 300_000)
        stopped = CheckRun(place.open("check"), *arguments, cancelled=lambda: len(seen) > 5)
        self.assertRaises(Cancelled, stopped.run)


class DamageTests(CheckCase):
    """Something is."""

    def test_missing_chunk(self) -> None:
        """A chunk that the repository does not have is found without reading, and every file that
        needs it named, in each point."""
        write(self.top + b"/a/large", os.urandom(400_000))
        write(self.top + b"/a/other", os.urandom(400_000))
        os.link(self.top + b"/a/large", self.top + b"/b-link")
        first = self.backup()
        with open(self.top + b"/a/large", "rb") as file:
            write(self.top + b"/copy", file.read())
        second = self.backup()
        self.lose(self.runs_of(first, b"/a/large")[1])
        result = self.check()
        self.assertEqual((result.chunks_missing, result.chunks_damaged), (1, 0))
        found = {(d.point, d.path and d.path[len(self.top) :]) for d in result.damage}
        wanted = {(point, name) for point in (first, second) for name in (b"/a/large", b"/b-link")}
        self.assertEqual(found, wanted | {(second, b"/copy")})
        self.assertEqual((result.files_damaged, result.points_damaged), (5, 0))
        self.assertIn("missing", result.damage[0].reason)
        only = self.check(first)
        self.assertEqual(only.files_damaged, 2)

    def test_flipped_byte(self) -> None:
        """A changed stored byte is found by reading only; small files that share the chunk are all
        named, and others are not."""
        for number in range(5):
            write(self.top + b"/small%d" % number, os.urandom(100))
        write(self.top + b"/large", os.urandom(400_000))
        point = self.backup()
        self.place.damage(self.runs_of(point, b"/small3")[0])
        self.assertIntact(self.check())
        result = self.check(read_data=True)
        self.assertEqual((result.chunks_missing, result.chunks_damaged), (0, 1))
        self.assertEqual(result.files_damaged, 5)
        self.assertNotIn(self.top + b"/large", [damage.path for damage in result.damage])
        # The provider has noticed by now, so the next look finds it missing.
        self.assertEqual(self.check().chunks_missing, 1)

    def test_several_chunks_of_one_file(self) -> None:
        """A file is named once, with how many of its chunks are damaged."""
        write(self.top + b"/large", os.urandom(1_000_000))
        point = self.backup()
        for name in self.runs_of(point, b"/large")[:3]:
            self.lose(name)
        result = self.check()
        self.assertEqual((result.chunks_missing, result.files_damaged), (3, 1))
        self.assertIn("2 more", result.damage[0].reason)

    def test_damaged_manifest(self) -> None:
        """A point with a damaged manifest is named, and the others are checked."""
        write(self.top + b"/file", b"x")
        first = self.place.backup(self.top)
        assert first.record is not None
        write(self.top + b"/file2", b"y")
        second = self.backup()
        self.place.damage(first.record.manifest[0])
        result = self.check()
        self.assertEqual((result.points, result.points_damaged), (2, 1))
        (damage,) = result.damage
        self.assertEqual((damage.point, damage.path), (first.point, None))
        self.assertIn("manifest", damage.reason)
        self.assertIntact(self.check(second))

    def test_several_gaps(self) -> None:
        """All damaged chunks of a manifest are found at once, so one backup heals them."""
        for number in range(3000):
            write(self.top + b"/%04d-%s" % (number, b"n" * 200), b"")
        first = self.place.backup(self.top)
        assert first.record is not None
        self.assertGreater(len(first.record.manifest), 2)
        for chunk in (first.record.manifest[0], first.record.manifest[-1]):
            self.place.damage(chunk)
        result = self.check()
        self.assertEqual(result.points_damaged, 1)
        self.assertIn(f"2 of its {len(first.record.manifest)}", result.damage[0].reason)
        self.backup()
        self.assertIntact(self.check(read_data=True))

    def test_end_of_a_manifest(self) -> None:
        """What stands before the damage of a long manifest is checked."""
        for number in range(40):
            write(self.top + b"/%02d" % number, b"x", mtime_ns=number)
        point = self.backup()
        with self.place.reader(point) as reader:
            entries = list(reader.entries())
        long = self.place.publish([*entries, b"\x41"])
        lost = entries[-1].runs[0].id
        assert lost is not None
        self.lose(lost)
        result = self.check(long)
        self.assertEqual((result.points_damaged, result.files_damaged), (1, 40))
        self.assertIn("/39", result.damage[0].reason)

    def test_wrong_signature(self) -> None:
        """A point that somebody else signed is named, and the others are checked."""
        write(self.top + b"/file", b"x")
        good = self.backup()
        forged = self.place.publish([file_of(b"/x")])
        other = RepositoryKeys(MasterKey.generate(), self.place.description.repository)
        with Repository.open(self.place.directory) as repository:
            signature = other.sign(repository.point(forged).record)
            with repository.catalogue.writing() as connection:
                change = sa.update(points_table).where(points_table.c.point == forged.hex())
                connection.execute(change.values(signature=signature))
        result = self.check(read_data=True)
        self.assertEqual((result.points, result.points_damaged), (2, 1))
        self.assertEqual([damage.point for damage in result.damage], [forged])
        self.assertIn("signature", result.damage[0].reason)
        self.assertIntact(self.check(good))

    def test_chunk_of_other_content(self) -> None:
        """A genuine seal over other content than the name says is damage."""
        good = self.place.keys.chunk_id(b"good")
        self.patch(self.place.keys, "chunk_id", lambda data: good)
        self.place.publish([file_of(b"/x", size=4, runs=(Run(good, 0, 4),))], [b"evil"])
        self.assertIntact(self.check())
        result = self.check(read_data=True)
        self.assertEqual((result.chunks_damaged, result.files_damaged), (1, 1))

    def test_run_beyond_its_chunk(self) -> None:
        """A chunk that is shorter than some file needs is damage."""
        name = self.place.keys.chunk_id(b"short")
        entries = [
            file_of(b"/x", size=3, runs=(Run(name, 2, 3),)),
            file_of(b"/y", size=9, runs=(Run(name, 0, 9),)),
        ]
        self.place.publish(entries, [b"short"])
        result = self.check(read_data=True)
        self.assertEqual((result.chunks_damaged, result.files_damaged), (1, 2))

    def test_bounded_list(self) -> None:
        """However much is damaged, the list is bounded and the count is exact."""
        self.patch(findings_module, "LISTED_MAX", 3)
        self.assertLessEqual(options_module.LISTED_MAX, 10_000)
        for number in range(10):
            write(self.top + b"/%d" % number, b"x" * 50)
        point = self.backup()
        self.lose(self.runs_of(point, b"/5")[0])
        result = self.check()
        self.assertEqual((len(result.damage), result.files_damaged), (3, 10))

    def test_refused(self) -> None:
        """A repository that refuses ends the check, and does not look like damage."""
        write(self.top + b"/file", b"x")
        point = self.backup()
        channel = self.place.open("restore")
        run = CheckRun(channel, self.place.keys, self.place.description, [point])
        self.assertRaises(CloudConnectError, run.run)
        self.assertFalse(run.result.damaged)


class HealTests(CheckCase):
    """What the source still has comes back with the next backup."""

    def setUp(self) -> None:
        super().setUp()
        make_odd_tree(self.top + b"/odd")
        write(self.top + b"/large", os.urandom(500_000))
        age_tree(self.top)

    def healed(self, first: bytes) -> None:
        self.backup()
        self.assertIntact(self.check(read_data=True))
        restored = self.restore(first)
        self.assertClean(restored)
        self.assertEqual(compare_trees(self.top, self.target + b"/source"), [])

    def test_chunk(self) -> None:
        """A flipped byte of a file's chunk: found, named, healed, restored exactly."""
        first = self.backup()
        self.place.damage(self.runs_of(first, b"/large")[1])
        result = self.check(read_data=True)
        self.assertEqual([damage.path for damage in result.damage], [self.top + b"/large"])
        self.healed(first)

    def test_chunk_of_unchanged_files(self) -> None:
        """Also where the file would not have been read because it is unchanged."""
        self.patch(filecache, "TRUST_NS", -1)
        self.cache = Path(os.path.abspath(self.mktemp()))
        first = self.backup()
        unchanged = self.place.backup(self.top, cache=self.cache)
        self.assertGreater(unchanged.files_unchanged, 10)
        for name in (b"/large", b"/odd/medium", b"/odd/empty file"):
            for chunk in self.runs_of(first, name)[-1:]:
                self.place.damage(chunk)
        self.assertEqual(self.check(read_data=True).chunks_damaged, 2)
        self.healed(first)

    def test_manifest(self) -> None:
        """A flipped byte of a manifest's chunk: the point is named, and healed."""
        first = self.place.backup(self.top)
        assert first.record is not None
        self.place.damage(first.record.manifest[0])
        result = self.check()
        self.assertEqual([damage.path for damage in result.damage], [None])
        self.healed(first.point)
