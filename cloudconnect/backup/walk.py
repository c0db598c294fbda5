"""Layer 3: walking the sources, depth first, each folder's names in the order of their bytes.

All named sources are one walk from ``/`` down, so nothing comes twice where sources overlap, and
the order of the paths is the same in every backup. The folders on the way to a source come as
*ancestors*: they are recorded, so that a restore can make them as they were, but nothing else of
them is looked at. Every folder is opened relative to its parent's descriptor without following
links, so that paths may be of any length, and a folder that is exchanged for a link while the
backup runs leads nowhere. Only links in the way *to* a named source are followed, as any program
would that is given that path; a source that is itself a link is recorded as a link, unless it was
named with ``/`` at its end, or leads to a block device: who names ``/dev/group/volume`` means the
volume.
"""

# Paths here are bytes, relative to descriptors, which pathlib does not have.
# ruff: noqa: PTH109, PTH118
from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from cloudconnect.backup.rules import ExcludeRules
from cloudconnect.errors import UsageError
from cloudconnect.shown import Shown

#: Folders of one branch that are held open at once; what lies further up is opened again through
#: ``..`` on the way back. Far below the usual limit of 1024 descriptors.
OPEN_FOLDERS_MAX: Final = 128

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_USER: Final = os.geteuid()
_NOATIME: Final = getattr(os, "O_NOATIME", 0)
_ON_THE_WAY: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


@attrs.frozen(slots=True, repr=False)
class Unreadable(Shown):
    """Something that could not be backed up, and why.

    :ivar path: absolute
    :ivar reason: a few words for a person
    """

    path: bytes
    reason: str


class Found:
    """Something that was found; its descriptors are valid until the next one is asked for.

    :ivar path: absolute
    :ivar name: its last name, relative to ``parent``
    :ivar parent: descriptor of the folder that it lies in
    :ivar status: of the thing itself, links not followed (of the folder, for an ancestor)
    :ivar descriptor: of the folder itself, where it is one and could be opened; else None
    :ivar ancestor: only on the way to a source, not part of one
    :ivar named: a source itself, and no folder; links were followed where ``status`` is of no link
    """

    __slots__ = ("ancestor", "descriptor", "name", "named", "parent", "path", "status")

    def __init__(
        self,
        path: bytes,
        name: bytes,
        parent: int,
        status: os.stat_result,
        descriptor: int | None = None,
        ancestor: bool = False,
        named: bool = False,
    ) -> None:
        self.path = path
        self.name = name
        self.parent = parent
        self.status = status
        self.descriptor = descriptor
        self.ancestor = ancestor
        self.named = named


def absolute(path: bytes) -> bytes:
    """``path`` made absolute and tidy; ``/`` at its end, which means "follow it", is kept.

    ``..`` is resolved as text, as most programs do it.

    :raises UsageError: it is empty or has NUL
    """
    if not path or b"\0" in path:
        raise UsageError("a source path is empty or has NUL")
    tidy = b"/" + os.path.normpath(os.path.join(os.getcwdb(), path)).lstrip(b"/")
    return tidy + b"/" if path.endswith(b"/") and tidy != b"/" else tidy


def reason_of(error: OSError) -> str:
    """What a person is told of ``error``."""
    if isinstance(error, FileNotFoundError):
        return "vanished while the backup ran"
    return error.strerror or type(error).__name__


def open_quietly(name: bytes, flags: int, parent: int, owner: int) -> int:
    """Open ``name`` in ``parent`` without changing its access time, where that is allowed.

    :param owner: user number of the owner: only the owner and root may leave access times alone
    :raises OSError: it cannot be opened
    """
    if _NOATIME and _USER in (0, owner):
        try:
            return os.open(name, flags | _NOATIME, dir_fd=parent)
        except PermissionError:
            pass  # root of a container is not root of every file
    return os.open(name, flags, dir_fd=parent)


