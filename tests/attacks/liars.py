"""Accelerators that change what they pass on, after all their checks, as a compromised one would.

An accelerator holds Key B of its hops and sees the movers' frames; it does not hold the integrity
key. :func:`lying` makes one of a target or a source accelerator: between its codec and its mover
stands whatever :class:`Lie` its ``lie`` is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeVar

import attrs

from cloudconnect.accelerator.source import SourceAccelerator
from cloudconnect.accelerator.target import TargetAccelerator
from cloudconnect.wire.frames import HEADER_SIZE, TAG_SIZE, FrameKind
from tests.attacks.fields import Way

_A = TypeVar("_A", TargetAccelerator, SourceAccelerator)

#: Where the length stands in a frame's header.
_LENGTH = struct.Struct(">8xI")


@attrs.define(eq=False)
class Lie:
    """What becomes of one direction of the movers' stream in one session.

    :ivar way: which direction
    :ivar seen: every frame that came, whole
    :ivar told: whether it has done something
    """

    way: Way
    seen: list[bytes] = attrs.field(factory=list, init=False)
    told: bool = attrs.field(default=False, init=False)
    cut: Callable[[], object] = attrs.field(default=lambda: None, init=False)
    _waiting: bytearray = attrs.field(factory=bytearray, init=False)

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the stream; give what is passed on."""
        waiting = self._waiting
        waiting += data
        out = b""
        while len(waiting) >= HEADER_SIZE:
            size = HEADER_SIZE + _LENGTH.unpack_from(waiting)[0] + TAG_SIZE
            if len(waiting) < size:
                break
            frame = bytes(waiting[:size])
            del waiting[:size]
            passed = self.change(frame)
            self.told = self.told or passed != frame
            self.seen.append(frame)
            out += passed
        return out

    def change(self, frame: bytes) -> bytes:
        """What is passed on in the place of a frame."""
        return frame

    def is_first(self, frame: bytes, kind: FrameKind) -> bool:
        """Whether this is the first frame of its kind."""
        return frame[0] == kind and not any(one[0] == kind for one in self.seen)


@attrs.define(eq=False)
class Instead(Lie):
    """Passes on something else in the place of the first frame of a kind.

    :ivar make: makes it of the frame and this
    """

    kind: FrameKind
    make: Callable[[bytes, Lie], bytes]

    def change(self, frame: bytes) -> bytes:
        return self.make(frame, self) if self.is_first(frame, self.kind) else frame


@attrs.define(eq=False)
class Swap(Lie):
    """Passes on the first two frames of a kind the other way round."""

    kind: FrameKind
    _held: bytes = attrs.field(default=b"", init=False)

    def change(self, frame: bytes) -> bytes:
        if self.is_first(frame, self.kind):
            self._held = frame
            return b""
        held, self._held = self._held, b""
        return frame + held


@attrs.define(eq=False)
class Ending(Lie):
    """Ends the session at the first frame of a kind, as if its process had died."""

    kind: FrameKind

    def change(self, frame: bytes) -> bytes:
        if self.is_first(frame, self.kind):
            self.told = True
            self.cut()
        return frame


def flipped(frame: bytes, at: int, mask: int = 0x01) -> bytes:
    """A frame in which a bit of one byte is another one; a negative index counts from its end."""
    changed = bytearray(frame)
    changed[at] ^= mask
    return bytes(changed)


def lying(kind: type[_A]) -> type[_A]:
    """A class of accelerators that lie as their ``lie`` says, or not while it is None."""
    is_target = issubclass(kind, TargetAccelerator)
    to_mover, from_mover = (Way.UP, Way.DOWN) if is_target else (Way.DOWN, Way.UP)

    class Lying(kind):  # type: ignore[valid-type,misc]
        lie: Lie | None = None

        async def prepare(self, session: Any) -> None:
            await super().prepare(session)
            self.bend(self._passages[session.package.session])

        async def _hand(self, link: Any, **values: Any) -> dict[str, Any]:
            answer: dict[str, Any] = await super()._hand(link, **values)
            self.bend(self._by_session[values["session"]].passage)
            return answer

        def bend(self, passage: Any) -> None:
            """Put the lie between codec and mover."""
            lie, near = self.lie, passage._acceleration.near
            if lie is None:
                return
            lie.cut = near.transport_lost = lambda: near.transport.abortConnection()
            if lie.way is to_mover:
                near._write = lambda parts: _pass(near.transport.write, lie.feed(b"".join(parts)))
            if lie.way is from_mover:
                received = near.dataReceived
                near.dataReceived = lambda data: _pass(received, lie.feed(data))

    return Lying


def _pass(write: Callable[[bytes], object], octets: bytes) -> None:
    if octets:
        write(octets)
