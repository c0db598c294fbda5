"""Tests for cloudconnect.repository.scrub, and for what it checks with."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cloudconnect.content.generations import add_slot
from cloudconnect.errors import Busy, NoSpace, StoredDataDamaged
from cloudconnect.keys import MasterKey
from cloudconnect.repository import bin, packcheck
from cloudconnect.repository import scrub as scrub_module
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.findings import Finding, FindingKind, ScrubResult
from cloudconnect.repository.packs import ENTRY_SIZE, HEADER_SIZE
from cloudconnect.repository.points import STATES
from cloudconnect.repository.store import Repository
from cloudconnect.repository.tables import (
    blobs_table,
    heads_table,
    packs_table,
    points_table,
    repository_table,
)
from tests.repository.repositories import DESCRIBED, MASTER, blob, failing, flip, name_of
from tests.repository.test_collect import CollectCase
from tests.repository.test_heads import KEYS, HeadsCase, point_id, slot

DAY = 86400.0

#: ``CLOUDCONNECT_BYTE_STEP=1`` flips each byte of small objects; otherwise every tenth or so.
STEP = int(os.environ.get("CLOUDCONNECT_BYTE_STEP", "0"))


class ScrubCase(CollectCase):
    """A repository with two points in four packs."""

    def setUp(self) -> None:
        super().setUp()
        self.store(range(12))
        self.one = self.publish(1, range(6), manifest=(name_of(9),), tags=("tag",))
        self.two = self.publish(2, range(3, 9))
        self.packs = [path.name for path in self.files("packs")]

    def scrub(self, **options: Any) -> ScrubResult:
        return self.repository.scrub(**options)

    def found(self, **options: Any) -> list[Finding]:
        return list(self.scrub(**options).findings)

    def one_finding(self) -> Finding:
        (finding,) = self.found()
        return finding

    def pack_of(self, number: int) -> Path:
        return (
            self.directory / self.repository.catalogue.locate([name_of(number)])[name_of(number)][0]
        )

    def points_of(self, numbers: Iterable[int]) -> set[str]:
        """Points that need one of these blobs."""
        needs = {self.one.hex(): {*range(6), 9}, self.two.hex(): set(range(3, 9))}
        return {point for point, needed in needs.items() if needed & set(numbers)}

    def update(self, table: sa.Table, **values: Any) -> None:
        with self.repository.catalogue.writing() as connection:
            connection.execute(sa.update(table).values(**values))


class CleanTests(ScrubCase):
    """Where all is well nothing is found."""

    def test_clean(self) -> None:
        """Everything is read once; nothing is found, and nothing changes."""
        before = {path: path.read_bytes() for path in self.files("packs") + self.files("points")}
        result = self.scrub()
        self.assertEqual(result.findings, ())
        self.assertEqual((result.packs, result.blobs, result.mended), (4, 12, 0))
        after = {path: path.read_bytes() for path in self.files("packs") + self.files("points")}
        self.assertEqual(before, after)

    def test_states(self) -> None:
        """Points in the bin, locked, withdrawn and removed, and what killed sessions left."""
        self.repository.lock([self.one], self.time + 3 * DAY)
        self.repository.delete([self.two])
        self.repository.withdraw([self.publish(3, [1])])
        gone = self.publish(4, [1])
        self.repository.delete([gone])
        for _ in range(16):
            self.later(1)
            self.repository.expire()
        self.assertEqual(
            [row.state for row in self.repository.points(states=STATES)],
            ["published", "removed", "withdrawn", "removed"],
        )
        self.repository.store.put("points/" + "0a" * 16 + "-references", [name_of(1)])
        self.assertEqual(self.found(), [])
        self.settle()
        self.assertEqual(self.found(), [])

    def test_empty(self) -> None:
        """A repository in which nothing is."""
        self.directory = Path(self.mktemp())
        self.repository = self.created()
        self.assertEqual(self.scrub().as_map()["found"], 0)

    def test_after_collecting(self) -> None:
        """What was moved is whole, and what waits to be removed is no finding."""
        reader = self.opened()
        self.settle()
        self.assertEqual(self.found(), [])
        reader.close()
        self.settle()
        self.assertEqual(self.found(), [])


class EveryByteTests(ScrubCase):
    """Whatever is changed, cut or taken away is found, named, and never passed on."""

    def each(
        self, path: Path, change: Callable[[], None], expected: str, numbers: set[int]
    ) -> None:
        """Make one change, scrub, and put all back as it was.

        :param expected: a name of which there must be a finding
        :param numbers: blobs that cannot be read any more, if any
        """
        saved = Path(self.mktemp())
        self.repository.close()
        shutil.copytree(self.directory, saved)
        change()
        self.repository = Repository.open(self.directory, clock=self.clock)
        result = self.scrub()
        names = {finding.name for finding in result.findings}
        self.assertIn(expected, names)
        hit = {point for finding in result.findings for point in finding.points}
        self.assertLessEqual(self.points_of(numbers), hit)
        there = self.repository.have([name_of(number) for number in range(12)])
        self.assertEqual({number for number in range(12) if not there[number]}, numbers)
        self.check_readable(set(range(12)) - numbers)
        # What was mended stays so, and what was not is found again.
        again = {finding.name for finding in self.scrub().findings}
        left = {finding.name for finding in result.findings if not finding.mended}
        self.assertLessEqual(again, left)
        if numbers:
            self.assertTrue(again)
            self.store(numbers)
            self.check_readable(range(12))
        self.repository.close()
        shutil.rmtree(self.directory)
        saved.rename(self.directory)
        self.repository = Repository.open(self.directory, clock=self.clock)

    def tearDown(self) -> None:
        self.repository.close()

    def blobs_at(self, path: Path) -> dict[int, tuple[int, int]]:
        """Where in a pack which blob's stored bytes are."""
        places = self.repository.catalogue.locate(map(name_of, range(12)))
        return {
            number: (entry.offset, entry.offset + entry.stored_length)
            for number in range(12)
            for name, entry in [places[name_of(number)]]
            if name.endswith(path.name)
        }

    def test_pack(self) -> None:
        """Samples of every part of a pack."""
        path = self.pack_of(4)
        places = self.blobs_at(path)
        size = path.stat().st_size
        first = min(begin for begin, _ in places.values())
        offsets = [
            *range(0, HEADER_SIZE, 7),
            *range(first - ENTRY_SIZE // 2, first, 11),
            *(begin for begin, _ in places.values()),
            *(end - 1 for _, end in places.values()),
            *(end for _, end in places.values()),
            *range(size - 40, size, 9),
        ]
        for offset in offsets:
            hit = {number for number, (b, e) in places.items() if b <= offset < e}
            self.each(path, lambda o=offset: flip(path, o), f"packs/{path.name}", hit)

    def test_pack_cut(self) -> None:
        """A pack that ends early, at its beginning, inside a blob, in the directory; or is gone."""
        path = self.pack_of(4)
        octets = path.read_bytes()
        places = self.blobs_at(path)
        for length in (0, 30, min(b for b, _ in places.values()) + 5, len(octets) - 1):
            hit = {number for number, (_, end) in places.items() if end > length}
            cut = octets[:length]
            self.each(path, lambda c=cut: path.write_bytes(c) and None, f"packs/{path.name}", hit)
        self.each(path, path.unlink, f"packs/{path.name}", set(places))

    def test_pack_longer(self) -> None:
        """A pack with something behind its end."""
        path = self.pack_of(4)
        octets = path.read_bytes() + b"x"
        self.each(path, lambda: path.write_bytes(octets) and None, f"packs/{path.name}", set())

    def test_packs_swapped(self) -> None:
        """Two packs that were exchanged are both named, and all that is in them is mended."""
        one, two = self.pack_of(1), self.pack_of(4)

        def swap() -> None:
            saved = one.read_bytes()
            one.write_bytes(two.read_bytes())
            two.write_bytes(saved)

        for path in (one, two):
            self.each(path, swap, f"packs/{path.name}", set())

    def test_record(self) -> None:
        """Bytes of a record."""
        path = self.directory / "points" / self.one.hex()
        for offset in range(0, path.stat().st_size, STEP or 13):
            self.each(path, lambda o=offset: flip(path, o), f"points/{path.name}", set())

    def test_record_gone(self) -> None:
        """A record that is cut or gone."""
        path = self.directory / "points" / self.one.hex()
        octets = path.read_bytes()
        self.each(path, lambda: path.write_bytes(octets[:9]) and None, f"points/{path.name}", set())
        self.each(path, path.unlink, f"points/{path.name}", set())

    def test_records_swapped(self) -> None:
        """Two records that were exchanged."""
        one, two = (self.directory / "points" / point.hex() for point in (self.one, self.two))

        def swap() -> None:
            saved = one.read_bytes()
            one.write_bytes(two.read_bytes())
            two.write_bytes(saved)

        for path in (one, two):
            self.each(path, swap, f"points/{path.name}", set())

    def test_description(self) -> None:
        """Bytes of the description, a cut, and its absence."""
        path = self.directory / "description"
        octets = path.read_bytes()
        for offset in range(0, len(octets), STEP or 11):
            self.each(path, lambda o=offset: flip(path, o), "description", set())
        self.each(path, lambda: path.write_bytes(octets[:-1]) and None, "description", set())
        self.each(path, path.unlink, "description", set())


class ReferencesTests(ScrubCase):
    """A reference list has no second copy."""

    def check_found(self) -> None:
        finding = self.one_finding()
        self.assertEqual(finding.kind, FindingKind.REFERENCES)
        self.assertEqual(finding.name, f"points/{self.one.hex()}-references")
        self.assertEqual((finding.points, finding.mended), ((self.one.hex(),), False))

    def test_each_byte(self) -> None:
        """Bytes that are changed, a cut, and its absence."""
        path = self.directory / "points" / f"{self.one.hex()}-references"
        octets = path.read_bytes()
        for offset in range(0, len(octets), STEP or 17):
            flip(path, offset)
            self.check_found()
            path.write_bytes(octets)
        path.write_bytes(octets[:-32])
        self.check_found()
        path.unlink()
        self.check_found()


class MarkerTests(ScrubCase):
    """What says that a point is deleted, locked, withdrawn or removed."""

    def setUp(self) -> None:
        super().setUp()
        self.repository.lock([self.one], self.time + 100 * DAY)
        self.repository.delete([self.two])
        self.withdrawn = self.publish(3, [1])
        self.repository.withdraw([self.withdrawn])

    def marker(self, ending: str) -> Path:
        (path,) = [path for path in self.files("points") if ending in path.name]
        return path

    def check_mended(self, ending: str, octet: int = 5) -> None:
        path = self.marker(ending)
        octets = path.read_bytes()
        flip(path, octet)
        finding = self.one_finding()
        self.assertEqual((finding.name, finding.mended), (f"points/{path.name}", True))
        self.assertEqual(path.read_bytes(), octets)
        self.assertEqual(self.found(), [])
        path.unlink()
        self.found()
        self.assertEqual(path.read_bytes(), octets)

    def test_changed(self) -> None:
        """Changed or gone, they are made again from the row."""
        for ending in ("-deleted", "-lock-", "-withdrawn"):
            self.check_mended(ending)

    def test_tombstone(self) -> None:
        """A tombstone too."""
        for _ in range(16):
            self.later(1)
            self.repository.expire()
        self.check_mended("-removed", 40)

    def test_tombstone_of_who_was_killed(self) -> None:
        """The tombstone of a removal that was killed before its row has an earlier time."""
        for _ in range(15):
            self.later(1)
            self.repository.observe_clock()
        patcher = self.patch(bin, "point_row", failing(ZeroDivisionError(), len)[0])
        self.assertRaises(ZeroDivisionError, self.repository.expire)
        patcher.restore()
        self.assertTrue(self.marker("-removed"))
        self.later(1)
        self.assertEqual(len(self.repository.expire().removed), 1)
        self.assertEqual(self.found(), [])


class CatalogueTests(ScrubCase):
    """The catalogue is held against what lies in the store, and mended from it."""

    def test_rows_that_cannot_be_used(self) -> None:
        """Rows in which no value can be read, or out of order, are a finding and no bug."""
        for change in (
            "UPDATE points SET statistics = '{' WHERE arrival = 1",
            "UPDATE points SET point = 'x' || substr(point, 2) WHERE arrival = 1",
        ):
            with self.repository.catalogue.writing() as connection:
                connection.exec_driver_sql(change)
            self.assertIn("catalogue", [finding.name for finding in self.scrub().findings])

    def check_mended(self, text: str) -> Finding:
        finding = self.one_finding()
        self.assertTrue(finding.mended)
        self.assertIn(text, str(finding))
        self.assertEqual(self.found(), [])
        self.check_readable(range(12))
        return finding

    def test_wrong_place(self) -> None:
        """Rows that say another offset, length, coding, kind or digest than their pack."""
        for column, value in (("offset", 3), ("stored_length", 99), ("digest", bytes(32))):
            with self.repository.catalogue.writing() as connection:
                where = blobs_table.c.id == name_of(4)
                connection.execute(sa.update(blobs_table).where(where).values({column: value}))
            self.check_mended(name_of(4).hex())

    def test_wrong_pack(self) -> None:
        """A row that names a pack that does not hold its blob, or that is not there."""
        for number in (self.number_of(7), 999):
            with self.repository.catalogue.writing() as connection:
                where = blobs_table.c.id == name_of(1)
                connection.execute(sa.update(blobs_table).where(where).values(pack=number))
            result = self.scrub()
            self.assertTrue(result.findings)
            self.assertEqual(self.repository.have([name_of(1)]), [True])
            self.check_readable(range(12))

    def number_of(self, number: int) -> int:
        with self.repository.catalogue.reading() as connection:
            query = sa.select(blobs_table.c.pack).where(blobs_table.c.id == name_of(number))
            return int(connection.execute(query).scalar_one())

    def test_damaged_before(self) -> None:
        """A blob that could not be read once and can now counts as whole again."""
        self.repository.catalogue.mark_damaged([name_of(1)])
        result = self.scrub()
        self.assertEqual((result.findings, result.mended), ((), 1))
        self.assertEqual(self.repository.have([name_of(1)]), [True])

    def test_row_gone(self) -> None:
        """A blob that a point needs and that has no row, and no pack."""
        pack = self.pack_of(4)
        with self.repository.catalogue.writing() as connection:
            connection.execute(sa.delete(blobs_table).where(blobs_table.c.id == name_of(4)))
        pack.unlink()
        (finding,) = [each for each in self.found() if each.kind is not FindingKind.PACK]
        self.assertEqual((finding.kind, finding.name), (FindingKind.MISSING, name_of(4).hex()))
        self.assertEqual(set(finding.points), {self.one.hex(), self.two.hex()})

    def test_row_gone_and_pack_there(self) -> None:
        """Where its pack is there, it gets a row again."""
        with self.repository.catalogue.writing() as connection:
            connection.execute(sa.delete(blobs_table).where(blobs_table.c.id == name_of(4)))
        self.check_mended(name_of(4).hex())

    def test_condemned_by_mistake(self) -> None:
        """A condemned blob that a point needs is kept."""
        self.update(blobs_table, condemned=1)
        self.scrub()
        needed = [name_of(number) for number in range(9)]
        self.assertEqual(self.repository.have(needed), [True] * 9)

    def test_pack_size(self) -> None:
        """A pack of another size than the catalogue says."""
        self.update(packs_table, size=5)
        self.assertEqual([finding.mended for finding in self.found()], [True] * 4)
        sizes = sum(path.stat().st_size for path in self.files("packs"))
        self.assertEqual(self.repository.statistics()["bytes_stored"], sizes)

    def test_record(self) -> None:
        """A record or signature in the catalogue that was changed comes back from its blob."""
        with self.repository.catalogue.reading() as connection:
            before = connection.execute(sa.select(points_table)).all()
        for values in (
            {"record": before[0].record[:-1]},
            {"signature": bytes(64)},
            {"host": "other"},
            {"reference_digest": bytes(32)},
            {"reference_count": 1},
            {"tags": []},
        ):
            with self.repository.catalogue.writing() as connection:
                where = points_table.c.point == self.one.hex()
                connection.execute(sa.update(points_table).where(where).values(**values))
            self.check_mended(self.one.hex())
            with self.repository.catalogue.reading() as connection:
                self.assertEqual(connection.execute(sa.select(points_table)).all(), before)

    def test_both_copies(self) -> None:
        """A record of which both copies were changed is named and stays as it is."""
        self.update(points_table, record=b"junk")
        for point in (self.one, self.two):
            flip(self.directory / "points" / point.hex(), 30)
        findings = self.found()
        self.assertEqual({f.points for f in findings}, {(self.one.hex(),), (self.two.hex(),)})
        self.assertFalse(any(finding.mended for finding in findings))

    def test_description(self) -> None:
        """A description in the catalogue that was changed comes back from its blob."""
        self.update(repository_table, description=b"junk")
        self.assertTrue(self.one_finding().mended)
        self.assertEqual(self.opened().description, DESCRIBED)

    def test_data_base(self) -> None:
        """A data base that is damaged is named."""
        with self.repository.catalogue.reading() as connection:
            page = connection.exec_driver_sql(
                "SELECT rootpage FROM sqlite_master WHERE name = 'points_of_job'"
            ).scalar_one()
        self.repository.close()
        path = self.directory / "catalogue.sqlite"
        octets = bytearray(path.read_bytes())
        octets[(page - 1) * 4096 : page * 4096] = bytes(4096)
        path.write_bytes(octets)
        self.repository = self.opened()
        kinds = {finding.kind for finding in self.found()}
        self.assertEqual(kinds, {FindingKind.CATALOGUE})


class PackTests(ScrubCase):
    """How packs are read, and mended."""

    def test_bounded(self) -> None:
        """With a bound, those are read first that were not read for the longest time."""
        seen = []
        for _ in range(5):
            self.time += 10
            result = self.scrub(limit_bytes=1)
            self.assertEqual(result.packs, 1)
            with self.repository.catalogue.reading() as connection:
                query = sa.select(packs_table.c.number).order_by(packs_table.c.scrubbed.desc())
                seen.append(connection.execute(query).scalars().first())
        self.assertEqual(seen[0], seen[4])
        self.assertEqual(len(set(seen)), 4)

    def test_bounded_looks_at_points_daily(self) -> None:
        """With a bound, everything but packs is looked at once a day."""
        self.scrub(limit_bytes=1)
        (self.directory / "points" / f"{self.one.hex()}-references").unlink()
        self.assertEqual(self.found(limit_bytes=1), [])
        self.later(1)
        self.assertEqual(len(self.found(limit_bytes=1)), 1)

    def test_heals_from_another_copy(self) -> None:
        """A damaged blob that two sessions stored at once is read from the other pack."""
        first, second = self.opened(), self.opened()
        for session in (first, second):
            session.add(blob(50))
        first.flush()
        second.flush()
        path = self.pack_of(50)
        name, entry = self.repository.catalogue.locate([name_of(50)])[name_of(50)]
        flip(path, entry.offset)
        self.scrub()
        self.check_readable([50])
        self.assertNotEqual(self.repository.catalogue.locate([name_of(50)])[name_of(50)][0], name)

    def test_damaged_directory_is_mended(self) -> None:
        """The blobs of a pack with a damaged directory move, and the pack goes."""
        path = self.pack_of(4)
        flip(path, -1)
        finding = self.one_finding()
        self.assertTrue(finding.mended)
        self.assertEqual(self.found(), [])
        self.collect()
        self.assertFalse(path.exists())
        self.check_readable(range(9))

    def test_full_disk(self) -> None:
        """With a full disk everything is found, and mended the next time."""
        path = self.pack_of(4)
        flip(path, -1)
        (self.directory / "points" / self.one.hex()).unlink()
        patch = self.patch(self.repository.store, "_free_min", 1 << 62)
        findings = self.found()
        self.assertEqual([finding.mended for finding in findings], [False, False])
        patch.restore()
        self.assertEqual([finding.mended for finding in self.found()], [True, True])
        self.assertEqual(self.found(), [])

    def test_full_catalogue(self) -> None:
        """With a catalogue that cannot grow all is found too."""
        path = self.pack_of(4)
        name, entry = self.repository.catalogue.locate([name_of(4)])[name_of(4)]
        flip(path, entry.offset)
        flip(path, -1)
        (self.directory / "points" / self.one.hex()).unlink()
        patch = self.patch(Catalogue, "writing", lambda _: (_ for _ in ()).throw(NoSpace("full")))
        names = {finding.name for finding in self.found()}
        self.assertEqual(names, {name, f"points/{self.one.hex()}"})
        patch.restore()
        self.assertEqual(self.repository.have([name_of(4)]), [True])
        self.found()
        self.assertEqual(self.repository.have([name_of(4)]), [False])

    def test_many_packs_gone(self) -> None:
        """Where most packs are gone nothing is marked: a disk may not be mounted."""
        self.patch(packcheck, "_GONE_MIN", 1)
        (self.directory / "packs").rename(self.directory / "elsewhere")
        finding = self.one_finding()
        self.assertIn("4 of 4", finding.text)
        (self.directory / "elsewhere").rename(self.directory / "packs")
        self.assertEqual(self.found(), [])
        self.check_readable(range(12))

    def test_pack_gone_is_found_soon(self) -> None:
        """A pack that is gone is found by any scrub that looks at everything else."""
        path = self.pack_of(4)
        path.unlink()
        (finding,) = self.found(limit_bytes=1)
        self.assertEqual(finding.name, f"packs/{path.name}")
        self.assertEqual(finding.points, (self.one.hex(), self.two.hex()))

    def test_damaged_point_without_row(self) -> None:
        """A record that has no row and cannot be used is named."""
        path = self.directory / "points" / ("0e" * 16)
        path.write_bytes((self.directory / "points" / self.one.hex()).read_bytes())
        finding = self.one_finding()
        self.assertEqual((finding.name, finding.points), (f"points/{path.name}", ("0e" * 16,)))

    def test_rate(self) -> None:
        """A scrub that is slowed down can be stopped while it waits."""
        self.patch(scrub_module, "_NAP", 0.001)
        asked: list[int] = []
        result = self.scrub(rate=1.0, cancelled=lambda: asked.append(1) or len(asked) > 20)
        self.assertEqual((len(asked), result.packs), (21, 0))

    def test_unreadable(self) -> None:
        """A pack that the system cannot read is named; the others are read."""
        name = f"packs/{self.pack_of(4).name}"
        real = self.repository.store.read

        def read(wanted: str, offset: int, length: int) -> bytes:
            if wanted == name:
                raise OSError(errno.EIO, "I/O error")
            return real(wanted, offset, length)

        self.patch(self.repository.store, "read", read)
        result = self.scrub()
        self.assertEqual([finding.name for finding in result.findings], [name])
        self.assertEqual(result.packs, 3)
        self.assertEqual(self.repository.have([name_of(4)]), [True])

    def test_unreadable_point(self) -> None:
        """A point of which the system cannot read something is named; all else is looked at."""
        name = f"points/{self.one.hex()}-references"
        real = self.repository.store.read

        def read(wanted: str, offset: int, length: int) -> bytes:
            if wanted == name:
                raise OSError(errno.EIO, "I/O error")
            return real(wanted, offset, length)

        self.patch(self.repository.store, "read", read)
        flip(self.directory / "points" / self.two.hex(), 5)
        result = self.scrub()
        self.assertEqual(
            [finding.points for finding in result.findings], [(self.one.hex(),), (self.two.hex(),)]
        )
        self.assertEqual(result.packs, 4)
        error = self.assertRaises(StoredDataDamaged, self.collect)
        self.assertIn(self.one.hex(), str(error))

    def test_unreadable_description(self) -> None:
        """A description that the system cannot read is made again from the catalogue's."""
        real = self.repository.store.read

        def read(wanted: str, offset: int, length: int) -> bytes:
            if wanted == "description":
                raise OSError(errno.EIO, "I/O error")
            return real(wanted, offset, length)

        before = (self.directory / "description").stat().st_ino
        patch = self.patch(self.repository.store, "read", read)
        finding = self.one_finding()
        patch.restore()
        self.assertEqual((finding.name, finding.mended), ("description", True))
        self.assertNotEqual((self.directory / "description").stat().st_ino, before)
        self.assertEqual(self.found(), [])

    def test_foreign_pack(self) -> None:
        """A pack without a row that is not of this repository is named."""
        self.repository.store.put("packs/" + "0f" * 16, [b"CCPACK01", b"o" * 32, b"junk" * 20])
        finding = self.one_finding()
        self.assertEqual(finding.name, "packs/" + "0f" * 16)

    def test_stopped(self) -> None:
        """A scrub that is stopped returns what it has found."""
        flip(self.directory / "points" / self.one.hex(), 5)
        result = self.scrub(cancelled=lambda: bool(self.files("points")))
        self.assertEqual(result.packs, 0)
        steps: list[tuple[str, int, int]] = []
        result = self.scrub(
            progress=lambda *step: steps.append(step),
            cancelled=lambda: bool(steps) and steps[-1][0] == "packs",
        )
        self.assertEqual([finding.kind for finding in result.findings], [FindingKind.RECORD])

    def test_one_at_a_time(self) -> None:
        """Not two at once; a collection beside it is no matter."""
        other = self.opened(lease=False)
        done: list[str] = []

        def progress(step: str, read: int, total: int) -> None:
            if step not in done:
                done.append(step)
                self.assertRaises(Busy, other.scrub)
                other.collect()

        self.assertEqual(self.found(progress=progress), [])
        self.assertIn("packs", done)

    def test_removed_meanwhile(self) -> None:
        """A pack that a collection removes while it waits to be read is no finding."""
        self.settle()
        other = self.opened(lease=False)
        self.repository.withdraw([self.one, self.two])
        self.later()
        done: list[int] = []

        def progress(step: str, read: int, total: int) -> None:
            if step == "packs" and not done:
                done.append(1)
                other.collect()

        self.assertEqual(self.found(progress=progress), [])
        self.assertEqual(self.files("packs"), [])

    def test_map(self) -> None:
        """A result goes into JSON, with a sentence for each finding."""
        path = self.pack_of(4)
        name, entry = self.repository.catalogue.locate([name_of(4)])[name_of(4)]
        flip(path, entry.offset)
        result = self.scrub().as_map()
        self.assertEqual((result["found"], result["packs"]), (1, 4))
        (sentence,) = result["findings"]
        for part in (name, name_of(4).hex(), self.one.hex(), self.two.hex()):
            self.assertIn(part, sentence)


class ChainTests(HeadsCase):
    """The chain of heads and the descriptions are held against each other."""

    def setUp(self) -> None:
        super().setUp()
        self.publish(1)
        self.described = add_slot(self.repository.description, KEYS, slot(MasterKey(MASTER)))
        self.replace(self.described)
        self.publish(2)

    def found(self) -> list[Finding]:
        return list(self.repository.scrub().findings)

    def check_mended(self, name: str) -> None:
        (finding,) = self.found()
        self.assertEqual((finding.name, finding.mended), (name, True))
        self.assertEqual(self.found(), [])
        self.assertEqual(self.opened().description, self.described)
        self.assertEqual(self.repository.heads().number, 3)

    def test_clean(self) -> None:
        """Where all is well nothing is found."""
        self.assertEqual(self.found(), [])

    def test_heads(self) -> None:
        """A head in the catalogue that was changed, or is gone, comes back from its file."""
        h = heads_table.c
        for number in (1, 2, 3):
            with self.repository.catalogue.reading() as connection:
                row = connection.execute(sa.select(h.entry).where(h.number == number)).one()
            for change in (
                sa.update(heads_table).values(entry=row.entry[:-1] + b"x"),
                sa.update(heads_table).values(signature=bytes(64)),
                sa.update(heads_table).values(point="0f" * 16),
            ):
                with self.repository.catalogue.writing() as connection:
                    connection.execute(change.where(h.number == number))
                self.check_mended("heads")
        with self.repository.catalogue.writing() as connection:
            connection.execute(sa.delete(heads_table).where(h.number == 1))
        self.check_mended("heads")

    def test_later_description(self) -> None:
        """A later description that was changed, or is gone, comes back from the catalogue."""
        path = self.directory / "descriptions" / f"{1:08x}"
        octets = path.read_bytes()
        for offset in range(0, len(octets), 29):
            flip(path, offset)
            self.check_mended(f"descriptions/{path.name}")
            self.assertEqual(path.read_bytes(), octets)
        path.unlink()
        self.check_mended(f"descriptions/{path.name}")
        self.assertEqual(path.read_bytes(), octets)

    def test_description_in_the_catalogue(self) -> None:
        """A description in the catalogue that was changed, or rolled back, comes from its file."""
        for values in ({"description": b"junk"}, {"description": DESCRIBED.encode()}):
            with self.repository.catalogue.writing() as connection:
                connection.execute(sa.update(repository_table).values(**values))
            self.check_mended("description")

    def test_first_description(self) -> None:
        """The first description has no second copy once there is a later one: it is named."""
        flip(self.directory / "description", 9)
        (finding,) = self.found()
        self.assertEqual((finding.name, finding.mended), ("description", False))

    def test_head_in_a_record(self) -> None:
        """A record whose head was changed comes back from the catalogue."""
        path = self.directory / "points" / point_id(2).hex()
        octets = path.read_bytes()
        at = octets.index(b"head_signature") + 20
        flip(path, at)
        self.check_mended(f"points/{path.name}")
        self.assertEqual(path.read_bytes(), octets)
