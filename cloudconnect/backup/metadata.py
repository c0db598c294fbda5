"""Layer 3: what a file has beside its content: owner, mode, times, extended attributes.

POSIX access control lists are extended attributes (``system.posix_acl_access`` and
``system.posix_acl_default``) and go with them.
"""

# Paths here are bytes, relative to descriptors, which pathlib does not have.
# ruff: noqa: PTH101
from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Final

from cloudconnect.content.entries import Entry, EntryType

#: Extended attributes that only root can set; others do not try.
PRIVILEGED_ATTRIBUTES: Final = (b"security.", b"trusted.")
#: Attributes that follow the mode bits, so they are set after them.
_ACL_PREFIX: Final = b"system.posix_acl_"
#: Errors of a file system, or kind of file, that does not know extended attributes at all.
_NO_ATTRIBUTES: Final = frozenset((errno.ENOTSUP, errno.ENODATA, errno.ENOSYS, errno.EPERM))

_NAMED: Final = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK) | os.O_NOFOLLOW | os.O_CLOEXEC

_TYPES: Final = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.DIRECTORY,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFIFO: EntryType.FIFO,
    stat.S_IFCHR: EntryType.CHARACTER,
    stat.S_IFBLK: EntryType.BLOCK,
    stat.S_IFSOCK: EntryType.SOCKET,
}


def type_of(status: os.stat_result) -> EntryType:
    """Which kind of thing ``status`` describes."""
    return _TYPES[status.st_mode & 0o170000]


@lru_cache(maxsize=4096)
def user_name(number: int) -> str:
    """The name of user ``number`` on this machine, or ""."""
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OSError):
        return ""


@lru_cache(maxsize=4096)
def group_name(number: int) -> str:
    """The name of group ``number`` on this machine, or ""."""
    try:
        return grp.getgrgid(number).gr_name
    except (KeyError, OSError):
        return ""


def through_proc(parent: int, name: bytes | None = None) -> bytes:
    """A path for calls that take no descriptor and name, such as those for extended attributes.

    Short whatever the real path, and led by the descriptor, so no folder on the way is looked up
    again.

    :param parent: descriptor of a folder, or of the thing itself
    :param name: of the thing in ``parent``, or None for ``parent`` itself
    """
    folder = b"/proc/self/fd/%d" % parent
    return folder if name is None else folder + b"/" + name


