"""Layer 3: what a backup or a restore is asked for, how far it is, and what came of it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

import attrs

from cloudconnect.backup.patterns import PathPatterns
from cloudconnect.backup.rules import ExcludeRules
from cloudconnect.backup.walk import Unreadable
from cloudconnect.content.compression import LEVEL_DEFAULT
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import UsageError
from cloudconnect.shown import Shown

#: Most paths that a result lists, so that a broken disk does not fill the memory; all are counted.
LISTED_MAX: Final = 10_000


def read_path_list(data: bytes) -> list[bytes]:
    """The source paths in the content of a ``--files-from`` file.

    One path a line; where the file has a NUL, paths end with NUL instead, so that names may hold
    newlines (``find -print0``). Empty ones mean nothing; nothing else is special.
    """
    return [path for path in data.split(b"\0" if b"\0" in data else b"\n") if path]


@attrs.frozen(repr=False)
class StandardInput(Shown):
    """Bytes that are backed up as one file.

    :ivar name: its path in the restore point; ``/`` in front is added where it is missing
    :ivar stream: what is read to its end
    :ivar check: called at the end; raises what is wrong, such as
        :class:`~cloudconnect.errors.SourceCommandFailed`, and then no point is published
    """

    name: bytes
    stream: BinaryIO
    check: Callable[[], None] = lambda: None


@attrs.frozen(kw_only=True, repr=False)
class Labels(Shown):
    """What a restore point is found by; the provider sees it.

    :ivar host: the machine's name
    :ivar job: the job's name
    :ivar tags: further words
    :ivar job_id: 16 bytes, the same for all sessions of one run of a job
    """

    host: str
    job: str
    tags: tuple[str, ...] = ()
    job_id: bytes


@attrs.frozen(kw_only=True, repr=False)
class BackupOptions(Shown):
    """What to back up, and how.

    :ivar paths: sources (:func:`~cloudconnect.backup.walk.absolute` makes them)
    :ivar rules: what is left out of them
    :ivar one_file_system: do not go into folders on other file systems than their source
    :ivar stdin: or this, and no paths
    :ivar dry_run: look and count, send nothing
    :ivar compression: level 0 (none) to 19; None: one that follows the line
    :ivar cache: folder for what is known of unchanged files, or None
    :ivar round_trip: seconds to the repository and back, or None where that is not known
    """

    paths: tuple[bytes, ...] = ()
    rules: ExcludeRules = attrs.field(factory=ExcludeRules)
    one_file_system: bool = False
    stdin: StandardInput | None = None
    dry_run: bool = False
    compression: int | None = LEVEL_DEFAULT
    cache: Path | None = None
    round_trip: float | None = None

    def __attrs_post_init__(self) -> None:
        if bool(self.paths) is (self.stdin is not None):
            raise UsageError("a backup needs either source paths or standard input")


class Overwrite(enum.Enum):
    """What happens to a file that is there already."""

    ALWAYS = "always"
    IF_CHANGED = "if-changed"
    IF_NEWER = "if-newer"
    NEVER = "never"


@attrs.frozen(kw_only=True, repr=False)
class RestoreOptions(Shown):
    """What to restore, and where to.

    :ivar target: folder below which the absolute source paths are made again; it is made if need
        be, and its own owner, mode and times are never changed
    :ivar strip_components: so many names are taken from the front of each path
    :ivar paths: only these and everything below them, absolute; empty for all
    :ivar include: only what one of these means, and everything below it
    :ivar exclude: but not what one of these means, nor anything below it
    :ivar overwrite: ``if-changed`` replaces a file whose size or time of change differs,
        ``if-newer`` one that is older than the one in the restore point
    :ivar dry_run: look and count, write nothing
    :ivar verify: read each file back from the disk once it is written, and compare; with
        ``if-changed``, also compare what looks unchanged
    """

    target: bytes
    strip_components: int = 0
    paths: tuple[bytes, ...] = ()
    include: PathPatterns = attrs.field(factory=lambda: PathPatterns(()))
    exclude: PathPatterns = attrs.field(factory=lambda: PathPatterns(()))
    overwrite: Overwrite = Overwrite.ALWAYS
    dry_run: bool = False
    verify: bool = False

    def __attrs_post_init__(self) -> None:
        if self.strip_components < 0:
            raise UsageError("a number of components to strip is not negative")


@attrs.frozen(kw_only=True, repr=False)
class Progress(Shown):
    """How far a backup or restore is.

    :ivar files: entries done
    :ivar bytes_done: bytes of file content done, those of unchanged files too
    :ivar bytes_new: of a backup: those of them that the repository did not have
    :ivar bytes_sent: by this side so far, frames and all
    :ivar bytes_received: likewise
    :ivar path: what is being worked on
    :ivar files_total: or None where it is not known
    :ivar bytes_total: or None where it is not known
    """

    files: int = 0
    bytes_done: int = 0
    bytes_new: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    path: bytes = b""
    files_total: int | None = None
    bytes_total: int | None = None


@attrs.define(repr=False)
class Reports(Shown):
    """A list of paths with reasons that counts on when it is full.

    :ivar listed: the first ones, at most LISTED_MAX
    :ivar count: of all of them
    """

    listed: list[Unreadable] = attrs.field(factory=list)
    count: int = 0

    def add(self, path: bytes, reason: str) -> None:
        """One more."""
        self.count += 1
        if len(self.listed) < LISTED_MAX:
            self.listed.append(Unreadable(path, reason))

    def __bool__(self) -> bool:
        return self.count > 0


@attrs.define(kw_only=True, repr=False)
class BackupResult(Shown):
    """What came of a backup.

    :ivar point: the restore point's 16 bytes; empty after a dry run
    :ivar record: what was published, or None after a dry run
    :ivar arrival: the repository's number for the point
    :ivar time: when it arrived, seconds since 1970 by the repository's clock
    :ivar files: files in the point
    :ivar directories: folders in it, those on the way to a source not counted
    :ivar other: links, devices and so on in it
    :ivar on_the_way: folders on the way to a source
    :ivar files_unchanged: files of these that were not read, as nothing about them had changed
    :ivar bytes_source: bytes of the files' content
    :ivar bytes_new: bytes of content that the repository did not have, before compression
    :ivar bytes_stored: the same after compression and sealing, with new manifest chunks
    :ivar bytes_sent: bytes of the frames that this side sent
    :ivar bytes_received: bytes of the frames that it received
    :ivar unreadable: what could not be backed up: a command then ends with exit code 3
    :ivar changed: files that changed while they were read, twice: recorded as they were read
    :ivar devices: block devices, named as sources, of which the content was read as a file's
    :ivar seconds: how long it took
    """

    point: bytes = b""
    record: PointRecord | None = None
    arrival: int = 0
    time: float = 0.0
    files: int = 0
    directories: int = 0
    other: int = 0
    on_the_way: int = 0
    files_unchanged: int = 0
    bytes_source: int = 0
    bytes_new: int = 0
    bytes_stored: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    unreadable: Reports = attrs.field(factory=Reports)
    changed: Reports = attrs.field(factory=Reports)
    devices: list[bytes] = attrs.field(factory=list)
    seconds: float = 0.0


@attrs.define(kw_only=True, repr=False)
class RestoreResult(Shown):
    """What came of a restore.

    :ivar record: the restore point
    :ivar files: files restored (or, in a dry run, that would be), hard links counted
    :ivar directories: folders likewise
    :ivar other: links, devices and so on, likewise
    :ivar kept: files left as they are because of the ``overwrite`` choice
    :ivar bytes_kept: bytes of their content
    :ivar unchanged: files of those restored that were there already, content and metadata, and were
        left as they are
    :ivar bytes_restored: bytes of content
    :ivar bytes_there: those of them that were found in the target, and not fetched
    :ivar totals: things and bytes that were asked for; None where all of the point was
    :ivar bytes_sent: bytes of the frames that this side sent
    :ivar bytes_received: bytes of the frames that it received
    :ivar problems: what could not be restored, or not fully, and why
    :ivar damaged: files not restored because stored data is damaged: a command then ends with 20
    :ivar missing: paths that were asked for and are not in the restore point
    :ivar notes: sentences for a person about what was left out on purpose
    :ivar seconds: how long it took
    """

    record: PointRecord
    files: int = 0
    directories: int = 0
    other: int = 0
    kept: int = 0
    bytes_kept: int = 0
    unchanged: int = 0
    bytes_restored: int = 0
    bytes_there: int = 0
    totals: tuple[int, int] | None = None
    bytes_sent: int = 0
    bytes_received: int = 0
    problems: Reports = attrs.field(factory=Reports)
    damaged: Reports = attrs.field(factory=Reports)
    missing: list[bytes] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)
    seconds: float = 0.0

    @property
    def empty(self) -> bool:
        """Whether there was nothing that could be restored, or was left as it is."""
        things = self.files + self.directories + self.other + self.kept
        return not (things or self.problems or self.damaged)
