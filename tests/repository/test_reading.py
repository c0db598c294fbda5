"""Tests for cloudconnect.repository.reading."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudconnect.errors import NoSpace, StoredDataDamaged
from cloudconnect.repository import packs, reading
from cloudconnect.repository.blobs import LocalBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.packs import Entry
from cloudconnect.repository.store import Repository
from cloudconnect.wire.frames import StoredBlob
from tests.repository.repositories import RepositoryCase, blob, failing, flip, name_of


class ReadingCase(RepositoryCase):
    """A repository of 12 blobs in packs of 3."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(packs, "PACK_ENTRIES_MAX", 3)
        self.repository = self.created()
        self.blobs = [blob(number, 50 + 10 * number) for number in range(12)]
        self.assertEqual(
            [name for each in self.blobs for name in self.repository.add(each)],
            [each.id for each in self.blobs],
        )

    def got(self, *numbers: int) -> list[StoredBlob | StoredDataDamaged]:
        return list(self.repository.read_each([name_of(number) for number in numbers]))

    def path_of(self, number: int) -> tuple[str, int]:
        name, entry = self.repository.catalogue.locate([name_of(number)])[name_of(number)]
        return name, entry.offset


class ReadingTests(ReadingCase):
    """Blobs are read in the order asked."""

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(0, 11), max_size=30), st.integers(1, 400), st.integers(0, 200))
    def test_any_order(self, numbers: list[int], window: int, gap: int) -> None:
        """Any order, with repetitions, whatever is read together and held at once."""
        self.patch(reading, "WINDOW_BYTES", window)
        self.patch(reading, "GAP_BYTES", gap)
        self.assertEqual(self.got(*numbers), [self.blobs[number] for number in numbers])

    def test_one_read(self) -> None:
        """Neighbours in a pack are read at once, and what lies far apart is not."""
        reads: list[tuple[str, int, int]] = []
        real = self.repository.store.read

        def read(name: str, offset: int, length: int) -> bytes:
            reads.append((name, offset, length))
            return real(name, offset, length)

        self.patch(self.repository.store, "read", read)
        self.got(2, 0, 1)
        self.assertEqual(len(reads), 1)
        self.patch(reading, "GAP_BYTES", 10)
        self.got(0, 2)
        self.assertEqual(len(reads), 3)
        self.got(0, 3)
        self.assertEqual(len(reads), 5)

    def test_bounded(self) -> None:
        """No more than a window is read before the first blob of it is handed out."""
        self.patch(reading, "WINDOW_BYTES", 100)
        sizes: list[int] = []
        real = self.repository.store.read

        def read(name: str, offset: int, length: int) -> bytes:
            sizes.append(length)
            return real(name, offset, length)

        self.patch(self.repository.store, "read", read)
        blobs = self.repository.read([each.id for each in self.blobs])
        self.assertEqual(next(blobs), self.blobs[0])
        self.assertEqual(sum(sizes), 50 + 60 + (packs.ENTRY_SIZE // 2))
        self.assertEqual(list(blobs), self.blobs[1:])

    def test_unknown(self) -> None:
        """An id that is nowhere is an error in its place, and the others are read."""
        got = self.got(1, 99, 2)
        self.assertEqual([got[0], got[2]], [self.blobs[1], self.blobs[2]])
        self.assertIsInstance(got[1], StoredDataDamaged)
        self.assertIn(name_of(99).hex(), str(got[1]))
        ids = [name_of(1), name_of(99)]
        blobs = self.repository.read(ids)
        self.assertEqual(next(blobs), self.blobs[1])
        self.assertRaises(StoredDataDamaged, next, blobs)


class DamageTests(ReadingCase):
    """Damage is found when it is read, costs only what it hit, and heals with the next backup."""

    def check_lost(self, *lost: int) -> None:
        got = self.got(*range(12))
        for number, each in enumerate(got):
            if number in lost:
                self.assertIsInstance(each, StoredDataDamaged, number)
                self.assertIn(name_of(number).hex(), str(each))
            else:
                self.assertEqual(each, self.blobs[number])

    def heal(self, *lost: int) -> None:
        """A mover asks what is there, sends what is not, and all is well again."""
        repository: Repository = self.opened()
        there = repository.have([each.id for each in self.blobs])
        self.assertEqual([n for n, stored in enumerate(there) if not stored], list(lost))
        for number in lost:
            repository.add(self.blobs[number])
        repository.flush()
        self.check_lost()

    def test_flipped(self) -> None:
        """A changed byte in the stored bytes."""
        name, offset = self.path_of(4)
        flip(self.directory / name, offset + 5)
        error = self.assertRaises(StoredDataDamaged, list, self.repository.read([name_of(4)]))
        self.assertIn(name, str(error))
        self.check_lost(4)
        self.heal(4)

    def test_pack_gone(self) -> None:
        """A pack that is gone takes its blobs with it, and no other."""
        (self.directory / self.path_of(3)[0]).unlink()
        self.check_lost(3, 4, 5)
        self.heal(3, 4, 5)

    def test_pack_short(self) -> None:
        """Of a pack that became shorter, what is still in it is read."""
        name, offset = self.path_of(4)
        path = self.directory / name
        path.write_bytes(path.read_bytes()[: offset + 1])
        self.check_lost(4, 5)
        self.heal(4, 5)

    def test_swapped(self) -> None:
        """Two packs that were exchanged are both found to be wrong."""
        one, two = (self.directory / self.path_of(number)[0] for number in (0, 3))
        saved = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(saved)
        self.check_lost(0, 1, 2, 3, 4, 5)
        self.heal(0, 1, 2, 3, 4, 5)

    def test_moved_meanwhile(self) -> None:
        """What moved to another pack after it was looked up is read there, and is not damaged."""
        places = self.repository.catalogue.locate([each.id for each in self.blobs])
        reader = self.opened(read_only=True)
        real = type(reader.catalogue).locate
        calls: list[int] = []

        def locate(catalogue: Catalogue, ids: Iterable[bytes]) -> dict[bytes, tuple[str, Entry]]:
            calls.append(1)
            return places if len(calls) == 1 else real(catalogue, ids)

        session = self.opened()
        self.repository.catalogue.mark_damaged([name_of(4)])
        session.add(self.blobs[4])
        session.flush()
        (self.directory / places[name_of(4)][0]).unlink()
        self.patch(type(reader.catalogue), "locate", locate)
        self.assertEqual(list(reader.read_each([name_of(4)])), [self.blobs[4]])

    def test_unreadable(self) -> None:
        """A place that the system cannot read costs what lies there, as long as that is so."""
        name, offset = self.path_of(4)
        real = LocalBlobStore.read

        def read(store: LocalBlobStore, wanted: str, start: int, length: int) -> bytes:
            if wanted == name and start <= offset < start + length:
                raise OSError(errno.EIO, "I/O error")
            return real(store, wanted, start, length)

        patch = self.patch(LocalBlobStore, "read", read)
        self.check_lost(4)
        patch.restore()
        self.check_lost()

    def test_other_error(self) -> None:
        """What says nothing of the disk ends the reading: no file is called damaged for it."""
        call, _ = failing(OSError(errno.EMFILE, "too many open files"), len)
        self.patch(LocalBlobStore, "read", call)
        self.assertRaises(OSError, self.got, 4)

    def test_read_only(self) -> None:
        """Where nothing can be written, damage is an error in its place all the same."""
        name, offset = self.path_of(4)
        flip(self.directory / name, offset)
        self.repository.close()
        self.repository = self.opened(read_only=True)
        self.check_lost(4)

    def test_full_disk(self) -> None:
        """A disk so full that the damage cannot be noted does not end the reading."""
        name, offset = self.path_of(4)
        flip(self.directory / name, offset)
        call, _ = failing(NoSpace("full"), len)
        patch = self.patch(self.repository.catalogue.__class__, "mark_damaged", call)
        self.check_lost(4)
        patch.restore()
        self.assertEqual(self.repository.have([name_of(4)]), [True])
