"""Layer 1: the prefix of a delta: blocks of the cache and what lies around them.

Both ends put it together from their own caches, so its first 16 bytes of BLAKE3 go with it: where
the caches differ, the far end sees that before it decompresses. That check is over all of a prefix,
so its blocks are hashed one by one only where it is wrong: to find what is damaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs
from blake3 import blake3

from cloudconnect.dedup.instructions import Base
from cloudconnect.dedup.interfaces import IBlockCache, Place
from cloudconnect.dedup.limits import BASES_MAX, MARGIN, PREFIX_MAX

#: Bytes of the check.
CHECK_SIZE: Final = 16


def check_of(prefix: bytes) -> bytes:
    """The bytes by which a prefix is recognised."""
    return blake3(prefix).digest(CHECK_SIZE)


@attrs.frozen
class Run:
    """Blocks of a cache that lie behind each other.

    :ivar name: of the first one
    :ivar contents: of each
    :ivar first: place of the first one
    :ivar last: place of the last one
    """

    name: bytes
    contents: list[bytes]
    first: Place
    last: Place


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

    def run(self, place: Place, blocks: int, careful: bool) -> Run | None:
        """So many blocks from ``place`` on.

        :param careful: look at the name of each; else they are only what the cache says
        :return: None where one is gone, or they would be more than PREFIX_MAX
        """
        contents: list[bytes] = []
        size = 0
        first = b""
        here: Place | None = place
        for index in range(blocks):
            if index:
                assert here is not None
                here = self.cache.beside(here, 1)
            if here is None or size + here.length > PREFIX_MAX:
                return None
            block = self._read(here, careful)
            if block is None:
                return None
            first = first or block[0]
            size += len(block[1])
            contents.append(block[1])
        assert here is not None
        return Run(first, contents, place, here)

    def around(self, run: Run, before: bool, after: bool, careful: bool) -> list[bytes]:
        """The bytes of a run, with what stands before and behind it where that is asked for.

        :param careful: as in :meth:`run`
        """
        head = self._beside(run.first, -1, careful)[-MARGIN:] if before else b""
        tail = self._beside(run.last, 1, careful)[:MARGIN] if after else b""
        return [part for part in (head, *run.contents, tail) if part]

    def prefix(self, bases: Sequence[Base], names: Sequence[bytes], check: bytes) -> bytes | None:
        """The prefix that a batch's bases mean, or None where it is another one here.

        :param names: of the first block of each
        :param check: what :func:`check_of` says of it at the far end
        """
        for careful in (False, True):
            prefix = self._put_together(bases, names, careful)
            if prefix is None or check_of(prefix) == check:
                return prefix
        return None

    def _put_together(
        self, bases: Sequence[Base], names: Sequence[bytes], careful: bool
    ) -> bytes | None:
        parts: list[bytes] = []
        size = 0
        for base, name in zip(bases, names, strict=True):
            place = self.cache.find(name)
            run = None if place is None else self.run(place, base.blocks, careful)
            if run is None or run.name != name:
                return None
            around = self.around(run, base.before, base.after, careful)
            size += sum(map(len, around))
            if size > PREFIX_MAX:
                return None
            parts += around
        return b"".join(parts)

    def _beside(self, place: Place, steps: int, careful: bool) -> bytes:
        beside = self.cache.beside(place, steps)
        block = None if beside is None else self._read(beside, careful)
        return b"" if block is None else block[1]

    def _read(self, place: Place, careful: bool) -> tuple[bytes, bytes] | None:
        return self.read(place) if careful else self.cache.read(place)


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
