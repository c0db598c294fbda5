"""Layer 1: the backup frames that the two data movers exchange (``docs/protocol.rst``, section 7).

A frame is a header of 12 bytes (kind u8, flags u8, stream u16, request u32, body length u32), its
body, and a tag of 16 bytes under a key that only the two movers hold. :class:`FrameReader` returns
a frame only once its tag has been verified. What can be seen to be wrong before that, an impossible
header included, is a :class:`FrameMismatch`: no mover writes it, so it was changed on the way. What
is wrong in a frame with a good tag is the peer's own :class:`ProtocolViolation`.
"""

from __future__ import annotations

import enum
import hmac
import struct
from typing import Any, Final

import attrs
from blake3 import blake3

from cloudconnect.errors import CloudConnectError, FrameMismatch, Truncated
from cloudconnect.keys import Subkey
from cloudconnect.settings import CHUNK_MAX, FRAME_BODY_MAX, IDS_MAX, VERIFY_IDS_MAX
from cloudconnect.shown import Shown
from cloudconnect.wire import canonical
from cloudconnect.wire.bodies import (
    CHUNK_PREFIX_SIZE,
    COMPRESSION_MASK,
    ID_SIZE,
    SEALED,
    Coding,
    StoredBlob,
    join_ids,
    pack_bitmap,
    pack_chunk,
    pack_chunk_prefix,
    split_ids,
    unpack_bitmap,
    unpack_chunk,
)

__all__ = [
    "CHUNK_PREFIX_SIZE",
    "COMPRESSION_MASK",
    "FLAG_MANIFEST",
    "FLAG_PART",
    "HEADER_SIZE",
    "ID_SIZE",
    "SEALED",
    "SMALL_BODY_MAX",
    "TAG_SIZE",
    "Coding",
    "Frame",
    "FrameKind",
    "FrameReader",
    "FrameWriter",
    "StoredBlob",
    "decode_body",
    "encode_body",
    "join_ids",
    "pack_bitmap",
    "pack_chunk",
    "split_ids",
    "unpack_bitmap",
    "unpack_chunk",
]

_HEADER: Final = struct.Struct(">BBHII")
_COUNTER: Final = struct.Struct(">Q")

#: Bytes of a frame before its body.
HEADER_SIZE: Final = _HEADER.size
#: Bytes of a frame after its body.
TAG_SIZE: Final = 16
#: On POINT: the body is a part of the reference list, and more of this point follows.
FLAG_PART: Final = 0x01
#: On CHUNK: it is a chunk of a manifest; such chunks are stored apart, as they are read together.
FLAG_MANIFEST: Final = 0x01
#: Largest body of the small kinds that carry CBOR, in bytes.
SMALL_BODY_MAX: Final = 16 << 10


class FrameKind(enum.IntEnum):
    """What a frame is for."""

    HELLO = 1
    WELCOME = 2
    HAVE = 3
    WANT = 4
    CHUNK = 5
    STORED = 6
    POINT = 7
    POINTED = 8
    GET = 9
    OPEN = 10
    OPENED = 11
    TOTALS = 12
    FAIL = 13
    HEADS = 14
    HEADED = 15
    VERIFY = 16
    VERIFIED = 17


