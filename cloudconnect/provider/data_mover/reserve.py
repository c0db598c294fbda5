"""Layer 4: a file that keeps some room on the provider's disk for when it is full.

On a disk without a free byte not even a data base can be opened, and collecting garbage, which
makes room, needs some itself. So a file of :data:`SIZE` bytes takes room while there is enough of
it. Where there is none it is emptied, and filled again later; as long as it lies there empty there
are no backups, which would use up what it gave. What is stored for tenants stops before the end of
the disk (:data:`cloudconnect.repository.blobs.FREE_MIN`): it is others that fill it to the last
byte. On a disk that never had the room for it there is none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path
from typing import Final

from cloudconnect.repository.blobs import FREE_MIN

#: Bytes of the reserve: as many as must be free for anything to be stored, and as many again for a
#: catalogue's log and a pack of 32 MiB with what goes into it.
SIZE: Final = 2 * FREE_MIN
#: The reserve is given away when fewer bytes are free.
LOW: Final = 8 << 20
#: ... and got back when so many are free.
ENOUGH: Final = 2 * SIZE


class Reserve:
    """The reserve of one file system; safe in any thread, and in any number of processes.

    :param path: the file
    :param size: its size in bytes
    :param low: it is emptied when fewer bytes are free
    :param enough: it is filled when so many bytes are free
    """

    def __init__(self, path: Path, size: int = SIZE, low: int = LOW, enough: int = ENOUGH) -> None:
        self._path = path
        self._size = size
        self._low = low
        self._enough = enough
        self._lock = threading.Lock()

    @property
    def held(self) -> bool:
        """Whether it keeps room now."""
        return self._kept() >= self._size

    @property
    def given(self) -> bool:
        """Whether it gave its room away and has not got it back: then nothing new is stored."""
        return self._path.exists() and not self.held

    def look(self, make: bool = True) -> None:
        """Empty it where the disk is nearly full, fill it where there is room; else nothing.

        :param make: False: never fill it
        """
        with self._lock, contextlib.suppress(OSError):  # also on a read-only disk
            free = self._free()
            if free < self._low:
                self._empty()
            elif make and free >= self._enough and not self.held:
                self._make()

    def release(self) -> bool:
        """Give its room away now; whether it had any."""
        with self._lock:
            try:
                return self._empty()
            except OSError:
                return False

    def _kept(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _empty(self) -> bool:
        if not self._kept():
            return False
        os.truncate(self._path, 0)
        return True

    def _free(self) -> int:
        found = os.statvfs(self._path.parent)
        return found.f_bavail * found.f_frsize

    def _make(self) -> None:
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(temporary, flags, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(self._path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def is_no_room(error: BaseException) -> bool:
    """Whether an error of the system says that a disk, or somebody's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
