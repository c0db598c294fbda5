"""Layer 3: what nobody needs is found and removed, beside sessions that store and restore.

Mark and sweep, without any key. One collection of a repository runs at a time; it changes the
catalogue in transactions far below a second each; killed at any moment, it leaves a repository in
which nothing is lost and from which the next collection goes on. The steps, in their order:

1. *Leftovers* (:mod:`~cloudconnect.repository.leftovers`): what has no row gets one.
2. *Mark* (:mod:`~cloudconnect.repository.marking`): the blobs that points need, bin included.
3. *Sweep* (:mod:`~cloudconnect.repository.sweeping`): of the blobs that are not marked, those
   condemned by an earlier collection are deleted, and those that have been there long enough
   are condemned. Then a fence, and what was condemned now is deleted too if nobody is here.
4. *Packs* without rows are retired; behind a fence their files go, once nobody is here who may be
   reading them.
5. *Repack* (:mod:`~cloudconnect.repository.repack`): packs that are mostly unused are emptied, and
   4 is done again.

Space is given back before any is taken. Where there is none to copy anything, 5 is left out.

**Why nothing that is needed is lost.** Only rows that are condemned are deleted, and no row of a
blob that a point needs is condemned:

* *A blob is condemned that a point of before the marking needs.* It is marked: the marking stops
  the collection where it cannot read what a point needs.
* *A point is published between the marking and a condemning transaction.* The transaction sees that
  there is a newer point, changes nothing, and the new point is marked first.
* *A point is being published while blobs are condemned.* Both hold one lock (``publish``), the
  publisher from before its first look at a blob until its row. What it finds condemned it rescues
  before it goes on, in a transaction; what it finds not condemned cannot become so before its row
  is there; and a row that is not condemned is not deleted.
* *A blob is rescued, or stored again, while it is being deleted.* The deletion asks again, row by
  row, whether the blob is condemned.
* *A deleted point comes back from the bin.* Points in the bin are marked like others.

**Why no session is lied to.** A session that was told that a blob is there holds a lease older than
the fence behind which that blob is condemned (:mod:`~cloudconnect.repository.leases`), so its row
stays until the session ends, and its point finds it. A session that came later is told that it
is not there, and sends it again.

**Why a restore goes on.** A blob that moves to another pack is in the new one, durable, before its
row says so. A session that had looked it up before holds a lease older than the fence behind
which the old pack is retired.

**A pack that is committed but not indexed yet** belongs to a session that lives, whose lease is
older than the fence with which the pack is noted; or to nobody.

**A blob whose bytes are damaged** stays where it is, marked so, and its pack with it: somebody may
find a way to mend it. It goes when no point needs it, or when it was stored again.

**Two collections** cannot run at once (lock ``collect``).

**Clocks.** Blobs that no point needs stay for the time of grace, so that a backup that was killed
goes on from them. That is measured by the time of day; but whatever the clock says, a blob that
arrived since the fence of the last whole collection is not condemned. Neither holds for what a job
has stored that was refused for want of quota: nothing of that is kept for another try.

**A catalogue that is older than the store**, because a copy of it was put back: points and packs
that it does not know get rows, and whatever it says of points that are gone by now stops the
marking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
import sqlalchemy as sa

from cloudconnect.errors import Cancelled, NoSpace, NotFound, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.accounting import (
    Measured,
    PackRow,
    blobs_about,
    pack_use,
    read_measured,
    stored_bytes,
    write_measured,
)
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.clock import observe
from cloudconnect.repository.descriptions import read_description
from cloudconnect.repository.leases import COLLECTING, Leases
from cloudconnect.repository.leftovers import Leftovers
from cloudconnect.repository.marking import Marker, Marks
from cloudconnect.repository.points import Points
from cloudconnect.repository.repack import ROUND_BYTES, Repacker
from cloudconnect.repository.rules import read_rules
from cloudconnect.repository.sweeping import Sweeper
from cloudconnect.repository.tables import packs_table

#: A pack of which less than one in so many bytes is used is emptied.
_REPACK_BELOW: Final = 2
_BATCH: Final = 500
#: Sentences that a result holds: it goes over links.
_NOTES_MAX: Final = 20

#: Told how far a step has come: its name, how much is done, how much there is (0: not known).
Progress = Callable[[str, int, int], None]


@attrs.frozen(kw_only=True)
class CollectResult:
    """What a collection did.

    :ivar points: points whose blobs were marked
    :ivar blobs: blobs that were looked at
    :ivar condemned: blobs that nobody is told of any more
    :ivar deleted: blobs whose rows were deleted
    :ivar packs_removed: packs whose files were removed
    :ivar bytes_removed: their bytes
    :ivar packs_waiting: packs that are not used any more, and will be removed when the sessions
        that may read them have ended
    :ivar packs_emptied: packs that were mostly unused, whose blobs were moved
    :ivar blobs_moved: those blobs
    :ivar bytes_moved: their stored bytes
    :ivar packs_found: packs that had no row
    :ivar points_found: points that had no row
    :ivar files_removed: other blobs of the store that belonged to nothing
    :ivar live: bytes that published points need
    :ivar bin: bytes that only points in the bin need
    :ivar garbage: the rest of what is stored
    :ivar full: there was no room to empty packs
    :ivar notes: one sentence for each thing that could not be used and was left as it is, the
        first of them
    """

    points: int
    blobs: int
    condemned: int
    deleted: int
    packs_removed: int
    bytes_removed: int
    packs_waiting: int
    packs_emptied: int
    blobs_moved: int
    bytes_moved: int
    packs_found: int
    points_found: int
    files_removed: int
    live: int
    bin: int
    garbage: int
    full: bool
    notes: tuple[str, ...]


def collect(
    store: IBlobStore,
    catalogue: Catalogue,
    points: Points,
    clock: Callable[[], float],
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> CollectResult:
    """Find and remove what nobody needs; may be called at any time, and again.

    :param clock: seconds since 1970
    :param progress: is told how far it has come
    :param cancelled: is asked now and then whether to stop
    :raises Busy: a collection is running already
    :raises Refused: the repository is frozen
    :raises StoredDataDamaged: it cannot be told what a point needs; nothing was deleted
    :raises Cancelled: it was stopped; the next one goes on
    :raises NoSpace: the disk is so full that the catalogue cannot be changed
    """
    with store.exclusive(COLLECTING):
        leases = Leases(store, catalogue)
        collection = _Collection(store, catalogue, points, leases, clock, progress, cancelled)
        return collection.run()


@attrs.define
class _Collection:
    store: IBlobStore
    catalogue: Catalogue
    points: Points
    leases: Leases
    clock: Callable[[], float]
    progress: Progress | None
    cancelled: Callable[[], bool] | None
    packs_removed: int = 0
    bytes_removed: int = 0
    packs_waiting: int = 0
    packs_emptied: int = 0
    full: bool = False
    skipped: set[int] = attrs.field(factory=set)
    notes: list[str] = attrs.field(factory=list)

    def run(self) -> CollectResult:
        now = self.clock()
        with self.catalogue.writing() as connection:
            self.catalogue.refuse_frozen(connection)
            observe(connection, now)
            before = read_measured(connection)
            grace = read_rules(connection).grace_hours * 3600
            blobs = blobs_about(connection)
            description = read_description(connection)  # another session may have replaced it
        leftovers = Leftovers(
            self.store, self.catalogue, description, self.points, self.leases, self.check
        )
        leftovers.note_packs()
        fence = self.leases.fence()
        leftovers.index_packs(now)
        marker = Marker(self.store, self.catalogue, description, Marks(blobs), self.check)
        leftovers.settle_points(marker, now)
        self.tell("mark", 0, 0)
        marker.mark_new()
        sweeper = Sweeper(
            self.store,
            self.catalogue,
            self.leases,
            marker,
            self.check,
            lambda done: self.tell("sweep", done, blobs),
        )
        sweeper.walk(before.fence, now - grace)
        if sweeper.condemned:
            self.leases.fence()
        sweeper.sweep()
        sweeper.settle_released()
        # Up to 128 MiB of marks, which the rest has no use for.
        marker.marks = Marks(0)
        repacker = Repacker(self.store, self.catalogue, description.repository, self.check)
        try:
            self.settle_packs(repacker)
        finally:
            repacker.close()
        measured = self.measure(sweeper, fence, now, before.undeleted)
        return CollectResult(
            points=marker.points,
            blobs=sweeper.blobs,
            condemned=sweeper.condemned,
            deleted=sweeper.deleted,
            packs_removed=self.packs_removed,
            bytes_removed=self.bytes_removed,
            packs_waiting=self.packs_waiting,
            packs_emptied=self.packs_emptied,
            blobs_moved=repacker.blobs,
            bytes_moved=repacker.stored,
            packs_found=leftovers.packs,
            points_found=leftovers.found,
            files_removed=leftovers.removed,
            live=measured.live,
            bin=measured.bin,
            garbage=measured.garbage,
            full=self.full,
            notes=_bounded([*leftovers.notes, *self.notes]),
        )

    def check(self) -> None:
        """Stop here if somebody wants it."""
        if self.cancelled is not None and self.cancelled():
            raise Cancelled("the collection was stopped; the next one goes on from here")

    def tell(self, step: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(step, done, total)

    def settle_packs(self, repacker: Repacker) -> None:
        """Remove what is not used; empty what is mostly unused; and so on while that gains."""
        while True:
            packs = pack_use(self.catalogue, self.check)
            self._retire([pack for pack in packs if not pack.rows and pack.retired is None])
            freed = self._remove_retired({pack.number: pack for pack in packs})
            # What was emptied and could not be removed takes its room twice until somebody ends.
            if (self.full and not freed) or (self.packs_emptied and self.packs_waiting):
                return
            if not self._empty(packs, repacker):
                return

    def measure(self, sweeper: Sweeper, fence: int, now: float, undeleted: int) -> Measured:
        """Note what is what.

        :param undeleted: how often points had been taken out of the bin before the marking
        """
        with self.catalogue.writing() as connection:
            rest = stored_bytes(connection, retired=False) - sweeper.live - sweeper.bin
            last = read_measured(connection)
            measured = Measured(
                live=sweeper.live,
                bin=sweeper.bin,
                garbage=max(0, rest),
                fence=fence,
                time=now,
                scrubbed=last.scrubbed,
                undeleted=last.undeleted,
                counted=undeleted,
            )
            write_measured(connection, measured)
        return measured

    def _retire(self, packs: list[PackRow]) -> None:
        p = packs_table.c
        for at in range(0, len(packs), _BATCH):
            numbers = [pack.number for pack in packs[at : at + _BATCH]]
            with self.catalogue.writing() as connection:
                self.catalogue.refuse_frozen(connection)
                connection.execute(
                    sa.update(packs_table)
                    .where(p.number.in_(numbers), p.retired.is_(None))
                    .values(retired=self.catalogue.epoch(connection) + 1)
                )
        if packs:
            self.leases.fence()

    def _remove_retired(self, use: dict[int, PackRow]) -> int:
        """Remove retired packs that nobody reads; returns the bytes.

        The file goes before the row: one that was left over would be indexed again.
        """
        p = packs_table.c
        oldest = self.leases.oldest()
        query = sa.select(p.number, p.name, p.size, p.retired).where(p.retired.is_not(None))
        with self.catalogue.reading() as connection:
            retired = connection.execute(query).all()
        freed = self.packs_waiting = 0
        for number, name, size, since in retired:
            self.check()
            if since > oldest or number not in use:
                self.packs_waiting += 1
                continue
            if use[number].rows:
                self.notes.append(f"{name} was not used any more, and is: it stays")
                continue
            with self.catalogue.reading() as connection:
                self.catalogue.refuse_frozen(connection)
            self.store.remove(name)
            with self.catalogue.writing() as connection:
                connection.execute(sa.delete(packs_table).where(p.number == number))
            freed += size
            self.packs_removed += 1
        self.bytes_removed += freed
        return freed

    def _empty(self, packs: list[PackRow], repacker: Repacker) -> bool:
        """Empty packs that are mostly unused, up to a bound; whether anything was moved."""
        moved, before = repacker.blobs, repacker.stored
        self.full = False
        wanted = [
            pack
            for pack in packs
            if pack.retired is None
            and pack.sound
            and pack.used * _REPACK_BELOW < pack.size
            and pack.number not in self.skipped
        ]
        try:
            for done, pack in enumerate(wanted):
                if repacker.stored - before >= ROUND_BYTES:
                    break
                self.tell("repack", done, len(wanted))
                try:
                    repacker.empty(pack)
                    self.packs_emptied += 1
                except (NotFound, StoredDataDamaged) as error:
                    self.skipped.add(pack.number)
                    self.notes.append(f"a pack stays as it is: {error}")
            repacker.finish()
        except NoSpace:
            self.full = True
            repacker.close()
        self.notes += [f"the stored bytes of {name.hex()} are damaged" for name in repacker.damaged]
        repacker.damaged = []
        return repacker.blobs > moved


def _bounded(notes: list[str]) -> tuple[str, ...]:
    """The first notes, and how many more there are."""
    if len(notes) <= _NOTES_MAX:
        return tuple(notes)
    return (*notes[:_NOTES_MAX], f"and {len(notes) - _NOTES_MAX} more")
