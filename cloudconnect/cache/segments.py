"""Layer 3: segments: files to which the blocks of one stream are appended, and their entries.

::

    header     magic "CCWSEG01" (8), number (u64), number of the segment before (u64), salt (32)
    entries    each: entry header, sealed (56 + 16), block, sealed (length + 16)
               entry header: name (32), length (u32), length of the block before (u32),
                             features (4 times u32, 0 for none)

AES-256-GCM under the segment's key. Nonces count: 2n for the header of entry n, 2n + 1 for its
block. Nothing is ever written twice under a nonce: a segment has one writer, which only appends,
and one that was left open is closed for good. The associated data of an entry header are the
segment's header, those of a block the tenant and the block's name.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloudconnect.cache.keys import SALT_SIZE, CacheKeys
from cloudconnect.dedup.interfaces import Place
from cloudconnect.dedup.limits import BLOCK_MAX, BLOCK_MIN
from cloudconnect.dedup.sketch import KEPT

_HEADER: Final = struct.Struct(">8sQQ32s")
_ENTRY: Final = struct.Struct(f">32sII{KEPT}I")
_MAGIC: Final = b"CCWSEG01"
_TAG: Final = 16

#: Bytes of a segment before its first entry.
HEADER_SIZE: Final = _HEADER.size
#: Bytes of a sealed entry header.
ENTRY_SIZE: Final = _ENTRY.size + _TAG
#: Bytes that an entry takes beside its block.
OVERHEAD: Final = ENTRY_SIZE + _TAG


class Entry(NamedTuple):
    """An entry header.

    :ivar name: of the block, 32 bytes
    :ivar length: of the block, in bytes
    :ivar before: length of the block before it in the segment, 0 for the first one
    :ivar features: those of the block
    """

    name: bytes
    length: int
    before: int
    features: tuple[int, ...]


def _nonce(ordinal: int, block: bool) -> bytes:
    return (2 * ordinal + block).to_bytes(12, "big")


class SegmentFile:
    """An open segment, for reading; safe to use from several threads.

    It stays readable after the file was unlinked, for as long as somebody has it.

    :param path: the file
    :param keys: of the cache
    :raises OSError: it cannot be opened
    :raises ValueError: it is not a segment of this number
    """

    def __init__(self, path: Path, number: int, keys: CacheKeys) -> None:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = io.FileIO(os.open(path, flags), "rb")
        self.header = os.pread(self._file.fileno(), HEADER_SIZE, 0)
        if len(self.header) != HEADER_SIZE:
            raise ValueError("a segment is shorter than its header")
        magic, found, self.before, salt = _HEADER.unpack(self.header)
        if magic != _MAGIC or found != number:
            raise ValueError("a segment has another header than it should")
        self._keys = keys
        self._cipher = keys.cipher(salt)
        self.number = number
        # The last header that was opened: who asks for a place reads what is there next.
        self._seen: tuple[int, int, Entry] | None = None

    def entry(self, ordinal: int, offset: int) -> Entry | None:
        """The header of entry ``ordinal`` at ``offset``; None where there is none, or damaged."""
        entry = self._entry(ordinal, os.pread(self._file.fileno(), ENTRY_SIZE, offset))
        if entry is not None:
            self._seen = (ordinal, offset, entry)
        return entry

    def _entry(self, ordinal: int, sealed: bytes) -> Entry | None:
        if len(sealed) != ENTRY_SIZE:
            return None
        try:
            opened = self._cipher.decrypt(_nonce(ordinal, False), sealed, self.header)
        except InvalidTag:
            return None
        name, length, before, *features = _ENTRY.unpack(opened)
        return Entry(name, length, before, tuple(one for one in features if one))

    def read(self, place: Place) -> tuple[bytes, bytes | None] | None:
        """Name and content of the block at ``place``.

        :return: None where there is no such entry; no content where it is damaged
        """
        seen = self._seen
        if seen is not None and seen[:2] == (place.ordinal, place.offset):
            entry: Entry | None = seen[2]
            head = 0
        else:
            entry = None
            head = ENTRY_SIZE
        size = place.length + _TAG
        read = os.pread(self._file.fileno(), head + size, place.offset + ENTRY_SIZE - head)
        if entry is None:
            entry = self._entry(place.ordinal, read[:head])
        if entry is None or entry.length != place.length:
            return None
        sealed = memoryview(read)[head:]
        if len(sealed) != size:
            return entry.name, None
        associated = self._keys.associated(entry.name)
        try:
            data = self._cipher.decrypt(_nonce(place.ordinal, True), sealed, associated)
        except InvalidTag:
            return entry.name, None
        return entry.name, data

    def entries(self) -> Iterator[tuple[Place, Entry]]:
        """All entries from the front, as far as they can be read."""
        size = os.fstat(self._file.fileno()).st_size
        ordinal, offset = 0, HEADER_SIZE
        while True:
            entry = self.entry(ordinal, offset)
            if entry is None or not BLOCK_MIN <= entry.length <= BLOCK_MAX:
                return
            end = offset + entry.length + OVERHEAD
            if end > size:
                return  # its writer was killed while it wrote
            yield Place(self.number, ordinal, offset, entry.length), entry
            ordinal, offset = ordinal + 1, end


class SegmentWriter:
    """Makes a segment and appends to it; used by one thread at a time.

    :param path: the file, which must not exist
    :param number: of the segment
    :param before: number of the segment that its stream filled before, or 0
    :param keys: of the cache
    :ivar size: bytes that were written
    :ivar last: the last place that was written, or None
    :raises OSError: it cannot be made
    """

    def __init__(self, path: Path, number: int, before: int, keys: CacheKeys) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)
        self._keys = keys
        salt = os.urandom(SALT_SIZE)
        self._cipher: AESGCM = keys.cipher(salt)
        self._header = _HEADER.pack(_MAGIC, number, before, salt)
        # Entries are sealed here, and not each into memory of its own: as large as the largest.
        self._buffer = bytearray()
        self.number = number
        self.size = 0
        self.last: Place | None = None
        self._write(self._header)

    def append(self, name: bytes, data: bytes | memoryview, features: Sequence[int]) -> Place:
        """Append a block.

        :raises OSError: it could not be written whole; nothing more may be appended then
        """
        last = self.last
        ordinal = 0 if last is None else last.ordinal + 1
        known = [*features, *(0,) * KEPT][:KEPT]
        entry = _ENTRY.pack(name, len(data), 0 if last is None else last.length, *known)
        size = len(data) + OVERHEAD
        if size > len(self._buffer):
            self._buffer = bytearray(size)
        view = memoryview(self._buffer)[:size]
        self._cipher.encrypt_into(_nonce(ordinal, False), entry, self._header, view[:ENTRY_SIZE])
        associated = self._keys.associated(name)
        self._cipher.encrypt_into(_nonce(ordinal, True), data, associated, view[ENTRY_SIZE:])
        place = Place(self.number, ordinal, self.size, len(data))
        self._write(view)
        self.last = place
        return place

    def _write(self, octets: bytes | memoryview) -> None:
        written = os.write(self._descriptor, octets)
        self.size += written
        if written != len(octets):
            raise OSError("a segment could not be written whole")

    def close(self) -> None:
        """Nothing more is appended; called once."""
        os.close(self._descriptor)
