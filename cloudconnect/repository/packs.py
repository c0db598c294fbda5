"""Layer 3: packs: files that hold many stored blobs each (``docs/repository-format.rst``, packs).

A pack is written front to back and read by position. Everything needed to find its blobs again is
in it twice, so that the index can be made from packs alone, also where one of the two is damaged::

    header     magic "CCPACK01" (8), repository (16), pack (16)
    entries    each: entry header (75), stored bytes
               entry header: 0xe1, id (32), plain length u32, coding u8, kind u8,
                             stored length u32, digest (32)
    directory  the entry headers of all entries again, in order
    trailer    0xd1, number of entries u32, BLAKE3-256 of header and directory (32)

Integers are big-endian. Kind is 0 for a chunk of content and 1 for one of a manifest; id, lengths,
coding and digest are those of the CHUNK frame. The packer opens nothing and needs no key.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import attrs
from blake3 import blake3

from cloudconnect.content.atrest import BlobKind
from cloudconnect.errors import StoredDataDamaged
from cloudconnect.interfaces import IBlobStore, IBlobWriter
from cloudconnect.settings import CHUNK_MAX, IDS_MAX
from cloudconnect.wire.frames import Coding, StoredBlob

_HEADER: Final = struct.Struct(">8s16s16s")
_ENTRY: Final = struct.Struct(">B32sIBBI32s")
_TRAILER: Final = struct.Struct(">BI32s")

_CODINGS: Final = frozenset(Coding)
_MAGIC: Final = b"CCPACK01"
_ID_SIZE: Final = 16
_ENTRY_MARK: Final = 0xE1
_TRAILER_MARK: Final = 0xD1

#: Bytes of a pack before its first entry.
HEADER_SIZE: Final = _HEADER.size
#: Bytes that a blob takes in a pack beside its stored bytes.
ENTRY_SIZE: Final = 2 * _ENTRY.size
#: Bytes that a pack takes beside what its blobs do.
OVERHEAD: Final = _HEADER.size + _TRAILER.size
#: A pack of this many bytes is full: large enough that seeks and fsyncs do not count, small enough
#: that what an interrupted session has to send again does not either.
PACK_SIZE: Final = 32 << 20
#: So is one of this many entries: one STORED frame can name them all.
PACK_ENTRIES_MAX: Final = IDS_MAX
#: The numbers of the kinds.
KINDS: Final[tuple[BlobKind, ...]] = ("chunk", "manifest")


@attrs.frozen
class Entry:
    """Where a blob stands in its pack, and what is known of it without reading it.

    :ivar offset: of the stored bytes, from the beginning of the pack
    """

    id: bytes
    kind: int
    offset: int
    stored_length: int
    plain_length: int
    coding: int
    digest: bytes

    def blob(self, data: bytes | memoryview, pack: str) -> StoredBlob:
        """The blob whose stored bytes are ``data``, once they have their digest.

        :param pack: name of the pack, for the error
        :raises StoredDataDamaged: they do not
        """
        if len(data) != self.stored_length or blake3(data).digest() != self.digest:
            raise StoredDataDamaged(f"the stored bytes of {self.id.hex()} in {pack} were changed")
        return StoredBlob(self.id, self.plain_length, self.coding, self.digest, data)


def pack_name(pack: bytes) -> str:
    """The name under which the pack with these 16 bytes is stored."""
    return f"packs/{pack.hex()}"


class PackBuilder:
    """Fills one pack.

    :param writer: takes the bytes while they come
    :param repository: 16 bytes
    :param pack: 16 random bytes
    :ivar entries: what it holds so far
    """

    def __init__(self, writer: IBlobWriter, repository: bytes, pack: bytes) -> None:
        self._writer = writer
        self._pack = pack
        self._header = _HEADER.pack(_MAGIC, repository, pack)
        self._heads: list[bytes] = []
        self.entries: list[Entry] = []
        writer.write(self._header)

    @property
    def full(self) -> bool:
        """Whether it should be closed now."""
        size = self._writer.size + _ENTRY.size * len(self._heads)
        return size >= PACK_SIZE or len(self._heads) >= PACK_ENTRIES_MAX

    def add(self, blob: StoredBlob, kind: int) -> None:
        """Append ``blob``; its data may change afterwards.

        :param kind: index into :data:`KINDS`
        :raises NoSpace: the disk is full
        :raises OSError: anything else that the system reports
        """
        length = len(blob.data)
        fields = (blob.id, blob.plain_length, blob.coding, kind, length, blob.digest)
        head = _ENTRY.pack(_ENTRY_MARK, *fields)
        offset = self._writer.size + len(head)
        self._writer.write(head, blob.data)
        self._heads.append(head)
        self.entries.append(
            Entry(blob.id, kind, offset, length, blob.plain_length, blob.coding, blob.digest)
        )

    @property
    def name(self) -> str:
        """The name that it will be stored under."""
        return pack_name(self._pack)

    def commit(self) -> tuple[str, int]:
        """Make it durable and return its name and size in bytes.

        :raises NoSpace: the disk is full
        :raises OSError: anything else that the system reports
        """
        directory = b"".join(self._heads)
        digest = blake3(self._header + directory).digest()
        self._writer.write(directory, _TRAILER.pack(_TRAILER_MARK, len(self._heads), digest))
        name = pack_name(self._pack)
        return name, self._writer.commit(name)

    def discard(self) -> None:
        """Forget it; nothing happens after a commit."""
        self._writer.discard()


@attrs.frozen
class PackContents:
    """What is in a pack, as far as it can be told.

    :ivar entries: its blobs in order; that their stored bytes are unchanged was looked at only
        where the directory is damaged
    :ivar problem: what is wrong with the pack apart from its blobs, or empty
    """

    entries: list[Entry]
    problem: str


def read_entries(store: IBlobStore, name: str, repository: bytes) -> list[Entry]:
    """What the pack ``name`` holds, from its directory or else from its entry headers.

    That the stored bytes are unchanged is not looked at here.

    :raises StoredDataDamaged: not a pack of this repository
    :raises NotFound: no such pack
    """
    return read_pack(store, name, repository).entries


def read_pack(store: IBlobStore, name: str, repository: bytes) -> PackContents:
    """As :func:`read_entries`, with what is wrong with the pack.

    A pack whose header is damaged, or that lies where another one should, is read all the same:
    each blob has its digest.

    :param repository: 16 bytes
    :raises StoredDataDamaged: nothing in it can be used, or it is of another repository
    :raises NotFound: no such pack
    """
    size = store.size(name)
    if size < HEADER_SIZE:
        raise StoredDataDamaged(f"{name} is not a pack")
    header = store.read(name, 0, HEADER_SIZE)
    magic, owner, pack = _HEADER.unpack(header)
    right = _HEADER.pack(_MAGIC, repository, _id_of(name) or pack)
    problem = "" if header == right else "its header was changed"
    directory = _read_directory(store, name, size, header)
    if directory is not None:
        if magic != _MAGIC or owner != repository:
            raise StoredDataDamaged(f"{name} is not a pack of this repository")
        if header != right:
            problem = f"it is the pack {pack.hex()}, under a wrong name"
    else:
        # The header alone may be damaged: then the directory agrees with what it should be.
        directory = _read_directory(store, name, size, right)
    if directory is None:
        entries = list(_walk(store, name, size))
        if problem and not entries:
            raise StoredDataDamaged(f"{name} is not a pack of this repository")
        return PackContents(entries, problem or "its directory was changed, or its end")
    entries, offset = [], HEADER_SIZE
    for at in range(0, len(directory), _ENTRY.size):
        entry = _parse(directory[at : at + _ENTRY.size], offset)
        if entry is None:
            raise StoredDataDamaged(f"{name} has an impossible directory")
        entries.append(entry)
        offset = entry.offset + entry.stored_length
    if offset != size - _TRAILER.size - len(directory):
        problem = problem or "there is something between its blobs and its directory"
    return PackContents(entries, problem)


def entry_head(entry: Entry) -> bytes:
    """The header that stands before the stored bytes of ``entry``."""
    fields = (entry.id, entry.plain_length, entry.coding, entry.kind, entry.stored_length)
    return _ENTRY.pack(_ENTRY_MARK, *fields, entry.digest)


def _id_of(name: str) -> bytes | None:
    """The id of the pack that should lie under this name, or None where it names none."""
    digits = name.removeprefix("packs/")
    try:
        pack = bytes.fromhex(digits)
    except ValueError:
        return None
    return pack if name == pack_name(pack) and len(pack) == _ID_SIZE else None


def _read_directory(store: IBlobStore, name: str, size: int, header: bytes) -> bytes | None:
    """The directory of a pack, or None where it is damaged."""
    if size < HEADER_SIZE + _TRAILER.size:
        return None
    mark, count, digest = _TRAILER.unpack(store.read(name, size - _TRAILER.size, _TRAILER.size))
    start = size - _TRAILER.size - count * _ENTRY.size
    if mark != _TRAILER_MARK or count > PACK_ENTRIES_MAX or start < HEADER_SIZE:
        return None
    directory = store.read(name, start, count * _ENTRY.size)
    return directory if blake3(header + directory).digest() == digest else None


def _walk(store: IBlobStore, name: str, size: int) -> Iterator[Entry]:
    """The entries of a pack whose directory is damaged, as far as their headers can be followed.

    Without the directory nothing vouches for a header but the digest of its stored bytes: where
    that is wrong, the entry is left out and the walk goes on behind it.
    """
    at, count = HEADER_SIZE, 0
    while at + _ENTRY.size <= size and count < PACK_ENTRIES_MAX:
        entry = _parse(store.read(name, at, _ENTRY.size), at)
        if entry is None or entry.offset + entry.stored_length > size:
            return
        data = store.read(name, entry.offset, entry.stored_length)
        if blake3(data).digest() == entry.digest:
            yield entry
        at = entry.offset + entry.stored_length
        count += 1


def _parse(head: bytes, at: int) -> Entry | None:
    """The entry whose header ``head`` stands at ``at``, or None where it is impossible."""
    mark, name, plain_length, coding, kind, length, digest = _ENTRY.unpack(head)
    possible = (
        mark == _ENTRY_MARK
        and 1 <= plain_length <= CHUNK_MAX
        and 1 <= length <= CHUNK_MAX
        and kind < len(KINDS)
        and coding in _CODINGS
    )
    if not possible:
        return None
    return Entry(name, kind, at + len(head), length, plain_length, coding, digest)
