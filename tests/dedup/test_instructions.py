"""Instructions, bases and lists of pieces, as bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.dedup.instructions import (
    SKIP_MAX,
    Act,
    Base,
    Instruction,
    VarintReader,
    pack_control,
    pack_ranges,
    put_varint,
    unpack_control,
    unpack_ranges,
)
from cloudconnect.dedup.limits import BATCH_MAX, BLOCK_MAX, BLOCK_MIN, PIECES_MAX
from cloudconnect.errors import ProtocolViolation

instructions = st.one_of(
    st.builds(Instruction, st.just(Act.BETWEEN), st.integers(1, BATCH_MAX), st.just(0)),
    st.builds(
        Instruction,
        st.sampled_from([Act.NEW, Act.CHANGED]),
        st.integers(BLOCK_MIN, BLOCK_MAX),
        st.just(0),
    ),
    st.builds(
        Instruction, st.sampled_from([Act.NAMED, Act.AGAIN]), st.integers(1, 100), st.just(0)
    ),
    st.builds(Instruction, st.just(Act.ON), st.integers(1, 100), st.integers(0, SKIP_MAX)),
)
bases = st.builds(Base, st.integers(1, 1000), st.booleans(), st.booleans())


def varint(*numbers: int) -> bytes:
    """Numbers as varints."""
    out = bytearray()
    for number in numbers:
        put_varint(out, number)
    return bytes(out)


class ControlTests(SynchronousTestCase):
    """The control section of a batch."""

    @given(st.lists(instructions, max_size=30), st.lists(bases, max_size=10))
    def test_there_and_back(self, made: list[Instruction], some: list[Base]) -> None:
        """Instructions and bases come back as they were."""
        self.assertEqual(unpack_control(pack_control(made, some)), (made, some))

    @given(st.binary(max_size=60))
    def test_anything(self, octets: bytes) -> None:
        """Any other bytes are refused, or mean something that is allowed."""
        try:
            made, some = unpack_control(octets)
        except ProtocolViolation:
            return
        self.assertEqual(unpack_control(pack_control(made, some)), (made, some))

    def test_golden(self) -> None:
        """The bytes that the documentation shows."""
        made = [
            Instruction(Act.BETWEEN, 28),
            Instruction(Act.NAMED, 5),
            Instruction(Act.ON, 2, 1),
            Instruction(Act.NEW, 300),
        ]
        octets = pack_control(made, [Base(2, True, False)])
        self.assertEqual(octets.hex(), "010ae0012b140" + "1e112")

    def test_refused(self) -> None:
        """What is more than allowed, or unknown, or cut."""
        for octets in (
            b"",
            varint(257),  # bases
            varint(1, 0),  # a base of no blocks
            varint(0, 6 | 8),  # unknown
            varint(0, 7 | 8),
            varint(0, Act.NAMED),  # none
            varint(0, Act.BETWEEN | (BATCH_MAX + 1) << 3),
            varint(0, Act.NEW | (BLOCK_MAX + 1) << 3),
            varint(0, Act.NEW | (BLOCK_MIN - 1) << 3),
            varint(0, Act.CHANGED | 8),
            varint(0, Act.NAMED | (PIECES_MAX + 1) << 3),
            varint(0, *[Act.AGAIN | (PIECES_MAX // 2 + 1) << 3] * 2),
            varint(0, Act.ON | 8, SKIP_MAX + 1),
            varint(0, Act.ON | 8),
            varint(0) + b"\x80",
            varint(0) + b"\xff" * 6,
        ):
            self.assertRaises(ProtocolViolation, unpack_control, octets)


class RangeTests(SynchronousTestCase):
    """Lists of pieces."""

    @given(st.sets(st.integers(0, PIECES_MAX - 1), min_size=1, max_size=50))
    def test_there_and_back(self, indexes: set[int]) -> None:
        """Any set comes back in order."""
        self.assertEqual(unpack_ranges(pack_ranges(sorted(indexes))), sorted(indexes))

    def test_short(self) -> None:
        """A run is two numbers, however long it is."""
        self.assertEqual(pack_ranges(range(100, 228)), varint(100, 128))

    def test_refused(self) -> None:
        """None, an empty run, a cut one, and more than any batch has."""
        for octets in (b"", varint(3, 0), varint(3), varint(0, PIECES_MAX + 1), varint(1 << 34, 1)):
            self.assertRaises(ProtocolViolation, unpack_ranges, octets)


class VarintTests(SynchronousTestCase):
    """Numbers."""

    @given(st.lists(st.integers(0, (1 << 35) - 1), max_size=5))
    def test_there_and_back(self, numbers: list[int]) -> None:
        """Numbers of up to 35 bits come back."""
        reader = VarintReader(varint(*numbers))
        self.assertEqual([reader.next() for _ in numbers], numbers)
        self.assertFalse(reader)
        self.assertRaises(ProtocolViolation, reader.next)
