"""Layer 3: which files of a restore are written under their own names at once, and by whom.

Stands between the restore's steps and the two that write small files: this process
(:mod:`cloudconnect.backup.small_files`), and, where there are many of them, one that is started for
it (:mod:`cloudconnect.backup.maker`).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import Final

from cloudconnect.backup.maker import FileMaker
from cloudconnect.backup.metadata import MetadataWriter
from cloudconnect.backup.options import RestoreOptions, RestoreResult
from cloudconnect.backup.planning import Step
from cloudconnect.backup.small_files import SmallFiles, is_small
from cloudconnect.backup.target import Target
from cloudconnect.content.entries import Entry
from cloudconnect.errors import LocalError

#: Behind so many small files a process is started that makes the others.
MAKER_AFTER: Final = 1000
#: Larger files are written here: the process would be busy with one of them for long. Bytes.
MAKER_BYTES: Final = 256 << 10


class AtOnce:
    """Writes what may be written at once.

    :param options: of the restore
    :param result: gets what goes wrong
    :param metadata: sets what is not as usual
    :param made: called with each step that was made by the process
    :ivar again: steps of which the process found something in the way
    """

    def __init__(
        self,
        options: RestoreOptions,
        result: RestoreResult,
        metadata: MetadataWriter,
        made: Callable[[Step], None],
    ) -> None:
        self._result = result
        self._metadata = metadata
        self._made = made
        self._small = SmallFiles(metadata)
        self._may = not options.verify
        self._count = 0
        self._maker: FileMaker[Step] | None = None
        self._ready: FileMaker[Step] | None = None  # it, once it has started
        self.again: list[Step] = []

    def takes(self, step: Step) -> bool:
        """Whether a file can be written at once, should its folder allow it."""
        return (
            self._may
            and step.first
            and step.last
            and not step.found
            and step.partial is None
            and is_small(step.entry)
            and None not in step.slots
        )

    def write(
        self, step: Step, target: Target, parent: int, pieces: Callable[[Step], list[bytes]]
    ) -> bool | None:
        """Write a file at once, or have it made; None: that may not be done in its folder.

        :param step: one that :meth:`takes` takes
        :param target: which is in the file's folder
        :param parent: that folder's descriptor
        :param pieces: waits for a step's content
        :return: whether it is there already
        :raises OSError: it cannot be made; nothing is left of it
        :raises CloudConnectError: the content cannot be had
        """
        folder, entry, name = target.fresh, step.entry, step.parts[-1]
        if folder is None:
            return None
        if folder.passes_on if folder.passes_on is not None else target.passes_on():
            return None
        content = pieces(step)
        usual = entry.size <= MAKER_BYTES and self._small.is_usual(entry, folder.owner)
        maker = (self._ready or self._ready_maker()) if usual else None
        if maker is not None:
            maker.add(folder.number, parent, name, entry.mode, entry.mtime_ns, content, step)
            return False
        try:
            folder.owner = self._small.write(entry, parent, name, content, folder.owner)
        except FileExistsError:
            return None
        return True

    def link(self, step: Step, target: Target, parent: int) -> bool:
        """Make a symbolic link under its own name, unless that may not be done in its folder.

        :param target: which is in the link's folder
        :param parent: that folder's descriptor
        :return: whether it is there
        :raises OSError: it cannot be made
        """
        folder, entry, name = target.fresh, step.entry, step.parts[-1]
        if (
            not self._may
            or folder is None
            or folder.owner != (entry.uid, entry.gid)
            or entry.xattrs
            or step.group
        ):
            return False
        assert entry.target is not None
        try:
            os.symlink(entry.target, name, dir_fd=parent)
        except FileExistsError:
            return False
        self._metadata.set_time_of_link(entry, parent, name)
        return True

    def leave(self, path: bytes, entry: Entry | None, descriptor: int, target: Target) -> None:
        """Give a folder its metadata, once all files in it are made.

        Where the process has ended before its time nobody knows what it has left of the last files,
        and folders stay unfinished.

        :param path: of the folder
        :param entry: its metadata; None: nothing is known of it
        :param descriptor: of the folder; it may be closed afterwards
        :param target: which is leaving it
        """
        maker, number, inherits = self._maker, target.leaving, target.inherits
        if maker is None or not (maker.broken or maker.has(number)):
            self._finish_folder(path, entry, descriptor, inherits)
        elif not maker.broken:
            kept = os.dup(descriptor)
            maker.afterwards(lambda: self._finish_and_close(path, entry, kept, inherits))

    def _finish_folder(
        self, path: bytes, entry: Entry | None, descriptor: int, inherits: bool
    ) -> None:
        try:
            if entry is None:
                os.chmod(descriptor, 0o700)
            else:
                self._metadata.apply(entry, descriptor, inherits)
        except OSError as error:
            self._result.problems.add(path, error.strerror or str(error))

    def _finish_and_close(
        self, path: bytes, entry: Entry | None, descriptor: int, inherits: bool
    ) -> None:
        if self._maker is not None and not self._maker.broken:
            self._finish_folder(path, entry, descriptor, inherits)
        os.close(descriptor)

    def write_again(self, write: Callable[[Step], None]) -> None:
        """Have written what something was in the way of, as everywhere else."""
        steps, self.again = self.again, []
        may, self._may = self._may, False
        for step in steps:
            write(step)
        self._may = may

    def finish(self) -> None:
        """Wait until everything was made.

        :raises LocalError: the process has ended
        """
        if self._maker is not None:
            self._maker.finish()

    def close(self) -> None:
        """End the process; what it was not sent is not made."""
        if self._maker is not None:
            self._maker.close()

    def _ready_maker(self) -> FileMaker[Step] | None:
        """The process that makes small files, once there are many of them and it has started."""
        self._count += 1
        maker = self._maker
        if maker is None:
            if self._count == MAKER_AFTER:
                with contextlib.suppress(OSError):  # it can be done without
                    self._maker = FileMaker(self._outcome)
            return None
        try:
            self._ready = maker if maker.ready else None
            return self._ready
        except LocalError:  # likewise
            self._maker = None
            maker.close()
            return None

    def _outcome(self, step: Step, failed: int) -> None:
        """A file was made, or could not be."""
        if not failed:
            self._made(step)
        elif failed == errno.EEXIST:
            self.again.append(step)
        else:
            self._result.problems.add(step.entry.path, os.strerror(failed))
