"""Layer 1: a batch after it was received: its pieces, as far as they can be found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs
from blake3 import blake3

from cloudconnect.dedup.bases import Shelf
from cloudconnect.dedup.instructions import SKIP_MAX, Act, Base, Instruction, unpack_control
from cloudconnect.dedup.interfaces import Place
from cloudconnect.dedup.limits import BLOCK_MIN, PIECE_BYTES, PIECES_FEW
from cloudconnect.dedup.literals import decompress_delta
from cloudconnect.dedup.messages import Batch
from cloudconnect.errors import ProtocolViolation

#: Pieces of up to so many bytes are copied: a view takes five times as much by itself as bytes do,
#: and keeps the section that it is a part of.
COPIED_MAX: Final = 512


@attrs.define(weakref_slot=False)
class Piece:
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
class Pending:
    """A batch that was not passed on yet.

    :ivar batch: what it says; its names and coded sections were used up and are not kept, as they
        may be larger than what they stand for
    :ivar literal: bytes of the stream section that are pieces
    :ivar stream: bytes of the stream section as they came
    :ivar delta: likewise of the delta section
    :ivar holes: indexes of pieces that were asked for
    :ivar new: blocks that it brings, by name: later batches may refer to them
    """

    batch: Batch
    pieces: list[Piece]
    literal: int
    stream: int
    delta: int
    holes: set[int] = attrs.field(factory=set)
    new: dict[bytes, bytes | memoryview] = attrs.field(factory=dict)
    asked_all: bool = False


class Assembler:
    """Takes batches apart and puts their pieces together.

    :param shelf: the own cache
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def assemble(self, batch: Batch, section: bytes, pending: Iterable[Pending]) -> Pending:
        """The pieces of a batch; those that cannot be found have no data.

        :param section: its stream section, decompressed
        :param pending: batches before it whose blocks are not in the cache yet
        :raises ProtocolViolation: it is malformed
        """
        control, sent = memoryview(section)[: batch.control], memoryview(section)[batch.control :]
        instructions, bases = unpack_control(control)
        check_lengths(batch, instructions, len(sent), len(bases))
        count = sum(one.act == Act.NAMED for one in instructions)
        changed = self._changed(batch, bases, batch.names[count:])
        literal, stream, delta = len(sent), len(batch.stream), len(batch.delta)
        made = Pending(batch, [], literal, stream, delta)
        self._fill(made, instructions, sent, changed, pending)
        made.batch = attrs.evolve(batch, names=(), stream=b"", delta=b"")
        return made

    def _changed(
        self, batch: Batch, bases: Sequence[Base], names: Sequence[bytes]
    ) -> memoryview | None:
        """The delta section; None where there is no such prefix here."""
        if not batch.delta_plain:
            return None
        prefix = self._shelf.prefix(bases, names, batch.check)
        if prefix is None:
            return None
        return memoryview(decompress_delta(prefix, batch.delta, batch.delta_plain))

    def _fill(
        self,
        pending: Pending,
        instructions: Sequence[Instruction],
        sent: memoryview,
        changed: memoryview | None,
        before: Iterable[Pending],
    ) -> None:
        """Find the pieces of a batch; those that cannot be found are holes."""
        names = iter(pending.batch.names)
        # The last block that was found, and how many steps behind it the last one meant is.
        last: Place | None = None
        steps = 0
        again: Piece | None = None
        room = pending.batch.plain - len(sent) - pending.batch.delta_plain
        sent_at = changed_at = 0
        for act, number, skip in instructions:
            if act <= Act.CHANGED:
                piece = Piece(None, act)
                if act == Act.CHANGED:
                    if changed is not None:
                        piece.data = changed[changed_at : changed_at + number]
                    changed_at += number
                else:
                    part = sent[sent_at : sent_at + number]
                    piece.data = part if number > COPIED_MAX else bytes(part)
                    sent_at += number
                self._name(pending, piece)
                pending.pieces.append(piece)
                continue
            for index in range(number):
                if not room:
                    pending.pieces.append(Piece(None, act))
                    continue
                if act == Act.AGAIN:
                    piece = Piece(None, act) if again is None else attrs.evolve(again)
                elif act == Act.NAMED and not index:
                    last, piece = self._named((pending, *before), next(names))
                    steps = 0
                else:
                    steps += 1 if index or act == Act.NAMED else 1 + skip
                    place, piece = self._beside(last, steps)
                    if place is not None:
                        last, steps = place, 0
                again = piece
                if piece.data is not None and len(piece.data) > room:
                    # Found in another order than was meant: nothing more is read for this batch.
                    piece, room = Piece(None, act), 0
                elif piece.data is not None:
                    room -= len(piece.data)
                pending.pieces.append(piece)

    def _name(self, pending: Pending, piece: Piece) -> None:
        # What lies between blocks gets its name when it is passed on: it may be many and small.
        if piece.data is not None and piece.act != Act.BETWEEN:
            piece.name = blake3(piece.data).digest()
            pending.new[piece.name] = piece.data

    def _named(self, waiting: Iterable[Pending], name: bytes) -> tuple[Place | None, Piece]:
        found = self._shelf.named(name)
        if found is not None:
            return found[0], Piece(found[1], Act.NAMED, name)
        for one in waiting:
            if name in one.new:
                return None, Piece(one.new[name], Act.NAMED, name)
        return None, Piece(None, Act.NAMED)

    def _beside(self, last: Place | None, steps: int) -> tuple[Place | None, Piece]:
        far = steps > 2 * SKIP_MAX  # each step may be one read
        place = None if last is None or far else self._shelf.cache.beside(last, steps)
        block = None if place is None else self._shelf.read(place)
        if place is None or block is None:
            return None, Piece(None, Act.ON)
        return place, Piece(block[1], Act.ON, block[0])


def check_lengths(batch: Batch, instructions: Sequence[Instruction], sent: int, bases: int) -> None:
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
