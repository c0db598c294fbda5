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
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import attrs
import sqlalchemy as sa

from cloudconnect.content.atrest import BlobKind, RepositoryDescription
from cloudconnect.content.heads import SignedHead
from cloudconnect.content.points import PointRecord
from cloudconnect.content.retention import RetentionPolicy
from cloudconnect.errors import (
    CloudConnectError,
    HeadMoved,
    NoSpace,
    NotFound,
    ProtocolViolation,
    Refused,
    StoredDataDamaged,
    UsageError,
)
from cloudconnect.interfaces import ILease
from cloudconnect.repository.accounting import Measured, read_measured
from cloudconnect.repository.bin import Bin
from cloudconnect.repository.blobs import LocalBlobStore
from cloudconnect.repository.catalogue import Catalogue, open_catalogue
from cloudconnect.repository.clock import observe
from cloudconnect.repository.collect import CollectResult, Progress, collect
from cloudconnect.repository.committing import COMMITS_MAX, PackCommits
from cloudconnect.repository.database import sqlite_url
from cloudconnect.repository.descriptions import (
    DESCRIPTION,
    newest_description,
    replace_description,
)
from cloudconnect.repository.findings import ScrubResult
from cloudconnect.repository.freezing import freeze, is_frozen, thaw
from cloudconnect.repository.heads import HeadsPage, read_page
from cloudconnect.repository.leases import Leases
from cloudconnect.repository.packs import KINDS, OVERHEAD, PackBuilder
from cloudconnect.repository.points import PointRow, Points, StoredPoint
from cloudconnect.repository.reading import read_blobs
from cloudconnect.repository.rebuild import RebuildResult, rebuild_index
from cloudconnect.repository.references import ReferenceWriter
from cloudconnect.repository.reservations import Reservation, counted_bytes
from cloudconnect.repository.retention import Retention, RetentionDecision, RetentionRow
from cloudconnect.repository.rules import Rules, read_rules, write_rules
from cloudconnect.repository.scrub import scrub
from cloudconnect.repository.tables import packs_table, points_table, repository_table
from cloudconnect.settings import PAGE_ROWS_MAX
from cloudconnect.wire.frames import ID_SIZE, StoredBlob

#: Version of the packs and of what lies beside them; the catalogue has its own revisions.
FORMAT_VERSION: Final = 1
#: The catalogue's file in the repository's directory.
CATALOGUE: Final = "catalogue.sqlite"