# Smallest and largest body of each kind, and what its length must be a multiple of.
_IDS: Final = (ID_SIZE, IDS_MAX * ID_SIZE, ID_SIZE)
_SMALL: Final = (1, SMALL_BODY_MAX, 1)
_LARGE: Final = (1, FRAME_BODY_MAX, 1)
_PART: Final = (ID_SIZE, FRAME_BODY_MAX, ID_SIZE)
_BOUNDS: Final = {
    FrameKind.HELLO: _SMALL,
    FrameKind.WELCOME: _SMALL,
    FrameKind.HAVE: _IDS,
    FrameKind.WANT: (1, (IDS_MAX + 7) // 8, 1),
    FrameKind.CHUNK: (CHUNK_PREFIX_SIZE + 1, CHUNK_PREFIX_SIZE + CHUNK_MAX, 1),
    FrameKind.STORED: _IDS,
    FrameKind.POINT: _LARGE,
    FrameKind.POINTED: _SMALL,
    FrameKind.GET: _IDS,
    FrameKind.OPEN: _SMALL,
    FrameKind.OPENED: _LARGE,
    FrameKind.TOTALS: _SMALL,
    FrameKind.FAIL: _SMALL,
    FrameKind.HEADS: _SMALL,
    FrameKind.HEADED: _LARGE,
    FrameKind.VERIFY: (ID_SIZE, VERIFY_IDS_MAX * ID_SIZE, ID_SIZE),
    FrameKind.VERIFIED: _SMALL,
}
_FLAGS: Final = {FrameKind.POINT: FLAG_PART, FrameKind.CHUNK: FLAG_MANIFEST}


@attrs.frozen(repr=False)
class Frame(Shown):
    """A frame whose tag was verified.

    :ivar body: its bytes; a view is valid for as long as it is kept
    """

    kind: FrameKind
    flags: int
    stream: int
    request: int
    body: bytes | memoryview = attrs.field(repr=lambda body: f"<{len(body)} bytes>")

    @property
    def size(self) -> int:
        """Its bytes on the wire, header and tag included."""
        return HEADER_SIZE + len(self.body) + TAG_SIZE


def encode_body(**fields: Any) -> bytes:
    """The body of a frame that carries a map: canonical CBOR."""
    return canonical.encode(fields)


def decode_body(
    frame: Frame,
    max_depth: int = canonical.DEPTH_MAX,
    max_items: int = canonical.ITEMS_MAX,
) -> dict[str, Any]:
    """The map in ``frame``'s body.

    :param max_depth: most levels of nesting
    :param max_items: most values in all
    :raises ProtocolViolation: not canonical CBOR within these bounds, or not a map with text keys
    """
    return canonical.decode_map(frame.body, max_depth, max_items)


def _allowed(kind: FrameKind, flags: int, length: int, body_max: int) -> bool:
    if flags & ~_FLAGS.get(kind, 0):
        return False
    part = kind is FrameKind.POINT and flags & FLAG_PART
    low, high, multiple = _PART if part else _BOUNDS[kind]
    return low <= length <= min(high, body_max) and length % multiple == 0


class FrameWriter:
    """Makes the frames of one direction of one stream.

    :param key: that direction's frame key (:func:`cloudconnect.keys.frame_key`)
    :param stream: stream number, 0 to 65535
    :ivar frames: how many were made
    :ivar bytes: their size in bytes, headers and tags included
    """

    def __init__(self, key: Subkey, stream: int) -> None:
        self._key = key
        self._stream = stream
        self.frames = 0
        self.bytes = 0

    def encode(
        self, kind: FrameKind, request: int, body: bytes | memoryview = b"", flags: int = 0
    ) -> list[bytes | memoryview]:
        """A frame, as parts to be written in order.

        :param request: number of the request that this belongs to, 0 to 2**32 - 1
        :param flags: 0, or what ``kind`` allows
        :raises ValueError: the protocol does not allow this length or these flags for ``kind``
        :raises ProtocolViolation: ``kind`` is CHUNK and ``body`` is not the body of one
        """
        if kind is FrameKind.CHUNK:
            return self.encode_chunk(request, unpack_chunk(body), flags)
        return self._encode(kind, request, flags, body, b"")

    def encode_chunk(
        self, request: int, blob: StoredBlob, flags: int = 0
    ) -> list[bytes | memoryview]:
        """A CHUNK, as parts to be written in order; ``blob.data`` is one of them, not copied.

        :param request: number of the request that this belongs to, 0 to 2**32 - 1
        :param flags: :data:`FLAG_MANIFEST` or 0
        :raises ValueError: a field of ``blob`` has the wrong size
        """
        prefix = pack_chunk_prefix(blob)
        return self._encode(FrameKind.CHUNK, request, flags, prefix, blob.data)

    def _encode(
        self,
        kind: FrameKind,
        request: int,
        flags: int,
        covered: bytes | memoryview,
        data: bytes | memoryview,
    ) -> list[bytes | memoryview]:
        length = len(covered) + len(data)
        if not _allowed(kind, flags, length, FRAME_BODY_MAX):
            raise ValueError(f"a {kind.name} cannot have {length} bytes and flags {flags}")
        header = _HEADER.pack(kind, flags, self._stream, request, length)
        tag = _tag(self._key, self.frames, header, covered)
        self.frames += 1
        self.bytes += HEADER_SIZE + length + TAG_SIZE
        return [part for part in (header, covered, data, tag) if len(part)]


class FrameReader:
    """Parses and verifies the frames of one direction of one stream.

    :param key: that direction's frame key
    :param stream: stream number, 0 to 65535
    :param body_max: largest body to accept, in bytes
    :ivar frames: how many were verified
    :ivar bytes: their size in bytes, headers and tags included
    :ivar error: why it has failed, or None; nothing is parsed after that
    """

    def __init__(self, key: Subkey, stream: int, body_max: int = FRAME_BODY_MAX) -> None:
        self._key = key
        self._stream = stream
        self._body_max = body_max
        self._head = bytearray()
        self._kind = FrameKind.FAIL
        self._rest: bytearray | None = None  # body and tag of a frame that came in pieces
        self._filled = 0
        self.frames = 0
        self.bytes = 0
        self.error: CloudConnectError | None = None

    def receive(self, data: bytes) -> list[Frame]:
        """Take the next bytes of the stream and return the frames that they complete.

        Frames before a bad one are still returned; the error is then in :attr:`error`, and raised
        by the next call.

        :param data: any number of bytes, cut anywhere
        :raises FrameMismatch: a tag or digest is wrong, or a header is impossible
        """
        if self.error is not None:
            raise self.error
        frames: list[Frame] = []
        view = memoryview(data).toreadonly()
        try:
            while len(view):
                view = self._take(view, frames)
        except CloudConnectError as error:
            self.error = error
            self._rest = None
            if not frames:
                raise
        return frames

    def eof(self) -> None:
        """The stream has ended.

        :raises Truncated: inside a frame
        :raises FrameMismatch: it had failed before
        """
        if self.error is not None:
            raise self.error
        if self._head:
            self.error = Truncated("the stream ended inside a frame")
            raise self.error

    def _take(self, view: memoryview, frames: list[Frame]) -> memoryview:
        """Use some bytes of ``view`` and return the rest."""
        missing = HEADER_SIZE - len(self._head)
        if missing > 0:
            self._head += view[:missing]
            view = view[missing:]
            if len(self._head) < HEADER_SIZE:
                return view
            self._check_header()
        size = _HEADER.unpack(self._head)[4] + TAG_SIZE
        if self._rest is None and len(view) >= size:
            frames.append(self._verified(view[:size]))
            return view[size:]
        if self._rest is None:
            self._rest = bytearray(size)
            self._filled = 0
        count = min(size - self._filled, len(view))
        self._rest[self._filled : self._filled + count] = view[:count]
        self._filled += count
        if self._filled == size:
            frames.append(self._verified(memoryview(self._rest).toreadonly()))
        return view[count:]

    def _check_header(self) -> None:
        kind, flags, stream, _, length = _HEADER.unpack(self._head)
        try:
            self._kind = FrameKind(kind)
        except ValueError:
            raise FrameMismatch(f"a frame has the unknown kind {kind}") from None
        if stream != self._stream:
            raise FrameMismatch(f"a frame of stream {stream} came on stream {self._stream}")
        if not _allowed(self._kind, flags, length, self._body_max):
            raise FrameMismatch(f"a {self._kind.name} of {length} bytes with flags {flags} came")

    def _verified(self, rest: memoryview) -> Frame:
        """The frame whose body and tag are ``rest``, verified."""
        header, body = bytes(self._head), rest[:-TAG_SIZE]
        covered = body[:CHUNK_PREFIX_SIZE] if self._kind is FrameKind.CHUNK else body
        if not hmac.compare_digest(_tag(self._key, self.frames, header, covered), rest[-TAG_SIZE:]):
            raise FrameMismatch(f"frame {self.frames}, a {self._kind.name}, has a wrong tag")
        if self._kind is FrameKind.CHUNK:
            digest = blake3(body[CHUNK_PREFIX_SIZE:]).digest()
            if not hmac.compare_digest(
                digest, body[CHUNK_PREFIX_SIZE - ID_SIZE : CHUNK_PREFIX_SIZE]
            ):
                raise FrameMismatch(f"frame {self.frames}, a CHUNK, carries changed bytes")
        _, flags, stream, request, length = _HEADER.unpack(header)
        self.frames += 1
        self.bytes += HEADER_SIZE + length + TAG_SIZE
        self._head.clear()
        self._rest = None
        return Frame(self._kind, flags, stream, request, body)


def _tag(key: Subkey, counter: int, header: bytes, covered: bytes | memoryview) -> bytes:
    hasher = blake3(_COUNTER.pack(counter) + header, key=key.reveal())
    hasher.update(covered)
    return hasher.digest(TAG_SIZE)
