"""Layer 3: one repository: the blobs and restore points of one tenant, at the provider.

The order in which things become durable is the promise of this module (architecture decision 11):
a pack is complete under its name, then its blobs are in the index, then they are acknowledged; a
restore point's references and record are durable, then its row, then it is acknowledged. After a
write that failed nothing more is stored by the same object: nobody knows what the system has kept.

Any number of :class:`Repository` objects, in any number of threads and processes, may be open on
one directory; each is used by one thread at a time.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import sqlalchemy as sa

from cloudconnect.content.atrest import BlobKind, RepositoryDescription
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import NotFound, Refused, StoredDataDamaged, UsageError
from cloudconnect.interfaces import ILease
from cloudconnect.repository.accounting import Measured, read_measured, stored_bytes
from cloudconnect.repository.blobs import LocalBlobStore
from cloudconnect.repository.catalogue import Catalogue, open_catalogue, sqlite_url
from cloudconnect.repository.collect import CollectResult, Progress, collect
from cloudconnect.repository.leases import Leases
from cloudconnect.repository.packs import KINDS, PackBuilder
from cloudconnect.repository.points import PointRow, Points, StoredPoint
from cloudconnect.repository.reading import read_blobs
from cloudconnect.repository.rebuild import RebuildResult, rebuild_index
from cloudconnect.repository.references import ReferenceWriter
from cloudconnect.repository.tables import packs_table, points_table, repository_table
from cloudconnect.settings import PAGE_ROWS_MAX
from cloudconnect.wire.frames import StoredBlob

#: Version of the packs and of what lies beside them; the catalogue has its own revisions.
FORMAT_VERSION: Final = 1
#: The catalogue's file in the repository's directory.
CATALOGUE: Final = "catalogue.sqlite"
#: The blob that holds the description a second time, for a repository without a catalogue.
DESCRIPTION: Final = "description"


class Repository:
    """An open repository; made by :meth:`create` and :meth:`open`.

    :ivar description: what the tenant stored at ``connect``
    :ivar store: where the packs lie
    :ivar catalogue: what lies where
    """

    def __init__(
        self,
        store: LocalBlobStore,
        catalogue: Catalogue,
        description: RepositoryDescription,
        clock: Callable[[], float],
    ) -> None:
        self.store = store
        self.catalogue = catalogue
        self.description = description
        self._clock = clock
        self._points = Points(store, catalogue, description, clock)
        self._builders: dict[int, PackBuilder] = {}
        self._pending: set[bytes] = set()
        self._lists: list[ReferenceWriter] = []
        self._failed = False
        self._lease: ILease | None = None

    @classmethod
    def create(
        cls,
        directory: str | os.PathLike[str],
        description: RepositoryDescription,
        url: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Make a repository, in a directory that is made too; its parent must exist.

        :param url: of the catalogue, for SQLAlchemy; by default a SQLite file in ``directory``
        :param clock: seconds since 1970, for arrival times
        :raises Refused: there is one already
        :raises NoSpace: the disk is full
        """
        encoded = description.encode()
        store = LocalBlobStore(os.fspath(directory))
        try:
            try:
                store.put(DESCRIPTION, [encoded])
            except FileExistsError:
                if _read_description(store) != encoded:
                    raise Refused("there is another repository in this place already") from None
            catalogue = _new_catalogue(directory, description, url)
            return cls(store, catalogue, description, clock)._leased()
        except BaseException:
            store.close()
            raise

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        url: str | None = None,
        clock: Callable[[], float] = time.time,
        read_only: bool = False,
        lease: bool = True,
    ) -> Self:
        """Open a repository; an older catalogue is migrated first.

        :param read_only: write nothing at all: for a read-only file system
        :param lease: hold a lease until it is closed (:mod:`cloudconnect.repository.leases`), so
            that nothing is taken away that this object was told of; without one nothing can be
            stored. A read-only repository has none
        :raises NotFound: there is none
        :raises UsageError: a newer release made it
        :raises StoredDataDamaged: its catalogue is missing or of another repository
        """
        path = Path(directory)
        try:
            if path.is_symlink():
                raise NotFound("a repository's directory is not a symbolic link")
            store = LocalBlobStore(os.fspath(directory), create=path.is_dir() and not read_only)
        except FileNotFoundError:
            raise NotFound("there is no repository in this place") from None
        try:
            if url is None:
                if not (path / CATALOGUE).exists():
                    _read_description(store)  # NotFound where there never was one
                    raise StoredDataDamaged("the repository's catalogue is missing: recover it")
                url = sqlite_url(os.fspath(path / CATALOGUE), read_only)
            catalogue = open_catalogue(url, read_only)
            try:
                description = _described(catalogue)
                if not read_only:
                    store.clean()
                opened = cls(store, catalogue, description, clock)
                return opened._leased() if lease and not read_only else opened
            except BaseException:
                catalogue.close()
                raise
        except BaseException:
            store.close()
            raise

    @classmethod
    def recover(
        cls,
        directory: str | os.PathLike[str],
        url: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open a repository whose catalogue is lost, with a new one: call rebuild_index() next.

        :raises NotFound: there is no repository
        :raises Refused: it has a catalogue
        """
        store = LocalBlobStore(os.fspath(directory), create=False)
        try:
            description = RepositoryDescription.decode(_read_description(store))
            catalogue = _new_catalogue(directory, description, url)
            return cls(store, catalogue, description, clock)._leased()
        except BaseException:
            store.close()
            raise

    # --- blobs -----------------------------------------------------------------------------------

    def have(self, ids: Sequence[bytes]) -> list[bool]:
        """Which of ``ids`` need not be sent: stored, or taken by :meth:`add` just now."""
        with self.catalogue.reading() as connection:
            found = self.catalogue.present(connection, set(ids) - self._pending)
        return [name in found or name in self._pending for name in ids]

    def add(self, blob: StoredBlob, kind: BlobKind = "chunk") -> list[bytes]:
        """Take a blob whose stored bytes have their digest (a frame reader has seen to it).

        :return: ids that have become durable by this call: most often none, and many at a time
        :raises NoSpace: the disk is full; nothing can be stored any more
        :raises OSError: anything else that the system reports; likewise
        :raises Refused: an earlier write failed
        """
        self._check_usable()
        if blob.id in self._pending:
            return []
        number = KINDS.index(kind)
        try:
            builder = self._builders.get(number)
            if builder is None:
                builder = self._builders[number] = PackBuilder(
                    self.store.begin(), self.description.repository, os.urandom(16)
                )
            builder.add(blob, number)
            self._pending.add(blob.id)
            return self._close_pack(number) if builder.full else []
        except BaseException:
            self._fail()
            raise

    def flush(self) -> list[bytes]:
        """Make all that was added durable, and return the ids for which that is new.

        :raises NoSpace: the disk is full; nothing can be stored any more
        :raises OSError: anything else that the system reports; likewise
        :raises Refused: an earlier write failed
        """
        self._check_usable()
        try:
            return [name for number in sorted(self._builders) for name in self._close_pack(number)]
        except BaseException:
            self._fail()
            raise

    def read(self, ids: Sequence[bytes]) -> Iterator[StoredBlob]:
        """The blobs in the order asked; their stored bytes have their digest.

        Blobs that are not durable yet are not found.

        :raises StoredDataDamaged: one is damaged or missing; what stands before it was returned
        """
        for got in self.read_each(ids):
            if isinstance(got, StoredDataDamaged):
                raise got
            yield got

    def read_each(self, ids: Sequence[bytes]) -> Iterator[StoredBlob | StoredDataDamaged]:
        """As :meth:`read`, with the error in the place of a blob that is damaged or missing."""
        return read_blobs(self.store, self.catalogue, ids)

    # --- points ----------------------------------------------------------------------------------

    def begin_references(self) -> ReferenceWriter:
        """Begin the list of blobs that a restore point will need, for :meth:`publish`.

        :raises NoSpace: the disk is full
        """
        self._check_usable()
        writer = ReferenceWriter(self.store.begin())
        self._lists.append(writer)
        return writer

    def publish(
        self,
        record: PointRecord,
        encoded: bytes,
        signature: bytes,
        references: ReferenceWriter | Iterable[bytes],
    ) -> tuple[int, float]:
        """Commit a restore point; once this has returned, it can be restored.

        The same point again, exactly, is acknowledged again: the first answer may have been lost.

        :param record: what ``encoded`` holds
        :param encoded: the bytes that were signed
        :param signature: 64 bytes
        :param references: ids of the chunks that it needs, 32 bytes each
        :return: arrival number and arrival time in seconds since 1970
        :raises Refused: wrong signature or repository, a blob that it needs is not durable, or
            there is another point of this id
        :raises NoSpace: the disk is full
        """
        self._check_usable()
        if not isinstance(references, ReferenceWriter):
            listed, references = references, self.begin_references()
            for name in listed:
                references.extend(name)
        try:
            return self._points.publish(record, encoded, signature, references)
        finally:
            references.discard()
            if references in self._lists:
                self._lists.remove(references)

    def points(
        self,
        host: str | None = None,
        job: str | None = None,
        tag: str | None = None,
        after: int = 0,
        limit: int = PAGE_ROWS_MAX,
        newest_first: bool = False,
    ) -> list[PointRow]:
        """Published restore points, in the order of arrival.

        :param after: arrival number behind which to begin; 0 for all
        :param limit: most rows
        :param newest_first: the other way round; ``after`` then is where to go on downwards
        """
        return self._points.rows(host, job, tag, after, limit, newest_first)

    def point(self, point: bytes | str) -> StoredPoint:
        """The published point with this id (16 bytes), or whose hexadecimal id begins so.

        :raises NotFound: none, or several
        """
        return self._points.find(point)

    def references(self, point: StoredPoint) -> Iterator[list[bytes]]:
        """Ids of the chunks that ``point`` needs beside its manifest, at most 8192 at a time.

        :raises StoredDataDamaged: the list was changed; the last ids may have been returned
        """
        return self._points.references(point)

    def withdraw(self, points: Iterable[bytes]) -> None:
        """Take back points that must not be restored from; what they need stays stored.

        :param points: their ids, 16 bytes each
        :raises NotFound: there is no such point
        """
        self._points.withdraw(points)

    # --- the whole -------------------------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        """Packs, their size in bytes, blobs in them, plain bytes of those, published points.

        A blob that two sessions stored at once counts twice, as it takes room twice.
        ``bytes_counted`` is what counts against a quota: without what only the bin needs, and
        without packs that only wait to be removed.
        """
        p = packs_table.c
        sums = sa.select(
            sa.func.count(),
            *(sa.func.coalesce(sa.func.sum(x), 0) for x in (p.size, p.blobs, p.plain_length)),
        ).select_from(packs_table)
        counted = sa.select(sa.func.count()).where(points_table.c.state == "published")
        with self.catalogue.reading() as connection:
            packs, size, blobs, plain = connection.execute(sums).one()
            points = connection.execute(counted).scalar_one()
            used = stored_bytes(connection, retired=False) - read_measured(connection).bin
        values: dict[str, Any] = {
            "packs": packs,
            "bytes_stored": size,
            "bytes_counted": max(0, used),
            "blobs": blobs,
            "bytes_plain": plain,
            "points": points,
        }
        return {name: int(value) for name, value in values.items()}

    @property
    def measured(self) -> Measured:
        """Which bytes are needed, as of the last collection."""
        with self.catalogue.reading() as connection:
            return read_measured(connection)

    def collect(
        self, progress: Progress | None = None, cancelled: Callable[[], bool] | None = None
    ) -> CollectResult:
        """Find and remove what no restore point needs (:mod:`cloudconnect.repository.collect`).

        This object's lease is renewed: it counts on nothing that it was told before.

        :param progress: is told the step, how much of it is done, and how much there is
        :param cancelled: is asked now and then whether to stop
        :raises Busy: a collection is running already
        :raises Refused: the repository is frozen, or what was added here was not flushed
        :raises StoredDataDamaged: it cannot be told what a point needs; nothing was deleted
        :raises Cancelled: it was stopped
        :raises NoSpace: the disk is so full that the catalogue cannot be changed
        """
        with self._alone():
            return collect(
                self.store,
                self.catalogue,
                self.description,
                self._points,
                self._clock,
                progress,
                cancelled,
            )

    def rebuild_index(self, read_data: bool = True) -> RebuildResult:
        """Make the index again from the packs, and the rows of points that have none.

        While no other session is open: those that write wait for its end, or fail.

        :param read_data: compare all stored bytes with their digests; otherwise only the packs'
            directories are read
        """
        return rebuild_index(self.store, self.catalogue, self.description, self._clock(), read_data)

    def close(self) -> None:
        """Forget what was not flushed, and let go of everything; may be called again."""
        self._fail()
        self._release()
        self.catalogue.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _close_pack(self, number: int) -> list[bytes]:
        builder = self._builders[number]
        name, size = builder.commit()
        with self.catalogue.writing() as connection:
            self.catalogue.add_pack(connection, name, size, builder.entries, self._clock())
        del self._builders[number]
        ids = [entry.id for entry in builder.entries]
        self._pending.difference_update(ids)
        return ids

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Without this object's lease, which would be in its own way."""
        if self.catalogue.read_only:
            raise Refused("the repository was opened to be read only")
        if self._builders or self._lists:
            raise Refused("what was added has to be flushed first")
        leased = self._lease is not None
        self._release()
        try:
            yield
        finally:
            if leased:
                self._lease = Leases(self.store, self.catalogue).take()

    def _leased(self) -> Self:
        try:
            self._lease = Leases(self.store, self.catalogue).take()
        except BaseException:
            self.catalogue.close()
            raise
        return self

    def _release(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def _check_usable(self) -> None:
        if self._lease is None and not self._failed:
            raise Refused("nothing can be stored here: it was opened without a lease")
        if self._failed:
            raise Refused(
                "nothing more can be stored here: an earlier write failed, or it is closed"
            )

    def _fail(self) -> None:
        self._failed = True
        self._pending.clear()
        for builder in self._builders.values():
            builder.discard()
        for writer in self._lists:
            writer.discard()
        self._builders.clear()
        self._lists.clear()


def _new_catalogue(
    directory: str | os.PathLike[str], description: RepositoryDescription, url: str | None
) -> Catalogue:
    """An empty catalogue for the repository of this description."""
    catalogue = open_catalogue(url or sqlite_url(os.fspath(Path(directory) / CATALOGUE)))
    try:
        with catalogue.writing() as connection:
            if connection.execute(sa.select(repository_table.c.number)).first() is not None:
                raise Refused("there is a repository in this place already")
            connection.execute(
                sa.insert(repository_table),
                {
                    "number": 1,
                    "repository": description.repository,
                    "format_version": FORMAT_VERSION,
                    "description": description.encode(),
                    "removals": 0,
                },
            )
    except BaseException:
        catalogue.close()
        raise
    return catalogue


def _described(catalogue: Catalogue) -> RepositoryDescription:
    with catalogue.reading() as connection:
        row = connection.execute(sa.select(repository_table)).one_or_none()
    if row is None:
        raise StoredDataDamaged("the repository's catalogue is empty: recover it")
    if row.format_version > FORMAT_VERSION:
        raise UsageError("a newer release of cloudconnect made this repository; install that one")
    return RepositoryDescription.decode(row.description)


def _read_description(store: LocalBlobStore) -> bytes:
    try:
        return store.read(DESCRIPTION, 0, store.size(DESCRIPTION))
    except NotFound:
        raise NotFound("there is no repository in this place") from None
