"""Layer 1: the prefix of a delta: blocks of the cache and what lies around them.

Both ends put it together from their own caches, so its first 16 bytes of BLAKE3 go with it: where
the caches differ, the far end sees that before it decompresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from blake3 import blake3

from cloudconnect.dedup.instructions import Base
from cloudconnect.dedup.interfaces import IBlockCache, Place
from cloudconnect.dedup.limits import BASES_MAX, MARGIN, PREFIX_MAX

#: Bytes of the check.
CHECK_SIZE: Final = 16


def check_of(prefix: bytes) -> bytes:
    """The bytes by which a prefix is recognised."""
    return blake3(prefix).digest(CHECK_SIZE)


class Shelf:
    """Reads blocks of a cache and looks at the name of each; damaged ones are dropped.

    :param cache: the cache
    :ivar damaged: how many were
    """

    def __init__(self, cache: IBlockCache) -> None:
        self.cache = cache
        self.damaged = 0

    def read(self, place: Place) -> tuple[bytes, bytes] | None:
        """Name and content of the block at ``place``, if the one belongs to the other."""
        block = self.cache.read(place)
        if block is None:
            return None
        name, data = block
        if blake3(data).digest() != name:
            self.damaged += 1
            self.cache.drop(name)
            return None
        return block

    def named(self, name: bytes) -> tuple[Place, bytes] | None:
        """Place and content of the block ``name``."""
        place = self.cache.find(name)
        block = None if place is None else self.read(place)
        if place is None or block is None or block[0] != name:
            return None
        return place, block[1]

    def around(self, place: Place, base: Base) -> tuple[bytes, bytes] | None:
        """Name of the block at ``place``, and the bytes that ``base`` means from there.

        :return: None where a block is gone, or it would be more than PREFIX_MAX
        """
        parts: list[bytes] = []
        size = 0
        first = b""
        here: Place | None = place
        before = self.cache.beside(place, -1) if base.before else None
        block = None if before is None else self.read(before)
        if block is not None:
            parts.append(block[1][-MARGIN:])
        for index in range(base.blocks):
            if index:
                assert here is not None
                here = self.cache.beside(here, 1)
            if here is None or size + here.length > PREFIX_MAX:
                return None
            block = self.read(here)
            if block is None:
                return None
            first = first or block[0]
            size += len(block[1])
            parts.append(block[1])
        after = self.cache.beside(here, 1) if base.after and here is not None else None
        block = None if after is None else self.read(after)
        if block is not None:
            parts.append(block[1][:MARGIN])
        return first, b"".join(parts)

    def prefix(self, bases: Sequence[Base], names: Sequence[bytes]) -> bytes | None:
        """What a batch's bases mean here, or None where something of it is gone.

        :param names: of the first block of each
        """
        parts: list[bytes] = []
        size = 0
        for base, name in zip(bases, names, strict=True):
            place = self.cache.find(name)
            found = None if place is None else self.around(place, base)
            if found is None or found[0] != name:
                return None
            size += len(found[1])
            if size > PREFIX_MAX:
                return None
            parts.append(found[1])
        return b"".join(parts)


def plan(places: Iterable[Place]) -> list[tuple[Place, Base]]:
    """Bases for a set of places: neighbours are one base, and each has margins on both sides."""
    planned: list[tuple[Place, Base]] = []
    for place in sorted(set(places), key=lambda place: place[:2]):
        if planned:
            first, base = planned[-1]
            if place[:2] == (first.segment, first.ordinal + base.blocks):
                planned[-1] = (first, base._replace(blocks=base.blocks + 1))
                continue
        planned.append((place, Base(1, True, True)))
    return planned[:BASES_MAX]
