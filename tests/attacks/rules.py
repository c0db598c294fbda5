"""What an attacker on the way does, and to which byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from tests.attacks.fields import DATA, Line, Part, Piece, Way

#: Says which byte of a piece is meant, or None.
Where = Callable[[Piece], int | None]


def at_offset(offset: int) -> Where:
    """The byte at this offset on the connection."""

    def where(piece: Piece) -> int | None:
        index = offset - piece.start
        return index if 0 <= index < piece.size else None

    return where


def in_field(part: Part, index: int = 0, number: int = -1, type: int = 0) -> Where:
    """Byte ``index`` of a field; of the record or message ``number``, or the first of ``type``.

    A negative index counts from the end of the field.
    """

    def where(piece: Piece) -> int | None:
        field = piece.field
        if field.part is not part or (type and field.type != type):
            return None
        if number >= 0 and field.number != number:
            return None
        at = (index if index >= 0 else field.size + index) - piece.index
        return at if 0 <= at < piece.size else None

    return where


def at_payload(offset: int) -> Where:
    """The byte of ciphertext that hides byte ``offset`` of the stream's payload."""

    def where(piece: Piece) -> int | None:
        field = piece.field
        if field.part is not Part.BODY or field.type != DATA:
            return None
        index = offset - field.payload - piece.index
        return index if 0 <= index < piece.size else None

    return where


def in_tag_behind(offset: int) -> Where:
    """The first byte of the tag of the record that holds byte ``offset`` of the payload."""
    holds: list[int] = []

    def where(piece: Piece) -> int | None:
        field = piece.field
        is_data = field.part is Part.BODY and field.type == DATA
        if is_data and field.payload <= offset < field.payload + field.size:
            holds.append(field.number)
        return 0 if field.part is Part.TAG and field.number in holds and not piece.index else None

    return where


# --- what to do ----------------------------------------------------------------------------------


@attrs.define(eq=False)
class Rule:
    """Does something, once, to the first connection of its kind that shows its place.

    :ivar hit: the piece that it struck
    :ivar at: the offset on the connection that it struck
    :ivar happened: fires behind that
    """

    line: Line
    way: Way
    where: Where
    hit: Piece | None = attrs.field(default=None, init=False)
    at: int = attrs.field(default=-1, init=False)
    happened: Deferred[None] = attrs.field(factory=Deferred, init=False, repr=False)
    _told: bool = attrs.field(default=False, init=False)

    def finds(self, line: Line, way: Way, piece: Piece) -> int | None:
        """The index in ``piece`` to strike at, or None."""
        if self.hit is not None or line is not self.line or way is not self.way:
            return None
        index = self.where(piece)
        if index is not None:
            self.hit, self.at = piece, piece.start + index
        return index

    def tell(self, reactor: Any) -> None:
        """Have :attr:`happened` fired, once, after what is done now."""
        if not self._told:
            self._told = True
            reactor.callLater(0, self.happened.callback, None)


@attrs.define(eq=False)
class Flip(Rule):
    """Changes bits of one byte."""

    mask: int = 0x01


@attrs.define(eq=False)
class Insert(Rule):
    """Puts bytes of the attacker's in front of the byte.

    :ivar octets: makes them, of what has been seen of the connection
    :ivar behind: behind the byte, and not in front of it
    """

    octets: Callable[[Any], bytes] = lambda relayed: b"\x00"
    behind: bool = False


@attrs.define(eq=False)
class Omit(Rule):
    """Takes away the whole record or tunnel message of the byte; its place is in a first field."""

    def finds(self, line: Line, way: Way, piece: Piece) -> int | None:
        index = super().finds(line, way, piece)
        if index is None and self.hit is not None and (line, way) == (self.line, self.way):
            return 0 if piece.field.number == self.hit.field.number else None
        return index


@attrs.define(eq=False)
class Cut(Rule):
    """Lets everything before the byte pass, then closes both sides.

    :ivar reset: by RST in the place of FIN
    """

    reset: bool = False


@attrs.define(eq=False)
class Stall(Rule):
    """Lets everything before the byte pass; the rest waits for :meth:`Proxy.release`."""


@attrs.define(eq=False)
class Trickle(Rule):
    """Passes this byte and all behind it on one by one, each in a turn of its own.

    :ivar count: so many bytes, then as before
    """

    count: int = 1 << 40
