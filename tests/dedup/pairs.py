"""Two ends of a connection between accelerators, joined in memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from zope.interface import implementer

from cloudconnect.dedup.cutting import ContentCutter, ICutter
from cloudconnect.dedup.exchange import Exchange
from cloudconnect.dedup.interfaces import IAppender, IBlockCache, Place
from cloudconnect.dedup.memory import MemoryCache

#: Bytes that are sent at once.
SEND = 256 << 10
#: Something to do between two pieces of wire.
Meanwhile = Callable[[], None]


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that cannot be compressed, the same each time."""
    return random.Random(seed).randbytes(size)


def text(size: int, seed: int = 1) -> bytes:
    """Bytes that can be compressed, and repeat nowhere."""
    draw = random.Random(seed)
    words = [draw.randbytes(draw.randint(2, 7)).hex().encode() for _ in range(2000)]
    return b" ".join(draw.choices(words, k=size // 4))[:size]


@implementer(IAppender)
class NoAppender:
    """Keeps nothing."""

    def append(
        self, name: bytes, data: bytes | memoryview, features: Sequence[int] = ()
    ) -> Place | None:
        return Place(1, 0, 0, len(data))

    def close(self) -> None:
        pass


@implementer(IBlockCache)
class NoCache(MemoryCache):
    """Takes everything and keeps nothing."""

    def appender(self) -> NoAppender:  # type: ignore[override]
        return NoAppender()


class Pair:
    """Two exchanges and what came out of them.

    :param source: cache of the end that sends
    :param target: cache of the other end
    :param cutter: makes a cutter for each end
    :param step: bytes of wire that are handed over at once; 0 for all there are
    """

    def __init__(
        self,
        source: IBlockCache | None = None,
        target: IBlockCache | None = None,
        cutter: Callable[[], ICutter] = ContentCutter,
        level: int = 3,
        step: int = 0,
        meanwhile: Meanwhile | None = None,
    ) -> None:
        self.caches = (source or MemoryCache(), target or MemoryCache())
        self.ends = [Exchange(cache, cutter(), level) for cache in self.caches]
        self.out = [bytearray(), bytearray()]
        self.wire = [bytearray(), bytearray()]  # from each end, under way
        self.crossed = [0, 0]
        self.step = step
        self.meanwhile = meanwhile
        for end in (0, 1):
            self.put(end, self.ends[end].start())

    def put(self, end: int, parts: Iterable[bytes | memoryview]) -> None:
        """Parts that ``end`` sends are under way."""
        for part in parts:
            self.wire[end] += part

    def settle(self) -> None:
        """Hand over what is under way until nothing is."""
        while self.wire[0] or self.wire[1]:
            for end in (0, 1):
                step = self.step or len(self.wire[end])
                octets = bytes(self.wire[end][:step])
                del self.wire[end][:step]
                self.crossed[end] += len(octets)
                if octets:
                    received = self.ends[1 - end].receive(octets)
                    for part in received.plain:
                        self.out[1 - end] += part
                    self.put(1 - end, received.wire)
                if self.meanwhile is not None:
                    self.meanwhile()

    def send(self, pieces: Iterable[bytes], end: int = 0, flush: bool = False) -> None:
        """Send pieces of a stream from ``end``."""
        self.settle()
        for piece in pieces:
            for at in range(0, len(piece), SEND):
                self.put(end, self.ends[end].send(piece[at : at + SEND]))
                self.settle()
            if flush:
                self.put(end, self.ends[end].flush())
            self.settle()

    def finish(self) -> None:
        """Both streams end, and nothing is left open."""
        for end in (0, 1):
            self.put(end, self.ends[end].finish())
        self.settle()
        for end in self.ends:
            end.eof()


def carry(data: bytes, source: IBlockCache, target: IBlockCache, **more: object) -> Pair:
    """``data`` from one end to the other over a new connection, which is checked and returned."""
    pair = Pair(source, target, **more)  # type: ignore[arg-type]
    pair.send([data])
    pair.finish()
    if bytes(pair.out[1]) != data or pair.out[0]:
        raise AssertionError("what came out is not what went in")
    return pair
