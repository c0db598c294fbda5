"""Layer 3: a restore: the source mover's side of the dialogue, from HELLO to the last TOTALS."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from cloudconnect.backup.dialogue import Remembers
from cloudconnect.backup.fetching import Fetcher
from cloudconnect.backup.options import Progress, RestoreOptions, RestoreResult
from cloudconnect.backup.writing import TreeWriter
from cloudconnect.content.atrest import RepositoryKeys
from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.entries import Entry
from cloudconnect.errors import Cancelled
from cloudconnect.wire.channel import FrameChannel

#: Seconds after which progress is reported again and a cancellation is noticed.
LOOK_SECONDS: Final = 0.2


class RestoreRun:
    """One restore over one dialogue.

    :param channel: to the repository
    :param keys: of the repository
    :param description: of the repository
    :param point: the restore point's 16 bytes
    :param options: what to restore, and where to
    :param progress: called in the thread of :meth:`run`, a few times a second
    :param cancelled: asked in the thread of :meth:`run`, a few times a second
    :param heads: what is known of the repository's past
    :param listed: called with each entry that is restored, or in a dry run would be
    """

    def __init__(
        self,
        channel: FrameChannel,
        keys: RepositoryKeys,
        description: RepositoryDescription,
        point: bytes,
        options: RestoreOptions,
        progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        heads: Remembers | None = None,
        listed: Callable[[Entry], None] = lambda entry: None,
    ) -> None:
        self._channel = channel
        self._fetcher = Fetcher(channel, keys, description, heads)
        self._keys = keys
        self._point = point
        self._options = options
        self._progress = progress
        self._cancelled = cancelled
        self._listed = listed
        self._looked = time.monotonic()

    def run(self) -> RestoreResult:
        """Restore, and end the dialogue.

        What cannot be restored is listed in the result, and the rest is restored. After an error
        the channel is aborted, and what was restored stays.

        :raises NotFound: there is no such restore point
        :raises StoredDataDamaged: the point's signature does not hold, or its manifest is not one
        :raises Cancelled: ``cancelled`` said so
        :raises OSError: the target folder cannot be opened or made
        :raises CloudConnectError: the repository refuses, or the line broke
        """
        started = time.monotonic()
        try:
            record = self._fetcher.open(self._point, "restore")
            result = RestoreResult(record=record)
            look = partial(self._look, result)
            is_chunk = partial(_is_chunk, self._keys)
            TreeWriter(self._options, result, self._fetcher, is_chunk, look, self._listed).run()
            self._fetcher.close()
        except BaseException as error:
            self._fetcher.abort(error)
            raise
        result.bytes_sent = self._channel.bytes_sent
        result.bytes_received = self._channel.bytes_received
        result.seconds = time.monotonic() - started
        return result

    def _look(self, result: RestoreResult, path: bytes) -> None:
        """Report progress and notice a cancellation, now and then."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("the restore was interrupted")
        if self._progress is None:
            return
        totals = result.totals
        if totals is None:
            counted = result.record.statistics
            things = sum(counted.get(name, 0) for name in ("files", "directories", "other"))
            totals = (things, counted.get("bytes_source", 0))
        self._progress(
            Progress(
                files=result.files + result.directories + result.other + result.kept,
                bytes_done=result.bytes_restored + result.bytes_kept,
                bytes_sent=self._channel.bytes_sent,
                bytes_received=self._channel.bytes_received,
                path=path,
                files_total=totals[0],
                bytes_total=totals[1],
            )
        )


def _is_chunk(keys: RepositoryKeys, name: bytes, data: bytes) -> bool:
    """Whether ``data`` is the chunk of this name, whichever generation has named it."""
    return any(generation.chunk_id(data) == name for generation in (keys, *keys.older))
