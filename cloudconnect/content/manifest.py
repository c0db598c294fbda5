"""Layer 1: manifests: what a restore point contains (``docs/repository-format.rst``, manifests).

A manifest is a CBOR sequence (RFC 8742) in walk order. Each of its items is a byte string that
holds one encoded piece, so that a reader knows a piece's size before it buffers or decodes it. A
piece is a map (an entry) or a list (more runs of the entry before it). The sequence is cut into
chunks like any content.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import IO, Any, Final, NoReturn

import attrs
import cbor2

from cloudconnect.content.alike import AlikeFiles, Content
from cloudconnect.content.points import PointRecord
from cloudconnect.content.runs import Run, RunList, check_run
from cloudconnect.errors import StoredDataDamaged
from cloudconnect.settings import (
    CHUNK_MAX,
    MANIFEST_ENTRY_MAX,
    MANIFEST_PIECE_RUNS,
    MANIFEST_RUNS_MAX,
)
from cloudconnect.shown import Shown

__all__ = [
    "Entry",
    "EntryDecoder",
    "EntryType",
    "PointRecord",
    "Run",
    "RunList",
    "check_path",
    "encode_entry",
    "encode_pieces",
]

#: In :attr:`Entry.flags`: the file was changed while it was read, so its content may be mixed.
FLAG_CHANGED: Final = 0x01
#: Longest path or symlink target, in bytes: Linux opens 4,095 at once, but a walk goes deeper.
PATH_MAX: Final = 65535

_U32: Final = 1 << 32
_I63: Final = 1 << 63
_U64: Final = 1 << 64


class EntryType(StrEnum):
    """What kind of thing an entry is."""

    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"
    FIFO = "p"
    CHARACTER = "c"
    BLOCK = "b"
    SOCKET = "s"


@attrs.frozen(repr=False)
class Entry(Shown):
    """One file, directory or other thing.

    :ivar path: absolute, as the system's bytes
    :ivar type: what it is
    :ivar mode: permission bits, set-id and sticky bits: 12 bits
    :ivar uid: owner's number
    :ivar gid: group's number
    :ivar user: owner's name or ""; bytes that are not UTF-8 as surrogate escapes
    :ivar group: group's name or "", likewise
    :ivar mtime_ns: time of last change of content, nanoseconds since 1970, may be negative
    :ivar size: bytes of a file's content; the runs add up to it. 0 for everything else
    :ivar runs: a file's content: a tuple, or a :class:`RunList` where there are very many
    :ivar target: where a symlink points, as the system's bytes
    :ivar device: what a device special file stands for (``st_rdev``)
    :ivar link: path of the first entry with the same inode: this is a hard link to it, without
        content of its own
    :ivar xattrs: extended attributes (name, value), sorted by name, ACLs included
    :ivar flags: FLAG_CHANGED
    """

    path: bytes
    type: EntryType
    mode: int
    uid: int
    gid: int
    user: str
    group: str
    mtime_ns: int
    size: int = 0
    runs: Sequence[Run] = attrs.field(default=(), repr=lambda runs: f"<{len(runs)} runs>")
    target: bytes | None = None
    device: int | None = None
    link: bytes | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    flags: int = 0

    def __attrs_post_init__(self) -> None:
        # What could not be read back must not be written, so both ways pass here.
        if not (
            type(self.mode) is type(self.uid) is type(self.gid) is type(self.mtime_ns) is int
            and type(self.size) is type(self.flags) is int
            and 0 <= self.mode <= 0o7777
            and 0 <= self.uid < _U32
            and 0 <= self.gid < _U32
            and -_I63 <= self.mtime_ns < _I63
            and 0 <= self.size < _I63
            and 0 <= self.flags < 256
        ):
            raise ValueError("a number of an entry is out of bounds")
        path = self.path  # as check_path, without the call: there are millions of entries
        if not (
            type(path) is bytes
            and 1 <= len(path) <= PATH_MAX
            and path[0] == _SLASH
            and (not _BAD_PATH.search(path) or path == b"/")
        ):
            check_path(path)
        if self.runs or self.size or self.link is not None:
            self._check_content()
        if (self.target is not None) is not (self.type is EntryType.SYMLINK):
            raise ValueError("symlinks have a target, and nothing else has")
        if self.target is not None:
            _check_octets(self.target, PATH_MAX)
        device = self.device
        if device is not None and not (type(device) is int and 0 <= device < _U64):
            raise ValueError("a device number is out of bounds")
        if self.xattrs:
            names = [name for name, value in self.xattrs if type(value) is bytes]
            if len(names) != len(self.xattrs) or names != sorted(set(names)):
                raise ValueError("extended attributes are not sorted, or one is there twice")
            for name in names:
                _check_octets(name, 255)

    def _check_content(self) -> None:
        if self.link is not None:
            check_path(self.link)
            if self.runs:
                raise ValueError("a hard link has content of its own")
            return
        if self.type is not EntryType.FILE:
            raise ValueError("only files have content")
        runs, total = self.runs, 0
        if isinstance(runs, RunList):  # checked as it was made
            total = runs.total
        else:
            for run in runs:
                if not check_run(run):
                    raise ValueError("a run is out of bounds")
                total += run.length
        if total != self.size or len(runs) > MANIFEST_RUNS_MAX:
            raise ValueError("a file's runs do not add up to its size, or are too many")


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
        self._octets = b""  # the same, once something of it is complete
        self._position = 0  # what of the buffer is done with
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
        return iter(self._take, None)

    def finish(self) -> None:
        """The manifest has ended.

        :raises StoredDataDamaged: inside an entry, or it had failed before
        """
        if self._failed or self._long or self._position < len(self._buffer):
            raise StoredDataDamaged("a manifest ends inside an entry")

    def _take(self) -> Entry | None:
        """The next entry, or None where more bytes are needed."""
        if self._failed:
            raise StoredDataDamaged("a manifest goes on behind what is not an entry")
        try:
            while (item := self._item()) is not None:
                entry = self._piece(item)
                if entry is not None:
                    return entry
        except StoredDataDamaged:
            self._failed = True
            raise
        except (cbor2.CBORError, ValueError, TypeError, KeyError, OverflowError) as error:
            self._failed = True
            raise StoredDataDamaged(f"an entry of a manifest cannot be used: {error}") from error
        del self._buffer[: self._position]
        self._position, self._octets = 0, b""
        return None

    def _item(self) -> bytes | None:
        """The content of the next byte string of the sequence, or None where it is not all here."""
        buffer, start = self._buffer, self._position
        available = len(buffer) - start
        if available < self._need:
            return None
        # A byte string (major type 2) with its length in 0, 1, 2 or 4 further bytes.
        size = _LENGTH_BYTES.get(buffer[start])
        if size is None:
            raise StoredDataDamaged("a manifest has something else than entries in it")
        head = 1 + size
        if available < head:
            self._need = head
            return None
        start += head
        length = int.from_bytes(buffer[start - size : start], "big") if size else buffer[start - 1]
        length -= 0 if size else _EMPTY_STRING
        if length > MANIFEST_ENTRY_MAX:
            raise StoredDataDamaged(f"an entry of a manifest has over {MANIFEST_ENTRY_MAX} bytes")
        if available < head + length:
            self._need = head + length
            return None
        self._need = 1
        self._position = end = start + length
        octets = self._octets
        if len(octets) != len(buffer):  # one copy for all items that came together
            octets = self._octets = bytes(buffer)
        return octets[start:end]

    def _piece(self, item: bytes) -> Entry | None:
        """The entry that ``item`` completes, if it does."""
        if self._long is None and (alike := self._alike.read(item)) is not None:
            entry = _like(*alike)
            if entry is not None:
                return entry
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
                if len(runs) == 1 and runs[0].id is not None:
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


def _like(content: Content, other: Entry) -> Entry | None:
    """An entry like ``other``, with other content; None where that would be out of bounds.

    The same as the class does and looks at, for what differs only.
    """
    path, time, name, offset, length = content
    if not (
        time < _I63
        and 1 <= length <= CHUNK_MAX - offset
        and path
        and path[0] == _SLASH
        and not _BAD_PATH.search(path)
    ):
        return None
    entry = _new(Entry)
    _set_path(entry, path)
    _set_type(entry, other.type)
    _set_mode(entry, other.mode)
    _set_uid(entry, other.uid)
    _set_gid(entry, other.gid)
    _set_user(entry, other.user)
    _set_group(entry, other.group)
    _set_mtime_ns(entry, time)
    _set_size(entry, length)
    _set_runs(entry, (Run(name, offset, length),))
    _set_target(entry, None)
    _set_device(entry, None)
    _set_link(entry, None)
    _set_xattrs(entry, ())
    _set_flags(entry, other.flags)
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


def _check_octets(octets: Any, most: int) -> None:
    if type(octets) is not bytes or not 1 <= len(octets) <= most or b"\0" in octets:
        raise ValueError("a name is empty, too long, or has a zero byte in it")


def check_path(path: Any) -> None:
    """Refuse what does not name one place below the root.

    :raises ValueError: it does not
    """
    _check_octets(path, PATH_MAX)
    if path[0] != _SLASH or (_ODD_PART.search(path) and path != b"/"):
        raise ValueError("a path is not absolute, or has empty or dotted parts")


def _refuse(*_: object) -> NoReturn:
    raise ValueError("it holds a CBOR tag")


_EMPTY_STRING: Final = 0x40
_LENGTH_BYTES: Final = dict.fromkeys(range(_EMPTY_STRING, 0x58), 0) | {0x58: 1, 0x59: 2, 0x5A: 4}
_SLASH: Final = 0x2F
_BAD_PATH: Final = re.compile(rb"\0|/\.{0,2}(?:/|\Z)")  # a zero byte, or an odd part
_ODD_PART: Final = re.compile(rb"/\.{0,2}(?:/|\Z)")  # "//", "/./", "/../", also at the end
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

# Fields are set as a frozen class's own constructor sets them, but without looking them up.
_new: Final = object.__new__
(
    _set_path,
    _set_type,
    _set_mode,
    _set_uid,
    _set_gid,
    _set_user,
    _set_group,
    _set_mtime_ns,
    _set_size,
    _set_runs,
    _set_target,
    _set_device,
    _set_link,
    _set_xattrs,
    _set_flags,
) = (getattr(Entry, field.name).__set__ for field in attrs.fields(Entry))
