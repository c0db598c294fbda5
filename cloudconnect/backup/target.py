"""Layer 3: the folder that a restore writes below, and nowhere else.

Every folder is opened by its name in the folder above it, without following links, and is then held
by its descriptor, so nothing that a restore point contains, and nothing that somebody exchanges in
the target meanwhile, leads out of it. New files get a name that nobody knows in the folder where
they belong, and their own name last of all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from cloudconnect.backup.metadata import passes_on
from cloudconnect.errors import UnsafePath

#: Folders of one branch that are held open at once; others are opened again when they are needed.
OPEN_FOLDERS_MAX: Final = 128
#: Longest name, in bytes, on every file system that Linux has.
NAME_MAX: Final = 255
#: How temporary names begin.
TEMPORARY: Final = b".cloudconnect-"
#: The mode of a folder that was made here, until it is left: nobody else can enter it, and the
#: sticky bit, which means nothing there, says that what is in it may not be whole
#: (:mod:`cloudconnect.backup.unfinished`). Some file systems ignore it.
UNFINISHED: Final = 0o1700

_NO_NAMES: Final = frozenset((b"", b".", b".."))
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Parts = tuple[bytes, ...]


def parts_of(path: bytes) -> Parts:
    """The names in an absolute path.

    :raises UnsafePath: it is not absolute, or one of its names cannot be the name of a file
    """
    if not path.startswith(b"/") or b"\0" in path:
        raise UnsafePath("a path is not absolute, or has NUL")
    if path == b"/":
        return ()
    parts = tuple(path[1:].split(b"/"))
    if not _NO_NAMES.isdisjoint(parts) or (
        len(path) > NAME_MAX and any(len(part) > NAME_MAX for part in parts)
    ):
        raise UnsafePath("a name in a path is empty, dotted, or too long")
    return parts


def is_unfinished(status: os.stat_result) -> bool:
    """Whether it is a folder that a restore has made and not left."""
    # A folder in one that says so gets the set-group-id bit from it.
    mode = stat.S_IMODE(status.st_mode) & ~stat.S_ISGID
    return mode == UNFINISHED and stat.S_ISDIR(status.st_mode)


def _is_busy(folder: int) -> bool:
    """Whether another restore has this unfinished folder.

    Else this one has it, until the descriptor and its copies, those of the process that makes files
    included, are closed.
    """
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # there are no locks here
    return False


class PathParts:
    """Splits absolute paths that come in the order of a walk: most have the folder of the one
    before, whose names need no second look.

    :param strip: so many names are taken from the front of each
    """

    def __init__(self, strip: int = 0) -> None:
        self._strip = strip
        self._folder = b"/"
        self._above: Parts = ()
        self._stripped: Parts | None = () if not strip else None  # None: too few names

    def of(self, path: bytes) -> Parts:
        """:func:`parts_of`, without the first names.

        :raises UnsafePath: as there
        """
        folder, slash, name = path.rpartition(b"/")
        if folder != self._folder:
            above = parts_of(folder) if folder else ()
            deep = len(above) >= self._strip
            self._folder, self._above = folder, above
            self._stripped = above[self._strip :] if deep else None
        if not slash or name in _NO_NAMES or len(name) > NAME_MAX or b"\0" in name:
            return parts_of(path)[self._strip :]  # which knows what is wrong, or that it is "/"
        return () if self._stripped is None else (*self._stripped, name)


class _Folder:
    """A folder of the branch that the target is in.

    :ivar descriptor: or -1 while it is closed
    :ivar passes_on: whether new files in it get an access control list; None: nobody has asked
    :ivar leave: called with the descriptor, or -1 where the folder was moved away meanwhile, when
        the target goes elsewhere
    :ivar number: its own: no folder of the same target has had it
    :ivar fresh: it was made here and not left since, so nobody else has been in it
    :ivar busy: another restore is at work in it, and finishes it
    :ivar owner: user and group that new things in it get; None: nobody has looked
    """

    __slots__ = (
        "busy",
        "descriptor",
        "fresh",
        "identity",
        "leave",
        "name",
        "number",
        "owner",
        "passes_on",
    )

    def __init__(
        self, name: bytes, descriptor: int, identity: tuple[int, int], number: int
    ) -> None:
        self.name = name
        self.number = number
        self.descriptor = descriptor
        self.identity = identity
        self.leave: Callable[[int], None] | None = None
        self.passes_on: bool | None = None
        self.fresh = False
        self.busy = False
        self.owner: tuple[int, int] | None = None


class Target:
    """A folder and a place below it.

    :param path: of the folder; links on the way to it are followed, as the user gave it
    :param create: make it if it is not there
    :ivar leaving: the number of the folder that is being left, while its action is called
    :ivar inherits: whether that may have an access control list from the folder above
    :raises OSError: it cannot be opened or made
    """

    def __init__(self, path: bytes, create: bool) -> None:
        if create:
            os.makedirs(path, exist_ok=True)  # noqa: PTH103 - paths here are bytes
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._branch: list[_Folder] = []
        self._present: Parts | None = None  # where the branch leads, once it is there
        self._user = os.geteuid()
        self._group = os.getegid()
        self._prefix = TEMPORARY + os.urandom(8).hex().encode() + b"-"
        self._count = 0
        self._folders = 0
        self.leaving = 0
        self.inherits = True

    def close(self) -> None:
        """Leave all folders and close them."""
        try:
            self._leave_to(0)
        finally:
            os.close(self._root)

    def enter(
        self,
        parts: Parts,
        make: Callable[[Parts], Callable[[int], None] | None] | None = None,
        replace: bool = False,
    ) -> int:
        """Go to the folder ``parts`` below the target, leaving others; its descriptor.

        The descriptor is valid until the next call.

        :param make: called for each folder that is missing: it is then made, with the mode
            :data:`UNFINISHED`, and what this returns is called when it is left; also called for
            each that another restore has left so; None: do not make any
        :param replace: where something else than a folder has the last name, remove that
        :raises FileNotFoundError: one is missing
        :raises NotADirectoryError: something else, such as a link, has the name of one
        :raises OSError: anything else
        """
        if parts == self._present and not replace:
            return self._descriptor(len(parts))
        self._present = None
        branch = self._branch
        common = 0
        for folder, part in zip(branch, parts, strict=False):
            if folder.name != part:
                break
            common += 1
        if common < len(branch):
            self._leave_to(common)
        for depth in range(common, len(parts)):
            above = self._descriptor(depth)
            last = depth == len(parts) - 1
            branch.append(self._open(above, parts[: depth + 1], make, replace and last))
            if len(branch) > OPEN_FOLDERS_MAX:
                self._close_folder(branch[-OPEN_FOLDERS_MAX - 1])
        self._present = parts
        return self._descriptor(len(parts))

    def on_leave(self, action: Callable[[int], None]) -> None:
        """Call ``action`` with the descriptor of the folder entered last when it is left, unless
        another restore will do that."""
        if not self._branch[-1].busy:
            self._branch[-1].leave = action

    def passes_on(self) -> bool:
        """Whether new files in the folder entered last get an access control list from it."""
        return self._passes_on(len(self._branch))

    def _passes_on(self, depth: int) -> bool:
        if not depth:
            return passes_on(self._root)
        folder = self._branch[depth - 1]
        if folder.passes_on is None:
            if folder.fresh and depth > 1 and self._branch[depth - 2].fresh:
                folder.passes_on = self._passes_on(depth - 1)  # it has what it got from there
            else:
                folder.passes_on = passes_on(self._descriptor(depth))
        return folder.passes_on

    @property
    def fresh(self) -> _Folder | None:
        """The folder entered last, if it was made here and not left since; None otherwise.

        Nobody else has been in it, as it has the mode :data:`UNFINISHED` until it is left.
        """
        folder = self._branch[-1] if self._branch else None
        return folder if folder is not None and folder.fresh else None

    def make_writable(self) -> None:
        """Let this user write to the folder entered last, until its mode is set.

        Where a folder was restored before with a mode without write permission, it could not be
        restored again otherwise.
        """
        if self._branch and self._user != 0:
            descriptor = self._descriptor(len(self._branch))
            status = os.fstat(descriptor)
            if status.st_uid == self._user and status.st_mode & 0o700 != 0o700:
                os.chmod(descriptor, stat.S_IMODE(status.st_mode) | 0o700)  # noqa: PTH101

    def status(self, parts: Parts) -> os.stat_result | None:
        """What has the place ``parts`` now; None: nothing, or it cannot be looked at.

        :param parts: at least one
        """
        try:
            return os.lstat(parts[-1], dir_fd=self.enter(parts[:-1]))
        except (OSError, UnsafePath):
            return None

    @contextlib.contextmanager
    def beside(self, parts: Parts) -> Iterator[int]:
        """The descriptor of the folder ``parts``, without leaving the present one.

        :raises OSError: it is not there
        """
        descriptor = os.dup(self._root)
        try:
            for part in parts:
                below = os.open(part, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    def temporary_name(self) -> bytes:
        """A name that nobody knows."""
        self._count += 1
        return self._prefix + b"%d" % self._count

    def _open(
        self,
        above: int,
        parts: Parts,
        make: Callable[[Parts], Callable[[int], None] | None] | None,
        replace: bool,
    ) -> _Folder:
        name, leave, fresh = parts[-1], None, False
        # Nobody else has been in a folder that was made just now: nothing is looked for in it.
        if make is not None and self.fresh is not None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, UNFINISHED, dir_fd=above)
                fresh, leave = True, make(parts)
        try:
            descriptor = os.open(name, _FOLDER, dir_fd=above)
        except OSError as error:
            absent = isinstance(error, FileNotFoundError)
            in_the_way = error.errno in (errno.ENOTDIR, errno.ELOOP)
            if make is None or not (absent or in_the_way):
                raise
            if in_the_way and not replace:
                raise NotADirectoryError(
                    errno.ENOTDIR, "something that is not a folder is in the way"
                ) from None
            if in_the_way:
                os.unlink(name, dir_fd=above)
            leave = make(parts)
            os.mkdir(name, UNFINISHED, dir_fd=above)
            descriptor = os.open(name, _FOLDER, dir_fd=above)
            fresh = True
        status = os.fstat(descriptor)
        self._folders += 1
        folder = _Folder(name, descriptor, (status.st_dev, status.st_ino), self._folders)
        unfinished = is_unfinished(status)
        folder.busy = unfinished and make is not None and _is_busy(descriptor)
        if unfinished and make is not None and not fresh:
            leave = make(parts)
        folder.leave = None if folder.busy else leave
        # What was opened may not be what was made: somebody else may write to the folder above.
        private = unfinished and status.st_uid == self._user
        folder.fresh = fresh and private and not folder.busy
        if folder.fresh and status.st_gid == self._group:
            # Whether new things get the group of this process or that of their folder.
            folder.owner = (self._user, self._group)
        return folder

    def _descriptor(self, depth: int) -> int:
        """The descriptor of the branch's folder number ``depth``, counted from 1; 0: the target."""
        if depth == 0:
            return self._root
        folder = self._branch[depth - 1]
        if folder.descriptor < 0:
            with self.beside(tuple(above.name for above in self._branch[:depth])) as descriptor:
                status = os.fstat(descriptor)
                if (status.st_dev, status.st_ino) != folder.identity:
                    raise UnsafePath("a folder was exchanged while the restore ran")
                folder.descriptor = os.dup(descriptor)
        return folder.descriptor

    def _leave_to(self, depth: int) -> None:
        """Leave all folders below ``depth``, the lowest one first."""
        self._present = None
        while len(self._branch) > depth:
            folder = self._branch[-1]
            try:
                if folder.leave is not None:
                    try:
                        descriptor = self._descriptor(len(self._branch))
                        self.inherits = not folder.fresh or self._passes_on(len(self._branch))
                    except (OSError, UnsafePath):
                        descriptor = -1
                    self.leaving = folder.number
                    folder.leave(descriptor)
            finally:
                self._branch.pop()
                self._close_folder(folder)

    def _close_folder(self, folder: _Folder) -> None:
        if folder.descriptor >= 0:
            os.close(folder.descriptor)
            folder.descriptor = -1
