"""Layer 3: where packs and reference lists lie: files in a local directory.

What has a name is complete and durable. It is written to a file in ``temporary/``, fsynced, linked
under its name, and the directory of the name is fsynced (architecture decision 11). A temporary
file is locked (``flock``) for as long as the process that writes it lives, so what a killed process
left behind can be told from what another session is writing now, and is removed by :meth:`clean`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from zope.interface import implementer

from cloudconnect.errors import NoSpace, NotFound, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore, IBlobWriter
from cloudconnect.repository.locking import (
    LEASES,
    LOCKS,
    LocalLease,
    lease_held,
    lock,
    make_lease,
    read_leases,
)

#: Bytes that are collected before they are handed to the system.
BUFFER_SIZE: Final = 1 << 20
#: A store takes nothing more when fewer bytes than this are free on its file system: the catalogue
#: beside it needs room, and without it a full disk could not even be read.
FREE_MIN: Final = 64 << 20
#: The directory of files that have no name yet.
TEMPORARY: Final = "temporary"

#: Directories in which no blob lies.
_APART: Final = frozenset(f"{name}/" for name in (TEMPORARY, LEASES, LOCKS))
_NAME: Final = re.compile(r"(?=.{1,200}\Z)[a-z0-9_-]+(/[a-z0-9_-]+)*", re.ASCII)
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_NEEDED: Final[int | None] = getattr(os, "POSIX_FADV_DONTNEED", None)
_FILE: Final = os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def _full_is_no_space() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace("the provider's disk is full") from error
        raise


@implementer(IBlobStore)
class LocalBlobStore:
    """Blobs as files below a directory of mode 0700; ``a/b`` is the file ``b`` in ``a``.

    Any number of these, in any number of processes, may stand on one directory.

    :param directory: is made when it is missing, its parent must exist
    :param free_min: bytes that must stay free on the file system
    :param create: whether to make the directories; False for a read-only file system
    :raises OSError: the directory cannot be made or opened, or is a symbolic link
    """

    def __init__(self, directory: str, free_min: int = FREE_MIN, create: bool = True) -> None:
        if create:
            path = Path(directory).absolute()
            with contextlib.suppress(FileExistsError), _full_is_no_space():
                path.mkdir(mode=0o700)
            _sync_directory(path.parent)
        self._root: int | None = os.open(directory, _DIRECTORY)
        self._free_min = free_min
        self._made: set[str] = set()  # directories that are durable: this object has seen to it
        if create:
            self._make(TEMPORARY)

    @property
    def _at(self) -> int:
        if self._root is None:
            raise ValueError("this store is closed")
        return self._root

    def close(self) -> None:
        """Let go of the directory; may be called again."""
        root, self._root = self._root, None
        if root is not None:
            os.close(root)

    def begin(self) -> LocalBlobWriter:
        """See :meth:`IBlobStore.begin`."""
        free = os.fstatvfs(self._at)
        if free.f_bavail * free.f_frsize < self._free_min:
            raise NoSpace("the provider's disk is full")
        with _full_is_no_space():
            return LocalBlobWriter(self)

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> int:
        """See :meth:`IBlobStore.put`."""
        writer = self.begin()
        try:
            for part in parts:
                writer.write(part)
            return writer.commit(name)
        finally:
            writer.discard()

    def read(self, name: str, offset: int, length: int) -> bytes:
        """See :meth:`IBlobStore.read`."""
        with self._opened(name) as descriptor:
            octets = _read_at(descriptor, offset, length)
        if len(octets) != length:
            raise StoredDataDamaged(f"{name} ends before byte {offset + length}")
        return octets

    def size(self, name: str) -> int:
        """See :meth:`IBlobStore.size`."""
        with self._opened(name) as descriptor:
            return os.fstat(descriptor).st_size

    def settle(self, name: str) -> None:
        """See :meth:`IBlobStore.settle`."""
        self.size(name)  # it is there
        with self._parent(name) as (parent, _):
            os.fsync(parent)

    def names(self, prefix: str = "") -> Iterator[str]:
        """See :meth:`IBlobStore.names`."""
        return self._names("", prefix)

    def remove(self, name: str) -> None:
        """See :meth:`IBlobStore.remove`."""
        with contextlib.suppress(FileNotFoundError), self._parent(name) as (parent, last):
            os.unlink(last, dir_fd=parent)
            os.fsync(parent)

    def lease(self, number: int) -> LocalLease:
        """See :meth:`IBlobStore.lease`."""
        return make_lease(self._at, number)

    def leases(self) -> Iterator[int]:
        """See :meth:`IBlobStore.leases`."""
        return read_leases(self._at)

    def lease_held(self, name: str) -> bool:
        """See :meth:`IBlobStore.lease_held`."""
        return lease_held(self._at, name)

    @contextlib.contextmanager
    def exclusive(self, name: str, wait: bool = False) -> Iterator[None]:
        """See :meth:`IBlobStore.exclusive`."""
        with _full_is_no_space():
            held = lock(self._at, name, wait)
        try:
            yield
        finally:
            os.close(held)

    def clean(self) -> int:
        """Remove the temporary files of processes that are gone, and say how many there were."""
        removed = 0
        with self._parent(f"{TEMPORARY}/any") as (parent, _):
            for name in [entry.name for entry in os.scandir(parent)]:
                with contextlib.suppress(OSError):
                    descriptor = os.open(name, os.O_RDONLY | _FILE, dir_fd=parent)
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os.unlink(name, dir_fd=parent)
                        removed += 1
                    finally:
                        os.close(descriptor)
        return removed

    def _names(self, directory: str, prefix: str) -> Iterator[str]:
        with self._parent(f"{directory}any") as (parent, _):
            found = sorted(
                directory + entry.name + "/" * entry.is_dir(follow_symlinks=False)
                for entry in os.scandir(parent)
            )
        for name in found:
            if not name.endswith("/"):
                if name.startswith(prefix) and _NAME.fullmatch(name):
                    yield name
            elif name.startswith(prefix[: len(name)]) and name not in _APART:
                yield from self._names(name, prefix)

    @contextlib.contextmanager
    def _parent(self, name: str, make: bool = False) -> Iterator[tuple[int, str]]:
        """A descriptor of the directory in which ``name`` lies, and its last component."""
        if not _NAME.fullmatch(name):
            raise ValueError("a blob's name has 1 to 200 characters of [a-z0-9/_-]")
        *directories, last = name.split("/")
        descriptor, path = os.dup(self._at), ""
        try:
            for directory in directories:
                path += f"{directory}/"
                if make and path not in self._made:
                    self._make(directory, descriptor)
                    self._made.add(path)
                below = os.open(directory, _DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor, last
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        try:
            with self._parent(name) as (parent, last):
                descriptor = os.open(last, os.O_RDONLY | _FILE, dir_fd=parent)
        except FileNotFoundError as error:
            raise NotFound(f"{name} is not in the store") from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _make(self, directory: str, parent: int | None = None) -> None:
        parent = self._at if parent is None else parent
        with _full_is_no_space():
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700, dir_fd=parent)
            # Also where it was there: another process may have made it and not come to this yet.
            os.fsync(parent)


@implementer(IBlobWriter)
class LocalBlobWriter:
    """A temporary file that gets its name when it is complete (:class:`IBlobWriter`).

    :param store: where it will lie
    """

    def __init__(self, store: LocalBlobStore) -> None:
        self._store = store
        self._buffer = bytearray(BUFFER_SIZE)
        self._filled = 0
        self._written = 0
        self._failed = False
        self._descriptor: int | None = None
        self.size = 0
        while self._descriptor is None:
            self._create()

    def _create(self) -> None:
        """Make a file and lock it; somebody's clean() may have removed it in between."""
        self._name = f"{TEMPORARY}/{secrets.token_hex(16)}"
        with self._store._parent(self._name) as (parent, last):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _FILE
            descriptor = os.open(last, flags, 0o600, dir_fd=parent)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                self._descriptor, descriptor = descriptor, -1
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def write(self, *parts: bytes | bytearray | memoryview) -> None:
        """See :meth:`IBlobWriter.write`."""
        for part in parts:
            length = len(part)
            if self._filled + length > BUFFER_SIZE:
                self._flush()
            if length > BUFFER_SIZE:
                self._write_out(memoryview(part))
            else:
                self._buffer[self._filled : self._filled + length] = part
                self._filled += length
            self.size += length

    def read(self, offset: int, length: int) -> bytes:
        """See :meth:`IBlobWriter.read`."""
        self._flush()
        return _read_at(self._usable(), offset, length)

    def commit(self, name: str) -> int:
        """See :meth:`IBlobWriter.commit`."""
        self._flush()
        descriptor = self._usable()
        with self._poisoned_by_errors():
            os.fsync(descriptor)
        with (
            self._store._parent(self._name) as (temporary, old),
            self._store._parent(name, make=True) as (parent, last),
        ):
            try:
                with _full_is_no_space():
                    os.link(old, last, src_dir_fd=temporary, dst_dir_fd=parent)
            except FileExistsError:
                raise FileExistsError(f"{name} is in the store already") from None
            with self._poisoned_by_errors():
                os.fsync(parent)
        self.discard()
        return self.size

    def discard(self) -> None:
        """See :meth:`IBlobWriter.discard`."""
        descriptor, self._descriptor = self._descriptor, None
        self._buffer, self._filled = bytearray(), 0
        if descriptor is not None:
            with (
                contextlib.suppress(FileNotFoundError),
                self._store._parent(self._name) as (parent, last),
            ):
                os.unlink(last, dir_fd=parent)
            os.close(descriptor)

    def _usable(self) -> int:
        if self._failed or self._descriptor is None:
            raise ValueError("this blob has failed, or is stored or discarded already")
        return self._descriptor

    @contextlib.contextmanager
    def _poisoned_by_errors(self) -> Iterator[None]:
        """After an error nothing can be known of what the system has kept: no second try."""
        try:
            with _full_is_no_space():
                yield
        except Exception:
            self._failed = True
            raise

    def _flush(self) -> None:
        filled, self._filled = self._filled, 0
        self._write_out(memoryview(self._buffer)[:filled])

    def _write_out(self, view: memoryview) -> None:
        descriptor, length = self._usable(), len(view)
        with self._poisoned_by_errors():
            while len(view):
                view = view[os.write(descriptor, view) :]
        # The disk begins now, so that the commit's fsync has little to wait for: a system that is
        # told that it need not keep dirty pages starts to write them.
        if _NOT_NEEDED is not None:
            os.posix_fadvise(descriptor, self._written, length, _NOT_NEEDED)
        self._written += length


def _read_at(descriptor: int, offset: int, length: int) -> bytes:
    """Up to ``length`` bytes from ``offset``, fewer only at the end of the file."""
    octets = os.pread(descriptor, length, offset)
    while len(octets) < length:
        more = os.pread(descriptor, length - len(octets), offset + len(octets))
        if not more:
            break
        octets += more
    return octets


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, _DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
