"""A tree outside a restore's target, and whether anything about it was changed."""

from __future__ import annotations

import os
from typing import Any

from tests.backup.trees import OLD_NS, set_attribute, write

#: What of a thing's status must stay; a further name that an attacker made himself may show.
_FIELDS = ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ino", "st_rdev")


def make_sentinel(top: bytes) -> None:
    """One of each kind of thing that somebody could want to reach."""
    write(top + b"/secret", b"secret", 0o600, OLD_NS)
    write(top + b"/plain", b"plain", 0o600, OLD_NS)
    write(top + b"/program", b"#!/bin/true\n", 0o4755, OLD_NS)
    write(top + b"/folder/inside", b"inside", 0o640, OLD_NS)
    os.symlink(b"secret", top + b"/link")
    os.mkfifo(top + b"/fifo", 0o600)
    set_attribute(top + b"/secret", b"user.sentinel", b"value")
    os.utime(top + b"/folder", ns=(OLD_NS, OLD_NS))
    os.utime(top, ns=(OLD_NS, OLD_NS))


def snapshot(top: bytes, changes: bool = True) -> dict[bytes, Any]:
    """Everything at and below ``top``: content, metadata, attributes.

    :param changes: also when each thing's status was last changed, and how many names it has:
        nothing can be done to a thing without a trace there
    """
    found = {}
    waiting = [top]
    while waiting:
        path = waiting.pop()
        status = os.lstat(path)
        fields: list[Any] = [getattr(status, name) for name in _FIELDS]
        if changes:
            fields += [status.st_ctime_ns, status.st_nlink]
        names = os.listxattr(path, follow_symlinks=False)
        fields += [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
        if os.path.islink(path):
            fields.append(os.readlink(path))
        elif os.path.isdir(path):
            below = sorted(os.listdir(path))
            fields.append(below)
            waiting += [path + b"/" + name for name in below]
        elif os.path.isfile(path):
            with open(path, "rb") as file:
                fields.append(file.read())
        found[path[len(top) :]] = fields
    return found
