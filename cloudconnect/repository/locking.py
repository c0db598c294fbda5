"""Layer 3: who uses a directory, and who may do what only one may: by ``flock``.

A lock ends with the process that holds it, however it ends, and never outlives a power cut. A lease
is a file ``leases/<number as 16 hex digits>-<random>`` that its holder keeps locked; one that can
be locked is nobody's, and is removed by whoever looks. Where no file can be made because the disk
is full, its holder shares a lock on the directory itself, which says "somebody, of number 0": a
restore must not fail for want of a directory entry.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from typing import Final

from zope.interface import implementer

from cloudconnect.errors import Busy
from cloudconnect.interfaces import ILease

#: The directory of leases.
LEASES: Final = "leases"
#: The directory of locks: empty files that are never removed.
LOCKS: Final = "locks"

_LEASE: Final = re.compile(r"([0-9a-f]{16})-[0-9a-f]{16}", re.ASCII)
_LOCK: Final = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_NOFOLLOW | os.O_CLOEXEC


@implementer(ILease)
class LocalLease:
    """A locked file, or a share of the directory's lock where ``name`` is None (:class:`ILease`).

    :param descriptor: holds the lock, and is closed with the lease
    :param directory: an open directory: that of the leases
    """

    def __init__(
        self, number: int, descriptor: int, directory: int | None = None, name: str | None = None
    ) -> None:
        self.number = number
        self.name = name
        self._descriptor: int | None = descriptor
        self._directory = directory

    def release(self) -> None:
        """See :meth:`ILease.release`."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        if self._directory is not None and self.name is not None:
            with contextlib.suppress(OSError):  # whoever looks next removes it
                os.unlink(self.name, dir_fd=self._directory)
            os.close(self._directory)
        os.close(descriptor)


def make_lease(root: int, number: int) -> LocalLease:
    """A lease in the directory with this descriptor.

    :raises OSError: the system cannot make it for another reason than a full disk
    """
    try:
        return _make_file(root, number)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
    descriptor = os.open(".", _DIRECTORY, dir_fd=root)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except BaseException:
        os.close(descriptor)
        raise
    return LocalLease(0, descriptor)


def read_leases(root: int) -> Iterator[int]:
    """The numbers of the leases that are held in the directory with this descriptor."""
    descriptor = os.open(".", _DIRECTORY, dir_fd=root)
    try:
        if not _locked(descriptor):
            yield 0
    finally:
        os.close(descriptor)
    try:
        directory = os.open(LEASES, _DIRECTORY, dir_fd=root)
    except FileNotFoundError:
        return
    try:
        for name in [entry.name for entry in os.scandir(directory)]:
            matched = _LEASE.fullmatch(name)
            if matched and _held(directory, name):
                yield int(matched[1], 16)
    finally:
        os.close(directory)


def lease_held(root: int, name: str) -> bool:
    """Whether somebody holds the lease of this name."""
    if not _LEASE.fullmatch(name):
        return False
    try:
        directory = os.open(LEASES, _DIRECTORY, dir_fd=root)
    except FileNotFoundError:
        return False
    try:
        return _held(directory, name)
    finally:
        os.close(directory)


def lock(root: int, name: str, wait: bool) -> int:
    """A descriptor that holds the lock ``name`` until it is closed.

    :raises Busy: somebody has it, and ``wait`` is false
    """
    if not _LOCK.fullmatch(name):
        raise ValueError("a lock's name has 1 to 64 characters of [a-z0-9_-]")
    with contextlib.suppress(FileExistsError):
        os.mkdir(LOCKS, 0o700, dir_fd=root)
    directory = os.open(LOCKS, _DIRECTORY, dir_fd=root)
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | _FILE, 0o600, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        raise Busy(f"somebody else is at it already ({name})") from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _make_file(root: int, number: int) -> LocalLease:
    with contextlib.suppress(FileExistsError):
        os.mkdir(LEASES, 0o700, dir_fd=root)
    directory = os.open(LEASES, _DIRECTORY, dir_fd=root)
    try:
        while True:
            name = f"{number:016x}-{secrets.token_hex(8)}"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _FILE
            descriptor = os.open(name, flags, 0o600, dir_fd=directory)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # Somebody who looked before it was locked has removed it: once more.
                if os.fstat(descriptor).st_nlink:
                    made, directory = LocalLease(number, descriptor, directory, name), -1
                    descriptor = -1
                    return made
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
    finally:
        if directory >= 0:
            os.close(directory)


def _held(directory: int, name: str) -> bool:
    """Whether the lease of this name is held; one that is not is removed."""
    try:
        descriptor = os.open(name, os.O_RDONLY | _FILE, dir_fd=directory)
    except FileNotFoundError:
        return False
    try:
        if not _locked(descriptor):
            return True
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        return False
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Lock it alone, if nobody else has it; the lock goes when it is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