def open_below(sources: Iterable[bytes], path: bytes) -> int:
    """The folder that holds ``path``, opened again without following links below its source.

    :param sources: what :func:`walk` was given
    :raises OSError: it cannot be opened
    """
    above = path[: path.rindex(b"/")]
    fitting = [source.rstrip(b"/") for source in sources]
    start = max((s for s in fitting if (above + b"/").startswith(s + b"/")), default=above, key=len)
    descriptor = os.open(b"/", _ON_THE_WAY)
    for number, name in enumerate(above.split(b"/")[1:], 1):
        flags = _ON_THE_WAY if number <= start.count(b"/") else _ON_THE_WAY | os.O_NOFOLLOW
        try:
            below = os.open(name, flags, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


class _Named:
    """A name on the way to sources, or of one.

    :ivar source: it is one
    :ivar follow: and a link is to be followed
    """

    __slots__ = ("below", "follow", "source")

    def __init__(self) -> None:
        self.below: dict[bytes, _Named] = {}
        self.source = False
        self.follow = False


class _Folder:
    """A folder that the walk is in.

    :ivar descriptor: or -1 while it is closed because the branch is deep
    :ivar device: what ``one_file_system`` compares with
    :ivar included: part of a source; else only on the way to one
    :ivar names: still to be visited, last one first
    """

    __slots__ = ("descriptor", "device", "identity", "included", "named", "names", "path", "prefix")

    def __init__(
        self,
        path: bytes,
        descriptor: int,
        status: os.stat_result,
        named: _Named | None,
        included: bool,
        device: int,
        names: list[bytes],
    ) -> None:
        self.path = path
        self.prefix = b"/" if path == b"/" else path + b"/"
        self.descriptor = descriptor
        self.identity = (status.st_dev, status.st_ino)
        self.named = named
        self.included = included
        self.device = device
        self.names = names


def walk(
    paths: Iterable[bytes], rules: ExcludeRules | None = None, one_file_system: bool = False
) -> Iterator[Found | Unreadable]:
    """Everything at and below ``paths`` that ``rules`` do not exclude.

    :param paths: sources, as :func:`absolute` makes them
    :param one_file_system: of a folder on another file system than its source, give only the folder
    :returns: an iterator; closing it closes the folders that it holds open
    """
    return _Walk(rules or ExcludeRules(), one_file_system).run(_named(paths))


def _named(paths: Iterable[bytes]) -> _Named:
    root = _Named()
    for path in paths:
        named = root
        for name in path.split(b"/"):
            if name:
                named = named.below.setdefault(name, _Named())
        named.source = True
        named.follow = named.follow or path.endswith(b"/")
    return root


class _Walk:
    def __init__(self, rules: ExcludeRules, one_file_system: bool) -> None:
        self._rules = rules
        self._one_file_system = one_file_system
        self._stack: list[_Folder] = []

    def run(self, root: _Named) -> Iterator[Found | Unreadable]:
        try:
            descriptor = os.open(b"/", _FOLDER if root.source else _ON_THE_WAY)
            yield from self._enter(b"/", b".", descriptor, descriptor, root, root.source, None)
            while self._stack:
                folder = self._stack[-1]
                if not folder.names:
                    yield from self._leave()
                    continue
                name = folder.names.pop()
                named = folder.named.below.get(name) if folder.named else None
                path = folder.prefix + name
                if named is not None and (named.source or not folder.included):
                    yield from self._visit_named(folder, name, path, named)
                else:
                    yield from self._visit(folder, name, path, named)
        finally:
            for folder in self._stack:
                if folder.descriptor >= 0:
                    os.close(folder.descriptor)

    def _visit_named(
        self, folder: _Folder, name: bytes, path: bytes, named: _Named
    ) -> Iterator[Found | Unreadable]:
        """A source, or what is on the way to one."""
        if not named.source:
            yield from self._pass_through(folder, name, path, named)
            return
        try:
            status = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=named.follow)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            yield Unreadable(path, "does not exist" if missing else reason_of(error))
            return
        if stat.S_ISDIR(status.st_mode):
            yield from self._visit_folder(folder, name, path, named, status)
            return
        if stat.S_ISLNK(status.st_mode):
            status = _device_behind(folder.descriptor, name) or status
        yield Found(path, name, folder.descriptor, status, named=True)
        for below in named.below:
            yield Unreadable(path + b"/" + below, "does not exist")

    def _visit(
        self, folder: _Folder, name: bytes, path: bytes, named: _Named | None
    ) -> Iterable[Found | Unreadable]:
        """Something in a folder that is part of a source; most things come by here."""
        try:
            status = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
        except OSError as error:
            return (Unreadable(path, reason_of(error)),)
        mode = status.st_mode
        is_folder = stat.S_ISDIR(mode)
        if self._rules.excludes(path, is_folder):
            if is_folder and named is not None:
                return self._pass_through(folder, name, path, named)
            return ()
        if is_folder:
            return self._visit_folder(folder, name, path, named, status)
        if stat.S_ISREG(mode) and self._rules.too_large(status.st_size):
            return ()
        return (Found(path, name, folder.descriptor, status),)

    def _visit_folder(
        self,
        folder: _Folder,
        name: bytes,
        path: bytes,
        named: _Named | None,
        status: os.stat_result,
    ) -> Iterator[Found | Unreadable]:
        source = named is not None and named.source
        follow = named is not None and named.follow
        try:
            flags = _FOLDER if follow else _FOLDER | os.O_NOFOLLOW
            descriptor = open_quietly(name, flags, folder.descriptor, status.st_uid)
        except OSError as error:
            if isinstance(error, PermissionError):
                yield Found(path, name, folder.descriptor, status)
            yield Unreadable(path, reason_of(error))
            return
        device = None if source else folder.device
        yield from self._enter(path, name, folder.descriptor, descriptor, named, True, device)

    def _pass_through(
        self, folder: _Folder, name: bytes, path: bytes, named: _Named | None
    ) -> Iterator[Found | Unreadable]:
        """Go through a folder on the way to sources."""
        try:
            descriptor = os.open(name, _ON_THE_WAY, dir_fd=folder.descriptor)
        except FileNotFoundError:
            yield Unreadable(path, "does not exist")
            return
        except OSError as error:
            yield Unreadable(path, reason_of(error))
            return
        yield from self._enter(path, name, folder.descriptor, descriptor, named, False, None)

    def _enter(
        self,
        path: bytes,
        name: bytes,
        parent: int,
        descriptor: int,
        named: _Named | None,
        included: bool,
        device: int | None,
    ) -> Iterator[Found | Unreadable]:
        """Give the folder ``descriptor`` and put it on the stack, with the names to visit in it.

        :param device: device of the source that it belongs to, None where it begins one
        """
        status = os.fstat(descriptor)
        folder = _Folder(
            path, descriptor, status, named, included, device or status.st_dev, list[bytes]()
        )
        self._stack.append(folder)
        if included or path != b"/":
            yield Found(path, name, parent, status, descriptor, not included)
        names = set(named.below) if named else set()
        if included and not (self._one_file_system and status.st_dev != folder.device):
            try:
                listed = _names_in(descriptor)
            except OSError as error:
                yield Unreadable(path, reason_of(error))
            else:
                kept = self._rules.kept_names(descriptor, listed)
                folder.names = listed if kept is None else list(kept)
        else:
            folder.included = False
        if names:
            folder.names = list(names.union(folder.names))
        folder.names.sort(reverse=True)
        self._close_far_ones()

    def _close_far_ones(self) -> None:
        """Keep the number of open folders in bounds; ancestors, which are few, stay open."""
        if len(self._stack) > OPEN_FOLDERS_MAX:
            far = self._stack[-OPEN_FOLDERS_MAX - 1]
            if far.included and far.descriptor >= 0:
                os.close(far.descriptor)
                far.descriptor = -1

    def _leave(self) -> Iterator[Unreadable]:
        """Go back to the folder above, opening it again if need be."""
        left = self._stack.pop()
        try:
            above = self._stack[-1] if self._stack else None
            if above is not None and above.descriptor < 0:
                try:
                    above.descriptor = os.open(b"..", _FOLDER, dir_fd=left.descriptor)
                    status = os.fstat(above.descriptor)
                    if (status.st_dev, status.st_ino) != above.identity:
                        raise OSError("moved while the backup ran")
                except OSError as error:
                    yield from self._give_up(above, error)
        finally:
            if left.descriptor >= 0:
                os.close(left.descriptor)

    def _give_up(self, folder: _Folder, error: OSError) -> Iterator[Unreadable]:
        """``folder`` is lost: so are those above it that are closed, and what is left in them."""
        for lost in reversed(self._stack):
            if lost is not folder and lost.descriptor >= 0:
                break
            if lost.names:
                yield Unreadable(lost.path, str(error.strerror or error))
        while self._stack and (self._stack[-1] is folder or self._stack[-1].descriptor < 0):
            lost = self._stack.pop()
            if lost.descriptor >= 0:
                os.close(lost.descriptor)


def _device_behind(parent: int, name: bytes) -> os.stat_result | None:
    """What the link ``name`` leads to, where that is a block device."""
    try:
        status = os.stat(name, dir_fd=parent)
    except OSError:
        return None
    return status if stat.S_ISBLK(status.st_mode) else None


def _names_in(folder: int) -> list[bytes]:
    """What is in a folder: of a million names, a list of bytes takes a third of what strings do.

    :raises OSError: it cannot be read
    """
    with os.scandir(folder) as found:
        return [os.fsencode(entry.name) for entry in found]
