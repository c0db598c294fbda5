"""Layer 1: the sending half of the codec (``docs/wan.rst``): a stream in, batches out.

Whatever a cache says, a wrong reference costs one more way back and forth and nothing else: what
was sent is kept until the far end has acknowledged it, and pieces that it misses are sent in full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import attrs
from blake3 import blake3

from cloudconnect.content.compression import compress
from cloudconnect.dedup.bases import Shelf, check_of
from cloudconnect.dedup.batches import Piece, find_bases, instructions_for, take_delta
from cloudconnect.dedup.cutting import Cut, ICutter
from cloudconnect.dedup.instructions import Act, pack_control
from cloudconnect.dedup.interfaces import IBlockCache
from cloudconnect.dedup.limits import (
    BATCH_LITERAL,
    BATCH_PLAIN,
    BATCHES_MAX,
    PIECES_MAX,
    WINDOW_DEFAULT,
    WINDOW_LOG,
    WINDOW_MIN,
)
from cloudconnect.dedup.literals import StreamCompressor, compress_delta
from cloudconnect.dedup.messages import Ack, Batch, Coding, End, Hello, Miss, Resend
from cloudconnect.dedup.sketch import KEPT, Sketcher
from cloudconnect.dedup.statistics import Statistics
from cloudconnect.dedup.trust import Trust
from cloudconnect.errors import ProtocolViolation

#: Requests for pieces of one batch: what a far end finds missing, and all of it once it finds that
#: its cache is in another order.
ASKED_MAX: Final = 2

_Parts = list[bytes | memoryview]


@attrs.define
class _Sent:
    """A batch that the far end has not acknowledged."""

    pieces: list[bytes | memoryview]
    referred: list[bool]
    plain: int
    old: int
    asked: int = 0


class Encoder:
    """Encodes one direction of one connection.

    :param cache: the own cache
    :param cutter: cuts the stream
    :param level: compression level, 1 to 19; :attr:`level` may be set at any time
    :param window: bytes that may be under way, and are kept, however many the far end allows
    :param window_log: log2 of the compressed stream's window in bytes
    :ivar statistics: counts, but for the coded bytes, which the exchange counts
    """

    def __init__(
        self,
        cache: IBlockCache,
        cutter: ICutter,
        level: int = 3,
        window: int = WINDOW_DEFAULT,
        window_log: int = WINDOW_LOG,
    ) -> None:
        self.level = level
        self.statistics = Statistics()
        self._cache = cache
        self._shelf = Shelf(cache)
        # A base that is not what its name says is found by the far end, which then asks for what
        # was made with it. From then on each is looked at, and the damaged ones are dropped.
        self._careful = False
        # As in the decoder: what is sent in full, and what had to be sent after all.
        self._appender = cache.appender()
        self._healer = cache.appender()
        self._cutter = cutter
        self._sketcher = Sketcher()
        self._stream = StreamCompressor(window_log)
        self._trust = Trust(cache.horizon())
        self._pieces: list[Piece] = []
        self._plain = 0
        self._literal = 0
        # What this batch brings: the far end cannot yet have it in its cache.
        self._fresh: set[bytes] = set()
        self._fresh_places: set[tuple[int, int]] = set()
        self._sent: dict[int, _Sent] = {}
        self._acknowledged = 0
        self._number = 0
        self._total = 0
        self._under_way = 0
        self._window = window
        self._allowed = min(WINDOW_MIN, window)
        self._held: deque[tuple[int, _Parts]] = deque()
        self._ended = False

    @property
    def ready(self) -> bool:
        """Whether the window has room: while it has not, more must not be fed."""
        return not self._held

    @property
    def settled(self) -> bool:
        """Whether the far end has acknowledged all that was sent."""
        return not self._sent

    def feed(self, data: bytes) -> Iterator[_Parts]:
        """Take the next bytes of the stream; gives the messages that may be sent now.

        :param data: not changed by anybody afterwards
        """
        yield from self._take(self._cutter.feed(data))

    def flush(self) -> Iterator[_Parts]:
        """All that waits for more and would be of use to the far end."""
        yield from self._take(self._cutter.flush())
        yield from self._close_batch()

    def finish(self) -> Iterator[_Parts]:
        """The stream has ended: all that waits, and END once all of it could be sent."""
        yield from self._take(self._cutter.finish())
        yield from self._close_batch()
        self._ended = True
        yield from self._release()

    def close(self) -> None:
        """The connection is over, as it may be; may be called again.

        What holds memory is let go here: the traceback of an error holds the encoder until the
        interpreter next looks for such cycles, and a window of many failed connections is a lot.
        """
        self._appender.close()
        self._healer.close()
        self._stream.drop()
        self._pieces = []
        self._sent.clear()
        self._held.clear()

    def greeted(self, hello: Hello) -> Iterator[_Parts]:
        """The far end's first message has come."""
        self._allowed = min(hello.window, self._window)
        if hello.cold:
            self._trust.distrust()
        yield from self._release()

    def acknowledged(self, ack: Ack) -> Iterator[_Parts]:
        """Batches were passed on at the far end.

        :raises ProtocolViolation: they were never sent
        """
        if not self._acknowledged <= ack.number < self._number - len(self._held):
            raise ProtocolViolation(f"batch {ack.number} was acknowledged and not under way")
        for number in range(self._acknowledged, ack.number + 1):
            self._under_way -= self._sent.pop(number).plain
        self._acknowledged = ack.number + 1
        yield from self._release()

    def missed(self, miss: Miss) -> Iterator[_Parts]:
        """The far end does not have pieces of a batch.

        :raises ProtocolViolation: there are no such pieces under way
        """
        sent = self._sent.get(miss.number)
        if sent is None or miss.number >= self._number - len(self._held):
            raise ProtocolViolation(f"pieces of batch {miss.number} are asked for")
        if miss.pieces[-1] >= len(sent.pieces):
            raise ProtocolViolation(f"batch {miss.number} has no piece {miss.pieces[-1]}")
        sent.asked += 1
        if sent.asked > ASKED_MAX:
            raise ProtocolViolation(f"pieces of batch {miss.number} are asked for again and again")
        pieces = [(index, len(sent.pieces[index])) for index in miss.pieces]
        size = sum(length for _, length in pieces)
        referred = sum(length for index, length in pieces if sent.referred[index])
        self._careful = self._careful or referred < size
        self.statistics.misses += len(pieces)
        self.statistics.resent += size
        self.statistics.by_reference -= referred
        self._trust.missed(min(size, sent.old))
        healing = {
            blake3(sent.pieces[index]).digest(): sent.pieces[index]
            for index in miss.pieces
            if sent.referred[index]
        }
        for name, data in healing.items():
            self._healer.append(name, data, self._sketcher.features(data)[:KEPT])
        plain = b"".join(sent.pieces[index] for index in miss.pieces)
        frame = compress(plain, self.level)
        coding = Coding.RAW if frame is None else Coding.ANEW
        yield Resend(miss.number, pieces, coding, frame or plain).encode()

    # --- pieces -----------------------------------------------------------------------------------

    def _take(self, cuts: Iterator[Cut]) -> Iterator[_Parts]:
        for cut in cuts:
            self._add(cut)
            full = self._literal >= BATCH_LITERAL or self._plain >= BATCH_PLAIN
            if full or len(self._pieces) >= PIECES_MAX // 2:
                yield from self._close_batch()

    def _add(self, cut: Cut) -> None:
        data, block = cut
        name = blake3(data).digest()
        self._plain += len(data)
        if not block:
            self._literal += len(data)
            self._pieces.append(Piece(data, name, Act.BETWEEN))
            return
        place = self._cache.find(name)
        alone = name in self._fresh
        if place is not None and (alone or self._trust.believes(place)):
            self._pieces.append(Piece(data, name, Act.NAMED, place, alone))
            return
        self._literal += len(data)
        features = self._sketcher.features(data)
        like = self._cache.similar(features) if features else []
        like = [place for place in like if self._trust.believes(place)]
        base = like[0] if like else None
        self._pieces.append(Piece(data, name, Act.NEW, base=base, more=like[1:]))
        place = self._appender.append(name, data, features[:KEPT])
        if place is not None:
            self._fresh.add(name)
            self._fresh_places.add(place[:2])

    # --- batches ----------------------------------------------------------------------------------

    def _close_batch(self) -> Iterator[_Parts]:
        pieces, plain = self._pieces, self._plain
        if not pieces:
            return
        find_bases(self._cache, pieces)
        delta = take_delta(self._shelf, pieces, self._fresh_places, self._careful)
        instructions, named = instructions_for(pieces)
        control = pack_control(instructions, delta.bases)
        sent = [piece.data for piece in pieces if piece.act in (Act.BETWEEN, Act.NEW)]
        section = b"".join((control, *sent))
        coding, stream = self._stream.compress(section, self.level)
        prefix, changed = delta.prefix, delta.changed
        coded = compress_delta(prefix, changed, self.level) if changed else b""
        batch = Batch(
            self._number,
            plain,
            blake3(b"".join([piece.name for piece in pieces])).digest(),
            [*named, *delta.names],
            coding,
            len(control),
            len(section),
            stream,
            delta.size,
            coded,
            check_of(prefix) if changed else bytes(16),
        )
        referred = [piece.act == Act.NAMED for piece in pieces]
        old = sum(len(p.data) for p in pieces if p.act == Act.NAMED and not self._is_new(p))
        self._count(plain, len(section) - len(control), len(stream), delta.size, len(coded))
        self._sent[self._number] = _Sent([piece.data for piece in pieces], referred, plain, old)
        self._trust.passed(plain, old)
        self._number += 1
        self._total += plain
        self._pieces, self._plain, self._literal = [], 0, 0
        self._fresh.clear()
        self._fresh_places.clear()
        self._held.append((plain, list(batch.encode())))
        yield from self._release()

    def _is_new(self, piece: Piece) -> bool:
        return piece.place is not None and self._trust.is_new(piece.place)

    def _count(self, plain: int, sent: int, stream: int, changed: int, coded: int) -> None:
        counts = self.statistics
        counts.plain += plain
        counts.by_reference += plain - sent - changed
        counts.by_compression += sent - stream
        counts.by_delta += changed - coded
        counts.damaged = self._shelf.damaged

    def _release(self) -> Iterator[_Parts]:
        while self._held and self._under_way + self._held[0][0] <= self._allowed:
            if len(self._sent) - len(self._held) >= BATCHES_MAX:
                break
            plain, parts = self._held.popleft()
            self._under_way += plain
            yield parts
        if self._ended and not self._held:
            self._ended = False
            yield list(End(self._number, self._total).encode())
