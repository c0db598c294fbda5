"""Tests for cloudconnect.wire.frames and cloudconnect.wire.bodies."""

from __future__ import annotations

import struct

from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import FrameMismatch, ProtocolViolation, Truncated
from cloudconnect.keys import IntegrityKey, Subkey, frame_key
from cloudconnect.settings import CHUNK_MAX, FRAME_BODY_MAX, IDS_MAX
from cloudconnect.wire.frames import (
    CHUNK_PREFIX_SIZE,
    FLAG_MANIFEST,
    FLAG_PART,
    HEADER_SIZE,
    TAG_SIZE,
    Coding,
    Frame,
    FrameKind,
    FrameReader,
    FrameWriter,
    StoredBlob,
    decode_body,
    encode_body,
    join_ids,
    pack_bitmap,
    pack_chunk,
    split_ids,
    unpack_bitmap,
    unpack_chunk,
)

KEY = bytes(range(32))


def blob(data: bytes, name: bytes = b"n" * 32, coding: int = Coding.SEALED) -> StoredBlob:
    return StoredBlob(name, len(data), coding, blake3(data).digest(), data)


def both(stream: int = 3) -> tuple[FrameWriter, FrameReader]:
    return FrameWriter(Subkey(KEY), stream), FrameReader(Subkey(KEY), stream)


def some_frames(writer: FrameWriter) -> bytes:
    parts = [
        *writer.encode(FrameKind.HELLO, 1, encode_body(versions=[1])),
        *writer.encode_chunk(2, blob(b"stored bytes")),
        *writer.encode(FrameKind.POINT, 3, bytes(64), FLAG_PART),
        *writer.encode(FrameKind.STORED, 0, bytes(32)),
    ]
    return b"".join(parts)


class RoundTripTests(SynchronousTestCase):
    """What was written is read, however the bytes are split."""

    def test_known_octets(self) -> None:
        """A frame has the bytes of the specification, its tag made here by hand."""
        body = b"\xa1aa\x01"
        header = struct.pack(">BBHII", 8, 0, 3, 7, len(body))
        tag = blake3(bytes(8) + header + body, key=KEY).digest()[:16]
        writer, _ = both()
        self.assertEqual(b"".join(writer.encode(FrameKind.POINTED, 7, body)), header + body + tag)

    def test_known_chunk(self) -> None:
        """A chunk's tag covers the counter, the header and the prefix, not the stored bytes."""
        stored = blob(b"x" * 1000)
        prefix = stored.id + struct.pack(">IB", 1000, 16) + stored.digest
        header = struct.pack(">BBHII", 5, 0, 3, 9, 1069)
        tag = blake3(struct.pack(">Q", 1) + header + prefix, key=KEY).digest()[:16]
        writer, _ = both()
        writer.encode(FrameKind.HELLO, 1, b"x")
        parts = writer.encode_chunk(9, stored)
        self.assertEqual(b"".join(parts), header + prefix + b"x" * 1000 + tag)
        self.assertIs(parts[2], stored.data)
        self.assertEqual(pack_chunk(stored), prefix + b"x" * 1000)

    def test_one_byte_at_a_time(self) -> None:
        """One byte at a time gives what all at once gives, and the counters agree."""
        writer, whole = both()
        data = some_frames(writer)
        slow = FrameReader(Subkey(KEY), 3)
        found = [frame for at in range(len(data)) for frame in slow.receive(data[at : at + 1])]
        self.assertEqual(found, whole.receive(data))
        self.assertEqual([frame.request for frame in found], [1, 2, 3, 0])
        self.assertEqual(decode_body(found[0]), {"versions": [1]})
        self.assertEqual(unpack_chunk(found[1].body), blob(b"stored bytes"))
        self.assertEqual((slow.frames, slow.bytes), (4, len(data)))
        self.assertEqual((writer.frames, writer.bytes), (4, len(data)))
        self.assertEqual(sum(frame.size for frame in found), len(data))
        slow.eof()

    @given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.data())
    def test_any_split(self, bodies: list[bytes], draw: st.DataObject) -> None:
        """Any split of the bytes gives the same frames."""
        writer, reader = both()
        data = b"".join(b"".join(writer.encode_chunk(1, blob(body))) for body in bodies)
        found: list[Frame] = []
        while data:
            count = draw.draw(st.integers(1, len(data)))
            found += reader.receive(data[:count])
            data = data[count:]
        self.assertEqual([unpack_chunk(frame.body).data for frame in found], bodies)

    def test_manifest_flag(self) -> None:
        """A chunk says whether it is one of a manifest; no other flag goes with a chunk."""
        writer, reader = both()
        for flags in (0, FLAG_MANIFEST):
            (frame,) = reader.receive(b"".join(writer.encode_chunk(1, blob(b"x"), flags)))
            self.assertEqual(frame.flags, flags)
            body = pack_chunk(blob(b"x"))
            (frame,) = reader.receive(b"".join(writer.encode(FrameKind.CHUNK, 1, body, flags)))
            self.assertEqual((frame.flags, unpack_chunk(frame.body)), (flags, blob(b"x")))
        self.assertRaises(ValueError, writer.encode_chunk, 1, blob(b"x"), 2)

    def test_largest(self) -> None:
        """The largest chunk and the largest part of a reference list pass."""
        writer, reader = both()
        for parts, size in (
            (writer.encode_chunk(1, blob(bytes(CHUNK_MAX))), CHUNK_MAX + CHUNK_PREFIX_SIZE),
            (writer.encode(FrameKind.POINT, 1, bytes(FRAME_BODY_MAX), FLAG_PART), FRAME_BODY_MAX),
        ):
            (frame,) = reader.receive(b"".join(parts))
            self.assertEqual(len(frame.body), size)

    def test_repr(self) -> None:
        """Neither a frame nor a blob shows its bytes."""
        writer, reader = both()
        data = b"".join(writer.encode_chunk(1, blob(b"canary")))
        (frame,) = reader.receive(data)
        self.assertNotIn("canary", repr(frame) + repr(unpack_chunk(frame.body)))

    def test_writer_refuses(self) -> None:
        """The writer makes no frame that a reader would refuse, and does not count the attempt."""
        writer, _ = both()
        for kind, body, flags in (
            (FrameKind.HAVE, bytes(33), 0),
            (FrameKind.HAVE, b"", 0),
            (FrameKind.HAVE, bytes(32 * (IDS_MAX + 1)), 0),
            (FrameKind.HELLO, b"x", FLAG_PART),
            (FrameKind.POINT, b"x", 2),
            (FrameKind.POINT, bytes(FRAME_BODY_MAX + 1), 0),
        ):
            with self.subTest(kind=kind, length=len(body)):
                self.assertRaises(ValueError, writer.encode, kind, 1, body, flags)
        self.assertRaises(ValueError, writer.encode_chunk, 1, blob(bytes(CHUNK_MAX + 1)))
        self.assertRaises(ValueError, writer.encode_chunk, 1, blob(b"x", coding=0x22))
        self.assertEqual((writer.frames, writer.bytes), (0, 0))


