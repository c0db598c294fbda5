"""Layer 1: the receiving half of the codec (``docs/wan.rst``): batches in, the exact stream out.

A batch is passed on once its digest, recomputed from its bytes, is right, and only then do its new
blocks enter the cache. What cannot be found is asked for; the batches behind it are taken apart
meanwhile, as far as they can be, and wait.

A batch is acknowledged when it is passed on, or, after :meth:`Decoder.hold`, once whoever receives
the stream has taken it: then the window is what bounds the bytes that wait for a slow receiver.
"""

from __future__ import annotations

import hmac
from collections import deque
from typing import Final

import attrs
from blake3 import blake3

from cloudconnect.content.compression import decompress
from cloudconnect.dedup.assembly import Assembler, Pending
from cloudconnect.dedup.bases import Shelf
from cloudconnect.dedup.instructions import Act
from cloudconnect.dedup.interfaces import IBlockCache
from cloudconnect.dedup.limits import BATCHES_MAX, BLOCK_MAX, BLOCK_MIN, WINDOW_DEFAULT
from cloudconnect.dedup.literals import StreamDecompressor
from cloudconnect.dedup.messages import Ack, Batch, Coding, End, Miss, Resend
from cloudconnect.dedup.statistics import Statistics
from cloudconnect.errors import DigestMismatch, ProtocolViolation, StoredDataDamaged

#: Where the pieces of a batch have fewer bytes than this on average they are passed on as one: each
#: by itself would take more memory than its bytes while it waits.
PART_SMALL: Final = 2048


@attrs.define
class Decoded:
    """What came of a message.

    :ivar plain: parts of the stream, in order, verified
    :ivar answers: messages for the far end
    """

    plain: list[bytes | memoryview] = attrs.field(factory=list)
    answers: list[Ack | Miss] = attrs.field(factory=list)


