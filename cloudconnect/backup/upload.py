"""Layer 3: a backup: the source mover's side of the dialogue, from HELLO to the last TOTALS."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from typing import Final

from cloudconnect.backup.dialogue import greet
from cloudconnect.backup.heads import KnownHeads
from cloudconnect.backup.leading import Upload
from cloudconnect.backup.links import LinkMap
from cloudconnect.backup.options import BackupOptions, BackupResult, Labels, Progress
from cloudconnect.backup.reader import device_size
from cloudconnect.backup.walk import Found, Unreadable, absolute, walk
from cloudconnect.content.atrest import RepositoryKeys
from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import Cancelled, UsageError
from cloudconnect.wire.channel import FrameChannel

#: Seconds after which progress is reported again and a cancellation is noticed.
LOOK_SECONDS: Final = 0.2
#: Source paths are kept, for people, in the point's record up to so many bytes in all.
PRIVATE_MAX: Final = 64 << 10


class BackupRun:
    """One backup over one dialogue.

    :param channel: to the repository; None for a dry run
    :param keys: of the repository
    :param description: of the repository
    :param options: what to back up, and how
    :param labels: what the restore point will be found by
    :param session: the session's 16 bytes
    :param progress: called in the thread of :meth:`run`, a few times a second
    :param cancelled: asked in the thread of :meth:`run`, a few times a second
    :param now_ns: the clock, nanoseconds since 1970
    :param heads: what is known of the repository's past; the new point gets a head in its chain
    :param listed: called, in a dry run, with each thing that would be backed up
    :ivar result: what has come of it so far
    :ivar offered: the restore point, once the repository is asked to publish it
    """

    def __init__(
        self,
        channel: FrameChannel | None,
        keys: RepositoryKeys,
        description: RepositoryDescription,
        options: BackupOptions,
        labels: Labels,
        session: bytes,
        progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        heads: KnownHeads | None = None,
        listed: Callable[[Found], None] = lambda found: None,
    ) -> None:
        self._listed = listed
        self._channel = channel
        self._keys = keys
        self._description = description
        self._options = options
        self._labels = labels
        self._session = session
        self._progress = progress
        self._cancelled = cancelled
        self._now_ns = now_ns
        self._heads = heads
        self.result = self._result = BackupResult()
        self.offered: PointRecord | None = None
        self._path = b""
        self._looked = time.monotonic()

    def run(self) -> BackupResult:
        """Back up, publish the restore point, and end the dialogue.

        After an error the channel is aborted, and the repository keeps what it has stored.

        :raises Cancelled: ``cancelled`` said so
        :raises UsageError: nothing of what was named exists, or a label cannot be used
        :raises CloudConnectError: the repository refuses, the line broke, or the check of standard
            input failed; no restore point was published
        """
        started = time.monotonic()
        if self._options.dry_run:
            self._count()
        else:
            assert self._channel is not None, "only a dry run goes without a channel"
            try:
                self._back_up(self._channel)
            except BaseException as error:
                self._channel.abort(error if isinstance(error, Exception) else Cancelled())
                raise
        self._result.seconds = time.monotonic() - started
        return self._result

    def _count(self) -> None:
        """A dry run."""
        options, result = self._options, self._result
        links = LinkMap()
        paths = [absolute(path) for path in options.paths]
        for item in walk(paths, options.rules, options.one_file_system):
            if isinstance(item, Unreadable):
                result.unreadable.add(item.path, item.reason)
                continue
            self._path, status = item.path, item.status
            if not item.ancestor:
                self._listed(item)
            if stat.S_ISREG(status.st_mode):
                result.files += 1
                if status.st_nlink == 1:
                    result.bytes_source += status.st_size
                elif links.further(status) is None:
                    result.bytes_source += status.st_size
                    links.first(b"", status)
            elif stat.S_ISBLK(status.st_mode) and item.named:
                result.files += 1
                result.bytes_source += _device_bytes(item)
            elif not stat.S_ISDIR(status.st_mode):
                result.other += 1
            elif not item.ancestor:
                result.directories += 1
            self._look()

    def _back_up(self, channel: FrameChannel) -> None:
        started_ns, point = self._now_ns(), os.urandom(16)
        self._record(point, started_ns, [], 0)  # wrong labels are noticed now, not at the end
        limits = greet(channel, self._keys, self._description, "backup", self._heads)
        upload = Upload(
            channel,
            self._keys,
            self._description,
            self._options,
            limits,
            self._result,
            self._look,
        )
        try:
            upload.lead()
            record = self._record(point, started_ns, upload.manifest.ids, upload.manifest.length)
            self.offered = record
            upload.publish(record, self._heads)
        except BaseException as error:
            upload.stop(error)
            raise
        finally:
            upload.close()
        channel.end()
        self._result.bytes_sent = channel.bytes_sent
        self._result.bytes_received = channel.bytes_received

    def _record(
        self, point: bytes, started_ns: int, manifest: Sequence[bytes], length: int
    ) -> PointRecord:
        result, labels = self._result, self._labels
        try:
            return PointRecord(
                point=point,
                repository=self._description.repository,
                session=self._session,
                job_id=labels.job_id,
                host=labels.host,
                job=labels.job,
                tags=labels.tags,
                started_ns=started_ns,
                finished_ns=self._now_ns(),
                mode=self._description.mode,
                manifest=tuple(manifest),
                manifest_length=length,
                statistics={
                    "files": result.files,
                    "directories": result.directories,
                    "other": result.other,
                    "bytes_source": result.bytes_source,
                    "bytes_new": result.bytes_new,
                    "unreadable": result.unreadable.count,
                },
                private=self._keys.seal_private(point, self._private_paths()),
            )
        except ValueError as error:
            raise UsageError(str(error)) from error

    def _private_paths(self) -> list[bytes]:
        stdin = self._options.stdin
        named = [stdin.name] if stdin is not None else self._options.paths
        kept, size = [], 0
        for path in named:
            size += len(path) + 8
            if size > PRIVATE_MAX:
                break
            kept.append(path)
        return kept

    def _look(self, path: bytes = b"") -> None:
        """Report progress and notice a cancellation, now and then."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("the backup was interrupted")
        if self._progress is not None:
            result, channel = self._result, self._channel
            self._progress(
                Progress(
                    files=result.files + result.directories + result.other,
                    # A large file counts as it goes up, before it is counted as a whole.
                    bytes_done=max(result.bytes_source, result.bytes_new),
                    bytes_new=result.bytes_new,
                    bytes_sent=channel.bytes_sent if channel else 0,
                    bytes_received=channel.bytes_received if channel else 0,
                    path=path or self._path,
                )
            )


def _device_bytes(item: Found) -> int:
    """The bytes of a block device; 0 where it cannot be opened."""
    try:
        descriptor = os.open(item.name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=item.parent)
    except OSError:
        return 0
    try:
        return device_size(descriptor)
    except OSError:
        return 0
    finally:
        os.close(descriptor)
