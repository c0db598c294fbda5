"""Layer 1: what the codec asks of a cache of blocks.

A block has a name, BLAKE3-256 of its content, and a place: a segment and its number in it. Blocks
that one appender took lie behind each other in the order of the stream; that order makes a run of
blocks one token and finds what a changed block was before. A cache may forget anything at any time.
It need not be believed either: the codec computes the name of everything that it passes on, and the
two ends compare what they put together from blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from zope.interface import Attribute, Interface

#: Similar blocks that are worth having for one block.
SIMILAR_MAX: Final = 3


class Place(NamedTuple):
    """Where a block lies in a cache; says nothing to anybody else.

    :ivar segment: number of the segment; later ones have greater numbers
    :ivar ordinal: number of the block in it
    :ivar offset: where its bytes stand, for the cache itself
    :ivar length: bytes of the block
    """

    segment: int
    ordinal: int
    offset: int
    length: int


class IAppender(Interface):
    """Adds the blocks of one direction of one connection, in the order of the stream."""

    def append(name: bytes, data: bytes | memoryview, features: Sequence[int] = ()) -> Place | None:
        """Take a block whose name was computed from ``data``; an older place is forgotten.

        :param features: the first of what :class:`~cloudconnect.dedup.sketch.Sketcher` says of it
        :return: None where the cache cannot take it
        """

    def close() -> None:
        """No more blocks come; may be called again."""


class IBlockCache(Interface):
    """A bounded cache of blocks; safe to use from several threads."""

    size = Attribute("Bytes that it takes.")

    def find(name: bytes) -> Place | None:
        """Where the block ``name`` lies, or None."""

    def read(place: Place) -> tuple[bytes, bytes] | None:
        """Name and content of the block at ``place``; None where it is gone or damaged.

        Whether the content has the name is for the caller to see.
        """

    def beside(place: Place, steps: int) -> Place | None:
        """The place ``steps`` blocks further on in the order of the stream, or before it.

        :param steps: 1 is the next block, -1 the one before
        :return: None where there is none, or it is gone
        """

    def similar(features: Sequence[int]) -> list[Place]:
        """Where blocks lie that share some of these features, those that share most first.

        :return: at most SIMILAR_MAX
        """

    def drop(name: bytes) -> None:
        """Forget a block that turned out to be damaged."""

    def appender() -> IAppender:
        """A new appender."""

    def horizon() -> int:
        """A segment number that every block appended from now on has or exceeds."""

    def empty() -> bool:
        """Whether there is nothing in it."""
