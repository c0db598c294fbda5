"""Layer 1: the manifest entries of usual files, encoded without making the entries.

Nearly every entry of a backup is a file with an owner, a mode, a time and a few runs. A map of
these for the general encoder, and the objects on the way to it, cost several times as much as the
few bytes that differ between neighbours. What is written here is what
:func:`~cloudconnect.content.manifest.encode_entry` writes, byte for byte, within the same bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import cbor2

from cloudconnect.content.entries import PATH_MAX, PathCheck, check_path
from cloudconnect.content.runs import Run, check_run
from cloudconnect.settings import MANIFEST_ENTRY_MAX, MANIFEST_PIECE_RUNS

#: Most files lie in the folder of the one before.
_paths: Final = PathCheck()
_U32: Final = 1 << 32
_I63: Final = 1 << 63
_OCTETS: Final = 0x40
_LIST: Final = 0x80
_MAP: Final = 0xA0
#: Fields that each of them has: group and user numbers, mode, time, path, type.
_FIELDS: Final = 6
#: Numbers and lengths below this one have no bytes of their own.
_SHORT: Final = 24


def encode_file(
    path: bytes,
    mode: int,
    uid: int,
    gid: int,
    user: str,
    group: str,
    mtime_ns: int,
    size: int,
    runs: Sequence[Run],
    flags: int = 0,
) -> bytes:
    """The item of the manifest that says what a file without attributes and further names is.

    The parameters are those of :class:`~cloudconnect.content.entries.Entry`.

    :param runs: at most MANIFEST_PIECE_RUNS; where there are more, the entry has several pieces
    :raises ValueError: what an entry refuses, or more runs
    """
    if not (
        0 <= mode <= 0o7777
        and 0 <= uid < _U32
        and 0 <= gid < _U32
        and -_I63 <= mtime_ns < _I63
        and 0 <= size < _I63
        and 0 <= flags < 256
    ):
        raise ValueError("a number of an entry is out of bounds")
    if not (1 <= len(path) <= PATH_MAX and _paths.names(path)):
        check_path(path)
    before = _before(group, user, flags, gid, mode, bool(runs) + bool(size))
    if mtime_ns >= _U32:
        time = b"\x61n\x1b" + mtime_ns.to_bytes(8, "big")
    else:
        time = b"\x61n" + cbor2.dumps(mtime_ns)
    parts = [before, time, b"\x61p", _head(_OCTETS, len(path)), path]
    total = 0
    if len(runs) == 1 and (name := runs[0].id) is not None:  # as most files have
        run = runs[0]
        _, offset, total = run
        if not check_run(run):
            raise ValueError("a run is out of bounds")
        parts += (b"\x61r\x83\x58\x20", name, _head(0, offset), _head(0, total))
    elif runs:
        if len(runs) > MANIFEST_PIECE_RUNS or not all(map(check_run, runs)):
            raise ValueError("a run is out of bounds, or there are too many")
        parts += (b"\x61r", _head(_LIST, 3 * len(runs)))
        for run in runs:
            total += run.length
            if run.id is None:
                parts.append(b"\xf6")
            else:
                parts += (b"\x58\x20", run.id)
            parts += (_head(0, run.offset), _head(0, run.length))
    if total != size:
        raise ValueError("a file's runs do not add up to its size")
    if size:
        parts += (b"\x61s", _head(0, size))
    parts.append(_behind(uid))
    encoded = b"".join(parts)
    if len(encoded) > MANIFEST_ENTRY_MAX:
        raise ValueError(f"an entry of a manifest has over {MANIFEST_ENTRY_MAX} bytes")
    return _head(_OCTETS, len(encoded)) + encoded


def _head(major: int, number: int) -> bytes:
    """The first bytes of an item of CBOR (RFC 8949, section 3), in its shortest form."""
    if number < _SHORT:
        return _BYTES[major | number]
    if number < 1 << 8:
        return _BYTES[major | 24] + _BYTES[number]
    if number < 1 << 16:
        return _BYTES[major | 25] + number.to_bytes(2, "big")
    if number < 1 << 32:
        return _BYTES[major | 26] + number.to_bytes(4, "big")
    return _BYTES[major | 27] + number.to_bytes(8, "big")


@lru_cache(maxsize=1024)
def _before(group: str, user: str, flags: int, gid: int, mode: int, further: int) -> bytes:
    """What stands before the time: the same for most neighbours.

    :param further: how many of runs and size there are
    """
    fields: dict[str, bytes | int] = {}
    if group:
        fields["G"] = group.encode("utf-8", "surrogateescape")
    if user:
        fields["U"] = user.encode("utf-8", "surrogateescape")
    if flags:
        fields["f"] = flags
    count = len(fields) + _FIELDS + further
    fields["g"] = gid
    fields["m"] = mode
    return _head(_MAP, count) + b"".join(
        cbor2.dumps(part) for item in fields.items() for part in item
    )


@lru_cache(maxsize=1024)
def _behind(uid: int) -> bytes:
    return b"\x61t\x61f\x61u" + cbor2.dumps(uid)


_BYTES: Final = tuple(bytes((number,)) for number in range(256))
