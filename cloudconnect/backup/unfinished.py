"""Layer 3: folders that a restore which was killed has left unfinished.

A folder that a restore makes has a mode of its own until everything in it is there
(:data:`~cloudconnect.backup.target.UNFINISHED`), and only in such folders small files are written
under their own names. A restore that is killed leaves these folders so, and in one of them a file
may be cut short. The next restore replaces it whatever is to happen to files that are there; but
only where what is there is how the file begins, so that nothing is lost which somebody else has
written meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from cloudconnect.backup.doubtful import DoubtfulNames
from cloudconnect.backup.small_files import is_small
from cloudconnect.backup.target import TEMPORARY, Parts, Target, is_unfinished
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.errors import UnsafePath

#: What is said of a file in such a folder that is neither restored nor known to be whole.
DOUBTFUL: Final = (
    "it was kept, but a restore that was killed may have left it cut short: look at it, or restore "
    "it with --overwrite always"
)


class UnfinishedFolders:
    """Those that are in the target now, while a restore walks through them.

    :param target: where to look; None: there is none yet
    """

    def __init__(self, target: Target | None) -> None:
        self._target = target
        self._missing: Parts | None = None  # a folder that is not there
        # By folder the files in it of which it is not known that they are whole, and whether each
        # of them belongs to what is restored.
        self._doubtful = DoubtfulNames()
        self._stopped = False

    def __bool__(self) -> bool:
        """Whether the walk is in one of them."""
        return bool(self._doubtful)

    def enter(self, parts: Parts) -> None:
        """The walk comes to a folder."""
        target, missing = self._target, self._missing
        if target is None or (missing is not None and parts[: len(missing)] == missing):
            return
        status = target.status(parts)
        if status is None:
            self._missing = parts
        elif is_unfinished(status):
            self._doubtful.begin(parts, _files(target, parts))

    def note(self, entry: Entry, parts: Parts) -> None:
        """The walk comes to something else than a folder, whether or not it is restored."""
        folder, name = parts[:-1], parts[-1]
        if self._doubtful.mark(folder, name) is None:
            return
        assert self._target is not None
        status = self._target.status(parts)
        if (
            status is not None
            and status.st_mtime_ns == entry.mtime_ns
            and (status.st_size == entry.size or entry.link is not None)
        ):
            self._doubtful.drop(folder, name)
        else:
            self._doubtful.set(folder, name, True)

    def may_be_cut(self, entry: Entry, parts: Parts, status: os.stat_result) -> bool:
        """Whether what is in a place may be what a killed restore, or a machine that has stopped,
        has left of a file or symbolic link that is written under its own name.

        :param status: of what is there
        """
        if status.st_nlink != 1:
            return False
        if entry.type is EntryType.SYMLINK:
            return (
                stat.S_ISLNK(status.st_mode)
                and status.st_mtime_ns != entry.mtime_ns
                and self._doubtful.has(parts[:-1])
                and self._leads_to(parts) == entry.target
            )
        if (
            entry.type is not EntryType.FILE
            or entry.link is not None
            or not is_small(entry)
            or not stat.S_ISREG(status.st_mode)
            or status.st_size > entry.size
        ):
            return False
        if status.st_mtime_ns == entry.mtime_ns:
            return status.st_size < entry.size  # it got its time, but not its content
        return self._doubtful.has(parts[:-1])

    def _leads_to(self, parts: Parts) -> bytes | None:
        """Where the symbolic link in this place leads."""
        assert self._target is not None
        try:
            return os.readlink(parts[-1], dir_fd=self._target.enter(parts[:-1]))
        except (OSError, UnsafePath):
            return None

    def made(self, parts: Parts) -> None:
        """Something is there as it should be."""
        if self._doubtful:
            self._doubtful.drop(parts[:-1], parts[-1])

    def keep(self, parts: Parts) -> None:
        """A file is not what a killed restore would have left, and is kept."""
        self._doubtful.set(parts[:-1], parts[-1], False)

    def stop(self) -> None:
        """Not everything that should be made will be: folders that are unfinished stay so."""
        self._stopped = True

    def leave(self, parts: Parts, tell: Callable[[bytes], None]) -> bool:
        """Everything was done in a folder: whether it stays unfinished, because a later restore can
        mend files in it.

        :param tell: called with the name of each file in it that is doubtful still
        :raises LocalError: there is no room for temporary files
        """
        if not self._doubtful.has(parts):
            return False
        stays = self._stopped
        for name, mendable in self._doubtful.names(parts):
            stays = stays or mendable
            tell(name)
        self._doubtful.end(parts)
        return stays

    def close(self) -> None:
        """Forget everything."""
        self._doubtful.close()


def _files(target: Target, parts: Parts) -> Iterator[bytes]:
    """Names of the regular files in a folder, but for those that a restore knows by their names."""
    with contextlib.suppress(OSError, UnsafePath), os.scandir(target.enter(parts)) as entries:
        for one in entries:
            name = os.fsencode(one.name)
            if one.is_file(follow_symlinks=False) and not name.startswith(TEMPORARY):
                yield name
