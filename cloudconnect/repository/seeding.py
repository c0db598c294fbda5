"""Layer 3: seeding the target accelerator's cache from a repository (``docs/wan.rst``, seeding).

The newest restore point of each job on each host is gone through as its manifest says, and each
chunk enters the cache as the block that its uncompressed CHUNK would be on the line: in the order
in which a backup of the same content, or the seeding of the source accelerator from it, has them.
That needs chunks that can be read here, so it does not work in mode ``tenant``.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import IO, Final

import attrs

from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys
from cloudconnect.content.entries import Entry
from cloudconnect.content.manifest import EntryDecoder
from cloudconnect.content.points import PointRecord
from cloudconnect.content.recent import RecentIds
from cloudconnect.content.recoding import plain
from cloudconnect.content.runs import ids_of
from cloudconnect.dedup.interfaces import IBlockCache
from cloudconnect.dedup.seeding import ChunkSeeder, Order
from cloudconnect.errors import Cancelled, NotFound, PeerError, Refused, StoredDataDamaged
from cloudconnect.repository.points import PointRow
from cloudconnect.repository.store import Repository
from cloudconnect.settings import CHUNK_MAX
from cloudconnect.wire.frames import Coding, StoredBlob

#: The source mover joins files of fewer bytes ...
SMALL_FILE: Final = 64 << 10
#: ... and those with holes of at most so many. A wrong guess costs some bytes on the line.
SMALL_SPARSE_FILE: Final = 1 << 20
#: Chunks that are looked up and read at a time; progress is told as often.
READ_AT_ONCE: Final = 256
#: Hosts and jobs whose newest point is used, at most: those that were last backed up.
JOBS_MAX: Final = 10_000


@attrs.define(kw_only=True)
class SeedResult:
    """What came of seeding, or how far it is.

    :ivar points: restore points that were gone through
    :ivar points_total: those that are to be
    :ivar chunks: chunks of content and of manifests, each counted once
    :ivar bytes_plain: their bytes before compression
    :ivar bytes_added: bytes of blocks that the cache did not have
    :ivar damaged: chunks that are damaged or missing
    :ivar complete: all was read; not where the cache, or the limit, was full before
    :ivar seconds: how long it took
    """

    points: int = 0
    points_total: int = 0
    chunks: int = 0
    bytes_plain: int = 0
    bytes_added: int = 0
    damaged: int = 0
    complete: bool = False
    seconds: float = 0.0


def seed_from_repository(
    cache: IBlockCache,
    repository: Repository,
    keys: RepositoryKeys | None = None,
    host: str | None = None,
    job: str | None = None,
    limit: int | None = None,
    progress: Callable[[SeedResult], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> SeedResult:
    """Seed a cache from the newest restore point of each job on each host, the newest first.

    Memory is bounded. What is damaged is left out, and counted. What the cache has already is not
    added again.

    :param cache: of the target accelerator, for this tenant
    :param repository: the tenant's; opened to be read is enough
    :param keys: in ``provider`` mode, the provider's own keys of it
    :param host: only points of this host
    :param job: only points of this job
    :param limit: bytes after which nothing more is added
    :param progress: is told how far it is, after READ_AT_ONCE chunks, and each point
    :param cancelled: is asked as often whether to stop
    :raises Refused: the mode is ``tenant``, or the keys are not there
    :raises Cancelled: it was stopped; what was added stays
    """
    mode = repository.description.mode
    if mode is EncryptionMode.TENANT:
        raise Refused(
            "no cache can be seeded from a repository in encryption mode 'tenant': its chunks are "
            "sealed with a key that the provider does not have"
        )
    if mode is EncryptionMode.PROVIDER and keys is None:
        raise Refused("the provider's key of this repository is not there")
    unsealing = keys if mode is EncryptionMode.PROVIDER else None
    return _Seeding(cache, repository, unsealing, limit, progress, cancelled).run(host, job)


class _Full(Exception):
    """The cache takes no more."""


class _Seeding:
    def __init__(
        self,
        cache: IBlockCache,
        repository: Repository,
        keys: RepositoryKeys | None,
        limit: int | None,
        progress: Callable[[SeedResult], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._seeder = ChunkSeeder(cache, limit)
        self._repository = repository
        self._keys = keys
        self._progress = progress
        self._cancelled = cancelled
        self._result = SeedResult()
        self._seen = RecentIds()
        self._whole = True  # as far as the manifest of the point was read that is worked on

    def run(self, host: str | None, job: str | None) -> SeedResult:
        result, started = self._result, time.monotonic()
        points = newest_points(self._repository, host, job)
        result.points_total = len(points)
        try:
            for point in points:
                self._point(point)
                result.points += 1
                self._look()
            result.complete = True
        except _Full:
            pass
        finally:
            self._seeder.close()
        self._count()
        result.seconds = time.monotonic() - started
        return result

    def _point(self, point: bytes) -> None:
        """Seed what a point needs; by its list of references what its manifest does not say."""
        try:
            stored = self._repository.point(point)
        except (NotFound, StoredDataDamaged):
            return  # deleted meanwhile, or a row that was changed; a scrub says so
        self._whole = True
        self._seed(self._needed(stored.record))
        if self._whole:
            return
        with contextlib.suppress(NotFound, StoredDataDamaged):  # of the list
            for ids in self._repository.references(stored):
                self._seed((Order.FILES, name) for name in self._in_packs(ids))

    def _needed(self, record: bytes) -> Iterator[tuple[Order, bytes]]:
        """The chunks of content that a point needs, in the order of its manifest, which is seeded.

        Where the manifest cannot be read to its end it is not whole, and nothing more comes.
        """
        decoder = EntryDecoder(_temporary_file)
        try:
            manifest = PointRecord.decode(record).manifest
            for at in range(0, len(manifest), READ_AT_ONCE):
                for octets in self._manifest(manifest[at : at + READ_AT_ONCE]):
                    for entry in decoder.feed(octets):
                        yield from _chunks_of(entry)
            decoder.finish()
        except PeerError:  # damaged, or an impossible record
            self._whole = False

    def _manifest(self, ids: Sequence[bytes]) -> Iterator[bytes | memoryview]:
        """The content of chunks of a manifest, which are seeded.

        :raises StoredDataDamaged: (from the iterator) one is damaged
        """
        for got in self._repository.read_each(ids):
            try:
                blob = self._opened(got)
            except StoredDataDamaged:
                self._result.damaged += 1
                raise
            if self._seen.add(blob.id):
                self._seeder.add(Order.MANIFEST, blob.id, blob.data)
            yield blob.data

    def _seed(self, wanted: Iterable[tuple[Order, bytes]]) -> None:
        """Seed those of these chunks of content that were not, in their order."""
        fresh = ((order, name) for order, name in wanted if self._seen.add(name))
        while part := list(islice(fresh, READ_AT_ONCE)):
            blobs = self._repository.read_each([name for _, name in part])
            for (order, name), got in zip(part, blobs, strict=True):
                try:
                    self._seeder.add(order, name, self._opened(got).data)
                except StoredDataDamaged:
                    self._result.damaged += 1
            self._look()

    def _opened(self, got: StoredBlob | StoredDataDamaged) -> StoredBlob:
        """A stored blob, PLAIN.

        :raises StoredDataDamaged: it is not there, or not what it should be
        """
        if isinstance(got, StoredDataDamaged):
            raise got
        blob = plain(got if self._keys is None else self._keys.unseal_stored("chunk", got))
        if blob.coding != Coding.PLAIN or not 1 <= len(blob.data) == blob.plain_length <= CHUNK_MAX:
            raise StoredDataDamaged(f"{blob.id.hex()} does not have its length")
        return blob

    def _in_packs(self, ids: Sequence[bytes]) -> list[bytes]:
        """Ids in the order in which they were stored: those of a list are sorted by themselves."""
        places = self._repository.catalogue.locate(ids)
        return sorted(places, key=lambda name: (places[name][0], places[name][1].offset))

    def _look(self) -> None:
        self._count()
        if self._progress is not None:
            self._progress(self._result)
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("seeding was interrupted; what was added to the cache stays")
        if self._seeder.full:
            raise _Full

    def _count(self) -> None:
        result, seeder = self._result, self._seeder
        result.chunks, result.bytes_plain = seeder.chunks, seeder.plain
        result.bytes_added = seeder.added


def newest_points(
    repository: Repository, host: str | None = None, job: str | None = None
) -> list[bytes]:
    """The newest published point of each job on each host, the newest first: 16 bytes each.

    :param host: only of this host
    :param job: only of this job
    """
    found: dict[tuple[str, str], bytes] = {}
    after = 0
    while len(found) < JOBS_MAX:
        rows = repository.points(host, job, after=after, newest_first=True)
        for row in rows:
            found.setdefault(_job_of(row), row.point)
        if not rows or (after and rows[-1].arrival >= after):
            break
        after = rows[-1].arrival
    return list(found.values())[:JOBS_MAX]


def _job_of(row: PointRow) -> tuple[str, str]:
    return row.host, row.job


def _chunks_of(entry: Entry) -> Iterator[tuple[Order, bytes]]:
    """The chunks of a file, and of which order they are."""
    joined = entry.size < SMALL_FILE or (
        entry.size <= SMALL_SPARSE_FILE and any(run.id is None for run in entry.runs)
    )
    order = Order.SMALL_FILES if joined else Order.FILES
    return ((order, name) for name in ids_of(entry.runs))


def _temporary_file() -> IO[bytes]:
    return tempfile.TemporaryFile(prefix="cloudconnect-", buffering=0)
