"""Layer 3: how large a block cache is, seen from outside: without its lock, and without any key."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import quote

import attrs

from cloudconnect.cache.opening import INDEX, segment_path


@attrs.frozen
class CacheSize:
    """What a cache takes.

    :ivar size: bytes of its blocks and its index
    :ivar blocks: blocks that its index names; some more while it is in use. None: it has no index
        that can be read, and makes it again when it is next used
    """

    size: int
    blocks: int | None


def measure(directory: Path) -> CacheSize | None:
    """Measure the cache in ``directory``, whoever uses it meanwhile; None where there is none."""
    if not (directory / "key").is_file():
        return None
    size = 0
    for path in (directory / INDEX, *segment_path(directory, 0).parent.glob("*")):
        with contextlib.suppress(OSError):  # removed meanwhile
            size += path.lstat().st_size
    return CacheSize(size, _blocks(directory / INDEX))


def _blocks(index: Path) -> int | None:
    if not index.is_file():  # SQLite would say so too, in worse words
        return None
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(str(index))}?mode=ro", uri=True)
        ) as database:
            count: int = database.execute("SELECT COUNT(*) FROM blocks").fetchone()[0]
            return count
    except sqlite3.Error:
        return None
