"""Layer 1: a batch before it is sent: its pieces, what they are like, and how they are named."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

import attrs

from cloudconnect.dedup.bases import Shelf, plan
from cloudconnect.dedup.instructions import SKIP_MAX, Act, Base, Instruction
from cloudconnect.dedup.interfaces import IBlockCache, Place
from cloudconnect.dedup.limits import PREFIX_MAX

#: Bytes by which a piece is seen to begin, or to end, where its base does ...
EDGE: Final = 64
#: ... and where those at the beginning stand: what goes before the content in the body of a CHUNK,
#: its id and its digest, is another one in each version of it.
EDGE_FROM: Final = 128


@attrs.define
class Piece:
    """A part of a batch.

    :ivar name: BLAKE3-256 of its bytes
    :ivar place: where it is in the cache: of one that is referred to, or None
    :ivar alone: it became known in this batch: the far end has it, but not yet at a place
    :ivar base: the block that is most like it, for one that is sent
    :ivar more: other similar blocks
    """

    data: bytes | memoryview
    name: bytes
    act: Act
    place: Place | None = None
    alone: bool = False
    base: Place | None = None
    more: Sequence[Place] = ()


def find_bases(cache: IBlockCache, pieces: Sequence[Piece]) -> None:
    """What stood between two known blocks is a base for what stands there now."""
    last: Place | None = None
    run: list[Piece] = []
    for piece in pieces:
        if piece.act == Act.NEW:
            run.append(piece)
        elif piece.place is not None and not piece.alone:
            place = piece.place
            if run and last is not None and last.segment == place.segment:
                gap = place.ordinal - last.ordinal - 1
                for index, changed in enumerate(run[:gap] if 0 < gap <= SKIP_MAX else ()):
                    if changed.base is None:
                        changed.base = cache.beside(last, index + 1)
            last, run = place, []


@attrs.frozen
class Delta:
    """The delta section of a batch before compression.

    :ivar prefix: the bytes of its bases; empty where there is no delta section
    :ivar changed: its content, in parts
    :ivar size: bytes of it
    :ivar bases: what the prefix is made of
    :ivar names: of the first block of each base
    """

    prefix: bytes
    changed: list[bytes | memoryview]
    size: int
    bases: list[Base]
    names: list[bytes]


def take_delta(
    shelf: Shelf, pieces: Sequence[Piece], fresh: Container[tuple[int, int]], careful: bool
) -> Delta:
    """Make CHANGED of the pieces whose bases can be read.

    What stands beside a base is worth its bytes where a piece begins or ends elsewhere than the
    base does: then the rest of it is there.

    :param fresh: segments and ordinals of what this batch brings: the far end cannot have it yet
    :param careful: look at the name of each block that is a base
    """
    liked = (place for piece in pieces for place in (piece.base, *piece.more))
    wanted = {place for place in liked if place is not None and place[:2] not in fresh}
    if not wanted:
        return Delta(b"", [], 0, [], [])
    alike: dict[Place, list[Piece]] = {}
    for piece in pieces:
        if piece.base is not None:
            alike.setdefault(piece.base, []).append(piece)
    found: set[tuple[int, int]] = set()
    parts, bases, names = [], [], []
    size = 0
    for place, base in plan(wanted):
        run = shelf.run(place, base.blocks, careful)
        if run is None:
            continue
        first, last = run.contents[0], run.contents[-1]
        before = not all(_begins_alike(p.data, first) for p in alike.get(run.first, ()))
        after = not all(_ends_alike(p.data, last) for p in alike.get(run.last, ()))
        after = after and (place.segment, place.ordinal + base.blocks) not in fresh
        around = shelf.around(run, before, after, careful)
        length = sum(map(len, around))
        if size + length > PREFIX_MAX:
            continue
        size += length
        names.append(run.name)
        parts += around
        bases.append(Base(base.blocks, before, after))
        found.update((place.segment, place.ordinal + step) for step in range(base.blocks))
    changed: list[bytes | memoryview] = []
    for piece in pieces:
        if piece.base is not None and piece.base[:2] in found:
            piece.act = Act.CHANGED
            changed.append(piece.data)
    if not changed:
        return Delta(b"", [], 0, [], [])
    return Delta(b"".join(parts), changed, sum(map(len, changed)), bases, names)


def _begins_alike(data: bytes | memoryview, base: bytes) -> bool:
    edge = slice(EDGE_FROM, EDGE_FROM + EDGE)
    return data[edge] == base[edge]


def _ends_alike(data: bytes | memoryview, base: bytes) -> bool:
    return data[-EDGE:] == base[-EDGE:]


def instructions_for(pieces: Sequence[Piece]) -> tuple[list[Instruction], list[bytes]]:
    """The instructions for ``pieces``, and the names that they use."""
    made: list[Instruction] = []
    names: list[bytes] = []
    last: Piece | None = None
    running = False  # the last instruction is a run that the next block may belong to
    for piece in pieces:
        if piece.act != Act.NAMED:
            made.append(Instruction(piece.act, len(piece.data)))
            running = False
            continue
        gap = _gap(last, piece)
        if last is not None and last.name == piece.name:
            if made[-1].act == Act.AGAIN:
                made[-1] = Instruction(Act.AGAIN, made[-1].number + 1)
            else:
                made.append(Instruction(Act.AGAIN, 1))
            running = False
        elif gap == 0 and running:
            made[-1] = made[-1]._replace(number=made[-1].number + 1)
        elif 0 <= gap <= SKIP_MAX:
            made.append(Instruction(Act.ON, 1, gap))
            running = True
        else:
            made.append(Instruction(Act.NAMED, 1))
            names.append(piece.name)
            running = True
        last = piece
    return made, names


def _gap(last: Piece | None, piece: Piece) -> int:
    """Blocks between two in the order of the cache; -1 where they are not in that order."""
    if last is None or last.place is None or piece.place is None or last.alone or piece.alone:
        return -1
    if last.place.segment != piece.place.segment:
        return -1
    return piece.place.ordinal - last.place.ordinal - 1
