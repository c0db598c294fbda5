"""Layer 1: manifests: what a restore point contains (``docs/repository-format.rst``, manifests).

A manifest is a CBOR sequence (RFC 8742) in walk order. Each of its items is a byte string that
holds one encoded piece, so that a reader knows a piece's size before it buffers or decodes it. A
piece is a map (an entry) or a list (more runs of the entry before it). The sequence is cut into
chunks like any content.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, Final, NoReturn

import cbor2

from cloudconnect.content.alike import AlikeFiles
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.runs import Run, RunList
from cloudconnect.errors import StoredDataDamaged
from cloudconnect.settings import (
    MANIFEST_ENTRY_MAX,
    MANIFEST_PIECE_RUNS,
    MANIFEST_RUNS_MAX,
)


def encode_entry(entry: Entry) -> bytes:
    """The items of the manifest that say what ``entry`` is: one, or more for a very long file.

    :raises ValueError: it has more extended attributes than MANIFEST_ENTRY_MAX allows
    """
    if len(entry.runs) <= MANIFEST_PIECE_RUNS:
        return _first_item(entry, entry.runs)
    return b"".join(encode_pieces(entry))


def encode_pieces(entry: Entry) -> Iterator[bytes]:
    """The same, item by item: at most MANIFEST_ENTRY_MAX bytes at a time.

    :raises ValueError: (from the iterator) likewise
    """
    runs = entry.runs
    yield _first_item(entry, runs[:MANIFEST_PIECE_RUNS])
    for start in range(MANIFEST_PIECE_RUNS, len(runs), MANIFEST_PIECE_RUNS):
        yield _item(_flat(runs[start : start + MANIFEST_PIECE_RUNS]))


def _first_item(entry: Entry, first: Sequence[Run]) -> bytes:
    # In the canonical order of the keys, which spares the encoder from sorting them.
    fields: dict[str, Any] = {}
    if entry.group:
        fields["G"] = entry.group.encode("utf-8", "surrogateescape")
    if entry.user:
        fields["U"] = entry.user.encode("utf-8", "surrogateescape")
    if len(entry.runs) > MANIFEST_PIECE_RUNS:
        fields["c"] = len(entry.runs)
    if entry.device is not None:
        fields["d"] = entry.device
    if entry.flags:
        fields["f"] = entry.flags
    fields["g"] = entry.gid
    if entry.link is not None:
        fields["h"] = entry.link
    if entry.target is not None:
        fields["l"] = entry.target
    fields["m"] = entry.mode
    fields["n"] = entry.mtime_ns
    fields["p"] = entry.path
    if first:
        fields["r"] = _flat(first)
    if entry.size:
        fields["s"] = entry.size
    fields["t"] = entry.type.value
    fields["u"] = entry.uid
    if entry.xattrs:
        fields["x"] = [octets for pair in entry.xattrs for octets in pair]
    return _item(fields)


class EntryDecoder:
    """Reads a manifest that comes in pieces of any size, with bounds.

    After an error it stays failed: where the next entry would begin is not known.

    :param spill: makes a file for the runs of an entry that has very many; see :class:`RunList`
    """

    def __init__(self, spill: Callable[[], IO[bytes]] | None = None) -> None:
        self._spill = spill
        self._buffer = bytearray()
        self._octets = b""  # the same, while entries are taken from it
        self._position = 0  # what of it is done with
        self._need = 1  # bytes behind it before another look is worth while
        self._long: tuple[dict[str, Any], int] | None = None  # an entry of which runs are missing
        self._runs = RunList()
        self._failed = False
        self._decoder = cbor2.CBORDecoder(io.BytesIO(), **_DECODER)
        self._alike = AlikeFiles()

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Entry]:
        """Take ``data``; the iterator gives the entries that are complete now.

        :raises StoredDataDamaged: (from the iterator) not a manifest, or beyond the bounds
        """
        self._buffer += data
        return self._entries()

    def finish(self) -> None:
        """The manifest has ended.

        :raises StoredDataDamaged: inside an entry, or it had failed before
        """
        if self._failed or self._long or self._position < len(self._buffer):
            raise StoredDataDamaged("a manifest ends inside an entry")

    @property
    def pending(self) -> bytes | None:
        """What came behind the last entry that was complete; None inside an entry of which more
        items are to come, and after an error."""
        if self._failed or self._long is not None:
            return None
        return bytes(self._buffer[self._position :])

    def go_on(self, pending: bytes) -> None:
        """As if further bytes had come, whose entries are not wanted.

        :param pending: what they would have left pending
        """
        self._buffer[:] = pending
        self._position, self._need, self._octets = 0, 1, b""

    def _entries(self) -> Iterator[Entry]:
        """The entries that are complete."""
        if self._failed:
            raise StoredDataDamaged("a manifest goes on behind what is not an entry")
        if len(self._buffer) - self._position < self._need:
            return
        self._octets = bytes(self._buffer)
        try:
            while len(self._octets) - self._position >= self._need:
                entry = self._next()
                if entry is not None:
                    yield entry
        except StoredDataDamaged:
            self._failed = True
            raise
        except (cbor2.CBORError, ValueError, TypeError, KeyError, OverflowError) as error:
            self._failed = True
            raise StoredDataDamaged(f"an entry of a manifest cannot be used: {error}") from error
        del self._buffer[: self._position]
        self._position, self._octets = 0, b""

    def _next(self) -> Entry | None:
        """The entry that the next item completes; None where it does not, or is not all here."""
        if self._long is None:
            alike = self._alike.read(self._octets, self._position)
            if alike is not None:
                entry, self._position = alike
                self._need = 1
                return entry
        item = self._item()
        return None if item is None else self._piece(item)

    def _item(self) -> bytes | None:
        """The content of the next byte string of the sequence, or None where it is not all here."""
        octets, start = self._octets, self._position
        available = len(octets) - start
        # A byte string (major type 2) with its length in 0, 1, 2 or 4 further bytes.
        size = _LENGTH_BYTES.get(octets[start])
        if size is None:
            raise StoredDataDamaged("a manifest has something else than entries in it")
        head = 1 + size
        if available < head:
            self._need = head
            return None
        start += head
        length = int.from_bytes(octets[start - size : start], "big") if size else octets[start - 1]
        length -= 0 if size else _EMPTY_STRING
        if length > MANIFEST_ENTRY_MAX:
            raise StoredDataDamaged(f"an entry of a manifest has over {MANIFEST_ENTRY_MAX} bytes")
        if available < head + length:
            self._need = head + length
            return None
        self._need = 1
        self._position = end = start + length
        return octets[start:end]

    def _piece(self, item: bytes) -> Entry | None:
        """The entry that ``item`` completes, if it does."""
        # A decoder costs as much to make as a map does to decode.
        self._decoder.fp = source = io.BytesIO(item)
        piece = self._decoder.decode()
        if source.tell() != len(item):
            raise ValueError("there are bytes behind it")
        if self._long is None:
            if type(piece) is not dict:
                raise ValueError("it is not a map")
            runs = _unflat(piece.pop("r", []))
            count = piece.pop("c", None)
            if count is None:
                fields = dict(piece)
                entry = _entry(piece, tuple(runs))
                usual = len(runs) == 1 and runs[0].id is not None
                if usual or entry.type is EntryType.DIRECTORY:
                    self._alike.remember(item, fields, entry)
                return entry
            if type(count) is not int or not MANIFEST_PIECE_RUNS < count <= MANIFEST_RUNS_MAX:
                raise ValueError("it has an impossible number of runs")
            self._long, self._runs = (piece, count), RunList(self._spill)
            self._runs.extend(runs)
            return None
        fields, count = self._long
        more = _unflat(piece)
        self._runs.extend(more)
        if not more or len(self._runs) > count:
            raise ValueError("it has other runs than it said")
        if len(self._runs) < count:
            return None
        entry = _entry(fields, self._runs)
        self._long, self._runs = None, RunList()
        return entry


def _entry(fields: dict[str, Any], runs: Sequence[Run]) -> Entry:
    """The entry of a decoded map; the class checks values, the types of octets are checked here."""
    take = fields.pop
    xattrs = take("x", [])
    if type(xattrs) is not list:
        raise ValueError("its extended attributes are not a list")
    entry = Entry(
        take("p"),
        _TYPES[take("t")],
        take("m"),
        take("u"),
        take("g"),
        str(take("U", b""), "utf-8", "surrogateescape"),
        str(take("G", b""), "utf-8", "surrogateescape"),
        take("n"),
        take("s", 0),
        runs,
        take("l", None),
        take("d", None),
        take("h", None),
        tuple(zip(xattrs[::2], xattrs[1::2], strict=True)) if xattrs else (),
        take("f", 0),
    )
    if fields:
        raise ValueError("it has fields that this release does not know")
    return entry


def _item(value: Any) -> bytes:
    """``value`` encoded, inside a byte string: one item of the sequence."""
    encoded = cbor2.dumps(value)
    if len(encoded) > MANIFEST_ENTRY_MAX:
        raise ValueError(f"an entry of a manifest has over {MANIFEST_ENTRY_MAX} bytes")
    return cbor2.dumps(encoded)


def _flat(runs: Iterable[Run]) -> list[bytes | int | None]:
    flat: list[bytes | int | None] = []
    for run in runs:
        flat += (run.id, run.offset, run.length)
    return flat


def _unflat(flat: Any) -> list[Run]:
    if type(flat) is not list or len(flat) % 3:
        raise ValueError("its runs are not triples")
    if len(flat) == 3:  # as most files have
        name, offset, length = flat
        if (name is None or type(name) is bytes) and type(offset) is type(length) is int:
            return [Run(name, offset, length)]
    if len(flat) > 3 * MANIFEST_PIECE_RUNS:
        raise ValueError("a piece of it has too many runs")
    runs = []
    for name, offset, length in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
        if (name is not None and type(name) is not bytes) or not type(offset) is type(
            length
        ) is int:
            raise ValueError("a run has the wrong types")
        runs.append(Run(name, offset, length))
    return runs


def _refuse(*_: object) -> NoReturn:
    raise ValueError("it holds a CBOR tag")


_EMPTY_STRING: Final = 0x40
_LENGTH_BYTES: Final = dict.fromkeys(range(_EMPTY_STRING, 0x58), 0) | {0x58: 1, 0x59: 2, 0x5A: 4}
_TYPES: Final = {kind.value: kind for kind in EntryType}

# No tags: some of those that cbor2 knows cost far more than their size (regular expressions, big
# decimals, references). Text keys only, whose hashes a writer cannot choose.
_TAGS: Final = (*range(6), *range(25, 38), 52, 54, 100, *range(256, 262), 1004, 43000, 55799)
_DECODER: Final[dict[str, Any]] = {
    "max_depth": 3,
    "allow_indefinite": False,
    "allow_duplicate_keys": False,
    "strict_hashable_types": True,
    "tag_hook": _refuse,
    "semantic_decoders": dict.fromkeys(_TAGS, _refuse),
}
