"""Layer 3: one repository: the blobs and restore points of one tenant, at the provider.

What it stores is in :mod:`cloudconnect.repository.storing`, what of it is kept and for how long in
:mod:`cloudconnect.repository.keeping`, restore points in :mod:`cloudconnect.repository.points`. The
order in which things become durable is the promise of them all (architecture decision 11): a pack
is complete under its name, then its blobs are in the index, then they are acknowledged; a restore
point's references and record are durable, then its row, then it is acknowledged.

Any number of :class:`Repository` objects, in any number of threads and processes, may be open on
one directory; each is used by one thread at a time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Self

import sqlalchemy as sa

from cloudconnect.content.atrest import RepositoryDescription
from cloudconnect.content.heads import SignedHead
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import HeadMoved, Refused, StoredDataDamaged
from cloudconnect.repository.accounting import Measured, read_measured
from cloudconnect.repository.blobs import LocalBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.collect import CollectResult, Progress, collect
from cloudconnect.repository.descriptions import (
    DESCRIPTION,
    newest_description,
    replace_description,
)
from cloudconnect.repository.findings import ScrubResult
from cloudconnect.repository.heads import HeadsPage, read_page
from cloudconnect.repository.keeping import Keeping
from cloudconnect.repository.opening import (
    described,
    find_catalogue,
    new_catalogue,
    open_store,
    read_description,
)
from cloudconnect.repository.points import PointRow, Points, StoredPoint
from cloudconnect.repository.reading import read_blobs
from cloudconnect.repository.rebuild import RebuildResult, rebuild_index
from cloudconnect.repository.references import ReferenceWriter
from cloudconnect.repository.reservations import counted_bytes
from cloudconnect.repository.scrub import scrub
from cloudconnect.repository.storing import Storing
from cloudconnect.repository.tables import packs_table, points_table
from cloudconnect.settings import PAGE_ROWS_MAX
from cloudconnect.wire.frames import ID_SIZE, StoredBlob


class Repository(Storing, Keeping):
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
        Storing.__init__(self, store, catalogue, description, clock)
        Keeping.__init__(self, store, catalogue, clock)
        self._points = Points(store, catalogue, clock)

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
        :raises Refused: there is one already, or the description is not the first of one
        :raises NoSpace: the disk is full
        """
        encoded = description.encode()
        if description.revision:
            raise Refused("the description of a new repository has the revision 0")
        store = LocalBlobStore(os.fspath(directory))
        try:
            try:
                store.put(DESCRIPTION, [encoded])
            except FileExistsError:
                if read_description(store) != encoded:
                    raise Refused("there is another repository in this place already") from None
            catalogue = new_catalogue(directory, description, url)
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
        store = open_store(directory, read_only)
        try:
            catalogue = find_catalogue(store, directory, url, read_only)
            try:
                description = described(catalogue)
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
            description = newest_description(store, read_description(store))
            catalogue = new_catalogue(directory, description, url)
            return cls(store, catalogue, description, clock)._leased()
        except BaseException:
            store.close()
            raise

    # --- blobs -----------------------------------------------------------------------------------

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

    def publish(
        self,
        record: PointRecord,
        encoded: bytes,
        signature: bytes,
        references: ReferenceWriter | Iterable[bytes],
        head: SignedHead | None = None,
        bytes_stored: int = 0,
    ) -> tuple[int, float]:
        """Commit a restore point; once this has returned, it can be restored.

        The same point again, exactly, is acknowledged again: the first answer may have been lost.

        :param record: what ``encoded`` holds
        :param encoded: the bytes that were signed
        :param signature: 64 bytes
        :param references: ids of the chunks that it needs, 32 bytes each
        :param head: its entry in the chain of heads; older releases make none
        :param bytes_stored: bytes that its session added to packs
        :return: arrival number and arrival time in seconds since 1970
        :raises HeadMoved: another session has published since the head was made; a
            :class:`ReferenceWriter` that was given is still good for another head
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
            answer = self._points.publish(
                record, encoded, signature, references, head, bytes_stored
            )
        except HeadMoved:
            raise
        except BaseException:
            self._drop(references)
            raise
        self._drop(references)
        if self._reservation is not None:
            self._reservation.published(references.count * ID_SIZE + 2 * len(encoded))
        return answer

    def points(
        self,
        host: str | None = None,
        job: str | None = None,
        tag: str | None = None,
        after: int = 0,
        limit: int = PAGE_ROWS_MAX,
        newest_first: bool = False,
        states: Collection[str] = ("published",),
    ) -> list[PointRow]:
        """Restore points, published ones by default, in the order of arrival.

        :param after: arrival number behind which to begin; 0 for all
        :param limit: most rows
        :param newest_first: the other way round; ``after`` then is where to go on downwards
        :param states: of ``published``, ``deleted`` (in the bin), ``withdrawn``, ``removed``
        """
        return self._points.rows(host, job, tag, after, limit, newest_first, states)

    def point(self, point: bytes | str) -> StoredPoint:
        """The point with this id (16 bytes), or whose hexadecimal id begins so.

        A published one, or else one in the bin.

        :raises NotFound: none, or several
        """
        return self._points.find(point)

    def references(self, point: StoredPoint) -> Iterator[list[bytes]]:
        """Ids of the chunks that ``point`` needs beside its manifest, at most 8192 at a time.

        :raises StoredDataDamaged: the list was changed; the last ids may have been returned
        """
        return self._points.references(point)

    def withdraw(self, points: Iterable[bytes], session: bytes | None = None) -> None:
        """Take back points that must not be restored from, whether they are locked or not.

        What only they need goes with the next collections: there is no bin for them.

        :param points: their ids, 16 bytes each
        :param session: 16 bytes: only those that this session has published; None: any
        :raises NotFound: there is no such point
        """
        self._points.withdraw(points, session)

    # --- heads and descriptions ------------------------------------------------------------------

    def heads(self, after: int = 0, about: Sequence[int] = ()) -> HeadsPage:
        """A page of the chain of heads behind number ``after``, and the newest one.

        :param about: numbers of heads whose points' states are wanted, at most 256
        """
        with self.catalogue.reading() as connection:
            return read_page(connection, after, about)

    def replace_description(self, encoded: bytes, head: SignedHead) -> None:
        """Take a new description: other key slots, or a new master key.

        The same again, exactly, is taken again: the first answer may have been lost.

        :param encoded: the description
        :param head: its entry in the chain, signed by the key before it
        :raises HeadMoved: the chain has moved since the head was made
        :raises Refused: it is not the next one of this repository, or not signed so
        :raises NoSpace: the disk is full
        """
        self.description = replace_description(self.store, self.catalogue, encoded, head)

    # --- the whole -------------------------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        """Packs, their size in bytes, blobs in them, plain bytes of those, published points.

        A blob that two sessions stored at once counts twice, as it takes room twice.
        ``bytes_counted`` is what counts against a quota: packs, less what only the bin needs,
        and the records and reference lists of points. Also packs that only wait to be removed:
        somebody who kept a session open could store the same blobs beside them again and again.
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
            used = counted_bytes(connection)
        values: dict[str, Any] = {
            "packs": packs,
            "bytes_stored": size,
            "bytes_counted": used,
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
                self.store, self.catalogue, self._points, self._clock, progress, cancelled
            )

    def scrub(
        self,
        limit_bytes: int | None = None,
        rate: float | None = None,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> ScrubResult:
        """Read and compare what is stored (:mod:`cloudconnect.repository.scrub`).

        What is damaged is a finding, not an error.

        :param limit_bytes: of packs to read, those first that were not read for the longest time;
            one pack is read at least. None: everything
        :param rate: bytes a second; None: as fast as it goes
        :param progress: is told the step, the bytes that were read, and how many there are
        :param cancelled: is asked now and then whether to stop; what was found is returned
        :raises Busy: a scrub is running already
        :raises Refused: what was added here was not flushed
        """
        with self._alone():
            return scrub(
                self.store, self.catalogue, self._clock, limit_bytes, rate, progress, cancelled
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
        self._let_go()
        self.catalogue.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