class ChangedTests(SynchronousTestCase):
    """Nothing that was changed on the way is returned."""

    def test_every_bit(self) -> None:
        """A bit flipped anywhere is a mismatch, or leaves the reader short of bytes."""
        writer, reader = both()
        data = some_frames(writer)
        good = reader.receive(data)
        for at in range(len(data)):
            for bit in range(8):
                changed = bytearray(data)
                changed[at] ^= 1 << bit
                reader = FrameReader(Subkey(KEY), 3)
                got = self.outcome(reader, bytes(changed))
                self.assertEqual(got, good[: len(got)])
                self.assertLess(len(got), len(good))

    def outcome(self, reader: FrameReader, data: bytes) -> list[Frame]:
        """The frames read from ``data``, after seeing that the reader has noticed a change."""
        try:
            got = reader.receive(data)
        except FrameMismatch:
            got = []
        self.assertRaises((FrameMismatch, Truncated), reader.eof)
        return got

    def test_failed_stays_failed(self) -> None:
        """Good frames before a bad one are returned; after it the same error, for ever."""
        writer, reader = both()
        first = b"".join(writer.encode(FrameKind.HELLO, 1, b"x"))
        second = bytearray(b"".join(writer.encode(FrameKind.HELLO, 2, b"y")))
        second[-1] ^= 1
        third = b"".join(writer.encode(FrameKind.HELLO, 3, b"z"))
        self.assertEqual([frame.request for frame in reader.receive(first + second + third)], [1])
        error = reader.error
        self.assertIsInstance(error, FrameMismatch)
        for _ in range(2):
            self.assertIs(self.assertRaises(FrameMismatch, reader.receive, third), error)
        self.assertIs(self.assertRaises(FrameMismatch, reader.eof), error)

    def test_order(self) -> None:
        """A frame left out, repeated or exchanged is a mismatch."""
        writer, _ = both()
        one, two, three = (
            b"".join(writer.encode(FrameKind.HELLO, 1, bytes((number,)))) for number in (1, 2, 3)
        )
        for data, count in (
            (one + three, 1),
            (one + one, 1),
            (two + one, 0),
            (one + three + two, 1),
        ):
            reader = FrameReader(Subkey(KEY), 3)
            self.assertEqual(len(self.outcome(reader, data)), count)

    def test_other_key(self) -> None:
        """Another stream, direction or session has other tags."""
        key = IntegrityKey(KEY)
        session = bytes(16)
        data = b"".join(FrameWriter(frame_key(key, session, 1, 0), 1).encode(FrameKind.GET, 1, KEY))
        self.assertEqual(len(FrameReader(frame_key(key, session, 1, 0), 1).receive(data)), 1)
        for other in (
            frame_key(key, session, 2, 0),
            frame_key(key, session, 1, 1),
            frame_key(key, bytes(15) + b"x", 1, 0),
            frame_key(IntegrityKey(bytes(32)), session, 1, 0),
        ):
            self.assertRaises(FrameMismatch, FrameReader(other, 1).receive, data)

    def test_header_first(self) -> None:
        """An impossible header is refused when its twelfth byte comes, before any body."""
        for kind, flags, stream, length in (
            (0, 0, 3, 32),
            (18, 0, 3, 32),
            (FrameKind.HAVE, 1, 3, 32),
            (FrameKind.HAVE, 0, 4, 32),
            (FrameKind.HAVE, 0, 3, 31),
            (FrameKind.HAVE, 0, 3, 0),
            (FrameKind.HAVE, 0, 3, 32 * (IDS_MAX + 1)),
            (FrameKind.POINT, 0, 3, FRAME_BODY_MAX + 1),
            (FrameKind.POINT, 2, 3, 32),
            (FrameKind.POINT, 1, 3, 33),
            (FrameKind.CHUNK, 0, 3, CHUNK_PREFIX_SIZE),
            (FrameKind.CHUNK, 0, 3, CHUNK_PREFIX_SIZE + CHUNK_MAX + 1),
            (FrameKind.FAIL, 0, 3, FRAME_BODY_MAX),
            (FrameKind.WANT, 0, 3, 2**32 - 1),
        ):
            with self.subTest(kind=kind, flags=flags, length=length):
                reader = FrameReader(Subkey(KEY), 3)
                header = struct.pack(">BBHII", kind, flags, stream, 1, length)
                self.assertEqual(reader.receive(header[:-1]), [])
                self.assertRaises(FrameMismatch, reader.receive, header[-1:])

    def test_body_max(self) -> None:
        """A reader may accept less than the protocol does."""
        writer, _ = both()
        data = b"".join(writer.encode(FrameKind.HELLO, 1, bytes(100)))
        self.assertEqual(len(FrameReader(Subkey(KEY), 3, 100).receive(data)), 1)
        self.assertRaises(FrameMismatch, FrameReader(Subkey(KEY), 3, 99).receive, data)

    def test_end_inside(self) -> None:
        """An end inside a frame is truncation; an end between two frames is not."""
        writer, _ = both()
        data = b"".join(writer.encode(FrameKind.HELLO, 1, b"x"))
        for count in range(1, len(data)):
            reader = FrameReader(Subkey(KEY), 3)
            self.assertEqual(reader.receive(data[:count]), [])
            self.assertRaises(Truncated, reader.eof)
        self.assertEqual(len(data), HEADER_SIZE + 1 + TAG_SIZE)
        FrameReader(Subkey(KEY), 3).eof()


