"""Tests for cloudconnect.repository.references."""

from __future__ import annotations

import hashlib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import NotFound, Refused, StoredDataDamaged
from cloudconnect.repository import references
from cloudconnect.repository.blobs import LocalBlobStore
from cloudconnect.repository.references import (
    ReferenceWriter,
    read_references,
    references_name,
)
from tests.repository.repositories import flip, name_of

POINT = b"p" * 16


class ReferencesTests(SynchronousTestCase):
    """A list of references is streamed in and out."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.store = LocalBlobStore(str(self.directory))
        self.addCleanup(self.store.close)
        self.writer = ReferenceWriter(self.store.begin())
        self.addCleanup(self.writer.discard)
        self.ids = [name_of(number) for number in range(9000)]
        self.whole = b"".join(self.ids)

    def commit(self) -> tuple[int, bytes]:
        self.writer.extend(self.whole)
        self.writer.commit(POINT)
        return self.writer.count, self.writer.digest

    def test_round_trip(self) -> None:
        """In parts of any size in, in batches of at most 8192 out, before and after the commit."""
        self.writer.extend(b"")
        self.writer.extend(self.whole[: 32 * 5])
        self.writer.extend(memoryview(self.whole)[32 * 5 :])
        self.assertEqual(self.writer.count, 9000)
        self.assertEqual(self.writer.digest, hashlib.sha256(self.whole).digest())
        expected = [self.ids[:8192], self.ids[8192:]]
        self.assertEqual(list(self.writer.batches()), expected)
        self.writer.commit(POINT)
        self.assertEqual(self.store.read(references_name(POINT), 0, 9000 * 32), self.whole)
        found = read_references(self.store, POINT, self.writer.count, self.writer.digest)
        self.assertEqual(list(found), expected)

    def test_empty(self) -> None:
        """A point without content has an empty list."""
        self.writer.commit(POINT)
        digest = hashlib.sha256().digest()
        self.assertEqual(list(read_references(self.store, POINT, 0, digest)), [])
        self.assertEqual(self.writer.digest, digest)

    def test_half_an_id(self) -> None:
        """Half an id is a bug of the caller."""
        self.assertRaises(ValueError, self.writer.extend, bytes(31))

    def test_too_many(self) -> None:
        """The number of references is bounded."""
        self.patch(references, "REFERENCES_MAX", 3)
        self.writer.extend(bytes(64))
        self.assertRaises(Refused, self.writer.extend, bytes(64))
        self.writer.extend(bytes(32))

    def test_changed(self) -> None:
        """A list that was changed, cut or removed is damaged or missing."""
        count, digest = self.commit()
        path = self.directory / references_name(POINT)
        flip(path, 40)
        self.assertRaises(
            StoredDataDamaged, list, read_references(self.store, POINT, count, digest)
        )
        path.write_bytes(self.whole[:-32])
        self.assertRaises(
            StoredDataDamaged, list, read_references(self.store, POINT, count, digest)
        )
        path.unlink()
        self.assertRaises(NotFound, list, read_references(self.store, POINT, count, digest))

    def test_discard(self) -> None:
        """Nothing is left of a list that was discarded."""
        self.writer.extend(self.whole)
        self.writer.discard()
        self.assertEqual(list(self.store.names()), [])
        self.assertEqual(list((self.directory / "temporary").iterdir()), [])
