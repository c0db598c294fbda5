"""Layer 3: seeding the source accelerator's cache from files (``docs/wan.rst``, seeding).

The files are read, cut and named as a backup does it, and each chunk enters the cache as the block
that its uncompressed CHUNK would be on the line. Nothing is sent. That is of use where the far end
has the same content: an earlier state of what is going to be backed up, or what will be restored.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import attrs

from cloudconnect.backup.batches import Batch, Stopped
from cloudconnect.backup.options import BackupOptions, BackupResult, Reports
from cloudconnect.backup.sending import ManifestWriter, Plain
from cloudconnect.backup.source import Source
from cloudconnect.content.atrest import RepositoryDescription, RepositoryKeys
from cloudconnect.dedup.interfaces import IBlockCache
from cloudconnect.dedup.seeding import ChunkSeeder, Order
from cloudconnect.errors import Cancelled, UsageError

#: Why there is nothing to do in mode ``tenant``.
SEALED_TEXT: Final = (
    "with encryption mode 'tenant' each chunk is sealed anew before it reaches an accelerator: "
    "there is nothing that a cache could know of it in advance"
)


@attrs.define(kw_only=True)
class SeedResult:
    """What came of seeding, or how far it is.

    :ivar files: files that were read
    :ivar bytes_source: bytes of their content
    :ivar chunks: chunks of content and of the manifest, each counted once
    :ivar bytes_added: bytes of blocks that the cache did not have
    :ivar complete: all was read; not where the cache, or the limit, was full before
    :ivar unreadable: what could not be read
    :ivar path: what was worked on last
    :ivar seconds: how long it took
    """

    files: int = 0
    bytes_source: int = 0
    chunks: int = 0
    bytes_added: int = 0
    complete: bool = False
    unreadable: Reports = attrs.field(factory=Reports)
    path: bytes = b""
    seconds: float = 0.0


def seed_from_files(
    cache: IBlockCache,
    keys: RepositoryKeys,
    description: RepositoryDescription,
    options: BackupOptions,
    limit: int | None = None,
    progress: Callable[[SeedResult], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> SeedResult:
    """Seed a cache with what a backup with these options would send to an empty repository.

    Memory is bounded, as that of a backup is. What the cache has already is not added again.

    :param cache: of the source accelerator
    :param keys: of the repository; they name the chunks
    :param description: of the repository
    :param options: what to read; the cache of unchanged files is not used
    :param limit: bytes after which nothing more is added
    :param progress: is told how far it is, every few MB
    :param cancelled: is asked as often whether to stop
    :raises UsageError: the mode is ``tenant``, or nothing of what was named exists
    :raises Cancelled: it was stopped; what was added stays
    """
    if keys.sealing:
        raise UsageError(SEALED_TEXT)
    return _Seeding(cache, keys, description, options, limit, progress, cancelled).run()


class _Seeding:
    def __init__(
        self,
        cache: IBlockCache,
        keys: RepositoryKeys,
        description: RepositoryDescription,
        options: BackupOptions,
        limit: int | None,
        progress: Callable[[SeedResult], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._seeder = ChunkSeeder(cache, limit)
        self._counted = BackupResult()
        self._result = SeedResult(unreadable=self._counted.unreadable)
        self._progress = progress
        self._cancelled = cancelled
        self._manifest = ManifestWriter(description.chunking, keys.manifest_id, self._offer)
        self._source = Source(
            options, keys, description.chunking, None, self._counted, self._hand_over
        )

    def run(self) -> SeedResult:
        started = time.monotonic()
        try:
            self._source.enough()  # there is no repository that could lack anything
            self._source.run()
            self._manifest.finish()
            self._result.complete = not self._seeder.full
        except Stopped:
            pass
        finally:
            self._seeder.close()
        self._count()
        self._result.seconds = time.monotonic() - started
        return self._result

    def _hand_over(self, batch: Batch) -> None:
        """Take a batch from the source, in whose thread all of this is done."""
        for name, plain in zip(batch.ids, batch.plains, strict=True):
            if plain is not None:
                order = Order.SMALL_FILES if name in batch.shared else Order.FILES
                self._seeder.add(order, name, plain)
        for entry in batch.entries:
            for piece in entry.pieces():
                self._manifest.add(piece)
        self._result.path = batch.path
        self._count()
        if self._progress is not None:
            self._progress(self._result)
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("seeding was interrupted; what was added to the cache stays")
        if self._seeder.full:
            raise Stopped

    def _offer(self, chunks: list[tuple[bytes, Plain]]) -> None:
        for name, plain in chunks:
            self._seeder.add(Order.MANIFEST, name, plain)

    def _count(self) -> None:
        result, counted, seeder = self._result, self._counted, self._seeder
        result.files, result.bytes_source = counted.files, counted.bytes_source
        result.chunks, result.bytes_added = seeder.chunks, seeder.added
