"""Layer 1: one entry of a manifest: a file, a directory or another thing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

from cloudconnect.content.runs import Run, RunList, check_run
from cloudconnect.settings import MANIFEST_RUNS_MAX

#: In :attr:`Entry.flags`: the file was changed while it was read, so its content may be mixed.
FLAG_CHANGED: Final = 0x01
#: Longest path or symlink target, in bytes: Linux opens 4,095 at once, but a walk goes deeper.
PATH_MAX: Final = 65535

_U32: Final = 1 << 32
_I63: Final = 1 << 63
_U64: Final = 1 << 64

_SLASH: Final = 0x2F
_BAD_PATH: Final = re.compile(rb"\0|/\.{0,2}(?:/|\Z)")  # a zero byte, or an odd part
_ODD_PART: Final = re.compile(rb"/\.{0,2}(?:/|\Z)")  # "//", "/./", "/../", also at the end
_NO_NAMES: Final = frozenset((b"", b".", b".."))


class EntryType(StrEnum):
    """What kind of thing an entry is."""

    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"
    FIFO = "p"
    CHARACTER = "c"
    BLOCK = "b"
    SOCKET = "s"


class _Fields(NamedTuple):
    path: bytes
    type: EntryType
    mode: int
    uid: int
    gid: int
    user: str
    group: str
    mtime_ns: int
    size: int
    runs: Sequence[Run]
    target: bytes | None
    device: int | None
    link: bytes | None
    xattrs: tuple[tuple[bytes, bytes], ...]
    flags: int


class Entry(_Fields):
    """One file, directory or other thing.

    A tuple, as there are millions of them, and it is what Python makes fastest. ``_replace`` does
    not look at what it is given.

    :ivar path: absolute, as the system's bytes
    :ivar type: what it is
    :ivar mode: permission bits, set-id and sticky bits: 12 bits
    :ivar uid: owner's number
    :ivar gid: group's number
    :ivar user: owner's name or ""; bytes that are not UTF-8 as surrogate escapes
    :ivar group: group's name or "", likewise
    :ivar mtime_ns: time of last change of content, nanoseconds since 1970, may be negative
    :ivar size: bytes of a file's content; the runs add up to it. 0 for everything else
    :ivar runs: a file's content: a tuple, or a :class:`RunList` where there are very many
    :ivar target: where a symlink points, as the system's bytes
    :ivar device: what a device special file stands for (``st_rdev``)
    :ivar link: path of the first entry with the same inode: this is a hard link to it, without
        content of its own
    :ivar xattrs: extended attributes (name, value), sorted by name, ACLs included
    :ivar flags: FLAG_CHANGED
    :raises ValueError: something is out of bounds, or does not go together
    """

    __slots__ = ()

    def __new__(
        cls,
        path: bytes,
        type: EntryType,
        mode: int,
        uid: int,
        gid: int,
        user: str,
        group: str,
        mtime_ns: int,
        size: int = 0,
        runs: Sequence[Run] = (),
        target: bytes | None = None,
        device: int | None = None,
        link: bytes | None = None,
        xattrs: tuple[tuple[bytes, bytes], ...] = (),
        flags: int = 0,
    ) -> Self:
        """Make one, of which everything was looked at."""
        entry = super().__new__(
            cls, path, type, mode, uid, gid, user, group, mtime_ns, size, runs, target, device,
            link, xattrs, flags,
        )  # fmt: skip
        entry._check()
        return entry

    def __repr__(self) -> str:
        shown = self._asdict() | {"runs": f"<{len(self.runs)} runs>"}
        return f"Entry({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def _check(self) -> None:
        # What could not be read back must not be written, so both ways pass here.
        if not (
            type(self.mode) is type(self.uid) is type(self.gid) is type(self.mtime_ns) is int
            and type(self.size) is type(self.flags) is int
            and 0 <= self.mode <= 0o7777
            and 0 <= self.uid < _U32
            and 0 <= self.gid < _U32
            and -_I63 <= self.mtime_ns < _I63
            and 0 <= self.size < _I63
            and 0 <= self.flags < 256
        ):
            raise ValueError("a number of an entry is out of bounds")
        path = self.path  # as check_path, without the call: there are millions of entries
        if not (
            type(path) is bytes
            and 1 <= len(path) <= PATH_MAX
            and path[0] == _SLASH
            and (not _BAD_PATH.search(path) or path == b"/")
        ):
            check_path(path)
        if self.runs or self.size or self.link is not None:
            self._check_content()
        if (self.target is not None) is not (self.type is EntryType.SYMLINK):
            raise ValueError("symlinks have a target, and nothing else has")
        if self.target is not None:
            _check_octets(self.target, PATH_MAX)
        device = self.device
        if device is not None and not (type(device) is int and 0 <= device < _U64):
            raise ValueError("a device number is out of bounds")
        if self.xattrs:
            names = [name for name, value in self.xattrs if type(value) is bytes]
            if len(names) != len(self.xattrs) or names != sorted(set(names)):
                raise ValueError("extended attributes are not sorted, or one is there twice")
            for name in names:
                _check_octets(name, 255)

    def _check_content(self) -> None:
        if self.link is not None:
            check_path(self.link)
            if self.runs:
                raise ValueError("a hard link has content of its own")
            return
        if self.type is not EntryType.FILE:
            raise ValueError("only files have content")
        runs, total = self.runs, 0
        if isinstance(runs, RunList):  # checked as it was made
            total = runs.total
        else:
            for run in runs:
                if not check_run(run):
                    raise ValueError("a run is out of bounds")
                total += run.length
        if total != self.size or len(runs) > MANIFEST_RUNS_MAX:
            raise ValueError("a file's runs do not add up to its size, or are too many")


def _check_octets(octets: Any, most: int) -> None:
    if type(octets) is not bytes or not 1 <= len(octets) <= most or b"\0" in octets:
        raise ValueError("a name is empty, too long, or has a zero byte in it")


def check_path(path: Any) -> None:
    """Refuse what does not name one place below the root.

    :raises ValueError: it does not
    """
    _check_octets(path, PATH_MAX)
    if path[0] != _SLASH or (_ODD_PART.search(path) and path != b"/"):
        raise ValueError("a path is not absolute, or has empty or dotted parts")


class PathCheck:
    """Looks at the paths of a walk: most have the folder of the one before, which needs no second
    look."""

    def __init__(self) -> None:
        self._folder: bytes | None = None  # of the last path that was looked at whole

    def names(self, path: bytes) -> bool:
        """Whether ``path``, of 1 to PATH_MAX bytes, names one place below the root."""
        folder, _, last = path.rpartition(b"/")
        if folder == self._folder:
            return last not in _NO_NAMES and b"\0" not in last
        if path[0] != _SLASH or _BAD_PATH.search(path):
            return False
        self._folder = folder or None  # b"" is also what stands before a name without a slash
        return True
