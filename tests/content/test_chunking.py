"""Where content is cut: boundaries belong to the content, and never move between releases."""

from __future__ import annotations

import hashlib

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content.chunking import Chunker, ChunkingParameters, StreamChunker
from cloudconnect.errors import ProtocolViolation
from cloudconnect.settings import CHUNK_MAX

SMALL = ChunkingParameters(average=256, minimum=64, maximum=1024)


def stream_of(length: int, label: bytes = b"") -> bytes:
    """``length`` bytes that look random and are the same on every machine."""
    blocks = range((length + 31) // 32)
    made = b"".join(hashlib.sha256(label + i.to_bytes(8, "big")).digest() for i in blocks)
    return made[:length]


def sizes(parameters: ChunkingParameters, data: bytes) -> list[int]:
    """How long the chunks of ``data`` are."""
    return [len(chunk) for chunk in Chunker(parameters).cut(data)]


def streamed(parameters: ChunkingParameters, pieces: list[bytes]) -> list[bytes]:
    """The chunks of ``pieces`` that are fed one after the other."""
    chunker = StreamChunker(parameters)
    chunks = [bytes(chunk) for piece in pieces for chunk in chunker.feed(piece)]
    return chunks + [bytes(chunk) for chunk in chunker.finish()]


def split_at(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` in pieces that end at ``cuts``, each taken modulo its length."""
    ends = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


class GoldenTests(SynchronousTestCase):
    """A boundary that moves makes every tenant store everything once more."""

    def test_default_parameters(self) -> None:
        """The default parameters cut a known mebibyte where they always did."""
        golden = "88202 124454 46965 40748 56506 130583 93096 44889 46160 108839 23497 47676 153495"
        found = sizes(ChunkingParameters(), stream_of(1 << 20))
        self.assertEqual(" ".join(map(str, found)), golden + " 43466")

    def test_seed(self) -> None:
        """Another seed cuts elsewhere, and always in the same places."""
        self.assertEqual(
            sizes(ChunkingParameters(seed=1), stream_of(1 << 20)),
            [
                82115,
                132045,
                36836,
                68846,
                84456,
                106565,
                112661,
                69117,
                67683,
                85164,
                83928,
                119160,
            ],
        )

    def test_other_parameters(self) -> None:
        """Smaller sizes and a sharper normalization are used as they are given."""
        self.assertEqual(
            sizes(
                ChunkingParameters(average=1024, minimum=256, maximum=4096, normalization=2),
                stream_of(16384),
            ),
            [1155, 1088, 1069, 1153, 1438, 1135, 1082, 1607, 1369, 1635, 794, 2375, 484],
        )

    def test_zeros(self) -> None:
        """Content without any feature is cut at the maximum."""
        self.assertEqual(sizes(ChunkingParameters(), bytes(1 << 20)), [262144] * 4)


class ChunkerTests(SynchronousTestCase):
    """One buffer."""

    def test_views(self) -> None:
        """Chunks are views of the buffer, which is not copied."""
        buffer = bytearray(stream_of(5000))
        first = next(Chunker(SMALL).cut(buffer))
        buffer[0] ^= 0xFF
        self.assertEqual(first[0], buffer[0])

    def test_nothing(self) -> None:
        """An empty buffer has no chunk."""
        self.assertEqual(list(Chunker(SMALL).cut(b"")), [])

    @given(st.integers(0, 20000), st.binary(max_size=4))
    @settings(deadline=None, max_examples=50)
    def test_bounds(self, length: int, label: bytes) -> None:
        """Chunks join to the buffer; none is above the maximum, only the last below the minimum."""
        data = stream_of(length, label)
        chunks = list(Chunker(SMALL).cut(data))
        self.assertEqual(b"".join(chunks), data)
        self.assertTrue(all(1 <= len(chunk) <= SMALL.maximum for chunk in chunks))
        self.assertTrue(all(len(chunk) >= SMALL.minimum for chunk in chunks[:-1]))

    def test_insertion(self) -> None:
        """Bytes inserted at the front change the first chunks only."""
        data = stream_of(100_000)
        before = set(map(bytes, Chunker(SMALL).cut(data)))
        after = set(map(bytes, Chunker(SMALL).cut(b"inserted" + data)))
        self.assertLess(len(after - before), 10)
        self.assertGreater(len(after & before), 200)


class StreamChunkerTests(SynchronousTestCase):
    """A stream that comes in pieces."""

    @given(
        st.integers(0, 12000),
        st.binary(max_size=4),
        st.lists(st.integers(0, 12000), max_size=40),
        st.sampled_from([0, 1, 2, 3]),
    )
    @settings(deadline=None, max_examples=300)
    def test_any_split(
        self, length: int, label: bytes, cuts: list[int], normalization: int
    ) -> None:
        """The chunks are those of the whole buffer, wherever the input is split."""
        parameters = attrs.evolve(SMALL, normalization=normalization)
        data = stream_of(length, label)
        whole = [bytes(chunk) for chunk in Chunker(parameters).cut(data)]
        self.assertEqual(streamed(parameters, split_at(data, cuts)), whole)

    @given(st.integers(1, 2500), st.integers(0, 3))
    @settings(deadline=None, max_examples=50)
    def test_dull_content(self, piece: int, value: int) -> None:
        """Long stretches of one byte are cut at the maximum, whatever the pieces."""
        data = stream_of(700) + bytes([value]) * 6000 + stream_of(700, b"x")
        whole = [bytes(chunk) for chunk in Chunker(SMALL).cut(data)]
        pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
        self.assertEqual(streamed(SMALL, pieces), whole)

    def test_byte_by_byte(self) -> None:
        """One byte at a time gives the chunks of the whole buffer."""
        data = stream_of(8000)
        whole = [bytes(chunk) for chunk in Chunker(SMALL).cut(data)]
        self.assertEqual(streamed(SMALL, [data[i : i + 1] for i in range(len(data))]), whole)

    def test_every_two_pieces(self) -> None:
        """Two pieces give the chunks of the whole buffer, wherever they meet."""
        data = stream_of(2600)
        whole = [bytes(chunk) for chunk in Chunker(SMALL).cut(data)]
        for cut in range(len(data) + 1):
            self.assertEqual(streamed(SMALL, [data[:cut], data[cut:]]), whole, cut)

    def test_waiting_is_bounded(self) -> None:
        """What waits for more content is never more than the maximum."""
        chunker = StreamChunker(SMALL)
        data = stream_of(30000)
        given_back = 0
        for at in range(0, len(data), 700):
            given_back += sum(len(chunk) for chunk in chunker.feed(data[at : at + 700]))
            self.assertLessEqual(min(at + 700, len(data)) - given_back, SMALL.maximum)

    def test_large_pieces_are_not_copied(self) -> None:
        """Chunks inside a large piece are views of it."""
        buffer = bytearray(stream_of(8000))
        chunks = list(StreamChunker(SMALL).feed(buffer))
        buffer[0] ^= 0xFF
        self.assertEqual(chunks[0][0], buffer[0])

    def test_chunks_outlive_the_next_piece(self) -> None:
        """A chunk keeps its content while the stream goes on."""
        chunker = StreamChunker(SMALL)
        data = stream_of(9000)
        kept = [chunk for at in range(0, 9000, 100) for chunk in chunker.feed(data[at : at + 100])]
        kept += chunker.finish()
        self.assertEqual(b"".join(kept), data)

    def test_used_again(self) -> None:
        """After its end a chunker starts the next stream afresh."""
        chunker = StreamChunker(SMALL)
        data = stream_of(5000)
        runs = [
            [bytes(chunk) for chunk in (*chunker.feed(data), *chunker.finish())] for _ in range(2)
        ]
        self.assertEqual(runs[0], runs[1])
        self.assertEqual(runs[0], [bytes(chunk) for chunk in Chunker(SMALL).cut(data)])


class ParameterTests(SynchronousTestCase):
    """What a repository's description may say."""

    def test_there_and_back(self) -> None:
        """Parameters come back from their map as they were."""
        parameters = ChunkingParameters(average=4096, minimum=1024, maximum=16384, seed=7)
        self.assertEqual(ChunkingParameters.from_map(parameters.as_map()), parameters)

    def test_refused(self) -> None:
        """A map with unknown, missing or impossible values is refused, not repaired."""
        good = ChunkingParameters().as_map()
        bad = [
            {**good, "algorithm": "rabin"},
            {**good, "average": 0},
            {**good, "average": "65536"},
            {**good, "average": True},
            {**good, "average": 65536.0},
            {**good, "maximum": CHUNK_MAX},
            {**good, "minimum": 65536},
            {**good, "maximum": 65536},
            {**good, "normalization": 4},
            {**good, "seed": -1},
            {**good, "seed": 1 << 63},
            {**good, "more": 1},
            {name: value for name, value in good.items() if name != "seed"},
            {},
        ]
        for fields in bad:
            with self.assertRaises(ProtocolViolation, msg=str(fields)):
                ChunkingParameters.from_map(fields)

    def test_everything_allowed_works(self) -> None:
        """The extremes of what is allowed make chunkers that cut."""
        for average, minimum, maximum in (
            (256, 64, 1024),
            (CHUNK_MAX // 2 - 1, 64, CHUNK_MAX // 2),
        ):
            for normalization in range(4):
                for seed in (0, (1 << 63) - 1):
                    parameters = ChunkingParameters(
                        average=average,
                        minimum=minimum,
                        maximum=maximum,
                        normalization=normalization,
                        seed=seed,
                    )
                    self.assertEqual(sum(sizes(parameters, stream_of(3000))), 3000)
