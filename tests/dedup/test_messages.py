"""Messages between accelerators, as bytes."""

from __future__ import annotations

import struct
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.dedup.limits import BATCH_MAX, BODY_MAX, CONTROL_MAX, WINDOW_MAX, WINDOW_MIN
from cloudconnect.dedup.messages import (
    Ack,
    Batch,
    Coding,
    End,
    Hello,
    Message,
    MessageReader,
    Miss,
    Resend,
)
from cloudconnect.errors import ProtocolViolation

GOOD = Batch(
    7,
    400,
    b"d" * 32,
    [b"n" * 32, b"m" * 32],
    Coding.ON,
    5,
    105,
    b"s" * 50,
    100,
    b"c" * 9,
    b"k" * 16,
)
MESSAGES: list[Message] = [
    Hello(WINDOW_MIN, True),
    GOOD,
    Resend(7, [(0, 20), (1, 5), (9, 300)], Coding.RAW, b"r" * 325),
    End(3, 1 << 40),
    Ack(1 << 33),
    Miss(7, [0, 1, 9]),
]


def plain(message: Message) -> Message:
    """``message`` with bytes where it has views."""
    views = {
        name: bytes(value)
        for name, value in attrs.asdict(message, recurse=False).items()
        if isinstance(value, memoryview)
    }
    return attrs.evolve(message, **views)


class MessageTests(SynchronousTestCase):
    """There and back."""

    @given(st.lists(st.sampled_from(MESSAGES), max_size=5), st.integers(1, 200))
    @settings(deadline=None)
    def test_any_split(self, messages: list[Message], step: int) -> None:
        """Messages come back as they were, cut anywhere."""
        wire = b"".join(part for message in messages for part in message.encode())
        reader = MessageReader()
        found: list[Message] = []
        for at in range(0, len(wire), step):
            found += map(plain, reader.receive(wire[at : at + step]))
        self.assertEqual(found, messages)
        self.assertFalse(reader.inside)

    def test_inside(self) -> None:
        """It knows whether a message has begun."""
        reader = MessageReader()
        list(reader.receive(b"".join(Ack(1).encode())[:-1]))
        self.assertTrue(reader.inside)

    @given(st.binary(min_size=1, max_size=300), st.integers(1, 6))
    def test_anything(self, body: bytes, kind: int) -> None:
        """Any other body is refused, or is one that is allowed."""
        wire = struct.pack(">BI", kind, len(body)) + body
        try:
            for message in MessageReader().receive(wire):
                message.encode()
        except ProtocolViolation:
            pass


class RefusedTests(SynchronousTestCase):
    """What no accelerator sends."""

    def refused(self, wire: bytes) -> None:
        """Assert that ``wire`` is refused."""
        with self.assertRaises(ProtocolViolation):
            list(MessageReader().receive(wire))

    def test_heads(self) -> None:
        """Unknown kinds, and bodies that are longer than any of that kind, before they come."""
        for kind, length in ((0, 5), (7, 5), (2, BODY_MAX + 1), (5, 9), (1, 7), (2, (1 << 32) - 1)):
            self.refused(struct.pack(">BI", kind, length))

    def test_batches(self) -> None:
        """Lengths that contradict each other or are more than allowed."""
        for change in (
            {"plain": 0},
            {"plain": BATCH_MAX + 1},
            {"plain": 199},  # less than its sections
            {"control": 0},
            {"control": 106},
            {"control": CONTROL_MAX + 1, "stream_plain": CONTROL_MAX + 2},
            {"stream_plain": BATCH_MAX},
            {"delta_plain": 0},
            {"delta": b""},
            {"coding": Coding.RAW},  # then its length is not its plain length
        ):
            fields: dict[str, Any] = change
            self.refused(b"".join(attrs.evolve(GOOD, **fields).encode()))
        body = b"".join(GOOD.encode())[5:]
        for wrong in (body[:-1], body + b"x", body[:40]):
            self.refused(struct.pack(">BI", 2, len(wrong)) + wrong)
        unknown = bytearray(b"".join(GOOD.encode()))
        unknown[5 + 44] = 3
        self.refused(bytes(unknown))

    def test_greetings(self) -> None:
        """Another version, windows that are too small or too large."""
        for version, cold, window in (
            (2, 0, WINDOW_MIN),
            (1, 2, WINDOW_MIN),
            (1, 0, WINDOW_MIN - 1),
            (1, 0, WINDOW_MAX + 1),
        ):
            self.refused(struct.pack(">BIBBI", 1, 6, version, cold, window))

    def test_resends(self) -> None:
        """Pieces of no length, or of more than a batch."""
        for pieces in ([(0, 0)], [(0, BATCH_MAX + 1)], [(0, BATCH_MAX), (1, 1)]):
            self.refused(b"".join(Resend(1, pieces, Coding.RAW, b"x").encode()))
        self.refused(b"".join(Resend(1, [(0, 1)], Coding.ON, b"x").encode()))
        self.refused(struct.pack(">BIQBI", 3, 13, 1, 0, 900))
        self.refused(struct.pack(">BI", 3, 4) + b"1234")

    def test_sizes(self) -> None:
        """Fixed messages of another size."""
        for kind, body in ((1, b"12345"), (4, b"1" * 15), (5, b"1" * 7), (6, b"1" * 7)):
            self.refused(struct.pack(">BI", kind, len(body)) + body)
