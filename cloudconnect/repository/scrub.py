"""Layer 3: whatever is stored is read and compared, without any key.

One scrub of a repository runs at a time, beside sessions and collections. It reads the packs that
were not read for the longest time first, as many bytes as it may, so that a little of it each hour
comes round; and, at most once a day where it is bounded, everything else: the catalogue, the
descriptions and heads, records and reference lists.

What is damaged is marked in the catalogue, so that the next backup sends it again; it is named,
with the points that need it; and what can be made right from another copy is made right.

It holds no lease, which would keep collections from their work for as long as it takes: a pack may
vanish while it is read, and then it is asked whether it still belongs to the repository.
"""

from __future__ import annotations

import contextlib
import threading
import time as monotonic
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import (
    Busy,
    Cancelled,
    NoSpace,
    NotFound,
    PeerError,
    ProtocolViolation,
    StoredDataDamaged,
)
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.accounting import (
    PackRow,
    blobs_about,
    pack_use,
    read_measured,
    write_measured,
)
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.chaincheck import ChainChecker
from cloudconnect.repository.findings import Finding, FindingKind, ScrubResult
from cloudconnect.repository.leases import COLLECTING
from cloudconnect.repository.marking import GONE, OUT_OF_ORDER, Marks
from cloudconnect.repository.packcheck import PackChecker
from cloudconnect.repository.pointcheck import PointChecker
from cloudconnect.repository.points import record_name
from cloudconnect.repository.rebuild import found_point
from cloudconnect.repository.references import read_references
from cloudconnect.repository.states import point_names
from cloudconnect.repository.tables import blobs_table, packs_table, points_table, repository_table

#: The lock of a scrub.
SCRUBBING: Final = "scrub"
#: A bounded scrub looks at everything but packs when that was so many seconds ago.
_SMALL_SECONDS: Final = 86400.0
#: Ids of damaged blobs that are held until it is looked up which points need them (some 25 MB).
_LOST_MAX: Final = 1 << 17
#: Damaged packs whose blobs wait to be moved.
_BROKEN_MAX: Final = 16
#: A scrub that is slowed down looks so often whether it is to stop, in seconds.
_NAP: Final = 1.0
#: Lines of the data base's own check.
_LINES: Final = 20

Progress = Callable[[str, int, int], None]


