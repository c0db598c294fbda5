"""Where streams are cut."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cloudconnect.dedup.cutting import PARTS_MAX, ContentCutter, Cut, FrameCutter, ICutter
from cloudconnect.dedup.limits import BLOCK_MAX, BLOCK_MIN
from cloudconnect.keys import Subkey
from cloudconnect.wire.frames import FrameKind, FrameWriter, StoredBlob
from tests.dedup.pairs import noise


def chunk_frames(contents: list[bytes], key: int = 1, first: int = 0) -> bytes:
    """CHUNK frames as a mover sends them, tags and all."""
    writer = FrameWriter(Subkey(bytes([key]) * 32), 0)
    parts = []
    for request, data in enumerate(contents, first):
        blob = StoredBlob(bytes(32), len(data), 0, bytes(32), data)
        parts += writer.encode_chunk(request, blob)
    return b"".join(parts)


def cuts(cutter: ICutter, data: bytes, step: int = 0, flush: bool = False) -> list[Cut]:
    """All that ``cutter`` makes of ``data``, handed over in steps."""
    found = []
    for at in range(0, len(data), step or max(len(data), 1)):
        found += cutter.feed(data[at : at + (step or len(data))])
        if flush:
            found += cutter.flush()
    return found + list(cutter.finish())


def blocks(found: list[Cut]) -> list[bytes]:
    """The blocks among them."""
    return [bytes(data) for data, block in found if block]


class CutterTests(SynchronousTestCase):
    """What both cutters do."""

    def test_interface(self) -> None:
        """They provide it."""
        for cutter in (ContentCutter(), FrameCutter()):
            verifyObject(ICutter, cutter)

    @given(st.binary(max_size=3000), st.integers(0, 60), st.booleans(), st.integers(1, 500))
    @settings(deadline=None)
    def test_exact(self, data: bytes, chunk: int, flush: bool, step: int) -> None:
        """What comes out, joined, is what went in; blocks have an allowed size."""
        stream = chunk_frames([noise(chunk * 100 + 1)]) + data
        for cutter in (ContentCutter(), FrameCutter()):
            found = cuts(cutter, stream, step, flush)
            self.assertEqual(b"".join(cut.data for cut in found), stream)
            self.assertTrue(all(len(cut.data) for cut in found))
            for data_, block in found:
                self.assertTrue(not block or BLOCK_MIN <= len(data_) <= BLOCK_MAX)


class ContentTests(SynchronousTestCase):
    """Cutting by content."""

    def test_steps(self) -> None:
        """How the stream is handed over changes nothing."""
        data = noise(400_000)
        whole = blocks(cuts(ContentCutter(), data))
        self.assertGreater(len(whole), 5)
        for step in (1000, 77_777):
            self.assertEqual(blocks(cuts(ContentCutter(), data, step)), whole)

    def test_insertion(self) -> None:
        """An insertion moves the boundaries near it only."""
        data = noise(1_000_000)
        before = set(blocks(cuts(ContentCutter(), data)))
        after = blocks(cuts(ContentCutter(), data[:500_000] + b"new" + data[500_000:]))
        self.assertLessEqual(sum(one not in before for one in after), 3)


class FrameTests(SynchronousTestCase):
    """Cutting streams of frames."""

    def test_chunks(self) -> None:
        """Each chunk's body is a block, the same under other keys and other requests."""
        contents = [noise(size, size) for size in (5000, 300, 60_000, 200_000)]
        one = cuts(FrameCutter(), chunk_frames(contents))
        other = cuts(FrameCutter(), chunk_frames(contents, 2, 700), 999)
        self.assertEqual(blocks(one), blocks(other))
        self.assertEqual([len(b) - 69 for b in blocks(one)], [5000, 300, 60_000, 200_000])
        between = [bytes(cut.data) for cut in one if not cut.block]
        self.assertEqual([len(data) for data in between], [12, 28, 28, 28, 16])

    def test_one_byte_at_a_time(self) -> None:
        """A body that comes in very many parts is the same block, and takes no more memory."""
        stream = chunk_frames([noise(3000)])
        cutter = FrameCutter()
        for at in range(len(stream) - 20):
            self.assertFalse([cut for cut in cutter.feed(stream[at : at + 1]) if cut.block])
        assert cutter._whole is not None
        self.assertEqual(len(cutter._whole), PARTS_MAX)
        self.assertEqual(
            blocks(cuts(FrameCutter(), stream, 1)), blocks(cuts(FrameCutter(), stream))
        )

    def test_small_chunks(self) -> None:
        """Chunks that are too small for a block lie between blocks, together."""
        found = cuts(FrameCutter(), chunk_frames([b"tiny"] * 20))
        self.assertEqual([cut.block for cut in found], [False])

    def test_large_chunks(self) -> None:
        """Chunks that are too large for one block are cut by content, the same each time."""
        data = noise(1_500_000)
        one, other = (blocks(cuts(FrameCutter(), chunk_frames([data], key))) for key in (1, 2))
        self.assertGreater(len(one), 5)
        self.assertEqual(one, other)

    def test_lists(self) -> None:
        """A long list of ids is cut into blocks, a short one is not."""
        writer = FrameWriter(Subkey(bytes(32)), 0)
        for count, expected in ((8192, True), (10, False)):
            stream = b"".join(writer.encode(FrameKind.HAVE, 1, noise(32 * count)))
            self.assertEqual(bool(blocks(cuts(FrameCutter(), stream))), expected)

    def test_flush(self) -> None:
        """A whole frame is passed on when asked for; one that is not whole waits."""
        cutter = FrameCutter()
        writer = FrameWriter(Subkey(bytes(32)), 0)
        frame = b"".join(writer.encode(FrameKind.WANT, 1, b"abc"))
        self.assertEqual(list(cutter.feed(frame)), [])
        self.assertEqual([bytes(cut.data) for cut in cutter.flush()], [frame])
        for at in (5, 13, 20):
            self.assertEqual(list(cutter.feed(frame[:at])), [])
            self.assertEqual(list(cutter.flush()), [])
            list(cutter.feed(frame[at:]))
            self.assertEqual([bytes(cut.data) for cut in cutter.flush()], [frame])
        self.assertEqual(list(cutter.finish()), [])

    def test_no_frames(self) -> None:
        """From the first impossible header on the stream is cut by content."""
        data = noise(500_000)
        for bad in (
            struct.pack(">BBHII", 99, 0, 0, 0, 5),
            struct.pack(">BBHII", 5, 0, 0, 0, (8 << 20) + 1),
        ):
            found = cuts(FrameCutter(), chunk_frames([b"a" * 1000]) + bad + data)
            self.assertEqual(b"".join(c.data for c in found)[-len(data) :], data)
            self.assertEqual(blocks(found)[1:], blocks(cuts(ContentCutter(), data)))
