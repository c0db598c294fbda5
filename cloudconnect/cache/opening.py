"""Layer 3: opening a cache's directory, in whatever state it is.

What was open when a process was killed, what is not in the index, and what the index does not fit
is read again from the segments; keys that do not open mean another host's or tenant's cache, which
is emptied.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from cloudconnect.cache.index import Index, SegmentRow, remove_index
from cloudconnect.cache.keys import CacheKeys, NodeKey, make_keys, open_keys
from cloudconnect.cache.segments import HEADER_SIZE, OVERHEAD, SegmentFile
from cloudconnect.errors import UsageError

#: Name of the index.
INDEX: Final = "index.sqlite"

_SEGMENTS: Final = "segments"
_NAME: Final = re.compile(r"[0-9a-f]{16}")


@attrs.frozen
class Opened:
    """A directory that can be used.

    :ivar rows: its segments, in order
    :ivar next: a number that no segment has had
    """

    keys: CacheKeys
    index: Index
    rows: list[SegmentRow]
    next: int


def segment_path(directory: Path, number: int) -> Path:
    """Where a segment lies."""
    return directory / _SEGMENTS / f"{number:016x}"


def open_directory(directory: Path, tenant: str, node: NodeKey) -> Opened:
    """Open what is there; what is of no use to anybody goes.

    :raises OSError: the directory cannot be used
    :raises sqlite3.Error: no index can be made
    """
    (directory / _SEGMENTS).mkdir(mode=0o700, exist_ok=True)
    keys = open_keys(directory, tenant, node)
    if keys is None:
        for _, path in _paths(directory):
            path.unlink(missing_ok=True)
        remove_index(directory / INDEX)
        (directory / "key").unlink(missing_ok=True)
        keys = make_keys(directory, tenant, node)
    try:
        return _load(directory, keys, Index(directory / INDEX))
    except sqlite3.Error:
        remove_index(directory / INDEX)
        return _load(directory, keys, Index(directory / INDEX))


def _load(directory: Path, keys: CacheKeys, index: Index) -> Opened:
    """Compare index and segments."""
    try:
        known = {row.number: row for row in index.segments()}
        there = dict(_paths(directory))
        for number in set(known) - set(there):
            index.forget_segment(number, None)
        rows = []
        for number, path in sorted(there.items()):
            row = known.get(number)
            if row is None or path.stat().st_size != row.size:
                row = _read_again(number, path, row, keys, index)
            if row is not None:
                rows.append(row)
        return Opened(keys, index, rows, max([0, *there, *known]) + 1)
    except BaseException:
        index.abandon()
        raise


def _read_again(
    number: int, path: Path, row: SegmentRow | None, keys: CacheKeys, index: Index
) -> SegmentRow | None:
    """Put a segment's blocks into the index, as far as it can be read; None where it cannot."""
    try:
        file = SegmentFile(path, number, keys)
        last, end = None, HEADER_SIZE
        for place, entry in file.entries():
            last, end = place, place.offset + place.length + OVERHEAD
            shown = [keys.masked_feature(feature) for feature in entry.features]
            index.add(keys.masked(entry.name), shown, place)
        if last is None:
            raise ValueError("a segment has no block")
        os.truncate(path, end)
    except (OSError, ValueError):
        path.unlink(missing_ok=True)
        if row is not None:
            index.forget_segment(number, None)
        return None
    row = SegmentRow(number, file.before, end, last, row.used if row else 0)
    index.close_segment(row)
    return row


def _paths(directory: Path) -> Iterator[tuple[int, Path]]:
    for path in (directory / _SEGMENTS).iterdir():
        if _NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            yield int(path.name, 16), path


def hold(path: Path) -> int:
    """A lock on a cache's directory for as long as the descriptor is open.

    :raises UsageError: another process has it
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise UsageError(f"the block cache in {path.parent} is used by another process") from None
    return descriptor
