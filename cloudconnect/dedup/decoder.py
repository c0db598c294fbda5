"""Layer 1: the receiving half of the codec (``docs/wan.rst``): batches in, the exact stream out.

A batch is passed on once its digest, recomputed from its bytes, is right, and only then do its new
blocks enter the cache. What cannot be found is asked for; the batches behind it are taken apart
meanwhile, as far as they can be, and wait.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Sequence

import attrs
from blake3 import blake3

from cloudconnect.content.compression import decompress
from cloudconnect.dedup.bases import Shelf, check_of
from cloudconnect.dedup.instructions import SKIP_MAX, Act, Base, Instruction, unpack_control
from cloudconnect.dedup.interfaces import IBlockCache, Place
from cloudconnect.dedup.limits import (
    BATCHES_MAX,
    BLOCK_MIN,
    PIECE_BYTES,
    PIECES_FEW,
    WINDOW_DEFAULT,
)
from cloudconnect.dedup.literals import StreamDecompressor, decompress_delta
from cloudconnect.dedup.messages import Ack, Batch, Coding, End, Miss, Resend
from cloudconnect.dedup.sketch import Sketcher
from cloudconnect.dedup.statistics import Statistics
from cloudconnect.errors import DigestMismatch, ProtocolViolation, StoredDataDamaged


@attrs.define
class _Piece:
    """A part of a batch.

    :ivar data: its bytes, or None while they are missing
    :ivar act: how it came
    :ivar name: BLAKE3-256 of its bytes, once computed
    :ivar healed: it was sent after all
    """

    data: bytes | memoryview | None
    act: Act
    name: bytes = b""
    healed: bool = False


@attrs.define
class _Pending:
    """A batch that was not passed on yet.

    :ivar fixed: bytes of the pieces whose length the batch itself says
    :ivar holes: indexes of pieces that were asked for
    :ivar new: blocks that it brings, by name: later batches may refer to them
    """

    batch: Batch
    pieces: list[_Piece]
    holes: set[int] = attrs.field(factory=set)
    new: dict[bytes, bytes | memoryview] = attrs.field(factory=dict)
    asked_all: bool = False


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
        # Blocks that were sent in full and those that were missing: apart, so that each are in the
        # order of the far end's cache, which learns of the missing ones later.
        self._appender = cache.appender()
        self._healer = cache.appender()
        self._sketcher = Sketcher()
        self._stream = StreamDecompressor()
        self._window = window
        self._waiting = 0
        self._next = 0
        self._total = 0
        self._pending: deque[_Pending] = deque()
        self._end: End | None = None

    def batch(self, batch: Batch) -> Decoded:
        """A batch has come.

        :raises ProtocolViolation: it is malformed, or more is under way than was allowed
        :raises DigestMismatch: bytes that were sent in full do not have their digest
        """
        self._check_open()
        if batch.number != self._next:
            raise ProtocolViolation(f"batch {batch.number} came in the place of {self._next}")
        if self._waiting + batch.plain > self._window or len(self._pending) >= BATCHES_MAX:
            raise ProtocolViolation("more is under way between accelerators than was allowed")
        self._next += 1
        self._waiting += batch.plain
        section = self._stream.decompress(batch.coding, batch.stream, batch.stream_plain)
        control, sent = memoryview(section)[: batch.control], memoryview(section)[batch.control :]
        instructions, bases = unpack_control(control)
        _check_lengths(batch, instructions, len(sent), len(bases))
        count = sum(one.act == Act.NAMED for one in instructions)
        changed = self._changed(batch, bases, batch.names[count:])
        pending = _Pending(batch, [])
        self._assemble(pending, instructions, sent, changed)
        self._pending.append(pending)
        return self._ask_or_pass_on(pending)

    def resent(self, resend: Resend) -> Decoded:
        """Pieces that were asked for have come.

        :raises ProtocolViolation: they were not asked for, or are not as long as they should be
        :raises DigestMismatch: they do not have the digest of their batch
        """
        self._check_open()
        pending = next((p for p in self._pending if p.batch.number == resend.number), None)
        if pending is None or {index for index, _ in resend.pieces} != pending.holes:
            raise ProtocolViolation("pieces came that were not asked for")
        known = sum(len(piece.data) for piece in pending.pieces if piece.data is not None)
        size = sum(length for _, length in resend.pieces)
        if known + size != pending.batch.plain:
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
        return self._pass_on(Decoded())

    def end(self, end: End) -> Decoded:
        """The far end's END has come.

        :raises ProtocolViolation: it does not count what came
        """
        self._check_open()
        if end.batches != self._next:
            raise ProtocolViolation("an end between accelerators counts other batches than came")
        self._end = end
        return self._pass_on(Decoded())

    def _check_open(self) -> None:
        if self._end is not None and not self._pending:
            raise ProtocolViolation("an accelerator went on after its end")

    # --- taking a batch apart ---------------------------------------------------------------------

    def _changed(
        self, batch: Batch, bases: Sequence[Base], names: Sequence[bytes]
    ) -> memoryview | None:
        """The delta section; None where there is no such prefix here."""
        if not batch.delta_plain:
            return None
        prefix = self._shelf.prefix(bases, names)
        if prefix is None or check_of(prefix) != batch.check:
            return None
        return memoryview(decompress_delta(prefix, batch.delta, batch.delta_plain))

    def _assemble(
        self,
        pending: _Pending,
        instructions: Sequence[Instruction],
        sent: memoryview,
        changed: memoryview | None,
    ) -> None:
        """Find the pieces of a batch; those that cannot be found are holes."""
        names = iter(pending.batch.names)
        # The last block that was found, and how many steps behind it the last one meant is.
        last: Place | None = None
        steps = 0
        again: _Piece | None = None
        room = pending.batch.plain - len(sent) - pending.batch.delta_plain
        sent_at = changed_at = 0
        for act, number, skip in instructions:
            if act <= Act.CHANGED:
                piece = _Piece(None, act)
                if act == Act.CHANGED:
                    if changed is not None:
                        piece.data = changed[changed_at : changed_at + number]
                    changed_at += number
                else:
                    piece.data = sent[sent_at : sent_at + number]
                    sent_at += number
                self._name(pending, piece)
                pending.pieces.append(piece)
                continue
            for index in range(number):
                if not room:
                    pending.pieces.append(_Piece(None, act))
                    continue
                if act == Act.AGAIN:
                    piece = _Piece(None, act) if again is None else attrs.evolve(again)
                elif act == Act.NAMED and not index:
                    last, piece = self._named(pending, next(names))
                    steps = 0
                else:
                    steps += 1 if index or act == Act.NAMED else 1 + skip
                    place, piece = self._beside(last, steps)
                    if place is not None:
                        last, steps = place, 0
                again = piece
                if piece.data is not None and len(piece.data) > room:
                    # Found in another order than was meant: nothing more is read for this batch.
                    piece, room = _Piece(None, act), 0
                elif piece.data is not None:
                    room -= len(piece.data)
                pending.pieces.append(piece)

    def _name(self, pending: _Pending, piece: _Piece) -> None:
        if piece.data is not None:
            piece.name = blake3(piece.data).digest()
            if piece.act != Act.BETWEEN:
                pending.new[piece.name] = piece.data

    def _named(self, pending: _Pending, name: bytes) -> tuple[Place | None, _Piece]:
        found = self._shelf.named(name)
        if found is not None:
            return found[0], _Piece(found[1], Act.NAMED, name)
        for one in (pending, *self._pending):
            if name in one.new:
                return None, _Piece(one.new[name], Act.NAMED, name)
        return None, _Piece(None, Act.NAMED)

    def _beside(self, last: Place | None, steps: int) -> tuple[Place | None, _Piece]:
        far = steps > 2 * SKIP_MAX  # each step may be one read
        place = None if last is None or far else self._cache.beside(last, steps)
        block = None if place is None else self._shelf.read(place)
        if place is None or block is None:
            return None, _Piece(None, Act.ON)
        return place, _Piece(block[1], Act.ON, block[0])

    # --- passing on -------------------------------------------------------------------------------

    def _ask_or_pass_on(self, pending: _Pending) -> Decoded:
        decoded = Decoded()
        pending.holes.update(i for i, piece in enumerate(pending.pieces) if piece.data is None)
        known = sum(len(piece.data) for piece in pending.pieces if piece.data is not None)
        if pending.holes:
            self._ask(pending, decoded)
        elif known != pending.batch.plain:
            self._ask_for_all(pending, decoded)
        return self._pass_on(decoded)

    def _ask(self, pending: _Pending, decoded: Decoded) -> None:
        self.statistics.misses += len(pending.holes)
        decoded.answers.append(Miss(pending.batch.number, sorted(pending.holes)))

    def _ask_for_all(self, pending: _Pending, decoded: Decoded) -> None:
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
            decoded.plain.extend(plain)
            decoded.answers.append(Ack(pending.batch.number))
            self._waiting -= pending.batch.plain
            self._total += pending.batch.plain
        if self._end is not None and not self._pending:
            self._finish(self._end)
        return decoded

    def _keep(self, pending: _Pending) -> None:
        """Put the blocks that were sent into the cache, and count."""
        counts, batch = self.statistics, pending.batch
        healing: dict[bytes, bytes | memoryview] = {}
        for piece in pending.pieces:
            assert piece.data is not None
            if piece.act in (Act.NEW, Act.CHANGED):
                features = self._sketcher.features(piece.data)
                self._appender.append(piece.name, piece.data, features)
            elif piece.healed:
                healing[piece.name] = piece.data
                counts.resent += len(piece.data)
        for name, data in healing.items():
            self._healer.append(name, data, self._sketcher.features(data))
        sent = batch.stream_plain - batch.control
        healed = sum(len(p.data) for p in pending.pieces if p.healed and p.data is not None)
        counts.plain += batch.plain
        counts.by_reference += batch.plain - sent - batch.delta_plain - healed
        counts.by_compression += sent - len(batch.stream)
        counts.by_delta += batch.delta_plain - len(batch.delta)
        counts.damaged = self._shelf.damaged

    def _finish(self, end: End) -> None:
        if end.plain != self._total:
            raise ProtocolViolation("an end between accelerators counts other bytes than came")
        self.ended = True

    def close(self) -> None:
        """The connection is over, as it may be; may be called again."""
        self._appender.close()
        self._healer.close()


def _check_lengths(
    batch: Batch, instructions: Sequence[Instruction], sent: int, bases: int
) -> None:
    """Whether what a batch says in its instructions is what it says in its header.

    :raises ProtocolViolation: it is not
    """
    lengths = dict.fromkeys(Act, 0)
    names = bases
    referred = False
    pieces = known = 0
    for act, number, _ in instructions:
        pieces += 1 if act <= Act.CHANGED else number
        known += 0 if act <= Act.CHANGED else number
        if act <= Act.CHANGED:
            lengths[act] += number
        elif act == Act.NAMED:
            names += 1
            referred = True
        elif not referred:
            raise ProtocolViolation("a batch refers to the last block and has none")
    whole = sent + batch.delta_plain
    if (
        lengths[Act.BETWEEN] + lengths[Act.NEW] != sent
        or lengths[Act.CHANGED] != batch.delta_plain
        or names != len(batch.names)
        or bool(bases) is not bool(batch.delta_plain)
        or (not referred and whole != batch.plain)
        or whole + known * BLOCK_MIN > batch.plain
        or pieces > PIECES_FEW + batch.plain // PIECE_BYTES
    ):
        raise ProtocolViolation("a batch does not contain what it announces")
