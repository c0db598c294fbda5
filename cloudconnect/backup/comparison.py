"""Layer 3: comparing two trees byte for byte and attribute for attribute.

The tests and ``cloudconnect quickstart`` show with it that a restore is exact. Each side is walked
by folder descriptors, so paths may be of any length and names of any bytes.
"""

# Paths here are bytes, relative to descriptors, which pathlib does not have.
# ruff: noqa: PTH208
from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import attrs

from cloudconnect.backup.metadata import (
    PRIVILEGED_ATTRIBUTES,
    read_attributes,
    through_proc,
)

#: Bytes of content that are compared at a time.
_BLOCK: Final = 1 << 20
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@attrs.frozen
class Difference:
    """One way in which two trees differ.

    :ivar path: relative to the two roots; ``.`` for the roots themselves
    :ivar aspect: ``missing``, ``type``, ``content``, ``size``, ``mode``, ``owner``, ``mtime``,
        ``target``, ``device``, ``attributes`` or ``links``
    :ivar left: what it is on the left, for a person
    :ivar right: what it is on the right
    """

    path: bytes
    aspect: str
    left: str
    right: str

    def __str__(self) -> str:
        name = self.path.decode("utf-8", "backslashreplace")
        return f"{name}: {self.aspect}: {self.left} / {self.right}"


def compare_trees(left: bytes, right: bytes, privileged: bool | None = None) -> list[Difference]:
    """How the trees at and below ``left`` and ``right`` differ; an empty list if they do not.

    Compared are names, types, content, modes, owners, modification times to the nanosecond,
    targets of links, device numbers, extended attributes with access control lists, and which
    names are hard links of one file. Neither tree may change meanwhile.

    :param privileged: also compare owners and attributes that only root can restore; by default,
        where this process is root
    :raises OSError: something cannot be read
    """
    whole = os.geteuid() == 0 if privileged is None else privileged
    return list(_Comparison(whole).roots(left, right))


class _Comparison:
    def __init__(self, privileged: bool) -> None:
        self._privileged = privileged
        # First path at which each side showed a file of several links, by device and inode.
        self._links: tuple[dict[tuple[int, int], bytes], dict[tuple[int, int], bytes]] = ({}, {})

    def roots(self, left: bytes, right: bytes) -> Iterator[Difference]:
        with ExitStack() as stack:
            sides = []
            for path in (left, right):
                whole = path.rstrip(b"/") or b"/"
                above, _, name = whole.rpartition(b"/")
                folder = (above or b"/") if b"/" in whole else b"."
                parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, parent)
                sides.append((parent, name or b"."))
            (left_parent, left_name), (right_parent, right_name) = sides
            yield from self._pair(b".", left_parent, left_name, right_parent, right_name)

    def _pair(
        self, path: bytes, left: int, left_name: bytes, right: int, right_name: bytes
    ) -> Iterator[Difference]:
        one = os.stat(left_name, dir_fd=left, follow_symlinks=False)
        two = os.stat(right_name, dir_fd=right, follow_symlinks=False)
        if stat.S_IFMT(one.st_mode) != stat.S_IFMT(two.st_mode):
            yield Difference(path, "type", stat.filemode(one.st_mode), stat.filemode(two.st_mode))
            return
        yield from self._metadata(path, one, two)
        yield from self._attributes(path, (left, left_name), (right, right_name))
        if stat.S_ISDIR(one.st_mode):
            yield from self._folders(path, left, left_name, right, right_name)
            return
        yield from self._linked(path, one, two)
        if stat.S_ISLNK(one.st_mode):
            targets = os.readlink(left_name, dir_fd=left), os.readlink(right_name, dir_fd=right)
            yield from _unequal(path, "target", *targets)
        elif stat.S_ISREG(one.st_mode):
            yield from _unequal(path, "size", one.st_size, two.st_size)
            if one.st_size == two.st_size:
                yield from _content(path, left, left_name, right, right_name)
        elif stat.S_ISCHR(one.st_mode) or stat.S_ISBLK(one.st_mode):
            yield from _unequal(path, "device", one.st_rdev, two.st_rdev)

    def _metadata(
        self, path: bytes, one: os.stat_result, two: os.stat_result
    ) -> Iterator[Difference]:
        yield from _unequal(path, "mode", oct(one.st_mode), oct(two.st_mode))
        yield from _unequal(path, "mtime", one.st_mtime_ns, two.st_mtime_ns)
        if self._privileged:
            owners = f"{one.st_uid}:{one.st_gid}", f"{two.st_uid}:{two.st_gid}"
            yield from _unequal(path, "owner", *owners)

    def _attributes(
        self, path: bytes, left: tuple[int, bytes], right: tuple[int, bytes]
    ) -> Iterator[Difference]:
        found = [
            [
                pair
                for pair in read_attributes(through_proc(*where))
                if self._privileged or not pair[0].startswith(PRIVILEGED_ATTRIBUTES)
            ]
            for where in (left, right)
        ]
        yield from _unequal(path, "attributes", *found)

    def _linked(
        self, path: bytes, one: os.stat_result, two: os.stat_result
    ) -> Iterator[Difference]:
        first = []
        for known, status in zip(self._links, (one, two), strict=True):
            inode = (status.st_dev, status.st_ino)
            first.append(known.setdefault(inode, path) if status.st_nlink > 1 else path)
        yield from _unequal(path, "links", *(f"a link to {name!r}" for name in first))

    def _folders(
        self, path: bytes, left: int, left_name: bytes, right: int, right_name: bytes
    ) -> Iterator[Difference]:
        one = os.open(left_name, _FOLDER, dir_fd=left)
        try:
            two = os.open(right_name, _FOLDER, dir_fd=right)
            try:
                left_names = set(map(os.fsencode, os.listdir(one)))
                right_names = set(map(os.fsencode, os.listdir(two)))
                for name in sorted(left_names | right_names):
                    below = path + b"/" + name if path != b"." else name
                    if name not in right_names:
                        yield Difference(below, "missing", "there", "not there")
                    elif name not in left_names:
                        yield Difference(below, "missing", "not there", "there")
                    else:
                        yield from self._pair(below, one, name, two, name)
            finally:
                os.close(two)
        finally:
            os.close(one)


def _unequal(path: bytes, aspect: str, left: object, right: object) -> Iterator[Difference]:
    if left != right:
        yield Difference(path, aspect, str(left), str(right))


def _content(
    path: bytes, left: int, left_name: bytes, right: int, right_name: bytes
) -> Iterator[Difference]:
    with (
        open(os.open(left_name, _FILE, dir_fd=left), "rb", buffering=0) as one,
        open(os.open(right_name, _FILE, dir_fd=right), "rb", buffering=0) as two,
    ):
        position = 0
        while True:
            block, other = one.read(_BLOCK), two.read(_BLOCK)
            if block != other:
                yield Difference(path, "content", *(f"at or after byte {position}",) * 2)
                return
            if not block:
                return
            position += len(block)