class Decoder:
    """Decodes one direction of one connection.

    :param cache: the own cache
    :param window: bytes of the stream that may wait here, as the far end was told
    :ivar statistics: counts, but for the coded bytes, which the exchange counts
    :ivar ended: the far end's END has come and everything before it was passed on
    """

    def __init__(self, cache: IBlockCache, window: int = WINDOW_DEFAULT) -> None:
        self.statistics = Statistics()
        self.ended = False
        self._cache = cache
        self._shelf = Shelf(cache)
        self._assembler = Assembler(self._shelf)
        # Without features: what came is named when it goes back, and seldom changed before.
        # Blocks that were sent in full and those that were missing: apart, so that each are in the
        # order of the far end's cache, which learns of the missing ones later.
        self._appender = cache.appender()
        self._healer = cache.appender()
        self._stream = StreamDecompressor()
        self._window = window
        self._waiting = 0
        self._next = 0
        self._total = 0
        self._pending: deque[Pending] = deque()
        self._end: End | None = None
        self._holds = False
        # Of the batches that were passed on and not acknowledged: number, and where it ends.
        self._passed: deque[tuple[int, int]] = deque()
        self._acknowledged = 0  # bytes

    def hold(self) -> None:
        """Acknowledge nothing from now on before :meth:`taken` says so; called at the beginning."""
        self._holds = True

    def taken(self, total: int) -> Ack | None:
        """Whoever receives the stream has taken its first ``total`` bytes.

        :return: what is to be said to the far end, or None; None also where nothing is held
        """
        number = None
        while self._passed and self._passed[0][1] <= total:
            number, end = self._passed.popleft()
            self._waiting -= end - self._acknowledged
            self._acknowledged = end
        return None if number is None else Ack(number)

    def batch(self, batch: Batch) -> Decoded:
        """A batch has come.

        :raises ProtocolViolation: it is malformed, or more is under way than was allowed
        :raises DigestMismatch: bytes that were sent in full do not have their digest
        """
        if self._end is not None:
            raise ProtocolViolation("an accelerator went on after its end")
        if batch.number != self._next:
            raise ProtocolViolation(f"batch {batch.number} came in the place of {self._next}")
        batches = len(self._pending) + len(self._passed)
        if self._waiting + batch.plain > self._window or batches >= BATCHES_MAX:
            raise ProtocolViolation("more is under way between accelerators than was allowed")
        self._next += 1
        self._waiting += batch.plain
        section = self._stream.decompress(batch.coding, batch.stream, batch.stream_plain)
        pending = self._assembler.assemble(batch, section, self._pending)
        self._pending.append(pending)
        return self._ask_or_pass_on(pending)

    def resent(self, resend: Resend) -> Decoded:
        """Pieces that were asked for have come.

        :raises ProtocolViolation: they were not asked for, or are not as long as they should be
        :raises DigestMismatch: they do not have the digest of their batch
        """
        pending = next((p for p in self._pending if p.batch.number == resend.number), None)
        if pending is None or {index for index, _ in resend.pieces} != pending.holes:
            raise ProtocolViolation("pieces came that were not asked for")
        if not all(BLOCK_MIN <= length <= BLOCK_MAX for _, length in resend.pieces):
            raise ProtocolViolation("a piece came that is no block")
        known = sum(len(piece.data) for piece in pending.pieces if piece.data is not None)
        size = sum(length for _, length in resend.pieces)
        fits = known + size == pending.batch.plain
        if not fits and pending.asked_all:
            raise ProtocolViolation("pieces came that do not fill their batch")
        if resend.coding == Coding.RAW:
            plain = bytes(resend.data)
        else:
            try:
                plain = decompress(resend.data, size)
            except StoredDataDamaged as error:
                raise ProtocolViolation("pieces that were resent cannot be read") from error
        if len(plain) != size:
            raise ProtocolViolation("pieces that were resent have another length")
        at = 0
        for index, length in resend.pieces:
            piece = pending.pieces[index]
            piece.data, piece.name, piece.healed = plain[at : at + length], b"", True
            at += length
        pending.holes.clear()
        decoded = Decoded()
        if not fits:  # then something that was found here is not what was meant
            self._ask_for_all(pending, decoded)
        return self._pass_on(decoded)

    def end(self, end: End) -> Decoded:
        """The far end's END has come.

        :raises ProtocolViolation: it does not count what came
        """
        if self._end is not None:
            raise ProtocolViolation("an accelerator ends twice")
        if end.batches != self._next:
            raise ProtocolViolation("an end between accelerators counts other batches than came")
        self._end = end
        return self._pass_on(Decoded())

    # --- passing on -------------------------------------------------------------------------------

    def _ask_or_pass_on(self, pending: Pending) -> Decoded:
        decoded = Decoded()
        pending.holes.update(i for i, piece in enumerate(pending.pieces) if piece.data is None)
        known = sum(len(piece.data) for piece in pending.pieces if piece.data is not None)
        if pending.holes:
            self._ask(pending, decoded)
        elif known != pending.batch.plain:
            self._ask_for_all(pending, decoded)
        return self._pass_on(decoded)

    def _ask(self, pending: Pending, decoded: Decoded) -> None:
        self.statistics.misses += len(pending.holes)
        decoded.answers.append(Miss(pending.batch.number, sorted(pending.holes)))

    def _ask_for_all(self, pending: Pending, decoded: Decoded) -> None:
        """What came from the cache is not what was meant: have it all sent."""
        if pending.asked_all:
            raise DigestMismatch(
                f"batch {pending.batch.number} does not have its digest though all of it was sent"
            )
        found = {i for i, p in enumerate(pending.pieces) if p.act >= Act.CHANGED and not p.healed}
        if not found:
            raise DigestMismatch(f"batch {pending.batch.number} does not have its digest")
        pending.asked_all = True
        for index in found:
            pending.pieces[index].data = None
        pending.holes = found
        self._ask(pending, decoded)

    def _pass_on(self, decoded: Decoded) -> Decoded:
        """Everything at the front that is complete."""
        while self._pending and not self._pending[0].holes:
            pending = self._pending[0]
            for piece in pending.pieces:
                if not piece.name:
                    assert piece.data is not None
                    piece.name = blake3(piece.data).digest()
            digest = blake3(b"".join([piece.name for piece in pending.pieces])).digest()
            if not hmac.compare_digest(digest, pending.batch.digest):
                self._ask_for_all(pending, decoded)
                break
            self._pending.popleft()
            self._keep(pending)
            plain = [piece.data for piece in pending.pieces if piece.data is not None]
            if len(plain) * PART_SMALL > pending.batch.plain:
                plain = [b"".join(plain)]
            decoded.plain.extend(plain)
            self._total += pending.batch.plain
            if self._holds:
                self._passed.append((pending.batch.number, self._total))
            else:
                self._waiting -= pending.batch.plain
                decoded.answers.append(Ack(pending.batch.number))
        if self._end is not None and not self._pending:
            self._finish(self._end)
        return decoded

    def _keep(self, pending: Pending) -> None:
        """Put the blocks that were sent into the cache, and count."""
        counts, batch = self.statistics, pending.batch
        healing: dict[bytes, bytes | memoryview] = {}
        for piece in pending.pieces:
            assert piece.data is not None
            if piece.act in (Act.NEW, Act.CHANGED):
                self._appender.append(piece.name, piece.data)
            elif piece.healed:
                healing[piece.name] = piece.data
                counts.resent += len(piece.data)
        for name, data in healing.items():
            self._healer.append(name, data)
        sent = pending.literal
        healed = sum(len(p.data) for p in pending.pieces if p.healed and p.data is not None)
        counts.plain += batch.plain
        counts.by_reference += batch.plain - sent - batch.delta_plain - healed
        counts.by_compression += sent - pending.stream
        counts.by_delta += batch.delta_plain - pending.delta
        counts.damaged = self._shelf.damaged

    def _finish(self, end: End) -> None:
        if end.plain != self._total:
            raise ProtocolViolation("an end between accelerators counts other bytes than came")
        self.ended = True

    def close(self) -> None:
        """The connection is over, as it may be; may be called again.

        As the encoder, it lets go of what holds memory.
        """
        self._appender.close()
        self._healer.close()
        self._stream.drop()
        self._pending.clear()
