"""Fuzz targets: what a repository hands out, and what a store holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from blake3 import blake3

from cloudconnect.content.compression import compress, decompress
from cloudconnect.content.description import RepositoryDescription, describe
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.heads import HeadEntry, HeadKind
from cloudconnect.content.manifest import EntryDecoder, encode_entry, encode_pieces
from cloudconnect.content.points import PointRecord
from cloudconnect.content.retention import RetentionPolicy
from cloudconnect.content.runs import Run
from cloudconnect.content.slots import KeySlot, make_open_slot
from cloudconnect.content.subkeys import EncryptionMode
from cloudconnect.errors import NotFound, ProtocolViolation, StoredDataDamaged
from cloudconnect.keys import MasterKey
from cloudconnect.repository.packs import PackBuilder, read_pack
from cloudconnect.wire import canonical
from cloudconnect.wire.frames import StoredBlob
from tests.fuzz.target import Acts, Target, cut

# --- CBOR ----------------------------------------------------------------------------------------

_DECODERS: tuple[Callable[[bytes], Any], ...] = (
    PointRecord.decode,
    HeadEntry.decode,
    RepositoryDescription.decode,
)


def cbor(data: bytes) -> None:
    """Canonical CBOR, and every record that is made of it: what is read is written back the same.

    No value may be larger than the input allows, nor nested deeper than the bound.
    """
    try:
        value = canonical.decode(data)
        assert canonical.encode(value) == data
    except ProtocolViolation:
        return
    for decode in _DECODERS:
        try:
            record = decode(data)
        except ProtocolViolation:
            continue
        assert record.encode() == data, record
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for make in (RetentionPolicy.from_map, KeySlot.from_map):
            try:
                make(value)
            except ProtocolViolation:
                continue


def records() -> Iterable[bytes]:
    master = MasterKey(b"m" * 32)
    slot = make_open_slot(master)
    yield describe(master, b"r" * 16, EncryptionMode.NONE, (slot,)).encode()
    yield canonical.encode(slot.as_map())
    yield canonical.encode(RetentionPolicy(keep_daily=7).as_map())
    yield canonical.encode({"a": [1, -1, 1.5, None, True, b"x", "y", {"b": {}}]})
    ids = (b"i" * 32,)
    yield PointRecord(
        point=b"p" * 16,
        repository=b"r" * 16,
        session=b"s" * 16,
        job_id=b"j" * 16,
        host="host",
        job="job",
        tags=("tag",),
        started_ns=1,
        finished_ns=2,
        mode=EncryptionMode.TENANT,
        manifest=ids,
        manifest_length=3,
        statistics={"files": 1},
    ).encode()
    yield HeadEntry(
        repository=b"r" * 16,
        number=1,
        previous=bytes(32),
        kind=HeadKind.POINT,
        point=b"p" * 16,
        digest=b"d" * 32,
    ).encode()


# --- manifests -----------------------------------------------------------------------------------


def manifest(data: bytes) -> None:
    """A manifest in pieces of any size gives the same entries, or fails, whatever the pieces."""
    acts = Acts(data)
    by = acts.number()
    octets = acts.rest()
    found = [entries(cut(octets, by)), entries(cut(octets, 0))]
    assert found[0] == found[1], "another size of pieces gave other entries"


def entries(pieces: Iterator[bytes]) -> tuple[list[Entry], bool]:
    decoder = EntryDecoder()
    read: list[Entry] = []
    try:
        for piece in pieces:
            for entry in decoder.feed(piece):
                read.append(entry._replace(runs=tuple(entry.runs)))
        decoder.finish()
    except StoredDataDamaged:
        return read, False
    return read, True


def manifests() -> Iterable[bytes]:
    rights = {"mode": 0o644, "uid": 1, "gid": 2, "user": "u", "group": "g", "mtime_ns": 3}
    file, folder, link = EntryType.FILE, EntryType.DIRECTORY, EntryType.SYMLINK
    runs = (Run(b"i" * 32, 0, 5), Run(None, 0, 7))
    attributes = ((b"user.a", b"b"),)
    made = [
        Entry(path=b"/a", type=folder, **rights),
        Entry(path=b"/a/b", type=file, size=12, runs=runs, **rights),
        Entry(path=b"/a/c", type=file, xattrs=attributes, flags=1, **rights),
        Entry(path=b"/a/d", type=file, link=b"/a/b", **rights),
        Entry(path=b"/a/l", type=link, target=b"b", **rights),
    ]
    for entry in made:
        yield b"\x01" + b"".join(encode_pieces(entry))
    yield b"\x02" + b"".join(octets for entry in made for octets in encode_pieces(entry))
    yield b"\x00\x41\xa0"
    # Neighbours, which are read in a quicker way.
    late = rights | {"mtime_ns": 1 << 60}
    alike = [
        Entry(path=b"/" + b"n" * length, type=file, size=5, runs=runs[:1], **late)
        for length in (3, 90, 1)
    ]
    alike += [Entry(path=path, type=folder, **late) for path in (b"/a", b"/a/bc")]
    for by in (b"\x00", b"\x07", b"\x60"):
        yield by + b"".join(map(encode_entry, alike))


# --- packs ---------------------------------------------------------------------------------------


class OnePack:
    """A store with one pack in it, in memory; and a writer of one."""

    def __init__(self, octets: bytes = b"") -> None:
        self.octets = bytearray(octets)

    def read(self, name: str, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise AssertionError("a negative place was read")
        if offset + length > len(self.octets):
            raise StoredDataDamaged("it is shorter")
        return bytes(self.octets[offset : offset + length])


class Reading(OnePack):
    """As a store."""

    def size(self, name: str) -> int:
        if name != _PACK:
            raise NotFound(name)
        return len(self.octets)


class Writing(OnePack):
    """As a writer."""

    @property
    def size(self) -> int:
        return len(self.octets)

    def write(self, *parts: bytes) -> None:
        for part in parts:
            self.octets += part

    def commit(self, name: str) -> int:
        return len(self.octets)


_PACK = "packs/" + (b"p" * 16).hex()


def pack(data: bytes) -> None:
    """A pack whose bytes may be anything: every entry stays inside, every blob has its digest."""
    store: Any = Reading(data)
    try:
        contents = read_pack(store, _PACK, b"r" * 16)
    except StoredDataDamaged:
        return
    for entry in contents.entries:
        assert entry.offset >= 0 and entry.stored_length >= 0
        try:
            entry.blob(store.read(_PACK, entry.offset, entry.stored_length), _PACK)
        except StoredDataDamaged:
            continue


def packs() -> Iterable[bytes]:
    for count in (0, 1, 3):
        writer: Any = Writing()
        builder = PackBuilder(writer, b"r" * 16, b"p" * 16)
        for number in range(count):
            octets = bytes((number,)) * (number + 3)
            digest = blake3(octets).digest()
            builder.add(StoredBlob(bytes((number,)) * 32, 5, 0, digest, octets), number % 2)
        builder.commit()
        yield bytes(writer.octets)
        if count:
            yield bytes(writer.octets[:-40])  # its directory is damaged: it is walked


# --- compressed chunks ---------------------------------------------------------------------------


def chunk(data: bytes) -> None:
    """A Zstandard frame never makes more than what is announced and allowed."""
    acts = Acts(data)
    announced = acts.number(3)
    with contextlib.suppress(StoredDataDamaged):
        assert len(decompress(acts.rest(), announced)) == announced


def chunks() -> Iterable[bytes]:
    for plain in (b"a" * 100, b"abc" * 5000, bytes(1 << 20)):
        frame = compress(plain)
        assert frame is not None
        yield len(plain).to_bytes(3, "big") + frame
        yield (7).to_bytes(3, "big") + frame


TARGETS = (
    Target("cbor", cbor, records),
    Target("manifest", manifest, manifests),
    Target("pack", pack, packs),
    Target("chunk", chunk, chunks),
)
