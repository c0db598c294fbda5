"""Layer 3: making files, links and devices again below a restore's target."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from blake3 import blake3

from cloudconnect.backup.drafts import FLAG_DEVICE
from cloudconnect.backup.matching import is_hole, read_at
from cloudconnect.backup.metadata import MetadataWriter
from cloudconnect.backup.options import Overwrite
from cloudconnect.backup.partial import WORTH_KEEPING, check_name, create
from cloudconnect.backup.target import Parts, Target
from cloudconnect.content.entries import Entry, EntryType

#: Pieces of content are written together when they have so many bytes ...
GATHERED: Final = 1 << 20
#: ... or are so many, as the system takes 1,024 at most.
GATHERED_PIECES: Final = 256
#: Bytes that are read back at a time.
_BLOCK: Final = 1 << 20
#: Zeros for a hole when content is verified.
_ZEROS: Final = bytes(_BLOCK)

#: Where something was put, and which inode it is there.
Place = tuple[Parts, int, int]


class NewFile:
    """A file that is being written under a temporary name.

    :param parent: descriptor of its folder; must stay valid until it is finished
    :param temporary: that name
    :param verify: read it back before it gets its own name
    :param other: the name to take where another restore is using ``temporary``
    :param partial: descriptor of what an earlier restore left under ``temporary``, or None; this
        object closes it
    :param inherited: it may get an access control list from its folder
    """

    def __init__(
        self,
        parent: int,
        temporary: bytes,
        verify: bool,
        other: bytes = b"",
        partial: int | None = None,
        inherited: bool = True,
    ) -> None:
        self._parent = parent
        self._inherited = inherited
        self._resumed = partial is not None
        if partial is not None:
            self._descriptor, self._temporary = partial, temporary
        else:
            self._descriptor, self._temporary = create(parent, temporary, other or temporary)
        self._size = 0
        self._pieces: list[bytes] = []  # what follows, and is written together
        self._waiting = 0  # bytes of that
        self._hole_at_end = False
        self._hasher = blake3() if verify else None

    def add(self, data: bytes) -> None:
        """More content, which may be written later.

        :raises OSError: it cannot be written
        """
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting >= GATHERED or len(self._pieces) >= GATHERED_PIECES:
            self._flush()

    def _flush(self) -> None:
        pieces, waiting = self._pieces, self._waiting
        if not waiting:
            return
        self._pieces, self._waiting = [], 0
        if len(pieces) > 1 and self._hasher is None:
            written = os.pwritev(self._descriptor, pieces, self._size)
            if written == waiting:
                self._size += written
                self._hole_at_end = False
                return
        for piece in pieces:  # what was taken of them is written again, which does no harm
            self.write(piece)

    def write(self, data: bytes) -> None:
        """More content.

        :raises OSError: it cannot be written
        """
        self._flush()
        written = os.pwrite(self._descriptor, data, self._size)
        self._size += written
        if written < len(data):
            view = memoryview(data)[written:]
            while len(view):
                written = os.pwrite(self._descriptor, view, self._size)
                self._size += written
                view = view[written:]
        self._hole_at_end = False
        if self._hasher is not None:
            self._hasher.update(data)

    def keep(self, length: int) -> None:
        """So many bytes are in their place already.

        :raises OSError: they cannot be read
        """
        self._flush()
        if self._hasher is not None:
            for at in range(0, length, _BLOCK):
                part = read_at(self._descriptor, self._size + at, min(_BLOCK, length - at))
                self._hasher.update(part)
        self._size += length
        self._hole_at_end = False

    def hole(self, length: int) -> None:
        """So many zeros that take no space.

        :raises OSError: what an earlier restore left there cannot be overwritten
        """
        self._flush()
        if self._resumed and not is_hole(self._descriptor, self._size, length):
            for at in range(0, length, _BLOCK):
                self.write(_ZEROS[: length - at])
            return
        self._size += length
        self._hole_at_end = True
        if self._hasher is not None:
            for at in range(0, length, _BLOCK):
                self._hasher.update(_ZEROS[: length - at])

    def finish(self, entry: Entry, metadata: MetadataWriter, name: bytes) -> os.stat_result | None:
        """Give it its metadata and its name; its status where it has several names.

        :raises OSError: it cannot be done; nothing is left of it
        """
        try:
            self._flush()
            if self._hole_at_end or self._resumed:
                os.ftruncate(self._descriptor, self._size)
            if self._hasher is not None:
                self._verify(self._hasher.digest())
            if entry.flags & FLAG_DEVICE:
                _refuse_device(self._parent, name)
            status = metadata.apply(entry, self._descriptor, self._inherited)
            check_name(status, self._parent, self._temporary)
            put_in_place(self._parent, self._temporary, name)
        except BaseException:
            self.discard()
            raise
        os.close(self._descriptor)
        return status if entry.flags else None

    def leave(self) -> None:
        """Leave it for a later restore, if that is worth while."""
        with contextlib.suppress(OSError):
            self._flush()
        if self._size < WORTH_KEEPING and not self._resumed:
            self.discard()
        else:
            os.close(self._descriptor)

    def discard(self) -> None:
        """Leave nothing of it."""
        os.close(self._descriptor)
        with contextlib.suppress(OSError):
            os.unlink(self._temporary, dir_fd=self._parent)

    def _verify(self, digest: bytes) -> None:
        os.fdatasync(self._descriptor)
        if hasattr(os, "posix_fadvise"):  # so that the disk is read, not the memory
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        hasher, position = blake3(), 0
        while data := os.pread(self._descriptor, _BLOCK, position):
            hasher.update(data)
            position += len(data)
        if hasher.digest() != digest:
            raise OSError("the disk returns other bytes than were written")


def _refuse_device(parent: int, name: bytes) -> None:
    """The content of a device does not take the place of the device, as a file of its size in /dev.

    :raises OSError: a block device has that name
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISBLK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise FileExistsError(
                errno.EEXIST, "the device itself is in the way: restore elsewhere, or use dump"
            )


