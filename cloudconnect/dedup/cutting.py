"""Layer 1: where a stream is cut into blocks; only how much is saved depends on it.

A stream of content is cut by content. A stream of the movers' frames (``docs/protocol.rst``,
section 7) carries a tag under a new key behind every chunk, so that a block cut by content would
seldom be seen twice: there the body of a CHUNK is one block, and headers and tags lie between
blocks. Nothing that is read here is believed: bytes that are no frames are cut as content from
there on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from zope.interface import Interface, implementer

from cloudconnect.content.chunking import StreamChunker
from cloudconnect.dedup.limits import BLOCK_MAX, BLOCK_MIN, BLOCKS
from cloudconnect.settings import FRAME_BODY_MAX
from cloudconnect.wire.frames import HEADER_SIZE, TAG_SIZE, FrameKind

#: Other bodies than chunks are cut by content from this size on, in bytes: lists of ids and
#: listings are much the same each time.
BODY_CUT_MIN: Final = 8 << 10

#: Parts of a body that are kept as they came; each costs as much memory as some hundred bytes.
PARTS_MAX: Final = 16

_HEADER: Final = struct.Struct(">BBHII")
_KINDS: Final = frozenset(FrameKind)


class Cut(NamedTuple):
    """A part of the stream.

    :ivar data: its bytes, never none
    :ivar block: whether it is a block, which a cache may hold; else it lies between blocks
    """

    data: bytes | memoryview
    block: bool


class ICutter(Interface):
    """Cuts one stream; what it returns, joined, is what it was fed."""

    def feed(data: bytes) -> Iterator[Cut]:
        """The next bytes of the stream; the iterator is exhausted before the next call.

        :param data: not changed by anybody afterwards
        """

    def flush() -> Iterator[Cut]:
        """What waits and would be of use to the far end."""

    def finish() -> Iterator[Cut]:
        """All that waits."""


def _cut(data: bytes | memoryview) -> Cut:
    return Cut(data, BLOCK_MIN <= len(data) <= BLOCK_MAX)


@implementer(ICutter)
class ContentCutter:
    """Cuts by content. :meth:`flush` ends a block early, so it is for when nothing more comes."""

    def __init__(self) -> None:
        self._chunker = StreamChunker(BLOCKS)

    def feed(self, data: bytes | memoryview) -> Iterator[Cut]:
        """See :meth:`ICutter.feed`."""
        return (_cut(chunk) for chunk in self._chunker.feed(data))

    def flush(self) -> Iterator[Cut]:
        """See :meth:`ICutter.flush`."""
        return (_cut(chunk) for chunk in self._chunker.finish() if len(chunk))

    finish = flush


@implementer(ICutter)
class FrameCutter:
    """Cuts a stream of frames. :meth:`flush` keeps a frame that is not whole: it is no use yet."""

    def __init__(self) -> None:
        self._content = ContentCutter()
        self._between = bytearray()  # tags, headers and small bodies since the last block
        self._head = 0  # bytes of a header at the end of them
        self._body = 0  # bytes of the body that are still to come
        self._whole: list[bytes | memoryview] | None = None  # a body that becomes one block
        self._rest = bytearray()  # more of it, where it comes in many parts
        self._cutting = False  # whether the body is cut by content
        self._tag = 0  # bytes of the tag that are still to come
        self._frames = True

    def feed(self, data: bytes | memoryview) -> Iterator[Cut]:
        """See :meth:`ICutter.feed`."""
        view = memoryview(data)
        while len(view):
            if not self._frames:
                yield from self._content.feed(view)
                return
            if self._body:
                part, view = view[: self._body], view[self._body :]
                yield from self._take_body(part)
            elif self._tag:
                part, view = view[: self._tag], view[self._tag :]
                self._between += part
                self._tag -= len(part)
            else:
                part, view = view[: HEADER_SIZE - self._head], view[HEADER_SIZE - self._head :]
                self._between += part
                self._head += len(part)
                if self._head == HEADER_SIZE:
                    yield from self._begin()

    def _begin(self) -> Iterator[Cut]:
        """A whole header has come."""
        kind, _, _, _, length = _HEADER.unpack_from(self._between, len(self._between) - HEADER_SIZE)
        self._head = 0
        if kind not in _KINDS or length > FRAME_BODY_MAX:
            self._frames = False
            yield from self._end_between()
            return
        self._body, self._tag = length, TAG_SIZE
        whole = kind == FrameKind.CHUNK and BLOCK_MIN <= length <= BLOCK_MAX
        self._cutting = not whole and length >= BODY_CUT_MIN
        self._whole = [] if whole else None
        if whole or self._cutting or len(self._between) >= BODY_CUT_MIN:
            yield from self._end_between()

    def _take_body(self, part: memoryview) -> Iterator[Cut]:
        self._body -= len(part)
        if self._whole is not None:
            if len(self._whole) < PARTS_MAX:
                self._whole.append(part)
            else:
                self._rest += part
            if not self._body:
                yield from self._end_whole()
        elif self._cutting:
            yield from self._content.feed(part)
            if not self._body:
                yield from self._content.finish()
        else:
            self._between += part

    def _end_whole(self) -> Iterator[Cut]:
        parts, self._whole = self._whole, None
        if parts and self._rest:
            parts.append(bytes(self._rest))
            self._rest.clear()
        if parts:
            yield _cut(parts[0] if len(parts) == 1 else b"".join(parts))

    def _end_between(self) -> Iterator[Cut]:
        if self._between:
            octets = bytes(self._between)
            self._between.clear()
            yield Cut(octets, False)

    def flush(self) -> Iterator[Cut]:
        """See :meth:`ICutter.flush`."""
        if not self._frames:
            yield from self._content.flush()
        elif not (self._body or self._tag or self._head):
            yield from self._end_between()

    def finish(self) -> Iterator[Cut]:
        """See :meth:`ICutter.finish`."""
        # Only one of these has anything but what lies between: the body that is being taken.
        yield from self._end_between()
        yield from self._end_whole()
        yield from self._content.finish()
