"""Trees of odd things for the tests of this package."""

from __future__ import annotations

import os
import stat
import struct
from typing import Final

#: 2001-09-09, with nanoseconds: old enough for the cache of unchanged files to trust it.
OLD_NS: Final = 1_000_000_000_123_456_789

ODD_NAMES: Final = (
    b"not-utf-8-\xff\xfe",
    b"new\nline",
    b" spaces at both ends ",
    b"-n",
    b"tab\tand\x01control",
    "ünïcödé-✓".encode(),
    b"back\\slash*and?glob[s]",
    b"n" * 255,
)


def is_root() -> bool:
    return os.geteuid() == 0


def write(path: bytes, data: bytes, mode: int = 0o644, mtime_ns: int | None = None) -> None:
    """A file at ``path``, folders on the way included."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))


def write_sparse(path: bytes, extents: dict[int, bytes], size: int) -> None:
    """A file of ``size`` bytes that holds only ``extents`` (bytes at their offsets)."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        for offset, data in extents.items():
            file.seek(offset)
            file.write(data)
        file.truncate(size)


def allocated(path: bytes) -> int:
    """Bytes that a file takes on the disk."""
    return os.lstat(path).st_blocks * 512


def access_list(user: int) -> bytes:
    """A POSIX access control list, as its extended attribute, that lets ``user`` read."""
    entries = [(0x01, 7, -1), (0x02, 4, user), (0x04, 5, -1), (0x10, 5, -1), (0x20, 0, -1)]
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, permissions, who & 0xFFFFFFFF) for tag, permissions, who in entries
    )


def deep_folder(top: bytes, levels: int, name: bytes) -> None:
    """``levels`` folders in one another, the last of them with the file ``bottom``."""
    os.makedirs(top, exist_ok=True)
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    file = os.open(b"bottom", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor)
    os.write(file, b"far down")
    os.close(file)
    os.close(descriptor)


def remove_deep(top: bytes) -> None:
    """Remove a tree whose paths may be longer than a call takes."""
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Bring what lies deep up to the top, a level at a time, so that no path gets long.
        while True:
            folders = [e.name for e in os.scandir(descriptor) if e.is_dir(follow_symlinks=False)]
            if not folders:
                break
            for number, name in enumerate(folders):
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
                for inner in os.listdir(below):
                    fresh = f".gone-{number}-{os.urandom(6).hex()}"
                    os.rename(inner, fresh, src_dir_fd=below, dst_dir_fd=descriptor)
                os.close(below)
                os.rmdir(name, dir_fd=descriptor)
        for name in os.listdir(descriptor):
            os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    os.rmdir(top)


def make_odd_tree(top: bytes) -> None:
    """Everything that a backup must keep, as far as this user can make it."""
    os.makedirs(top)
    for name in ODD_NAMES:
        write(top + b"/names/" + name, b"content of " + name)
    os.makedirs(top + b"/empty folder")
    write(top + b"/empty file", b"")
    write(top + b"/modes/setuid", b"#!/bin/true\n", 0o4755)
    write(top + b"/modes/read-only", b"x", 0o400)
    write(top + b"/modes/nothing", b"y", 0o000 if is_root() else 0o400)
    write(top + b"/large", os.urandom(1_300_000))
    write(top + b"/medium", b"0123456789abcdef" * 5000)
    write_sparse(top + b"/sparse/start", {0: b"data" * 2000}, 4 << 20)
    write_sparse(top + b"/sparse/middle", {1 << 20: os.urandom(70_000), 3 << 20: b"z"}, 5 << 20)
    write_sparse(top + b"/sparse/all", {}, 1 << 20)
    write_sparse(top + b"/sparse/small", {32768: b"end"}, 40_000)
    write(top + b"/links/one", b"several names")
    os.link(top + b"/links/one", top + b"/links/two")
    os.link(top + b"/links/one", top + b"/names/three")
    os.symlink(b"one", top + b"/links/relative")
    os.symlink(b"/nowhere/\xff", top + b"/links/dangling")
    os.symlink(b"../links", top + b"/links/folder")
    os.mkfifo(top + b"/fifo", 0o640)
    make_socket(top + b"/socket")
    if is_root():
        os.mknod(top + b"/null", 0o20666, os.makedev(1, 3))
        os.chown(top + b"/medium", 12345, 54321)
        os.chown(top + b"/links/dangling", 12345, 54321, follow_symlinks=False)
    write(top + b"/attributes/file", b"with attributes")
    for path in (top + b"/attributes/file", top + b"/attributes"):
        set_attribute(path, b"user.test", b"value\x00\xff")
        set_attribute(path, b"system.posix_acl_access", access_list(12345))
    set_attribute(top + b"/attributes", b"system.posix_acl_default", access_list(12345))
    age_tree(top)


def set_attribute(path: bytes, name: bytes, value: bytes) -> bool:
    """Set it if the file system can; whether it could."""
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError:
        return False
    return True


def age_tree(top: bytes) -> None:
    """Give everything times of its own, in the past, to the nanosecond."""
    number = 0
    for folder, folders, files in os.walk(top, topdown=False):
        for name in files + folders:
            number += 1
            when = OLD_NS + number * 1_000_000_007
            path = os.path.join(folder, name)
            os.utime(path, ns=(when, when), follow_symlinks=False)
    os.utime(top, ns=(OLD_NS, OLD_NS))


def make_socket(path: bytes) -> None:
    """A socket's name, of any length, with nobody listening."""
    os.mknod(path, stat.S_IFSOCK | 0o755)
