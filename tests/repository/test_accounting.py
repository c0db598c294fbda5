"""Tests for cloudconnect.repository.accounting."""

from __future__ import annotations

from cloudconnect.repository import accounting, packs
from cloudconnect.repository.accounting import TOMBSTONE_BYTES, PackRow, pack_use, read_since
from cloudconnect.repository.packs import ENTRY_SIZE
from cloudconnect.repository.rules import DAY
from tests.repository.repositories import RepositoryCase, blob, keys, name_of, record


class UseTests(RepositoryCase):
    """What of each pack is used is counted in pieces."""

    def use(self, rows_at_a_time: int) -> list[PackRow]:
        self.patch(accounting, "_ROWS", rows_at_a_time)
        return pack_use(self.repository.catalogue, lambda: None)

    def test_counted(self) -> None:
        """Rows, bytes, and bytes that are not damaged; in one piece or in many."""
        self.patch(packs, "PACK_ENTRIES_MAX", 4)
        self.repository = self.created()
        self.assertEqual(self.use(100), [])
        for number in range(10):
            self.repository.add(blob(number, 100 + number))
        self.repository.flush()
        self.repository.catalogue.mark_damaged([name_of(5)])
        found = self.use(100)
        self.assertEqual(found, self.use(1))
        self.assertEqual(found, self.use(3))
        self.assertEqual([pack.rows for pack in found], [4, 4, 2])
        second = 4 * (100 + ENTRY_SIZE) + 4 + 5 + 6 + 7
        self.assertEqual((found[1].used, found[1].sound), (second, second - 105 - ENTRY_SIZE))


class ReadTests(RepositoryCase):
    """Since when all that is stored was read and compared."""

    def test_oldest(self) -> None:
        """The pack that was not read for longest counts, one that never was by its arrival."""
        self.time = 1000.0
        repository = self.created()

        def since() -> float:
            with repository.catalogue.reading() as connection:
                return read_since(connection)

        self.assertEqual(0.0, since())
        for number in range(2):
            self.time = 2000.0 + number
            repository.add(blob(number))
            repository.flush()
        self.assertEqual(2000.0, since())
        self.time = 5000.0
        repository.scrub()
        self.assertEqual(5000.0, since())


class QuotaTests(RepositoryCase):
    """What a tenant is charged for beside the blobs that its points need."""

    def setUp(self) -> None:
        super().setUp()
        self.time = 1.7e9
        self.repository = self.created()

    def counted(self) -> int:
        return self.repository.statistics()["bytes_counted"]

    def test_long_list(self) -> None:
        """A list that names one small blob again and again; also of a point that is withdrawn."""
        self.repository.add(blob(1))
        self.repository.flush()
        before, point = self.counted(), b"p" * 16
        made = record(point)
        encoded = made.encode()
        self.repository.publish(made, encoded, keys().sign(encoded), [name_of(1)] * 1000)
        lists = 32 * 1000 + 2 * len(encoded)
        self.assertEqual(self.counted(), before + lists)
        self.repository.withdraw([point])
        self.assertEqual(self.counted(), before + lists)

    def test_long_list_in_bin(self) -> None:
        """In the bin it counts against the bin's cap."""
        point = self.published(self.repository, b"p" * 16, 0)
        self.repository.delete([point])
        before = self.repository.bin_usage()[0]
        self.assertEqual(before, 2 * len(self.repository.point(point).record))
        self.repository.add(blob(1))
        self.repository.flush()
        made = record(b"q" * 16)
        encoded = made.encode()
        self.repository.publish(made, encoded, keys().sign(encoded), [name_of(1)] * 1000)
        self.repository.delete([b"q" * 16])
        self.assertEqual(self.repository.bin_usage()[0] - before, 32 * 1000 + 2 * len(encoded))

    def test_removed(self) -> None:
        """What stays of a removed point is charged for, with the labels, which lie there twice:
        else a tenant could store without end in them."""
        before, point = self.counted(), b"p" * 16
        tags = tuple(f"{number:0200}" for number in range(50))
        made = record(point, tags=tags)
        encoded = made.encode()
        self.repository.publish(made, encoded, keys().sign(encoded), [])
        self.repository.delete([point])
        self.assertEqual(self.counted(), before)
        self.time += 20 * DAY
        for _ in range(20):
            self.time += DAY
            self.repository.observe_clock()
        self.repository.expire()
        (row,) = self.repository.points(states=("removed",))
        stays = self.counted() - before
        self.assertGreater(stays, TOMBSTONE_BYTES + 2 * 50 * 200)
        self.assertLess(stays, TOMBSTONE_BYTES + 2 * 50 * 210 + 200)
        on_disk = sum(path.stat().st_size for path in self.files("points"))
        self.assertLess(on_disk, stays)

    def test_session_that_stays_open(self) -> None:
        """Blobs that are stored again beside an open session are charged for each time."""
        self.repository.close()
        with self.opened(), self.opened(lease=False) as tending:
            for _ in range(2):
                with self.opened() as session:
                    if not any(session.have([name_of(1)])):
                        session.add(blob(1))
                    session.flush()
                for _ in range(2):
                    self.time += 2 * DAY
                    tending.observe_clock()
                    tending.collect()
            stored = sum(path.stat().st_size for path in self.files("packs"))
            self.assertGreater(stored, 600)
            self.assertEqual(tending.statistics()["bytes_counted"], stored)

    def test_taken_out_of_the_bin(self) -> None:
        """What is taken out of the bin is charged for at once, and not only when it is counted."""
        self.repository.add(blob(1))
        self.repository.flush()
        made = record(b"p" * 16)
        encoded = made.encode()
        self.repository.publish(made, encoded, keys().sign(encoded), [name_of(1)])
        before = self.counted()
        self.repository.delete([made.point])
        self.repository.collect()
        self.assertLess(self.counted(), before - 100)
        self.repository.undelete([made.point])
        self.assertEqual(self.counted(), before)
        self.repository.collect()
        self.assertEqual(self.counted(), before)
