"""Compression with bounds on what comes out of it."""

from __future__ import annotations

import os
import threading

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content import compression
from cloudconnect.content.compression import compress, decompress, zstd
from cloudconnect.errors import StoredDataDamaged
from cloudconnect.settings import CHUNK_MAX

TEXT = b"a line that is much like the next one\n" * 300


class CompressTests(SynchronousTestCase):
    """Making frames."""

    @given(st.binary(max_size=3000), st.integers(1, 30), st.integers(0, 19))
    @settings(deadline=None, max_examples=60)
    def test_there_and_back(self, data: bytes, times: int, level: int) -> None:
        """What was compressed comes back exactly, and a frame is smaller than its content."""
        frame = compress(data * times, level)
        if frame is not None:
            self.assertLess(len(frame), len(data * times))
            self.assertEqual(decompress(frame, len(data * times)), data * times)

    def test_incompressible(self) -> None:
        """Random bytes and no bytes are not worth a frame."""
        self.assertIsNone(compress(os.urandom(5000), 3))
        self.assertIsNone(compress(b"", 3))

    def test_behind_random_data(self) -> None:
        """Behind data that cannot be made smaller, what can still is, and what cannot is not."""
        size = 64 << 10
        text = (TEXT * 10)[:size]
        compress(os.urandom(size), 3)
        self.assertIsNone(compress(os.urandom(size), 3))
        frame = compress(text, 3)
        assert frame is not None
        self.assertLess(len(frame), size // 50)
        self.assertEqual(decompress(frame, size), text)
        for at in range(4):  # a quarter of it is enough, wherever it is
            compress(os.urandom(size), 3)
            parts = [os.urandom(size // 4) for _ in range(4)]
            parts[at] = text[: size // 4]
            frame = compress(b"".join(parts), 3)
            assert frame is not None
            self.assertLess(len(frame), size * 4 // 5)

    def test_level_0(self) -> None:
        """Level 0 does not compress."""
        self.assertIsNone(compress(TEXT, 0))

    def test_impossible_levels(self) -> None:
        """Other levels are errors of the caller."""
        for level in (-1, 20):
            self.assertRaises(ValueError, compress, TEXT, level)

    def test_largest(self) -> None:
        """A chunk of the largest size comes back; one byte more is refused."""
        frame = compress(bytes(CHUNK_MAX), 19)
        assert frame is not None
        self.assertEqual(decompress(frame, CHUNK_MAX), bytes(CHUNK_MAX))
        self.assertRaises(ValueError, compress, bytes(CHUNK_MAX + 1), 1)

    def test_buffers(self) -> None:
        """Views and bytearrays are as good as bytes."""
        self.assertEqual(compress(memoryview(TEXT), 3), compress(bytearray(TEXT), 3))

    def test_repeatable(self) -> None:
        """A compressor that has served before makes the frame that a new one makes."""
        compress(os.urandom(5000) + TEXT, 3)
        frames = {compress(TEXT, 3)}
        thread = threading.Thread(target=lambda: frames.add(compress(TEXT, 3)))
        thread.start()
        thread.join()
        self.assertEqual(frames, {zstd.compress(TEXT, 3)})

    def test_one_compressor_for_a_thread(self) -> None:
        """A thread keeps its compressor, and no other thread ever uses it."""
        compress(TEXT, 3)
        mine = compression._kept.compressors[3]
        compress(TEXT, 3)
        theirs = []

        def elsewhere() -> None:
            compress(TEXT, 3)
            theirs.append(compression._kept.compressors[3])

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        self.assertIs(compression._kept.compressors[3], mine)
        self.assertIsNot(theirs[0], mine)

    def test_many_threads(self) -> None:
        """Threads that compress at once do not mix their content."""
        contents = [bytes([65 + i]) * 40000 + os.urandom(200) for i in range(4)]
        wrong = []

        def work(content: bytes) -> None:
            for _ in range(20):
                frame = compress(content, 3)
                if frame is None or decompress(frame, len(content)) != content:
                    wrong.append(content[:1])

        threads = [threading.Thread(target=work, args=(content,)) for content in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])


class DecompressTests(SynchronousTestCase):
    """Reading frames that somebody else stored."""

    def refused(self, data: bytes, plain_length: int) -> None:
        """Assert that ``data`` is not taken for ``plain_length`` bytes."""
        self.assertRaises(StoredDataDamaged, decompress, data, plain_length)

    def test_other_length(self) -> None:
        """A frame of more or fewer bytes than announced is refused."""
        frame = zstd.compress(TEXT)
        for difference in (-len(TEXT), -1, 1, 5000):
            self.refused(frame, len(TEXT) + difference)

    def test_bomb(self) -> None:
        """A frame that is thousands of times its size makes no more than what is announced."""
        bomb = zstd.compress(bytes(64 << 20))
        self.assertLess(len(bomb), 16384)
        self.refused(bomb, 1000)
        self.refused(bomb, CHUNK_MAX)

    def test_announced_above_the_limit(self) -> None:
        """No chunk is longer than the limit, whatever is announced."""
        self.refused(zstd.compress(bytes(CHUNK_MAX + 1)), CHUNK_MAX + 1)
        self.refused(zstd.compress(TEXT), -1)

    def test_large_window(self) -> None:
        """A frame that asks for the memory of a larger window than any chunk needs is refused."""
        options = {
            zstd.CompressionParameter.window_log: 27,
            zstd.CompressionParameter.content_size_flag: 0,
        }
        compressor = zstd.ZstdCompressor(options=options)
        frame = compressor.compress(TEXT[:1000]) + compressor.compress(TEXT[1000:])
        frame += compressor.flush()
        self.assertEqual(zstd.decompress(frame), TEXT)
        self.refused(frame, len(TEXT))

    def test_cut(self) -> None:
        """A frame that was cut anywhere is refused."""
        frame = zstd.compress(TEXT)
        for length in range(len(frame)):
            self.refused(frame[:length], len(TEXT))

    def test_more_behind_it(self) -> None:
        """Bytes or a second frame behind the frame are refused."""
        frame = zstd.compress(TEXT)
        self.refused(frame + b"\0", len(TEXT))
        self.refused(frame + frame, 2 * len(TEXT))
        self.refused(frame + zstd.compress(b""), len(TEXT))

    @given(st.binary(max_size=200), st.integers(0, 5000))
    @settings(deadline=None)
    def test_anything_else(self, data: bytes, length: int) -> None:
        """Bytes that are no frame are refused and nothing else happens."""
        try:
            plain = decompress(data, length)
        except StoredDataDamaged:
            return
        self.assertEqual(zstd.decompress(data), plain)
