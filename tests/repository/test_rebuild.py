"""Tests for cloudconnect.repository.rebuild."""

from __future__ import annotations

import errno
from typing import Any

import sqlalchemy as sa

from cloudconnect.errors import Busy, NotFound, Refused
from cloudconnect.repository import packs, rebuild
from cloudconnect.repository.blobs import LocalBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.opening import CATALOGUE
from cloudconnect.repository.points import STATES
from cloudconnect.repository.store import Repository
from cloudconnect.repository.tables import blobs_table, packs_table, points_table
from cloudconnect.wire import canonical
from tests.repository.repositories import RepositoryCase, blob, flip, keys, name_of, record


class RebuildTests(RepositoryCase):
    """The catalogue is made again from what lies in the store."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(packs, "PACK_ENTRIES_MAX", 3)
        repository = self.created()
        for number in range(8):
            repository.add(blob(number), ("chunk", "manifest")[number % 2])
        repository.flush()
        for number in range(3):
            self.time += 10
            tags = ("one", "two")[:number]
            self.published(repository, bytes((number,)) * 16, number, tags=tags, host=f"h{number}")
        repository.withdraw([b"\x01" * 16])
        repository.close()

    def lose(self) -> Repository:
        """Lose the catalogue, and begin a new one."""
        for path in self.directory.glob(f"{CATALOGUE}*"):
            path.unlink()
        repository = Repository.recover(self.directory, clock=self.clock)
        self.addCleanup(repository.close)
        return repository

    def rows(self, catalogue: Catalogue) -> list[list[tuple[object, ...]]]:
        """All that a catalogue knows, but numbers and times of its packs, and its own clock's."""
        blobs = sa.select(
            packs_table.c.name, *(c for c in blobs_table.c if c.name != "pack")
        ).where(packs_table.c.number == blobs_table.c.pack)
        points = (c for c in points_table.c if c.name not in ("bin_clock", "locked_clock"))
        queries = (
            blobs.order_by(blobs_table.c.id),
            sa.select(*points).order_by(points_table.c.arrival),
            sa.select(packs_table.c.name, packs_table.c.size).order_by(packs_table.c.name),
        )
        with catalogue.reading() as connection:
            return [[tuple(row) for row in connection.execute(query)] for query in queries]

    def test_lost_catalogue(self) -> None:
        """From packs and points alone, everything comes back as it was, withdrawals too."""
        before = self.opened()
        rows = self.rows(before.catalogue)
        before.close()
        repository = self.lose()
        self.assertEqual(repository.points(), [])
        result = repository.rebuild_index()
        self.assertEqual((result.packs, result.blobs, result.points), (4, 8, 3))
        self.assertEqual(result.damaged, ())
        self.assertEqual(self.rows(repository.catalogue), rows)
        self.assertEqual([row.point[0] for row in repository.points()], [0, 2])
        self.assertEqual([row.point[0] for row in repository.points(tag="one")], [2])
        blobs = [blob(number) for number in range(8)]
        self.assertEqual(list(repository.read([each.id for each in blobs])), blobs)

    def test_wrong_index(self) -> None:
        """An index that is there and wrong is made right; points that are there stay."""
        repository = self.opened()
        rows = self.rows(repository.catalogue)
        with repository.catalogue.writing() as connection:
            connection.execute(sa.update(blobs_table).values(offset=5))
            connection.execute(sa.delete(packs_table).where(packs_table.c.number == 1))
        result = repository.rebuild_index(read_data=False)
        self.assertEqual((result.packs, result.blobs, result.points), (4, 8, 0))
        self.assertEqual(self.rows(repository.catalogue), rows)

    def test_pack_without_index(self) -> None:
        """A pack that was complete when its session was killed is found."""
        repository = self.opened()
        repository.add(blob(20))
        self.patch(Catalogue, "add_pack", lambda *_: 1 / 0)
        self.assertRaises(ZeroDivisionError, repository.flush)
        self.doCleanups()
        repository = Repository.open(self.directory)
        self.addCleanup(repository.close)
        self.assertEqual(repository.have([name_of(20)]), [False])
        repository.rebuild_index()
        self.assertEqual(list(repository.read([name_of(20)])), [blob(20)])

    def test_damaged(self) -> None:
        """What is damaged is left out and named, and the rest is there."""
        repository = self.opened()
        places = repository.catalogue.locate(map(name_of, range(8)))
        pack, entry = places[name_of(4)]
        flip(self.directory / pack, entry.offset)
        other = places[name_of(1)][0]
        flip(self.directory / other, 0)  # costs no blob
        flip(self.directory / "points" / ("02" * 16), 30)
        repository.close()
        repository = self.lose()
        result = repository.rebuild_index()
        self.assertEqual(len(result.damaged), 3)
        for text, sentence in zip(
            (name_of(4).hex(), other, "02" * 16), self.sort(result.damaged), strict=True
        ):
            self.assertIn(text, sentence)
        there = repository.have([name_of(number) for number in range(8)])
        self.assertEqual([n for n in range(8) if not there[n]], [4])
        self.assertEqual([row.point[0] for row in repository.points()], [0])

    def test_nobody_publishes(self) -> None:
        """Nobody is in the middle of publishing: a record without a row would become a point."""
        repository = self.lose()
        other = self.opened(lease=False)
        real = rebuild.found_point
        seen: list[str] = []

        def found_point(store: LocalBlobStore, name: str, *rest: Any) -> Any:
            with self.assertRaises(Busy), other.store.exclusive("publish"):
                pass
            seen.append(name)
            return real(store, name, *rest)

        self.patch(rebuild, "found_point", found_point)
        self.assertEqual(repository.rebuild_index().points, 3)
        self.assertEqual(len(seen), 3)

    def test_unreadable(self) -> None:
        """What the system cannot read of a bad disk is named, and costs only itself."""
        repository = self.opened()
        pack, entry = repository.catalogue.locate([name_of(4)])[name_of(4)]
        gone = repository.catalogue.locate([name_of(1)])[name_of(1)][0]
        repository.delete([b"\x00" * 16])
        repository.close()
        bad = {
            (pack, entry.offset),
            (gone, 0),
            ("points/" + "02" * 16, 0),
            ("points/" + "00" * 16 + "-deleted", 0),
        }
        real = LocalBlobStore.read

        def read(store: LocalBlobStore, name: str, offset: int, length: int) -> bytes:
            if (name, offset) in bad:
                raise OSError(errno.EIO, "I/O error")
            return real(store, name, offset, length)

        repository = self.lose()
        self.patch(LocalBlobStore, "read", read)
        result = repository.rebuild_index()
        found = [
            name
            for name in (name_of(4).hex(), gone, "02" * 16, "00" * 16)
            if any(name in sentence for sentence in result.damaged)
        ]
        self.assertEqual((len(found), len(result.damaged)), (4, 4), result.damaged)
        self.assertEqual(repository.have([name_of(0), name_of(4)]), [True, False])
        self.assertEqual([row.point[0] for row in repository.points()], [0])

    def sort(self, sentences: tuple[str, ...]) -> list[str]:
        """Blobs first, packs next, points last."""
        return sorted(
            sentences, key=lambda text: (text.startswith("points/"), text.startswith("packs/"))
        )

    def test_without_data(self) -> None:
        """Without reading the data, a changed blob is indexed, and found when it is read."""
        repository = self.opened()
        pack, entry = repository.catalogue.locate([name_of(4)])[name_of(4)]
        flip(self.directory / pack, entry.offset)
        self.assertEqual(repository.rebuild_index(read_data=False).damaged, ())
        self.assertEqual(repository.have([name_of(4)]), [True])
        self.assertEqual(len(repository.rebuild_index().damaged), 1)
        self.assertEqual(repository.have([name_of(4)]), [False])

    def test_before_the_bin(self) -> None:
        """The record of a point of an earlier release, which has less in it, is understood."""
        repository = self.opened()
        self.assertEqual(repository.point(b"\x02" * 16).bytes_stored, 0)
        path = self.directory / "points" / ("02" * 16)
        fields = canonical.decode_map(path.read_bytes())
        self.assertEqual(fields.pop("bytes_stored"), 0)
        path.write_bytes(canonical.encode(fields))
        repository.close()
        self.assertEqual(self.lose().rebuild_index().damaged, ())
        for wrong in (-1, 1 << 63, "1", None):
            path.write_bytes(canonical.encode(fields | {"bytes_stored": wrong}))
            self.assertEqual(len(self.lose().rebuild_index().damaged), 1)

    def test_what_became_of_points(self) -> None:
        """The bin and the locks come back with their points."""
        repository = self.opened()
        repository.delete([b"\x00" * 16], "provider")
        repository.lock([b"\x02" * 16], self.time + 86400)
        rows = self.rows(repository.catalogue)
        repository.close()
        repository = self.lose()
        self.assertEqual(repository.rebuild_index().damaged, ())
        self.assertEqual(self.rows(repository.catalogue), rows)
        repository.rebuild_index()
        self.assertEqual(self.rows(repository.catalogue), rows)
        states = {row.point[0]: row.state for row in repository.points(states=STATES)}
        self.assertEqual(states, {0: "deleted", 1: "withdrawn", 2: "published"})

    def test_damaged_tombstone(self) -> None:
        """A tombstone that cannot be read is named, and makes no point."""
        repository = self.opened()
        repository.delete([b"\x00" * 16])
        repository.close()
        for octets in (b"damaged", canonical.encode({"removed_time": 5.0})):
            (self.directory / "points" / ("07" * 16 + "-removed")).write_bytes(octets)
            repository = self.lose()
            (sentence,) = repository.rebuild_index().damaged
            self.assertIn("07" * 16, sentence)
            self.assertEqual(len(repository.points(states=STATES)), 3)

    def test_strange_names(self) -> None:
        """Names that are of no point are left alone."""
        repository = self.opened()
        for name in ("points/other", "points/" + "0g" * 16, "points/" + "00" * 15, "points/a/b"):
            repository.store.put(name, [b"other"])
        repository.close()
        result = self.lose().rebuild_index()
        self.assertEqual((result.points, result.damaged), (3, ()))

    def test_foreign_pack(self) -> None:
        """A pack of another repository, put among ours, is named and not used."""
        repository = self.opened()
        builder = packs.PackBuilder(repository.store.begin(), b"o" * 16, b"f" * 16)
        builder.add(blob(1), 0)
        name, _ = builder.commit()
        result = repository.rebuild_index()
        self.assertEqual(result.packs, 4)
        self.assertIn(name, result.damaged[0])

    def test_swapped_packs(self) -> None:
        """Packs that were exchanged are named, and what is in them is found all the same."""
        repository = self.opened()
        one, two, *_ = self.files("packs")
        octets = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(octets)
        result = repository.rebuild_index()
        self.assertEqual((result.packs, result.blobs), (4, 8))
        self.assertEqual(len(result.damaged), 2)
        self.assertIn(one.name, result.damaged[0])
        blobs = [blob(number) for number in range(8)]
        self.assertEqual(list(repository.read([each.id for each in blobs])), blobs)

    def test_references_missing(self) -> None:
        """A point whose references are gone is not made a point again."""
        (self.directory / "points" / ("02" * 16 + "-references")).unlink()
        repository = self.lose()
        self.assertEqual(len(repository.rebuild_index().damaged), 1)
        self.assertEqual([row.point[0] for row in repository.points()], [0])

    def test_forged_point(self) -> None:
        """A record that somebody else signed does not become a point."""
        store = self.opened().store
        made = record(b"f" * 16).encode()
        fields = {
            "record": made,
            "signature": keys(master=b"o" * 32).sign(made),
            "reference_count": 0,
            "reference_digest": bytes(32),
            "arrival_time": 1.0,
        }
        for name, signature in ((b"f", fields["signature"]), (b"g", keys().sign(made))):
            encoded = canonical.encode({**fields, "signature": signature})
            store.put("points/" + (name * 16).hex(), [encoded])
            store.put("points/" + (name * 16).hex() + "-references", [])
        result = self.opened().rebuild_index()
        self.assertEqual(result.points, 0)
        forged, renamed = result.damaged
        self.assertIn("signature", forged)
        self.assertIn("points/" + "67" * 16, renamed)

    def test_recover_nothing(self) -> None:
        """Nothing is recovered where there is a catalogue, or no repository."""
        self.assertRaises(Refused, Repository.recover, self.directory)
        (self.directory / "description").unlink()
        for path in self.directory.glob(f"{CATALOGUE}*"):
            path.unlink()
        self.assertRaises(NotFound, Repository.recover, self.directory)
        self.assertEqual(list(self.directory.glob(f"{CATALOGUE}*")), [])
