"""Layer 3: files that a restore is writing, under names that a later restore finds again.

A file is written beside its place under a name made of its path, and gets its own name last of all.
What an interrupted restore leaves is used by the next one, if nobody else can have touched it: it
must be a regular file of this user's, with mode 0600, with no other name, and not in use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from typing import Final

from blake3 import blake3

from cloudconnect.backup.matching import open_regular
from cloudconnect.backup.target import TEMPORARY

#: How such names end.
ENDING: Final = b".partial"
#: Only so many bytes of an unfinished file are worth leaving for the next restore.
WORTH_KEEPING: Final = 1 << 20
#: A file that is written: not followed, not there before, readable so that it can be verified.
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Attributes that the system gives to new files by itself.
_OF_THE_SYSTEM: Final = {"security.selinux"}


def partial_name(path: bytes) -> bytes:
    """The name under which the file of this source path is written.

    :param path: the entry's path, before names are stripped from it
    """
    return TEMPORARY + blake3(path).hexdigest(16).encode() + ENDING


def is_partial_name(name: bytes) -> bool:
    """Whether a name is one of those."""
    return name.startswith(TEMPORARY) and name.endswith(ENDING)


def create(parent: int, name: bytes, other: bytes) -> tuple[int, bytes]:
    """A new file, locked, and the name that it has.

    What is left under ``name`` is removed. Where another restore is writing it, or it cannot be
    removed, the file gets the name ``other``.

    :param parent: descriptor of the folder
    :param other: a name that nobody knows
    :raises OSError: it cannot be made
    """
    for _ in range(2):
        try:
            return _locked(os.open(name, _NEW, 0o600, dir_fd=parent)), name
        except FileExistsError:
            if not _remove(parent, name):
                break
    return _locked(os.open(other, _NEW, 0o600, dir_fd=parent)), other


def resume(parent: int, name: bytes) -> int | None:
    """What an earlier restore left under ``name``, locked; None where there is nothing to use."""
    descriptor = open_regular(parent, name, os.O_RDWR)
    if descriptor is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_ours(descriptor) and _has_name(descriptor, parent, name):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _has_name(descriptor: int, parent: int, name: bytes) -> bool:
    """Whether the file still has this name: it may have been finished before it was locked."""
    status, named = os.fstat(descriptor), os.lstat(name, dir_fd=parent)
    return (status.st_dev, status.st_ino) == (named.st_dev, named.st_ino)


def check_name(status: os.stat_result, parent: int, name: bytes) -> None:
    """Make sure that the file of this status still has this name.

    :raises OSError: it has not
    """
    try:
        named = os.lstat(name, dir_fd=parent)
        if (status.st_dev, status.st_ino) == (named.st_dev, named.st_ino):
            return
    except FileNotFoundError:
        pass
    raise OSError("the unfinished file was exchanged while the restore ran")


def _is_ours(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    return (
        status.st_uid == os.geteuid()
        and status.st_nlink == 1
        and stat.S_IMODE(status.st_mode) == 0o600
        and set(_attributes(descriptor)) <= _OF_THE_SYSTEM
    )


def _attributes(descriptor: int) -> list[str]:
    try:
        return os.listxattr(descriptor)
    except OSError:
        return []  # this file system has none


def _remove(parent: int, name: bytes) -> bool:
    """Remove what an earlier restore left; whether it is gone."""
    descriptor = open_regular(parent, name, os.O_RDONLY)
    try:
        if descriptor is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return True


def _locked(descriptor: int) -> int:
    # Nobody can have it locked yet, but where there are no locks at all the file is as good.
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor
