"""Layer 3: appending the blocks of one stream to a cache: one segment after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from zope.interface import implementer

from cloudconnect.cache.segments import OVERHEAD, SegmentWriter
from cloudconnect.dedup.interfaces import IAppender, Place
from cloudconnect.dedup.limits import BLOCK_MAX, BLOCK_MIN


class Segments(Protocol):
    """What an appender asks of its cache.

    :ivar segment_size: bytes of a full segment
    """

    segment_size: int

    def begin(self, before: int) -> SegmentWriter | None:
        """A new segment behind the one that was filled before; None: no room."""

    def appended(self, name: bytes, features: Sequence[int], place: Place) -> None:
        """A block was written."""

    def ended(self, writer: SegmentWriter) -> None:
        """A segment is full, or its stream has ended."""


@implementer(IAppender)
class BlockAppender:
    """Appends the blocks of one stream; used by one thread at a time.

    :param cache: the cache
    """

    def __init__(self, cache: Segments) -> None:
        self._cache = cache
        self._writer: SegmentWriter | None = None
        self._before = 0
        self._over = False

    def append(
        self, name: bytes, data: bytes | memoryview, features: Sequence[int] = ()
    ) -> Place | None:
        """See :meth:`IAppender.append`."""
        if self._over or not BLOCK_MIN <= len(data) <= BLOCK_MAX:
            return None
        writer = self._writer
        if writer is not None and writer.size + len(data) + OVERHEAD > self._cache.segment_size:
            self._end()
            writer = None
        if writer is None:
            writer = self._writer = self._cache.begin(self._before)
            if writer is None:
                self._over = True
                return None
        try:
            place = writer.append(name, data, features)
        except OSError:
            # Disk full: what is whole stays of use, and this stream is not cached any further.
            self.close()
            return None
        self._cache.appended(name, features, place)
        return place

    def close(self) -> None:
        """See :meth:`IAppender.close`."""
        self._over = True
        self._end()

    def _end(self) -> None:
        if self._writer is not None:
            self._before = self._writer.number
            self._cache.ended(self._writer)
            self._writer = None
