"""Layer 4: how many bytes of a disk each tenant's block cache may take."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from cloudconnect.cache.blocks import SEGMENT_SIZE_MIN, SEGMENTS_MIN
from cloudconnect.errors import UsageError

#: The smallest cache on disk, in bytes.
DISK_MIN: Final = SEGMENTS_MIN * SEGMENT_SIZE_MIN
#: A cache that would have less than this part of its limit has others removed for it.
FAIR: Final = 4


def cache_folder(directory: Path, tenant: str) -> Path:
    """Where a tenant's cache lies: tenants have names that folders cannot have."""
    return directory / hashlib.sha256(tenant.encode()).hexdigest()[:32]


class Room:
    """The room below one directory; safe to use from several threads.

    :param directory: holds a folder for each cache
    :param limit: bytes that one may take
    :param total: bytes that all may take; caches that are not in use are removed for others, that
        which was not used for longest first. None: no such bound
    """

    def __init__(self, directory: Path, limit: int, total: int | None = None) -> None:
        self._directory = directory
        self._limit = limit
        self._total = total
        self._lock = threading.Lock()
        self._granted: dict[Path, int] = {}

    def grant(self, folder: Path) -> int:
        """Bytes that the cache in ``folder`` may take from now on, until :meth:`give_back`.

        :raises UsageError: too few to be of use
        :raises OSError: the directory cannot be read
        """
        with self._lock:
            limit = self._limit
            if self._total is not None:
                limit = self._make_room(folder, self._total)
            if limit < DISK_MIN:
                raise UsageError(f"there is no room for another block cache in {self._directory}")
            self._granted[folder] = limit
            return limit

    def give_back(self, folder: Path) -> None:
        """The cache in ``folder`` is not in use any more; it is the one that was used last."""
        with self._lock:
            self._granted.pop(folder, None)
            with suppress(OSError):
                os.utime(folder / "lock")

    def _make_room(self, folder: Path, total: int) -> int:
        others = [one for one in self._folders() if one not in self._granted and one != folder]
        sizes = {one: _size(one) for one in others}
        left = total - sum(self._granted.values()) - sum(sizes.values())
        wanted = min(self._limit, total)
        for other in sorted(others, key=_used):
            if left >= max(wanted // FAIR, DISK_MIN):
                break
            if _remove(other):
                left += sizes[other]
        return min(wanted, left)

    def _folders(self) -> list[Path]:
        with os.scandir(self._directory) as found:
            return [Path(one.path) for one in found if one.is_dir(follow_symlinks=False)]


def _used(folder: Path) -> float:
    """When a cache was last used, as a time of the file system."""
    try:
        return (folder / "lock").stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    """Bytes that a cache takes."""
    size = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += (Path(path) / name).lstat().st_size
    return size


def _remove(folder: Path) -> bool:
    """Remove a cache, unless another process uses it, or it is none."""
    try:
        held = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except OSError:
        return False
    finally:
        os.close(held)
    return True
