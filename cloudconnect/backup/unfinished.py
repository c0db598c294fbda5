"""Layer 3: folders that a restore which was killed has left unfinished.

A folder that a restore makes has a mode of its own until everything in it is there
(:data:`~cloudconnect.backup.target.UNFINISHED`), and only in such folders small files are written
under their own names. A restore that is killed leaves these folders so, and in one of them a file
may be cut short. The next restore replaces it whatever is to happen to files that are there; but
only where what is there is how the file begins, so that nothing is lost which somebody else has
written meanwhile.
"""

from __future__ import annotations

import os
import stat
from typing import Final

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
        self._doubtful: dict[Parts, dict[bytes, bool]] = {}
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
            self._doubtful[parts] = dict.fromkeys(_files(target, parts), False)

    def note(self, entry: Entry, parts: Parts) -> None:
        """The walk comes to something else than a folder, whether or not it is restored."""
        names = self._doubtful.get(parts[:-1])
        if not names or parts[-1] not in names:
            return
        assert self._target is not None
        status = self._target.status(parts)
        if (
            status is not None
            and status.st_mtime_ns == entry.mtime_ns
            and (status.st_size == entry.size or entry.link is not None)
        ):
            del names[parts[-1]]
        else:
            names[parts[-1]] = True

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
                and parts[:-1] in self._doubtful
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
        return parts[:-1] in self._doubtful

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
            self._doubtful.get(parts[:-1], {}).pop(parts[-1], None)

    def keep(self, parts: Parts) -> None:
        """A file is not what a killed restore would have left, and is kept."""
        names = self._doubtful.get(parts[:-1], {})
        if parts[-1] in names:
            names[parts[-1]] = False

    def stop(self) -> None:
        """Not everything that should be made will be: folders that are unfinished stay so."""
        self._stopped = True

    def leave(self, parts: Parts) -> tuple[list[bytes], bool]:
        """Everything was done in a folder: files in it that are doubtful still, and whether the
        folder stays unfinished, because a later restore can mend them."""
        names = self._doubtful.pop(parts, None)
        if names is None:
            return [], False
        return list(names), self._stopped or any(names.values())


def _files(target: Target, parts: Parts) -> list[bytes]:
    """Names of the regular files in a folder, but for those that a restore knows by their names."""
    try:
        with os.scandir(target.enter(parts)) as entries:
            names = [os.fsencode(one.name) for one in entries if one.is_file(follow_symlinks=False)]
    except (OSError, UnsafePath):
        return []
    return [name for name in names if not name.startswith(TEMPORARY)]