def put_in_place(parent: int, temporary: bytes, name: bytes) -> None:
    """Give what has the name ``temporary`` its own name, in the place of what has it now.

    :raises OSError: it cannot be done, such as where a folder that is not empty has that name
    """
    try:
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except IsADirectoryError:
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError as error:
            raise IsADirectoryError(error.errno, "a folder is in the way") from error
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)


_NODES = {
    EntryType.CHARACTER: stat.S_IFCHR,
    EntryType.BLOCK: stat.S_IFBLK,
    EntryType.SOCKET: stat.S_IFSOCK,
}


def place_special(
    entry: Entry, parent: int, temporary: bytes, name: bytes, metadata: MetadataWriter
) -> os.stat_result:
    """Make a symlink, FIFO, socket or device; its status.

    :raises OSError: it cannot be made
    """
    if entry.type is EntryType.SYMLINK:
        assert entry.target is not None
        os.symlink(entry.target, temporary, dir_fd=parent)
    elif entry.type is EntryType.FIFO:
        os.mkfifo(temporary, 0o600, dir_fd=parent)
    else:
        # A socket's name needs no rights; nobody listens on it until its program makes it anew.
        os.mknod(temporary, _NODES[entry.type] | 0o600, entry.device or 0, dir_fd=parent)
    with _removed_on_error(parent, temporary):
        metadata.apply_to_name(entry, parent, temporary)
        status = os.lstat(temporary, dir_fd=parent)
        put_in_place(parent, temporary, name)
    return status


def place_link(
    target: Target,
    place: Place,
    parent: int,
    name: bytes,
    right: Callable[[os.stat_result], bool] = lambda status: True,
) -> None:
    """Make a hard link to something that was restored before, or was there.

    :param place: where that is
    :param right: whether what the link is to, by its status, is what it should be
    :raises OSError: it cannot be made, or something else is in that place now
    """
    parts, device, inode = place
    temporary = target.temporary_name()
    with target.beside(parts[:-1]) as folder:
        os.link(parts[-1], temporary, src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)
    with _removed_on_error(parent, temporary):
        status = os.lstat(temporary, dir_fd=parent)
        if (status.st_dev, status.st_ino) != (device, inode) or not right(status):
            raise OSError("the file that it is a link to was exchanged while the restore ran")
        put_in_place(parent, temporary, name)
    # Renaming one name of a file to another one of it does nothing at all.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=parent)


@contextlib.contextmanager
def _removed_on_error(parent: int, temporary: bytes) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=parent)
        raise


def replaces(entry: Entry, there: os.stat_result, overwrite: Overwrite) -> bool:
    """Whether ``entry`` takes the place of something that is there already."""
    if overwrite is Overwrite.ALWAYS:
        return True
    if overwrite is Overwrite.NEVER:
        return False
    if overwrite is Overwrite.IF_NEWER:
        return entry.mtime_ns > there.st_mtime_ns
    kinds = {EntryType.FILE: stat.S_IFREG, EntryType.SYMLINK: stat.S_IFLNK}
    same = kinds.get(entry.type) == stat.S_IFMT(there.st_mode) and (
        entry.mtime_ns == there.st_mtime_ns
    )
    return not (same and (entry.type is EntryType.SYMLINK or entry.size == there.st_size))