def read_attributes(where: int | bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The extended attributes of a thing, in the order of their names.

    Attributes that may not be read, or go away meanwhile, are left out.

    :param where: its descriptor, or its path (a link at its end is not followed)
    """
    try:
        names = os.listxattr(where, follow_symlinks=isinstance(where, int))
    except OSError:
        return ()
    return tuple(_values(where, names)) if names else ()


def _values(where: int | bytes, names: list[str]) -> Iterator[tuple[bytes, bytes]]:
    for name in sorted(map(os.fsencode, names)):
        try:
            value = os.getxattr(where, name, follow_symlinks=isinstance(where, int))
        except OSError:
            continue
        yield name, value


class MetadataWriter:
    """Gives restored things the owner, mode, times and attributes that they had.

    :param problem: called with a path and a few words for each thing that could not be done
    :param privileged: whether this process is root: only then are owners, and attributes that only
        root can set, tried; ``skipped_privileged`` then stays False
    :ivar skipped_privileged: something was left out because this process is not root
    """

    def __init__(
        self, problem: Callable[[bytes, str], None], privileged: bool | None = None
    ) -> None:
        self._problem = problem
        self.privileged = os.geteuid() == 0 if privileged is None else privileged
        self._user = os.geteuid()
        self._group = os.getegid()
        self.skipped_privileged = False

    def has(self, entry: Entry, where: int | bytes, status: os.stat_result) -> bool:
        """Whether a file has the owner and attributes of ``entry``, as far as :meth:`apply` could
        give it those.

        :param where: its descriptor, or its path (a link at its end is not followed)
        :param status: of it
        """
        if not self.has_owner(entry, status):
            return False
        found, wanted = (
            [pair for pair in pairs if self.privileged or not _is_privileged(pair)]
            for pairs in (read_attributes(where), entry.xattrs)
        )
        return found == wanted

    def has_owner(self, entry: Entry, status: os.stat_result) -> bool:
        """Whether something has the owner of ``entry``, as far as :meth:`apply` could give it that.

        :param status: of it
        """
        if self.privileged:
            return (status.st_uid, status.st_gid) == (entry.uid, entry.gid)
        return status.st_uid == self._user

    def apply(self, entry: Entry, descriptor: int, inherited: bool = True) -> os.stat_result:
        """Apply everything to the open file or folder ``descriptor``; the status that it had.

        :param inherited: it may have an access control list from its folder

        The order matters: a new owner clears setuid bits and capabilities, an attribute of a file
        that its mode makes read-only cannot be set, and mode bits and access control lists share
        bits. A file is whole once it has its time, and a folder once it has its mode
        (:data:`~cloudconnect.backup.target.UNFINISHED`).
        """
        status = os.fstat(descriptor)
        if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
            self._owner(entry, lambda: os.chown(descriptor, entry.uid, entry.gid))
            status = os.fstat(descriptor)
        lists: list[tuple[bytes, bytes]] = []
        if entry.xattrs:
            plain = [pair for pair in entry.xattrs if not pair[0].startswith(_ACL_PREFIX)]
            lists = [pair for pair in entry.xattrs if pair[0].startswith(_ACL_PREFIX)]
            self._attributes(entry, plain, lambda name, value: os.setxattr(descriptor, name, value))
        if inherited:
            _remove_inherited(entry, descriptor)
        mode, is_folder = safe_mode(entry, status), entry.type is EntryType.DIRECTORY
        if is_folder:
            self.set_time(entry, descriptor)
        self._try(entry, "mode", lambda: os.chmod(descriptor, mode))
        if lists:
            self._attributes(entry, lists, lambda name, value: os.setxattr(descriptor, name, value))
        if not is_folder:
            self.set_time(entry, descriptor)
        return status

    def set_time(self, entry: Entry, descriptor: int) -> None:
        """Set the time of the open file ``descriptor``, where nothing else differs."""
        time = entry.mtime_ns
        try:
            os.utime(descriptor, ns=(time, time))
        except (OSError, OverflowError) as error:
            self._failed(entry, "times", error)

    def set_time_of_link(self, entry: Entry, parent: int, name: bytes) -> None:
        """Likewise of the symbolic link ``name`` in the folder ``parent``."""
        times = (entry.mtime_ns, entry.mtime_ns)
        try:
            os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
        except (OSError, OverflowError) as error:
            self._failed(entry, "times", error)

    def apply_to_name(self, entry: Entry, parent: int, name: bytes) -> None:
        """Apply everything to ``name`` in the folder ``parent``, which is no file or folder.

        A link's mode cannot be set and means nothing.

        :raises OSError: ``name`` is not a new thing of that kind: somebody exchanged it
        """
        descriptor = os.open(name, _NAMED, dir_fd=parent)
        try:
            status = os.fstat(descriptor)
            # Whoever may write to the folder could have put a further name of something elsewhere
            # in its place, which would then be given away.
            if type_of(status) is not entry.type or status.st_nlink != 1:
                raise OSError("it was exchanged while the restore ran")
            self._apply_to_thing(entry, descriptor)
        finally:
            os.close(descriptor)

    def _apply_to_thing(self, entry: Entry, descriptor: int) -> None:
        """Apply everything to what is not open itself: the kernel takes this path as that thing."""
        path = through_proc(descriptor)
        self._owner(entry, lambda: os.chown(path, entry.uid, entry.gid))
        self._attributes(entry, entry.xattrs, lambda name, value: os.setxattr(path, name, value))
        if entry.type is not EntryType.SYMLINK:
            _remove_inherited(entry, path)
            mode = safe_mode(entry, os.fstat(descriptor))
            self._try(entry, "mode", lambda: os.chmod(path, mode))
        times = (entry.mtime_ns, entry.mtime_ns)
        self._try(entry, "times", lambda: os.utime(path, ns=times))

    def _owner(self, entry: Entry, action: Callable[[], None]) -> None:
        if self.privileged:
            self._try(entry, "owner", action)
        elif (entry.uid, entry.gid) != (self._user, self._group):
            self.skipped_privileged = True

    def _attributes(
        self,
        entry: Entry,
        pairs: Iterable[tuple[bytes, bytes]],
        action: Callable[[bytes, bytes], None],
    ) -> None:
        for name, value in pairs:
            if not self.privileged and name.startswith(PRIVILEGED_ATTRIBUTES):
                self.skipped_privileged = True
                continue
            what = f"attribute {os.fsdecode(name)!r}"
            self._try(entry, what, lambda name=name, value=value: action(name, value))  # type: ignore[misc]

    def _try(self, entry: Entry, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except (OSError, OverflowError) as error:
            self._failed(entry, what, error)

    def _failed(self, entry: Entry, what: str, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or str(error)
        self._problem(entry.path, f"its {what} could not be set: {reason}")


def _is_privileged(pair: tuple[bytes, bytes]) -> bool:
    return pair[0].startswith(PRIVILEGED_ATTRIBUTES)


def passes_on(folder: int) -> bool:
    """Whether new files in the folder of this descriptor get an access control list from it."""
    try:
        return bool(os.getxattr(folder, b"system.posix_acl_default"))
    except OSError as error:
        return error.errno not in _NO_ATTRIBUTES


def _remove_inherited(entry: Entry, where: int | bytes) -> None:
    """Remove access control lists that something has from its folder, and not from the backup."""
    had = {name for name, _ in entry.xattrs}
    folder = entry.type is EntryType.DIRECTORY
    for name in (b"system.posix_acl_access", b"system.posix_acl_default")[: 1 + folder]:
        if name not in had:
            with contextlib.suppress(OSError):
                os.removexattr(where, name)


def safe_mode(entry: Entry, status: os.stat_result) -> int:
    """The mode for something that has its owner now, or has not got it.

    Without its owner or group a program must not run with the rights of another one.

    :param status: of it, after its owner was set
    """
    mode = stat.S_IMODE(entry.mode)
    if status.st_uid != entry.uid:
        mode &= ~stat.S_ISUID
    if status.st_gid != entry.gid and entry.type is not EntryType.DIRECTORY:
        mode &= ~stat.S_ISGID
    return mode
