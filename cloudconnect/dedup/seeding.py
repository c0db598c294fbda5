"""Layer 1: filling a cache before there is a connection.

What is known at both ends before the first backup need not be sent: a stream of frames that the
repository could send, or the content of a folder at either end. Frames are found again as they are;
content that was cut elsewhere is found as a likeness, which costs a little for each block.
"""

from __future__ import annotations

from collections.abc import Iterator

from blake3 import blake3

from cloudconnect.dedup.cutting import ContentCutter, Cut, ICutter
from cloudconnect.dedup.interfaces import IBlockCache
from cloudconnect.dedup.sketch import KEPT, Sketcher


class Seeder:
    """Puts the blocks of one stream into a cache; used by one thread at a time.

    :param cache: the cache
    :param cutter: cuts the stream; by default as content
    :ivar plain: bytes of the stream
    :ivar added: bytes of blocks that the cache did not have
    """

    def __init__(self, cache: IBlockCache, cutter: ICutter | None = None) -> None:
        self.plain = 0
        self.added = 0
        self._cache = cache
        self._cutter = cutter or ContentCutter()
        self._appender = cache.appender()
        self._sketcher = Sketcher()

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream.

        :param data: not changed by anybody afterwards
        """
        self.plain += len(data)
        self._take(self._cutter.feed(data))

    def close(self) -> None:
        """The stream has ended."""
        self._take(self._cutter.finish())
        self._appender.close()

    def _take(self, cuts: Iterator[Cut]) -> None:
        for data, block in cuts:
            if not block:
                continue
            name = blake3(data).digest()
            if self._cache.find(name) is None:
                self._appender.append(name, data, self._sketcher.features(data)[:KEPT])
                self.added += len(data)
