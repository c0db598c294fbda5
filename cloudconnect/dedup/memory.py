"""Layer 1: a cache of blocks in memory: for tests, and where there is no disk to use."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from itertools import islice

import attrs
from zope.interface import implementer

from cloudconnect.dedup.interfaces import SIMILAR_MAX, IAppender, IBlockCache, Place


@attrs.frozen
class _Block:
    name: bytes
    data: bytes
    features: tuple[int, ...]


@attrs.define
class _Segment:
    """:ivar before, after: the segments of the same appender that were filled before and after."""

    blocks: list[_Block | None] = attrs.field(factory=list)
    size: int = 0
    before: int = 0
    after: int = 0


@implementer(IBlockCache)
class MemoryCache:
    """Blocks in lists, one for each segment; the oldest segment goes first.

    :param limit: bytes of content that it holds, at most one segment more
    :param segment: bytes of a full segment
    """

    def __init__(self, limit: int = 64 << 20, segment: int = 4 << 20) -> None:
        self._limit = limit
        self._segment = segment
        self._lock = threading.RLock()
        self._places: dict[bytes, Place] = {}
        self._features: dict[int, bytes] = {}
        self._segments: dict[int, _Segment] = {}
        self._next = 1
        self._size = 0

    def find(self, name: bytes) -> Place | None:
        """See :meth:`IBlockCache.find`."""
        return self._places.get(name)

    def read(self, place: Place) -> tuple[bytes, bytes] | None:
        """See :meth:`IBlockCache.read`."""
        with self._lock:
            block = self._block(place.segment, place.ordinal)
            return None if block is None else (block.name, block.data)

    def beside(self, place: Place, steps: int) -> Place | None:
        """See :meth:`IBlockCache.beside`."""
        with self._lock:
            number, ordinal = place.segment, place.ordinal + steps
            segment = self._segments.get(number)
            while segment is not None and not 0 <= ordinal < len(segment.blocks):
                if ordinal < 0:
                    number, segment = segment.before, self._segments.get(segment.before)
                    ordinal += 0 if segment is None else len(segment.blocks)
                else:
                    ordinal -= len(segment.blocks)
                    number, segment = segment.after, self._segments.get(segment.after)
            block = self._block(number, ordinal)
            return None if block is None else Place(number, ordinal, 0, len(block.data))

    def similar(self, features: Sequence[int]) -> list[Place]:
        """See :meth:`IBlockCache.similar`."""
        with self._lock:
            known = self._features
            votes = Counter(known[feature] for feature in features if feature in known)
            found = (self._places.get(name) for name, _ in votes.most_common())
            return list(islice((place for place in found if place is not None), SIMILAR_MAX))

    def drop(self, name: bytes) -> None:
        """See :meth:`IBlockCache.drop`."""
        with self._lock:
            place = self._places.pop(name, None)
            if place is not None:
                self._forget(self._segments[place.segment], place.ordinal)

    def appender(self) -> MemoryAppender:
        """See :meth:`IBlockCache.appender`."""
        return MemoryAppender(self)

    def horizon(self) -> int:
        """See :meth:`IBlockCache.horizon`."""
        return self._next

    @property
    def size(self) -> int:
        """See :class:`IBlockCache`."""
        return self._size

    def empty(self) -> bool:
        """See :meth:`IBlockCache.empty`."""
        return not self._places

    def evict(self) -> bool:
        """Forget the oldest segment; False where there is none."""
        with self._lock:
            if not self._segments:
                return False
            oldest = min(self._segments)
            segment = self._segments.pop(oldest)
            for ordinal, block in enumerate(segment.blocks):
                if block is not None:
                    place = self._places.get(block.name)
                    if place is not None and place[:2] == (oldest, ordinal):
                        del self._places[block.name]
                    self._forget(segment, ordinal)
            return True

    def append(self, number: int, name: bytes, data: bytes, features: Sequence[int]) -> Place:
        """Add a block behind those of segment ``number``, or in a new one where that is full."""
        with self._lock:
            segment = self._segments.get(number)
            if segment is None or segment.size >= self._segment:
                before = 0 if segment is None else number
                number, self._next = self._next, self._next + 1
                if segment is not None:
                    segment.after = number
                segment = self._segments[number] = _Segment(before=before)
            place = Place(number, len(segment.blocks), 0, len(data))
            segment.blocks.append(_Block(name, data, tuple(features)))
            segment.size += len(data)
            self._size += len(data)
            self._places[name] = place
            self._features.update(dict.fromkeys(features, name))
            while self._size > self._limit and len(self._segments) > 1:
                self.evict()
            return place

    def _block(self, number: int, ordinal: int) -> _Block | None:
        segment = self._segments.get(number)
        if segment is None or not 0 <= ordinal < len(segment.blocks):
            return None
        return segment.blocks[ordinal]

    def _forget(self, segment: _Segment, ordinal: int) -> None:
        block, segment.blocks[ordinal] = segment.blocks[ordinal], None
        if block is not None:
            self._size -= len(block.data)
            for feature in block.features:
                if self._features.get(feature) == block.name:
                    del self._features[feature]


@implementer(IAppender)
class MemoryAppender:
    """Appends to a :class:`MemoryCache`.

    :param cache: the cache
    """

    def __init__(self, cache: MemoryCache) -> None:
        self._cache = cache
        self._segment = 0

    def append(
        self, name: bytes, data: bytes | memoryview, features: Sequence[int] = ()
    ) -> Place | None:
        """See :meth:`IAppender.append`."""
        place = self._cache.append(self._segment, name, bytes(data), features)
        self._segment = place.segment
        return place

    def close(self) -> None:
        """See :meth:`IAppender.close`."""
