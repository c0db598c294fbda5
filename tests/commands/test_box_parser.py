"""Tests of :mod:`cloudconnect.commands.box_parser`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.protocols.amp import AmpBox, parseString
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.box_parser import (
    KEYS_MAX,
    VALUE_MAX,
    BoxParser,
    BoxTooLarge,
    digest_of_box,
    encode_box,
)
from cloudconnect.errors import ProtocolViolation

BOXES = st.lists(
    st.dictionaries(st.binary(min_size=1, max_size=20), st.binary(max_size=300), max_size=6),
    max_size=5,
)


def string(octets: bytes) -> bytes:
    """``octets`` behind their length."""
    return len(octets).to_bytes(2, "big") + octets


def parse(parser: BoxParser, pieces: Iterable[bytes]) -> list[AmpBox]:
    """All boxes in ``pieces``."""
    return [box for piece in pieces for box in parser.receive(piece)]


class ParserTests(SynchronousTestCase):
    """What is read."""

    @settings(max_examples=40, deadline=None)
    @given(BOXES, st.lists(st.integers(1, 50)))
    def test_any_pieces(self, boxes: list[dict[bytes, bytes]], sizes: list[int]) -> None:
        """Boxes come out as they went in, however the bytes were cut."""
        wire = b"".join(AmpBox(box).serialize() for box in boxes)
        pieces, left = [], wire
        for size in sizes:
            pieces.append(left[:size])
            left = left[size:]
        parser = BoxParser(4096)
        self.assertEqual(boxes, parse(parser, [*pieces, left]))
        self.assertEqual(0, parser.held)
        bytewise = parse(BoxParser(4096), [wire[i : i + 1] for i in range(len(wire))])
        self.assertEqual(boxes, bytewise)

    @settings(max_examples=40, deadline=None)
    @given(BOXES)
    def test_twisted(self, boxes: list[dict[bytes, bytes]]) -> None:
        """We read what Twisted writes, and Twisted reads what we write."""
        wire = b"".join(encode_box(AmpBox(box), 4096) for box in boxes)
        self.assertEqual(boxes, parseString(wire))
        self.assertEqual(wire, b"".join(AmpBox(box).serialize() for box in boxes))

    @settings(max_examples=40, deadline=None)
    @given(BOXES)
    def test_digest(self, boxes: list[dict[bytes, bytes]]) -> None:
        """The digest of a box that was read is that of the bytes it was read from."""
        for box in boxes:
            wire = AmpBox(box).serialize()
            (found,) = parse(BoxParser(4096), [wire])
            self.assertEqual(hashlib.sha256(wire).digest(), digest_of_box(found))

    def test_limit_between_boxes(self) -> None:
        """Another limit counts from the next box on, also inside one piece of bytes."""
        small, large = AmpBox(a=b"1"), AmpBox(a=b"2" * 500)
        parser = BoxParser(100)
        found = []
        for box in parser.receive(small.serialize() + large.serialize()):
            found.append(box)
            parser.box_max = 1000
        self.assertEqual([small, large], found)


class BoundTests(SynchronousTestCase):
    """What is refused, and when."""

    def refused(self, data: bytes, box_max: int = 1000) -> BoxParser:
        """``data`` is refused, and everything but its last byte is not."""
        parser = BoxParser(box_max)
        parse(parser, [data[:-1]])
        self.assertRaises(ProtocolViolation, parse, parser, [data[-1:]])
        return parser

    def test_value(self) -> None:
        """A value that makes the box too large is refused at its length, before any of it."""
        self.refused(string(b"key") + b"\x03\xe4")  # 5 + 2 + 996

    def test_exact_size(self) -> None:
        """A box of just the largest size is read."""
        box = AmpBox(key=b"v" * (1000 - 5 - 2 - 2))
        self.assertEqual([box], parse(BoxParser(1000), [box.serialize()]))
        self.assertRaises(ProtocolViolation, parse, BoxParser(999), [box.serialize()])

    def test_many_values(self) -> None:
        """So is the one of many small ones that does it; no more than the limit is kept."""
        parser = BoxParser(1000)
        wire = b"".join(string(b"%03d" % i) + string(b"v" * 20) for i in range(KEYS_MAX))
        error = self.assertRaises(ProtocolViolation, parse, parser, [wire])
        self.assertIn("1000 bytes", str(error))
        trickled = BoxParser(1000)
        with self.assertRaises(ProtocolViolation):
            for i in range(len(wire)):
                parse(trickled, [wire[i : i + 1]])
                self.assertLessEqual(trickled.held, 1000)

    def test_keys(self) -> None:
        """One key too many is refused, before the key."""
        wire = b"".join(string(b"%03d" % i) + string(b"") for i in range(KEYS_MAX))
        self.assertEqual(KEYS_MAX, len(parse(BoxParser(9999), [wire, b"\0\0"])[0]))
        self.refused(wire + b"\x00\x03", 9999)

    def test_long_key(self) -> None:
        """A key of more than 255 bytes is refused at its length."""
        self.refused(b"\x01\x00", 9999)

    def test_order(self) -> None:
        """Keys out of order, or twice, would give one box two encodings."""
        for first, second in ((b"b", b"a"), (b"a", b"a"), (b"ab", b"a")):
            self.refused(string(first) + string(b"1") + string(second))

    def test_order_is_of_one_box(self) -> None:
        """The next box begins anew."""
        wire = AmpBox(b=b"1").serialize() + AmpBox(a=b"1").serialize()
        self.assertEqual(2, len(parse(BoxParser(100), [wire])))


class EncodeTests(SynchronousTestCase):
    """What is written."""

    def test_too_large(self) -> None:
        """A box or value that is too large is not sent; the error does not repeat it."""
        for box, box_max in (
            (AmpBox(key=b"v" * (VALUE_MAX + 1)), 1 << 20),
            (AmpBox({b"k" * 256: b""}), 1 << 20),
            (AmpBox(key=b"v" * 100), 100),
        ):
            error = self.assertRaises(BoxTooLarge, encode_box, box, box_max)
            self.assertNotIn("vv", str(error))
        self.assertEqual(VALUE_MAX + 9, len(encode_box(AmpBox(key=b"v" * VALUE_MAX), 1 << 20)))