def scrub(
    store: IBlobStore,
    catalogue: Catalogue,
    clock: Callable[[], float],
    limit_bytes: int | None = None,
    rate: float | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> ScrubResult:
    """Read and compare what is stored.

    :param clock: seconds since 1970
    :param limit_bytes: of packs to read; one pack is read at least. None: everything
    :param rate: bytes a second; None: as fast as it goes
    :param progress: is told the step, the bytes that were read, and how many there are
    :param cancelled: is asked now and then whether to stop: then what was found so far is returned
    :raises Busy: a scrub is running already
    """
    with store.exclusive(SCRUBBING):
        return _Scrub(store, catalogue, clock, limit_bytes, rate, progress, cancelled).run()


@attrs.define
class _Scrub:
    store: IBlobStore
    catalogue: Catalogue
    clock: Callable[[], float]
    limit: int | None
    rate: float | None
    progress: Progress | None
    cancelled: Callable[[], bool] | None
    read: int = 0
    total: int = 0
    step: str = ""
    findings: list[Finding] = attrs.field(factory=list)
    waiting: dict[bytes, int] = attrs.field(factory=dict)
    began: float = attrs.field(factory=monotonic.monotonic)
    mended: int = 0

    def run(self) -> ScrubResult:
        with self.catalogue.reading() as connection:
            repository = connection.execute(sa.select(repository_table.c.repository)).scalar_one()
        checker = PackChecker(
            self.store, self.catalogue, bytes(repository or b""), self.tell, self.lost
        )
        with self._catalogue_read():
            use = pack_use(self.catalogue, lambda: self.tell(0))
            gone = self._check_small(checker, use)
            self._check_packs(checker, [pack for pack in use if pack.number not in gone])
        with self._catalogue_read():
            self._settle(checker)
        return ScrubResult(
            packs=checker.packs,
            blobs=checker.blobs,
            bytes=self.read,
            findings=tuple(self.findings),
            mended=self.mended + checker.mended,
        )

    @contextlib.contextmanager
    def _catalogue_read(self) -> Iterator[None]:
        """What cannot be read of the catalogue, or used where it is read, is a finding."""
        try:
            yield
        except Cancelled:
            pass
        except (NotFound, ProtocolViolation, StoredDataDamaged) as error:
            self.lost([], Finding(FindingKind.CATALOGUE, "catalogue", str(error)))
        except (LookupError, TypeError, ValueError) as error:
            text = f"a row of it is not what was written ({error}): recover it"
            self.lost([], Finding(FindingKind.CATALOGUE, "catalogue", text))

    def tell(self, count: int) -> None:
        """So many bytes were read; wait if that was too fast, stop if somebody wants it."""
        self.read += count
        if self.progress is not None:
            self.progress(self.step, self.read, self.total)
        while True:
            if self.cancelled is not None and self.cancelled():
                raise Cancelled("the scrub was stopped")
            ahead = 0.0
            if self.rate:
                ahead = self.read / self.rate - (monotonic.monotonic() - self.began)
            if ahead <= 0:
                return
            threading.Event().wait(min(ahead, _NAP))

    def lost(self, ids: list[bytes], finding: Finding) -> int:
        """Something was found, and these blobs cannot be read for it; the number of the finding."""
        self.waiting.update(dict.fromkeys(ids, len(self.findings)))
        self.findings.append(finding)
        return len(self.findings) - 1

    # --- everything but packs --------------------------------------------------------------------

    def _check_small(self, checker: PackChecker, use: list[PackRow]) -> set[int]:
        """Everything but packs; returns the numbers of packs that are not there."""
        now = self.clock()
        with self.catalogue.reading() as connection:
            last = read_measured(connection).scrubbed
            blobs = blobs_about(connection)
        if self.limit is not None and last and 0 <= now - last < _SMALL_SECONDS:
            return set()
        self.step = "catalogue"
        self._check_catalogue()
        gone = checker.check_names([pack for pack in use if pack.rows and pack.retired is None])
        chain = ChainChecker(self.store, self.catalogue, self.lost)
        description = chain.check()
        self.mended += chain.mended
        if description is not None:
            self.step = "points"
            points = PointChecker(
                self.store, self.catalogue, description, now, Marks(blobs), self.tell, self.lost
            )
            points.check()
            self.mended += points.mended
            self._check_unknown_points(description)
        with contextlib.suppress(NoSpace), self.catalogue.writing() as connection:
            measured = read_measured(connection)
            write_measured(connection, attrs.evolve(measured, scrubbed=now))
        return gone

    def _check_unknown_points(self, description: RepositoryDescription) -> None:
        """Records that have no row: one that cannot be used stops collections."""
        t = points_table.c
        for point, names in point_names(self.store):
            problems: list[str] = []
            name = record_name(point)
            if name in names and not any(found_point(self.store, name, description, problems)):
                with self.catalogue.reading() as connection:
                    known = sa.select(t.arrival).where(t.point == point.hex())
                    if connection.execute(known).first() is None:
                        text = f"it is not in the catalogue, and cannot be used: {problems[0]}"
                        self.lost([], Finding(FindingKind.RECORD, name, text, (point.hex(),)))

    def _check_catalogue(self) -> None:
        """Let the data base look at itself, and look for rows that point nowhere."""
        b, p = blobs_table.c, packs_table.c
        lines: list[str] = []
        if self.catalogue.engine.dialect.name == "sqlite":
            with self.catalogue.reading() as connection:
                check = connection.exec_driver_sql(f"PRAGMA integrity_check({_LINES})")
                lines = [str(line) for line in check.scalars() if line != "ok"]
        for line in lines:
            self.lost([], Finding(FindingKind.CATALOGUE, "catalogue", f"{line}: recover it"))
        known = sa.select(p.number)
        query = sa.select(b.id).where(b.pack.not_in(known), b.damaged.is_(False)).limit(_LOST_MAX)
        with self.catalogue.reading() as connection:
            names = list(connection.execute(query).scalars())
        if names:
            with contextlib.suppress(NoSpace):
                self.catalogue.mark_damaged(names)
            text = f"{len(names)} blobs are said to lie in packs that are not there"
            self.lost(names, Finding(FindingKind.CATALOGUE, "blobs", text))

    # --- packs -----------------------------------------------------------------------------------

    def _check_packs(self, checker: PackChecker, packs: list[PackRow]) -> None:
        p = packs_table.c
        self.step = "packs"
        use = {pack.number: pack for pack in packs}
        query = (
            sa.select(p.number)
            .where(p.retired.is_(None))
            .order_by(sa.func.coalesce(p.scrubbed, 0), p.number)
        )
        with self.catalogue.reading() as connection:
            numbers = list(connection.execute(query).scalars())
        # What holds nothing that is used is removed by the next collection.
        order = [number for number in numbers if number in use and use[number].rows]
        self.total = self.read + sum(use[number].size for number in order)
        stop = None if self.limit is None else self.read + self.limit
        for number in order:
            self._check_pack(checker, use[number])
            if len(self.waiting) >= _LOST_MAX or len(checker.broken) >= _BROKEN_MAX:
                self._settle(checker)
            if stop is not None and self.read >= stop:
                break
        if self.limit is None:
            self._check_unknown(checker)

    def _check_pack(self, checker: PackChecker, pack: PackRow) -> None:
        try:
            checker.check(pack)
        except OSError as error:
            text = f"the system cannot read it: {error.strerror}"
            self.lost([], Finding(FindingKind.PACK, pack.name, text))
            return
        with contextlib.suppress(NoSpace), self.catalogue.writing() as connection:
            where = packs_table.c.number == pack.number
            values = {"scrubbed": self.clock()}
            connection.execute(sa.update(packs_table).where(where).values(**values))

    def _check_unknown(self, checker: PackChecker) -> None:
        """Packs that have no row: one that cannot be used is a finding."""
        p = packs_table.c
        for name in self.store.names("packs/"):
            with self.catalogue.reading() as connection:
                if connection.execute(sa.select(p.number).where(p.name == name)).first():
                    continue
            try:
                checker.examine_unknown(name)
            except (NotFound, OSError):
                continue

    # --- what it means ---------------------------------------------------------------------------

    def _settle(self, checker: PackChecker) -> None:
        """Mend what can be mended, and name the points that the rest hits."""
        if checker.broken or self.waiting:
            try:
                with self.store.exclusive(COLLECTING):
                    for at in checker.mend(self.waiting, lambda: None):
                        self.findings[at] = attrs.evolve(self.findings[at], mended=True)
            except (Busy, NoSpace, StoredDataDamaged):
                checker.broken.clear()  # the next scrub finds it again
        lost, self.waiting = self.waiting, {}
        if not lost:
            return
        with self.catalogue.reading() as connection:
            healed = self.catalogue.present(connection, lost)
        whole = {lost[name] for name in healed}
        for name in healed:
            del lost[name]
        for at in whole - set(lost.values()):
            self.findings[at] = attrs.evolve(self.findings[at], mended=True)
        self._name_points(lost)

    def _name_points(self, lost: dict[bytes, int]) -> None:
        """Add to the findings which points need the blobs in ``lost``."""
        if not lost:
            return
        hit: dict[int, list[str]] = {}
        t = points_table.c
        after = 0
        query = sa.select(
            t.arrival, t.point, t.state, t.record, t.reference_count, t.reference_digest
        ).order_by(t.arrival)
        while True:
            with self.catalogue.reading() as connection:
                row = connection.execute(query.where(t.arrival > after).limit(1)).one_or_none()
            if row is None:
                break
            if row.arrival <= after:
                raise StoredDataDamaged(OUT_OF_ORDER)
            after = row.arrival
            if row.state not in GONE:
                for at in sorted(self._needed(row, lost)):
                    hit.setdefault(at, []).append(row.point)
        for at, points in hit.items():
            named = tuple(dict.fromkeys((*self.findings[at].points, *points)))
            self.findings[at] = attrs.evolve(self.findings[at], points=named)

    def _needed(self, row: Any, lost: dict[bytes, int]) -> set[int]:
        """The findings that hit a point; that its record or list is damaged was said already."""
        found: set[int] = set()
        with contextlib.suppress(PeerError):
            manifest = PointRecord.decode(row.record).manifest
            found |= {lost[name] for name in manifest if name in lost}
        with contextlib.suppress(PeerError, OSError):
            point, count = bytes.fromhex(row.point), row.reference_count
            for batch in read_references(self.store, point, count, row.reference_digest):
                found |= {lost[name] for name in lost.keys() & set(batch)}
        return found