class BodiesTests(SynchronousTestCase):
    """Lists of ids, bitmaps and chunks."""

    @settings(max_examples=50)
    @given(st.lists(st.booleans(), max_size=100))
    def test_bitmap(self, bits: list[bool]) -> None:
        """Bit i is where the specification puts it, and comes back."""
        body = pack_bitmap(bits)
        self.assertEqual(len(body), (len(bits) + 7) // 8)
        self.assertEqual([bool((body[i // 8] >> (i % 8)) & 1) for i in range(len(bits))], bits)
        self.assertEqual(unpack_bitmap(body, len(bits)), bits)

    def test_bad_bitmap(self) -> None:
        """A bitmap of another length, or with bits behind its end, is refused."""
        for body, count in ((b"", 1), (b"\x00\x00", 8), (b"\x02", 1)):
            self.assertRaises(ProtocolViolation, unpack_bitmap, body, count)

    def test_ids(self) -> None:
        """Ids are joined and split; half an id is refused on both sides."""
        names = [bytes((number,)) * 32 for number in range(5)]
        self.assertEqual(split_ids(join_ids(names)), names)
        self.assertRaises(ProtocolViolation, split_ids, bytes(33))
        self.assertRaises(ValueError, join_ids, [bytes(31)])

    def test_bad_chunk(self) -> None:
        """A chunk with an unknown coding, no plain bytes or too many is refused."""
        good = pack_chunk(blob(b"x"))
        self.assertEqual(unpack_chunk(good), blob(b"x"))
        for changed in (
            good[:CHUNK_PREFIX_SIZE],
            good[:36] + b"\x02" + good[37:],
            good[:32] + bytes(4) + good[36:],
            good[:32] + struct.pack(">I", CHUNK_MAX + 1) + good[36:],
        ):
            self.assertRaises(ProtocolViolation, unpack_chunk, changed)
