"""Layer 4: a file that keeps some room on the provider's disk for when it is full.

On a disk without a free byte not even a data base can be opened, and collecting garbage, which
makes room, needs some itself. So a file of :data:`SIZE` bytes takes room while there is enough of
it, is removed when there is none, and is made again later; meanwhile there are no backups, which
would use it up. What is stored for tenants stops before the end of the disk
(:data:`cloudconnect.repository.blobs.FREE_MIN`): it is others that fill it to the last byte.
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
#: The reserve is let go of when fewer bytes are free.
LOW: Final = 8 << 20
#: ... and made again when so many are free, its own among them.
ENOUGH: Final = 2 * SIZE


class Reserve:
    """The reserve of one file system; safe in any thread, and in any number of processes.

    :param path: the file
    :param size: its size in bytes
    :param low: it is removed when fewer bytes are free
    :param enough: it is made when so many bytes are free
    """

    def __init__(self, path: Path, size: int = SIZE, low: int = LOW, enough: int = ENOUGH) -> None:
        self._path = path
        self._size = size
        self._low = low
        self._enough = enough
        self._lock = threading.Lock()

    @property
    def held(self) -> bool:
        """Whether the file is there."""
        return self._path.exists()

    def look(self, make: bool = True) -> None:
        """Let go of it where the disk is nearly full, make it where there is room; else nothing.

        :param make: False: never make it
        """
        with self._lock, contextlib.suppress(OSError):  # also on a read-only disk
            free = self._free()
            if free < self._low:
                self._path.unlink(missing_ok=True)
            elif make and free >= self._enough and not self.held:
                self._make()

    def release(self) -> bool:
        """Let go of it now; whether there was anything to let go of."""
        with self._lock:
            try:
                self._path.unlink()
            except OSError:
                return False
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
