"""Layer 3: small files in folders that the restore itself has just made.

Nobody else can enter such a folder before it is left: it is this user's alone. So a file in it can
be made under its own name at once, needs no lock and no look whether somebody has exchanged it, and
gets the owner and the attributes that the file before it got. What is left then is four calls of
the system a file: make, write, set the time, close.

Where a restore is killed in the middle of it, such a file is short, and its folder says so
(:mod:`cloudconnect.backup.unfinished`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cloudconnect.backup.drafts import FLAG_DEVICE, FLAG_LINKED
from cloudconnect.backup.metadata import MetadataWriter
from cloudconnect.content.entries import Entry

#: Larger files are worth going on with when the restore was interrupted, and are written so that it
#: can be, in bytes.
SMALL_MAX: Final = 1 << 20

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PERMISSIONS: Final = 0o777
_STATUS: Final = Path("/proc/self/status")


class SmallFiles:
    """Writes small files.

    :param metadata: sets what is not as usual
    """

    def __init__(self, metadata: MetadataWriter) -> None:
        self._metadata = metadata
        self._masked = _masked()

    def write(
        self,
        entry: Entry,
        parent: int,
        name: bytes,
        pieces: Iterable[bytes | memoryview],
        owner: tuple[int, int] | None,
    ) -> tuple[int, int]:
        """Make a file with all that it has.

        :param entry: of a file
        :param parent: descriptor of its folder
        :param pieces: its content
        :param owner: user and group that files made in this folder get, or None where that is not
            known yet
        :return: what is known of ``owner`` now
        :raises FileExistsError: something has that name
        :raises OSError: it cannot be made; nothing is left of it
        """
        usual = self.is_usual(entry, owner)
        descriptor = os.open(name, _NEW, entry.mode if usual else 0o600, dir_fd=parent)
        try:
            position = 0
            for piece in pieces:
                written = os.pwrite(descriptor, piece, position)
                while written < len(piece):
                    view = memoryview(piece)[written:]
                    written += os.pwrite(descriptor, view, position + written)
                position += written
            if not usual:
                if owner is None:
                    made = os.fstat(descriptor)
                    owner = (made.st_uid, made.st_gid)
                self._metadata.apply(entry, descriptor, False)
            else:
                self._metadata.set_time(entry, descriptor)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=parent)
            raise
        os.close(descriptor)
        assert owner is not None, "it is usual, or has been looked at"
        return owner

    def is_usual(self, entry: Entry, owner: tuple[int, int] | None) -> bool:
        """Whether a file is as it should be when it has its mode from the beginning, its content
        and its time.

        :param owner: as for :meth:`write`
        """
        mode = entry.mode
        return (
            owner == (entry.uid, entry.gid)
            and mode <= _PERMISSIONS
            and not mode & self._masked
            and not entry.xattrs
        )


def is_small(entry: Entry) -> bool:
    """Whether a file can be written so; it must have no holes either.

    One with further names cannot: where it was cut short and is replaced, they would be of the old
    one.
    """
    return entry.size <= SMALL_MAX and not entry.flags & (FLAG_DEVICE | FLAG_LINKED)


def _masked() -> int:
    """The permissions that new files do not get: the umask, or all where it cannot be read."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    except (OSError, ValueError, IndexError):
        pass
    return _PERMISSIONS
