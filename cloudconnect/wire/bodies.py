"""Layer 1: the bodies of frames that are not maps (``docs/protocol.rst``, section 7).

Stored blobs, lists of ids and bitmaps. :mod:`cloudconnect.wire.frames` re-exports all of it.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from cloudconnect.errors import ProtocolViolation
from cloudconnect.settings import CHUNK_MAX
from cloudconnect.shown import Shown

_CHUNK_PREFIX: Final = struct.Struct(">32sIB32s")

#: Bytes of a chunk id, and of a digest.
ID_SIZE: Final = 32
#: Bytes of a CHUNK's body before the stored bytes: id, plain length, coding, digest.
CHUNK_PREFIX_SIZE: Final = _CHUNK_PREFIX.size
#: The bits of a coding that say how the plain bytes were compressed.
COMPRESSION_MASK: Final = 0x0F
#: The bit of a coding that says that the bytes are sealed (XAES-256-GCM).
SEALED: Final = 0x10


class Coding(enum.IntEnum):
    """How stored bytes were made of plain bytes: compression in the low 4 bits, sealing above."""

    PLAIN = 0x00
    ZSTD = 0x01
    SEALED = 0x10
    SEALED_ZSTD = 0x11


@attrs.frozen(repr=False)
class StoredBlob(Shown):
    """A chunk of file content or of a manifest, as it is sent and stored.

    :ivar id: its name, 32 bytes, keyed by the tenant
    :ivar plain_length: bytes before compression and sealing
    :ivar coding: one of :class:`Coding`
    :ivar digest: BLAKE3-256 of ``data``
    :ivar data: the stored bytes
    """

    id: bytes
    plain_length: int
    coding: int
    digest: bytes
    data: bytes | memoryview = attrs.field(repr=lambda data: f"<{len(data)} bytes>")


def pack_chunk_prefix(blob: StoredBlob) -> bytes:
    """The bytes of a CHUNK's body before the stored bytes.

    :param blob: whose data is not looked at
    :raises ValueError: a field has the wrong size
    """
    if len(blob.id) != ID_SIZE or len(blob.digest) != ID_SIZE:
        raise ValueError("an id and a digest have 32 bytes")
    if not (1 <= blob.plain_length <= CHUNK_MAX and 1 <= len(blob.data) <= CHUNK_MAX):
        raise ValueError(f"a chunk has 1 to {CHUNK_MAX} bytes")
    return _CHUNK_PREFIX.pack(blob.id, blob.plain_length, Coding(blob.coding), blob.digest)


def pack_chunk(blob: StoredBlob) -> bytes:
    """The whole body of a CHUNK.

    :param blob: with its data
    :raises ValueError: a field has the wrong size
    """
    return b"".join((pack_chunk_prefix(blob), blob.data))


def unpack_chunk(body: bytes | memoryview) -> StoredBlob:
    """The chunk in a CHUNK's body; its data is a view of ``body``.

    That the data has the digest was verified by the :class:`FrameReader`.

    :raises ProtocolViolation: impossible sizes, or an unknown coding
    """
    view = memoryview(body)
    if not CHUNK_PREFIX_SIZE < len(view) <= CHUNK_PREFIX_SIZE + CHUNK_MAX:
        raise ProtocolViolation(f"a CHUNK has an impossible size of {len(view)} bytes")
    name, plain_length, coding, digest = _CHUNK_PREFIX.unpack_from(view)
    if not 1 <= plain_length <= CHUNK_MAX:
        raise ProtocolViolation(f"a CHUNK announces {plain_length} plain bytes")
    try:
        coding = Coding(coding)
    except ValueError as error:
        raise ProtocolViolation(f"a CHUNK has the unknown coding {coding}") from error
    return StoredBlob(name, plain_length, coding, digest, view[CHUNK_PREFIX_SIZE:])


def split_ids(body: bytes | memoryview) -> list[bytes]:
    """The ids of a HAVE, GET or STORED, or of a part of a POINT.

    :param body: n * 32 bytes
    :raises ProtocolViolation: the length is not a multiple of 32
    """
    octets = bytes(body)
    if len(octets) % ID_SIZE:
        raise ProtocolViolation("a list of ids ends inside an id")
    return [octets[at : at + ID_SIZE] for at in range(0, len(octets), ID_SIZE)]


def pack_bitmap(bits: Sequence[bool]) -> bytes:
    """A WANT: bit i is ``(byte i // 8 >> i % 8) & 1``.

    :param bits: one for each id of the HAVE, in order
    """
    number = int("".join("1" if bit else "0" for bit in reversed(bits)) or "0", 2)
    return number.to_bytes((len(bits) + 7) // 8, "little")


def unpack_bitmap(body: bytes | memoryview, count: int) -> list[bool]:
    """The ``count`` bits of a WANT.

    :param body: (``count`` + 7) // 8 bytes
    :raises ProtocolViolation: wrong length, or a bit behind the last one is set
    """
    number = int.from_bytes(body, "little")
    if len(body) != (count + 7) // 8 or number >> count:
        raise ProtocolViolation(f"a WANT does not answer the {count} ids that were asked for")
    return [bool(number >> index & 1) for index in range(count)]


def join_ids(ids: Iterable[bytes]) -> bytes:
    """The body of a HAVE, GET or STORED.

    :param ids: each 32 bytes
    :raises ValueError: an id does not have 32 bytes
    """
    listed = list(ids)
    if any(len(name) != ID_SIZE for name in listed):
        raise ValueError("an id has 32 bytes")
    return b"".join(listed)
