"""Layer 3: what a session stores: blobs in packs, lists of references, and what holds them.

The part of a :class:`~cloudconnect.repository.store.Repository` that says so. The order in which
things become durable is its promise: a pack is complete under its name, then its blobs are in the
index, then they are acknowledged. After a write that failed nothing more is stored by the same
object: nobody knows what the system has kept.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import sqlalchemy as sa

from cloudconnect.content.atrest import BlobKind, RepositoryDescription
from cloudconnect.errors import CloudConnectError, NoSpace, Refused
from cloudconnect.interfaces import ILease
from cloudconnect.repository.adopting import adopt_packs
from cloudconnect.repository.blobs import LocalBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.committing import COMMITS_MAX, PackCommits
from cloudconnect.repository.leases import Leases
from cloudconnect.repository.packs import KINDS, OVERHEAD, PackBuilder
from cloudconnect.repository.references import ReferenceWriter
from cloudconnect.repository.reservations import Reservation
from cloudconnect.repository.tables import packs_table
from cloudconnect.wire.frames import StoredBlob


class Storing:
    """What is being stored; used by one thread at a time.

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
        self._builders: dict[int, PackBuilder] = {}
        self._commits = PackCommits()
        self._pending: set[bytes] = set()
        self._lists: list[ReferenceWriter] = []
        self._failed = False
        self._lease: ILease | None = None
        self._reservation: Reservation | None = None
        self._job: bytes | None = None

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

        What sessions that were killed have left is there from here on.

        :param job: 16 bytes, the same over all sessions of the run
        :param quota: bytes that the repository may hold; None: any number
        :raises NoSpace: the disk is so full that nothing could be stored
        """
        self._job = job
        if self._lease is None:
            return
        lease = self._lease.name
        if lease is not None:
            now = self._clock()
            adopt_packs(self.store, self.catalogue, self.description.repository, lease, now)
            self._reservation = Reservation(self.store, self.catalogue, lease, quota)
        elif quota is not None:
            raise NoSpace("the provider's disk is full")

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

    def begin_references(self) -> ReferenceWriter:
        """Begin the list of blobs that a restore point will need, for :meth:`publish`.

        :raises NoSpace: the disk is full
        """
        self._check_usable()
        writer = ReferenceWriter(self.store.begin())
        self._lists.append(writer)
        return writer

    def _drop(self, references: ReferenceWriter) -> None:
        references.discard()
        if references in self._lists:
            self._lists.remove(references)

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

    def _let_go(self) -> None:
        """Forget what was not flushed, and the lease with what it had reserved."""
        self._fail()
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            # One that cannot be written away counts no more when the lease has ended.
            with contextlib.suppress(CloudConnectError, OSError):
                reservation.release()
        self._release()
