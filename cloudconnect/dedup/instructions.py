"""Layer 1: how a batch is put together: instructions, bases and lists of pieces.

The grammar, byte for byte, is in ``docs/wan.rst``. Numbers are LEB128 varints of at most 5 bytes.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from cloudconnect.dedup.limits import BASES_MAX, BATCH_MAX, BLOCK_MAX, BLOCK_MIN, PIECES_MAX
from cloudconnect.errors import ProtocolViolation

#: Blocks that an instruction may pass over, at most: what was in their place is a change, not
#: another part of the stream.
SKIP_MAX: Final = 64

_VARINT_MAX: Final = 5


class Act(enum.IntEnum):
    """What an instruction does; its number is bytes for the first three, else a count."""

    #: Bytes of the stream section that lie between blocks.
    BETWEEN = 0
    #: A block in the stream section.
    NEW = 1
    #: A block in the delta section.
    CHANGED = 2
    #: The block with the next name, and those behind it in the cache.
    NAMED = 3
    #: Blocks behind the last one that was referred to; a second number says how many to pass over.
    ON = 4
    #: The last one that was referred to, again.
    AGAIN = 5


_ACTS: Final = tuple(Act)
_LENGTHS: Final = {
    Act.BETWEEN: (1, BATCH_MAX),
    Act.NEW: (BLOCK_MIN, BLOCK_MAX),
    Act.CHANGED: (BLOCK_MIN, BLOCK_MAX),
}


class Instruction(NamedTuple):
    """One instruction.

    :ivar act: what to do
    :ivar number: bytes, or pieces
    :ivar skip: with ON: blocks to pass over
    """

    act: Act
    number: int
    skip: int = 0


class Base(NamedTuple):
    """Blocks of the cache whose bytes are a part of the prefix; the first one has the next name.

    :ivar blocks: how many, in the order of the cache
    :ivar before: whether the end of the block before them is a part too
    :ivar after: whether the beginning of the block behind them is
    """

    blocks: int
    before: bool
    after: bool


def put_varint(out: bytearray, number: int) -> None:
    """Append ``number``, at least 0, to ``out``."""
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


class VarintReader:
    """Reads numbers from the front of some bytes.

    :param octets: the bytes
    :ivar at: bytes that were read
    """

    def __init__(self, octets: bytes | memoryview) -> None:
        self._octets = octets
        self.at = 0

    def __bool__(self) -> bool:
        return self.at < len(self._octets)

    def next(self) -> int:
        """The next number.

        :raises ProtocolViolation: there is none
        """
        number = 0
        for index in range(_VARINT_MAX):
            if self.at >= len(self._octets):
                break
            octet = self._octets[self.at]
            self.at += 1
            number |= (octet & 0x7F) << (7 * index)
            if octet < 0x80:
                return number
        raise ProtocolViolation("a batch has a number that does not end")


def pack_control(instructions: Iterable[Instruction], bases: Sequence[Base]) -> bytes:
    """The control section of a batch."""
    out = bytearray()
    put_varint(out, len(bases))
    for base in bases:
        put_varint(out, base.blocks << 2 | base.before << 1 | base.after)
    for act, number, skip in instructions:
        put_varint(out, number << 3 | act)
        if act == Act.ON:
            put_varint(out, skip)
    return bytes(out)


def unpack_control(octets: bytes | memoryview) -> tuple[list[Instruction], list[Base]]:
    """The other way round.

    :raises ProtocolViolation: not what :func:`pack_control` makes, or more than is allowed
    """
    reader = VarintReader(octets)
    count = reader.next()
    if count > BASES_MAX:
        raise ProtocolViolation(f"a batch has {count} bases")
    bases = []
    for _ in range(count):
        word = reader.next()
        if not 1 <= word >> 2 <= PIECES_MAX:
            raise ProtocolViolation("a base of a batch has an impossible number of blocks")
        bases.append(Base(word >> 2, bool(word & 2), bool(word & 1)))
    instructions = []
    pieces = 0
    while reader:
        word = reader.next()
        kind, number = word & 7, word >> 3
        if kind >= len(_ACTS) or not number:
            raise ProtocolViolation("a batch has an impossible instruction")
        act = _ACTS[kind]
        skip = reader.next() if act == Act.ON else 0
        pieces += number if act >= Act.NAMED else 1
        if pieces > PIECES_MAX or skip > SKIP_MAX:
            raise ProtocolViolation("a batch has too many pieces, or passes over too many")
        low, high = _LENGTHS.get(act, (1, PIECES_MAX))
        if not low <= number <= high:
            raise ProtocolViolation(f"a batch has a piece of {number} bytes")
        instructions.append(Instruction(act, number, skip))
    return instructions, bases


def pack_ranges(indexes: Iterable[int]) -> bytes:
    """Numbers of pieces, ascending, as pairs of varints: pieces passed over, pieces meant."""
    out = bytearray()
    end = 0
    for start, stop in _ranges(indexes):
        put_varint(out, start - end)
        put_varint(out, stop - start)
        end = stop
    return bytes(out)


def _ranges(indexes: Iterable[int]) -> Iterator[tuple[int, int]]:
    start = stop = -1
    for index in indexes:
        if index != stop:
            if stop > start:
                yield start, stop
            start = index
        stop = index + 1
    if stop > start:
        yield start, stop


def unpack_ranges(octets: bytes | memoryview) -> list[int]:
    """The other way round.

    :raises ProtocolViolation: not what :func:`pack_ranges` makes, none, or more than PIECES_MAX
    """
    reader = VarintReader(octets)
    found: list[int] = []
    at = 0
    while reader:
        start = at + reader.next()
        at = start + reader.next()
        if at == start or at > PIECES_MAX:
            raise ProtocolViolation("a list of pieces is impossible")
        found.extend(range(start, at))
    if not found:
        raise ProtocolViolation("a list of pieces is empty")
    return found
