"""Tests for cloudconnect.repository.packs."""

from __future__ import annotations

import struct
from pathlib import Path

from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import StoredDataDamaged
from cloudconnect.repository import packs
from cloudconnect.repository.blobs import LocalBlobStore
from cloudconnect.repository.packs import (
    ENTRY_SIZE,
    HEADER_SIZE,
    PACK_ENTRIES_MAX,
    PACK_SIZE,
    Entry,
    PackBuilder,
    pack_name,
    read_entries,
    read_pack,
)
from cloudconnect.settings import IDS_MAX
from cloudconnect.wire.frames import Coding, StoredBlob
from tests.repository.repositories import REPOSITORY, blob, flip

PACK = b"p" * 16


class PackCase(SynchronousTestCase):
    """A test with a store."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.store = LocalBlobStore(str(self.directory))
        self.addCleanup(self.store.close)

    def builder(self, pack: bytes = PACK) -> PackBuilder:
        builder = PackBuilder(self.store.begin(), REPOSITORY, pack)
        self.addCleanup(builder.discard)
        return builder

    def packed(self, *blobs: StoredBlob, kind: int = 0) -> tuple[str, list[Entry]]:
        builder = self.builder()
        for each in blobs:
            builder.add(each, kind)
        name, size = builder.commit()
        self.assertEqual(size, self.store.size(name))
        return name, builder.entries

    def read(self, name: str, entry: Entry) -> StoredBlob:
        return entry.blob(self.store.read(name, entry.offset, entry.stored_length), name)


class BuilderTests(PackCase):
    """A pack has the bytes of the specification."""

    def test_known_octets(self) -> None:
        """A pack of two blobs, made here by hand."""
        blobs = [blob(1, 5), blob(2, 7)]
        heads = [
            struct.pack(">B32sIBBI32s", 0xE1, b.id, len(b.data), 0x10, 1, len(b.data), b.digest)
            for b in blobs
        ]
        header = b"CCPACK01" + REPOSITORY + PACK
        directory = heads[0] + heads[1]
        expected = (
            header
            + heads[0]
            + bytes(blobs[0].data)
            + heads[1]
            + bytes(blobs[1].data)
            + directory
            + b"\xd1"
            + struct.pack(">I", 2)
            + blake3(header + directory).digest()
        )
        name, _ = self.packed(*blobs, kind=1)
        self.assertEqual(name, "packs/" + "70" * 16)
        self.assertEqual(self.store.read(name, 0, self.store.size(name)), expected)
        self.assertEqual(len(expected), HEADER_SIZE + 12 + 2 * ENTRY_SIZE + 37)

    def test_full(self) -> None:
        """A pack is full at its size, and at its number of entries: those of one STORED frame."""
        self.assertEqual((PACK_SIZE, PACK_ENTRIES_MAX), (32 << 20, IDS_MAX))
        self.patch(packs, "PACK_SIZE", HEADER_SIZE + 2 * (ENTRY_SIZE + 100))
        builder = self.builder()
        builder.add(blob(1), 0)
        self.assertFalse(builder.full)
        builder.add(blob(2), 0)
        self.assertTrue(builder.full)
        self.patch(packs, "PACK_SIZE", PACK_SIZE)
        self.patch(packs, "PACK_ENTRIES_MAX", 2)
        self.assertTrue(builder.full)
        self.patch(packs, "PACK_ENTRIES_MAX", 3)
        self.assertFalse(builder.full)

    def test_changing_data(self) -> None:
        """The data of a blob may change once it was added: it is a view of a receive buffer."""
        data = bytearray(b"stored")
        digest = blake3(data).digest()
        builder = self.builder()
        builder.add(StoredBlob(bytes(32), 6, Coding.SEALED, digest, memoryview(data)), 0)
        data[:] = b"other!"
        name, _ = builder.commit()
        self.assertEqual(self.read(name, builder.entries[0]).data, b"stored")

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(1, 3000), max_size=10))
    def test_round_trip(self, sizes: list[int]) -> None:
        """What was packed is read back, from the directory alone."""
        blobs = [blob(number, size) for number, size in enumerate(sizes)]
        name, entries = self.packed(*blobs)
        self.assertEqual(read_entries(self.store, name, REPOSITORY), entries)
        self.assertEqual([self.read(name, entry) for entry in entries], blobs)
        self.store.remove(name)


class DamagedTests(PackCase):
    """Damage is noticed, and costs no more than what it hit."""

    def setUp(self) -> None:
        super().setUp()
        self.blobs = [blob(1, 40), blob(2, 50), blob(3, 60)]
        self.name, self.entries = self.packed(*self.blobs)
        self.path = self.directory / self.name
        self.whole = self.path.read_bytes()

    def test_every_byte(self) -> None:
        """Whichever byte behind the header is changed, the entries are still all found.

        And exactly those blobs are refused whose stored bytes were changed.
        """
        for offset in range(HEADER_SIZE, len(self.whole)):
            flip(self.path, offset)
            self.assertEqual(read_entries(self.store, self.name, REPOSITORY), self.entries)
            for entry, original in zip(self.entries, self.blobs, strict=True):
                if entry.offset <= offset < entry.offset + entry.stored_length:
                    error = self.assertRaises(StoredDataDamaged, self.read, self.name, entry)
                    self.assertIn(entry.id.hex(), str(error))
                    self.assertIn(self.name, str(error))
                else:
                    self.assertEqual(self.read(self.name, entry), original)
            self.path.write_bytes(self.whole)

    def test_header(self) -> None:
        """A changed header is said, and costs no blob, also where the directory is changed too."""
        for offset in range(HEADER_SIZE):
            flip(self.path, offset)
            for changed in (False, True):
                if changed:
                    flip(self.path, -1)
                contents = read_pack(self.store, self.name, REPOSITORY)
                self.assertEqual(contents.entries, self.entries)
                self.assertIn("header", contents.problem)
            self.path.write_bytes(self.whole)

    def test_problems(self) -> None:
        """What is wrong with a pack is said: its name, its directory, something in between."""
        self.assertEqual(read_pack(self.store, self.name, REPOSITORY).problem, "")
        other = pack_name(b"o" * 16)
        self.store.put(other, [self.whole])
        contents = read_pack(self.store, other, REPOSITORY)
        self.assertEqual(contents.entries, self.entries)
        self.assertIn(PACK.hex(), contents.problem)
        end = self.entries[-1].offset + self.entries[-1].stored_length
        self.path.write_bytes(self.whole[:end] + b"more" + self.whole[end:])
        contents = read_pack(self.store, self.name, REPOSITORY)
        self.assertEqual(contents.entries, self.entries)
        self.assertTrue(contents.problem)
        flip(self.path, -40)
        self.assertIn("directory", read_pack(self.store, self.name, REPOSITORY).problem)

    def test_no_pack(self) -> None:
        """What has neither a header nor a blob is no pack."""
        self.path.write_bytes(bytes(500))
        self.assertRaises(StoredDataDamaged, read_pack, self.store, self.name, REPOSITORY)

    def test_other_repository(self) -> None:
        """A pack of another repository is refused."""
        self.assertRaises(StoredDataDamaged, read_entries, self.store, self.name, b"o" * 16)

    def test_every_length(self) -> None:
        """Of a pack that was cut anywhere, the blobs that are whole are found."""
        for length in range(len(self.whole)):
            self.path.write_bytes(self.whole[:length])
            whole = [e for e in self.entries if e.offset + e.stored_length <= length]
            if length < HEADER_SIZE:
                self.assertRaises(
                    StoredDataDamaged, read_entries, self.store, self.name, REPOSITORY
                )
            else:
                self.assertEqual(read_entries(self.store, self.name, REPOSITORY), whole)

    def test_both_copies(self) -> None:
        """Where a header and the directory are damaged, the entries before it are found."""
        flip(self.path, -1)
        flip(self.path, self.entries[1].offset - ENTRY_SIZE // 2)
        self.assertEqual(read_entries(self.store, self.name, REPOSITORY), self.entries[:1])

    def test_without_directory(self) -> None:
        """Without the directory, a blob whose bytes were changed is left out, the rest is found."""
        flip(self.path, -1)
        flip(self.path, self.entries[1].offset)
        found = read_entries(self.store, self.name, REPOSITORY)
        self.assertEqual(found, [self.entries[0], self.entries[2]])

    def test_name(self) -> None:
        """The name is made of the pack's id."""
        self.assertEqual(pack_name(PACK), self.name)
