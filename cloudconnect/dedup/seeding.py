"""Layer 1: filling a cache before there is a connection.

What is known at both ends before the first backup need not be sent: a stream of frames that the
repository could send, or the content of a folder at either end. Frames are found again as they are;
content that was cut elsewhere is found as a likeness, which costs a little for each block.

Both ends should seed the same content in the same order: a run of blocks is one token, and the
neighbours of a similar block are used, only where they are neighbours at both ends.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final

from blake3 import blake3

from cloudconnect.dedup.cutting import ContentCutter, Cut, FrameCutter, ICutter
from cloudconnect.dedup.interfaces import IBlockCache
from cloudconnect.dedup.sketch import KEPT, Sketcher
from cloudconnect.keys import Subkey
from cloudconnect.wire.frames import Coding, FrameWriter, StoredBlob

#: Part of a cache that is seeded where nothing else was said: what is seeded beyond a cache's end
#: pushes out its beginning, and then the two ends do not know the same.
SHARE: Final = 0.75

# What is made with it, the tags of frames, never enters a cache.
_NO_KEY: Final = Subkey(bytes(32))


class Seeder:
    """Puts the blocks of one stream into a cache; used by one thread at a time.

    :param cache: the cache
    :param cutter: cuts the stream; by default as content
    :ivar plain: bytes of the stream
    :ivar added: bytes of blocks that the cache did not have
    :ivar full: the cache takes no more
    """

    def __init__(self, cache: IBlockCache, cutter: ICutter | None = None) -> None:
        self.plain = 0
        self.added = 0
        self.full = False
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
            if not block or self.full:
                continue
            name = blake3(data).digest()
            if self._cache.find(name) is None:
                features = self._sketcher.features(data)[:KEPT]
                if self._appender.append(name, data, features) is None:
                    self.full = True
                else:
                    self.added += len(data)


class Order(enum.Enum):
    """Which chunks are neighbours, at whatever end they are seeded.

    A backup takes the chunks of larger files as it reads them, and those in which small files are
    joined whenever enough was read for some. Each kind by itself has the order of the walk, and so
    of a manifest.
    """

    FILES = "files"
    SMALL_FILES = "small files"
    MANIFEST = "manifest"


class ChunkSeeder:
    """Puts movers' chunks into a cache, as the blocks that uncompressed CHUNKs are cut into.

    Used by one thread at a time.

    :param cache: the cache
    :param limit: bytes after which nothing more is added; None: until the cache refuses. A cache
        that is seeded with more than it holds forgets the beginning
    :ivar chunks: that were taken
    :ivar plain: their plain bytes
    """

    def __init__(self, cache: IBlockCache, limit: int | None = None) -> None:
        self._cache = cache
        self._limit = limit
        self._seeders: dict[Order, Seeder] = {}
        self._writer = FrameWriter(_NO_KEY, 0)
        self.chunks = 0
        self.plain = 0

    @property
    def added(self) -> int:
        """Bytes of blocks that the cache did not have."""
        return sum(seeder.added for seeder in self._seeders.values())

    @property
    def full(self) -> bool:
        """Whether nothing more is added."""
        if any(seeder.full for seeder in self._seeders.values()):
            return True
        return self._limit is not None and self.added >= self._limit

    def add(self, order: Order, name: bytes, plain: bytes | memoryview) -> None:
        """The next chunk of its order; nothing happens once the seeder is full.

        :param name: its id, 32 bytes
        :param plain: its content, 1 to CHUNK_MAX bytes
        """
        if self.full:
            return
        seeder = self._seeders.get(order)
        if seeder is None:
            seeder = self._seeders[order] = Seeder(self._cache, FrameCutter())
        blob = StoredBlob(name, len(plain), Coding.PLAIN, blake3(plain).digest(), plain)
        seeder.feed(b"".join(self._writer.encode_chunk(0, blob)))
        self.chunks += 1
        self.plain += len(plain)

    def close(self) -> None:
        """No more chunks come; may be called again."""
        for seeder in self._seeders.values():
            seeder.close()
