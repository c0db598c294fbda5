"""Compression of what has to be sent."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.dedup import literals
from cloudconnect.dedup.literals import (
    StreamCompressor,
    StreamDecompressor,
    compress_delta,
    decompress_delta,
    zstd,
)
from cloudconnect.dedup.messages import Coding
from cloudconnect.errors import ProtocolViolation
from tests.dedup.pairs import noise, text


class StreamTests(SynchronousTestCase):
    """One compressed stream for each direction."""

    @given(
        st.lists(
            st.tuples(st.binary(min_size=1, max_size=500), st.integers(1, 300)),
            min_size=1,
            max_size=6,
        ),
        st.lists(st.integers(1, 19), min_size=6, max_size=6),
    )
    @settings(deadline=None, max_examples=50)
    def test_there_and_back(self, batches: list[tuple[bytes, int]], levels: list[int]) -> None:
        """Every batch comes back at once, at any levels."""
        self.patch(literals, "LEVEL_KEEP", 1000)
        compressor, decompressor = StreamCompressor(), StreamDecompressor()
        for (part, times), level in zip(batches, levels, strict=False):
            data = part * times
            coding, coded = compressor.compress(data, level)
            self.assertEqual(decompressor.decompress(coding, coded, len(data)), data)

    def test_remembers(self) -> None:
        """A batch that is like an earlier one costs next to nothing."""
        compressor = StreamCompressor()
        data = text(300_000)
        first = len(compressor.compress(data, 3)[1])
        compressor.compress(noise(2_000_000), 3)
        self.assertLess(len(compressor.compress(data, 3)[1]), first // 100)

    def test_level(self) -> None:
        """The level changes, with a new stream, only from time to time."""
        compressor = StreamCompressor()
        data = text(1_000_000)
        codings = [compressor.compress(data, level)[0] for level in (3, 4, 5, 6, 7, 7)]
        anew, on = Coding.ANEW, Coding.ON
        self.assertEqual(codings, [anew, on, on, on, on, anew])

    def test_incompressible(self) -> None:
        """What cannot be compressed is sent as it is after a while, until something can be."""
        compressor, decompressor = StreamCompressor(), StreamDecompressor()
        codings = []
        for data in (noise(200_000, 1), noise(200_000, 2), text(200_000), text(200_000, 2)):
            coding, coded = compressor.compress(data, 3)
            codings.append(coding)
            self.assertEqual(decompressor.decompress(coding, coded, len(data)), data)
        self.assertEqual(codings, [Coding.ANEW, Coding.RAW, Coding.ON, Coding.ON])

    def test_refused(self) -> None:
        """Other lengths than announced, other streams, ended ones and junk."""
        data = text(5000)
        coding, coded = StreamCompressor().compress(data, 3)
        for plain in (1, 4999, 5001, 1 << 20):
            with self.assertRaises(ProtocolViolation):
                StreamDecompressor().decompress(coding, coded, plain)
        for wrong in (Coding.ON, Coding.RAW):
            if wrong == Coding.ON:
                with self.assertRaises(ProtocolViolation):
                    StreamDecompressor().decompress(wrong, coded, 5000)
        for junk in (b"junk" * 10, zstd.compress(data), coded[:-3], b""):
            with self.assertRaises(ProtocolViolation):
                StreamDecompressor().decompress(Coding.ANEW, junk, 5000)

    def test_large_window(self) -> None:
        """A stream that asks for the memory of a larger window is refused."""
        options: dict[int, int] = {zstd.CompressionParameter.window_log: 27}
        compressor = zstd.ZstdCompressor(options=options)
        coded = compressor.compress(text(5000), compressor.FLUSH_BLOCK)
        with self.assertRaises(ProtocolViolation):
            StreamDecompressor().decompress(Coding.ANEW, coded, 5000)


class DeltaTests(SynchronousTestCase):
    """Frames with a prefix."""

    @given(st.binary(min_size=8, max_size=400), st.binary(min_size=1, max_size=400))
    @settings(deadline=None, max_examples=50)
    def test_there_and_back(self, prefix: bytes, data: bytes) -> None:
        """What was compressed against a prefix comes back with it."""
        for level in (1, 3, 9):
            coded = compress_delta(prefix, [data], level)
            self.assertEqual(decompress_delta(prefix, coded, len(data)), data)
            half = len(data) // 2
            parts = [data[:half], memoryview(data)[half:]]
            self.assertEqual(compress_delta(prefix, parts, level), coded)

    def test_small(self) -> None:
        """A change in a mebibyte of noise costs little at every level."""
        prefix = noise(1 << 20)
        data = prefix[:500_000] + b"changed" + prefix[500_000:]
        for level in (1, 3, 5, 9):
            self.assertLess(len(compress_delta(prefix, [data], level)), 2000, level)

    def test_refused(self) -> None:
        """Another length, two frames, a cut one."""
        prefix, data = noise(1000), text(3000)
        coded = compress_delta(prefix, [data], 3)
        for wrong, plain in (
            (coded, 2999),
            (coded, 3001),
            (coded + coded, 3000),
            (coded[:-1], 3000),
            (b"", 3000),
            (b"junk", 3000),
        ):
            self.assertRaises(ProtocolViolation, decompress_delta, prefix, wrong, plain)
