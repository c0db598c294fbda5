"""Layer 4: the folder of repositories that movers share: which one it is, and on which host.

Any number of processes of one host may read and write one repository at once: its locks and leases
are the kernel's, and a tenant's quota is reserved in its catalogue
(:mod:`cloudconnect.repository.reservations`).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

#: The file in a folder of repositories that names it.
STORAGE_FILE: Final = "storage"
#: Size of that name, in bytes.
STORAGE_SIZE: Final = 16


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
