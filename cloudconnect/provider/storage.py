"""Layer 4: the folder of repositories that movers share: which one it is, and who writes where.

Any number of processes of one host may read and write one repository at once; its locks and leases
are the kernel's, and a tenant's quota is reserved in its catalogue
(:mod:`cloudconnect.repository.reservations`). Backups of one repository are taken in by one mover
at a time all the same: the service sees to it, and the lock here holds it where the service cannot
know.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from cloudconnect.errors import Busy
from cloudconnect.repository.locking import lock

#: The file in a folder of repositories that names it.
STORAGE_FILE: Final = "storage"
#: Size of that name, in bytes.
STORAGE_SIZE: Final = 16
#: The lock in a repository of the mover that takes backups of it.
WRITING: Final = "write"
_NO_WRITING: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def storage_of(directory: Path) -> bytes:
    """The name of a folder of repositories, made at the first call: 16 bytes.

    :raises OSError: it cannot be read or made
    """
    path = directory / STORAGE_FILE
    with contextlib.suppress(FileNotFoundError, ValueError):
        return _read(path)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = directory / f".{STORAGE_FILE}.{os.urandom(8).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(STORAGE_SIZE).hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(temporary, path)
    finally:
        temporary.unlink()
    return _read(path)


def _read(path: Path) -> bytes:
    octets = bytes.fromhex(path.read_text("ascii").strip())
    if len(octets) != STORAGE_SIZE:
        raise ValueError(f"{path} is damaged: it has {2 * STORAGE_SIZE} hexadecimal digits")
    return octets


def host_name() -> str:
    """What tells this host, since it was started, from others."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return os.uname().nodename


@attrs.define
class _Held:
    descriptor: int | None
    count: int = 1


class WriteLocks:
    """The repositories that this process takes backups of; safe in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Path, _Held] = {}

    def check(self, folder: Path) -> None:
        """That no other mover takes backups of the repository in ``folder``.

        :raises Busy: one does
        """
        with self.writing(folder):
            pass

    @contextlib.contextmanager
    def writing(self, folder: Path) -> Iterator[None]:
        """Take backups of the repository in ``folder``; as often as needed in this process.

        :raises Busy: another process does
        """
        with self._lock:
            held = self._held.get(folder)
            if held is None:
                self._held[folder] = _Held(_take(folder))
            else:
                held.count += 1
        try:
            yield
        finally:
            with self._lock:
                held = self._held[folder]
                held.count -= 1
                if not held.count:
                    del self._held[folder]
                    if held.descriptor is not None:
                        os.close(held.descriptor)


def _take(folder: Path) -> int | None:
    """The lock; None where the disk is full or read-only, and nothing can be written anyway."""
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return lock(root, WRITING, wait=False)
    except Busy:
        raise Busy("another data mover of the provider still takes backups of it") from None
    except OSError as error:
        if error.errno in _NO_WRITING:
            return None
        raise
    finally:
        os.close(root)
