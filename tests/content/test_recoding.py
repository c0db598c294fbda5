"""A blob in another coding than it came in."""

from __future__ import annotations

import os

from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content.compression import compress
from cloudconnect.content.recoding import compressed, plain
from cloudconnect.errors import StoredDataDamaged
from cloudconnect.settings import CHUNK_MAX
from cloudconnect.wire.frames import Coding, StoredBlob, pack_chunk

TEXT = b"a line that is much like the next one\n" * 300


def blob_of(data: bytes, coding: Coding = Coding.PLAIN, plain_length: int = 0) -> StoredBlob:
    """A blob of these stored bytes."""
    return StoredBlob(bytes(32), plain_length or len(data), coding, blake3(data).digest(), data)


class RecodingTests(SynchronousTestCase):
    """There, and back."""

    @given(st.binary(min_size=1, max_size=2000), st.integers(1, 30))
    @settings(deadline=None, max_examples=60)
    def test_there_and_back(self, data: bytes, times: int) -> None:
        """What was compressed goes back as exactly the CHUNK that it was, and is never larger."""
        blob = blob_of(data * times)
        stored = compressed(blob)
        self.assertLessEqual(len(stored.data), len(blob.data))
        self.assertEqual(blake3(stored.data).digest(), stored.digest)
        self.assertEqual(pack_chunk(plain(stored)), pack_chunk(blob))

    def test_compressed(self) -> None:
        """Text gets smaller, and keeps its name and its plain length."""
        stored = compressed(blob_of(TEXT))
        self.assertLess(len(stored.data), len(TEXT) // 10)
        self.assertEqual((stored.coding, stored.plain_length), (Coding.ZSTD, len(TEXT)))

    def test_incompressible(self) -> None:
        """What does not get smaller stays as it is, both ways."""
        blob = blob_of(os.urandom(5000))
        self.assertIs(compressed(blob), blob)
        self.assertIs(plain(blob), blob)

    def test_other_codings(self) -> None:
        """What is compressed is not compressed again, and what is sealed is not touched."""
        for coding in (Coding.ZSTD, Coding.SEALED, Coding.SEALED_ZSTD):
            blob = blob_of(TEXT, coding)
            self.assertIs(compressed(blob), blob)
        for coding in (Coding.SEALED, Coding.SEALED_ZSTD):
            blob = blob_of(TEXT, coding)
            self.assertIs(plain(blob), blob)

    def test_damaged(self) -> None:
        """What is no frame of its length, or announces an impossible one, is damaged."""
        frame = compress(TEXT)
        assert frame is not None
        for blob in (
            blob_of(b"no frame", Coding.ZSTD, 100),
            blob_of(frame, Coding.ZSTD, len(TEXT) - 1),
            blob_of(frame, Coding.ZSTD, len(TEXT) + 1),
            blob_of(frame[:-1], Coding.ZSTD, len(TEXT)),
            blob_of(frame, Coding.ZSTD, CHUNK_MAX + 1),
            StoredBlob(bytes(32), 0, Coding.ZSTD, bytes(32), frame),
        ):
            self.assertRaises(StoredDataDamaged, plain, blob)