@attrs.frozen
class Expired:
    """What had its time, and went.

    :ivar removed: points that left the bin for good
    :ivar activated: hosts and jobs of retention policies that came into force
    """

    removed: list[PointRow]
    activated: list[tuple[str, str]]


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
        self._points = Points(store, catalogue, clock)
        self._bin = Bin(store, catalogue, clock)
        self._retention = Retention(self._bin, catalogue, clock)
        self._builders: dict[int, PackBuilder] = {}
        self._commits = PackCommits()
        self._pending: set[bytes] = set()
        self._lists: list[ReferenceWriter] = []
        self._failed = False
        self._lease: ILease | None = None
        self._reservation: Reservation | None = None
        self._job: bytes | None = None

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
            description = newest_description(store, _read_description(store))
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

    def commit_beside(self) -> None:
        """From now on let :meth:`add` not wait until a full pack is durable.

        Its ids are returned by a later :meth:`add`, or by :meth:`flush`; and that is where an error
        of the disk is raised.
        """
        self._commits.beside = True

    def begin_job(self, job: bytes, quota: int | None = None) -> None:
        """What is stored from here on belongs to a job run, and counts against a quota.

        :param job: 16 bytes, the same over all sessions of the run
        :param quota: bytes that the repository may hold; None: any number
        :raises NoSpace: the disk is so full that nothing could be stored
        """
        self._job = job
        if quota is not None and self._lease is not None:
            if self._lease.name is None:
                raise NoSpace("the provider's disk is full")
            self._reservation = Reservation(self.store, self.catalogue, self._lease.name, quota)

    def reserve(self, size: int) -> None:
        """Reserve so many bytes of the quota, before they are stored.

        :raises QuotaUsed: there are not so many left
        """
        if self._reservation is not None:
            self._reservation.take(size)

    def release_job(self) -> None:
        """The job was refused: nothing that it stored in any of its sessions is kept for it.

        What a restore point needs stays; the rest goes with the next collection, as soon as nobody
        counts on it. Nothing more can be stored here.
        """
        self._fail()
        if self._job is not None:
            p = packs_table.c
            with self.catalogue.writing() as connection:
                mine = sa.update(packs_table).where(p.job == self._job)
                connection.execute(mine.values(released=True))

    @property
    def has_released(self) -> bool:
        """Whether there are packs of jobs that were refused."""
        query = sa.select(packs_table.c.number).where(packs_table.c.released).limit(1)
        with self.catalogue.reading() as connection:
            return connection.execute(query).first() is not None

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
                self.reserve(OVERHEAD)
                builder = self._builders[number] = PackBuilder(
                    self.store.begin(), self.description.repository, os.urandom(16)
                )
            builder.add(blob, number)
            self._pending.add(blob.id)
            if builder.full:
                self._commit(number)
            return self._index(COMMITS_MAX - 1) if self._commits else []
        except BaseException:
            self._fail()
            raise

    def flush(self) -> list[bytes]:
        """Make all that was added durable, and return the ids for which that is new.

        :raises NoSpace: the disk is full; nothing can be stored any more
        :raises OSError: anything else that the system reports; likewise
        :raises Refused: an earlier write failed
        """
        if self._lease is None and not self._failed:
            return []  # opened for reading only: nothing was added
        self._check_usable()
        try:
            for number in sorted(self._builders):
                self._commit(number)
            return self._index(0)
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

    def _drop(self, references: ReferenceWriter) -> None:
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

    # --- what is kept, and for how long ----------------------------------------------------------

    @property
    def rules(self) -> Rules:
        """What the provider demands and allows here."""
        with self.catalogue.reading() as connection:
            return read_rules(connection)

    def set_rules(self, rules: Rules) -> None:
        """Put rules into force; deadlines that are set already stay as they are."""
        if rules != self.rules:
            with self.catalogue.writing() as connection:
                write_rules(connection, rules)

    @property
    def frozen(self) -> bool:
        """Whether nothing is deleted, expires or is collected."""
        with self.catalogue.reading() as connection:
            return is_frozen(connection)

    def freeze(self) -> None:
        """Stop every deletion and expiry, collecting, and the expiry clock, from now on."""
        freeze(self.store, self.catalogue, self._clock())

    def thaw(self) -> None:
        """Let all of that go on."""
        thaw(self.store, self.catalogue, self._clock())

    def observe_clock(self) -> None:
        """Let the expiry clock count: call it more often than every 26 hours."""
        with self.catalogue.writing() as connection:
            observe(connection, self._clock())

    def delete(self, points: Iterable[bytes], by: str = "tenant") -> list[PointRow]:
        """Put points into the bin: all of them, or none. What is there already stays as it is.

        :param points: their ids, 16 bytes each
        :param by: ``tenant``, ``retention`` or ``provider``
        :return: the points, in their order
        :raises NotFound: there is no such point, or it was removed
        :raises Refused: one is locked, or the repository is frozen
        :raises NoSpace: the bin or the disk is full
        """
        return self._bin.delete(points, by)

    def undelete(self, points: Iterable[bytes]) -> list[PointRow]:
        """Take points out of the bin; nothing happens to those that are not in it.

        :param points: their ids, 16 bytes each
        :return: the points, in their order
        :raises NotFound: there is no such point, or it was removed
        """
        return self._bin.undelete(points)

    def lock(self, points: Iterable[bytes], until: float) -> list[PointRow]:
        """See to it that nobody can delete points until then; a longer lock stays.

        :param points: their ids, 16 bytes each
        :param until: in seconds since 1970; rounded up
        :return: the points, in their order
        :raises NotFound: there is no such point
        :raises Refused: one is in the bin, or ``until`` is past or more than 100 years away
        :raises NoSpace: the disk is full
        """
        return self._bin.lock(points, until)

    def expire(self) -> Expired:
        """Remove points whose time in the bin is over, and put pending retention into force.

        Nothing happens while the repository is frozen.

        :raises NoSpace: the disk is full
        """
        return Expired(self._bin.expire(), self._retention.activate())

    def bin_usage(self) -> tuple[int, int | None]:
        """At most so many bytes are in the bin, and with how many it is full, or None."""
        return self._bin.usage()

    def check_bin_room(self) -> None:
        """That the bin is not full: while it is, there is no new backup.

        :raises NoSpace: it is
        """
        self._bin.check_room()

    def retention(self) -> list[RetentionRow]:
        """The retention policies, in the order of hosts and jobs."""
        return self._retention.rows()

    def set_retention(self, host: str, job: str, policy: RetentionPolicy | None) -> RetentionRow:
        """Set what is kept of a job on a host.

        :param host: empty: of every host that has no policy of its own
        :param job: likewise
        :param policy: None: everything
        :raises Refused: outside of the rules
        """
        return self._retention.set(host, job, policy)

    def apply_retention(self, dry_run: bool = False) -> list[RetentionDecision]:
        """Put what no policy keeps into the bin.

        Points that are locked stay, and all once the bin is full or while the repository is frozen:
        the decision says so.

        :param dry_run: only say what would go and what would stay
        :return: a decision on every point that no policy keeps; of a dry run, on all that are
            published
        :raises NoSpace: the disk is full
        """
        return self._retention.apply(dry_run)

    def preview_retention(
        self, host: str, job: str, policy: RetentionPolicy | None
    ) -> list[RetentionDecision]:
        """What would stay and go if this policy were in force for that host and job.

        :raises Refused: outside of the rules
        """
        return self._retention.preview(host, job, policy)

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
        self._fail()
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            # One that cannot be written away counts no more when the lease has ended.
            with contextlib.suppress(CloudConnectError, OSError):
                reservation.release()
        self._release()
        self.catalogue.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _commit(self, number: int) -> None:
        """Begin to make the pack that is being filled durable."""
        builder = self._builders.pop(number)
        try:
            if self._reservation is not None:
                self._reservation.about_to_store(builder.name)
        except BaseException:
            builder.discard()
            raise
        self._commits.begin(builder)

    def _index(self, leave: int) -> list[bytes]:
        """Put packs that have become durable into the index, and return the ids of their blobs.

        :param leave: so many may still be on their way to the disk
        """
        packs = self._commits.take(leave)
        if not packs:
            return []
        now = self._clock()
        with self.catalogue.writing() as connection:
            for pack in packs:
                entries = pack.builder.entries
                self.catalogue.add_pack(connection, pack.name, pack.size, entries, now, self._job)
                if self._reservation is not None:
                    self._reservation.stored(connection, pack.name, pack.size)
        ids = [entry.id for pack in packs for entry in pack.builder.entries]
        self._pending.difference_update(ids)
        return ids

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Without this object's lease, which would be in its own way."""
        if self.catalogue.read_only:
            raise Refused("the repository was opened to be read only")
        if self._builders or self._commits or self._lists:
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
        for name in self._commits.drop():
            with contextlib.suppress(OSError):  # a pack without a row does no harm either
                self.store.remove(name)
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
                    "description_revision": description.revision,
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
    try:
        return RepositoryDescription.decode(row.description)
    except (ProtocolViolation, TypeError) as error:
        raise StoredDataDamaged("the repository's catalogue is damaged: recover it") from error


def _read_description(store: LocalBlobStore) -> bytes:
    try:
        return store.read(DESCRIPTION, 0, store.size(DESCRIPTION))
    except NotFound:
        raise NotFound("there is no repository in this place") from None
