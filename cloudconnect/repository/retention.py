"""Layer 3: retention policies of hosts and jobs, and what is deleted by them.

A policy is set for one job on one host, for all jobs of a host, for a job on every host, or for
all; the most specific one counts, and where there is none everything is kept. What keeps less than
before comes into force after some days; until then both count, and a point stays that either keeps.
What no policy keeps goes into the bin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.content.points import LABEL_MAX
from cloudconnect.content.retention import RetentionPolicy, decide, union
from cloudconnect.errors import Refused
from cloudconnect.repository.bin import Bin
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.clock import Moment, look, observe
from cloudconnect.repository.points import PUBLISHED, PointRow, known_columns, point_row
from cloudconnect.repository.rules import DAY, Rules, read_rules
from cloudconnect.repository.tables import points_table, retention_table
from cloudconnect.repository.taking import OBSTACLES, Taking

#: Most policies in one repository: more than machines that one tenant backs up, and a bound.
POLICIES_MAX: Final = 10_000

#: Who deletes, in the bin's words.
_BY: Final = "retention"
#: A host and a job; empty: every.
Pair = tuple[str, str]


@attrs.frozen(kw_only=True)
class RetentionRow:
    """The retention of a host and a job.

    :ivar host: empty: of every host
    :ivar job: empty: of every job
    :ivar policy: what is in force; None: everything is kept
    :ivar set_time: when it was set last, in seconds since 1970
    :ivar has_pending: whether something else is to come into force
    :ivar pending: that; None: everything is kept
    :ivar pending_time: when it will, at the earliest, or None
    """

    host: str
    job: str
    policy: RetentionPolicy | None = None
    set_time: float = 0.0
    has_pending: bool = False
    pending: RetentionPolicy | None = None
    pending_time: float | None = None

    def as_map(self) -> dict[str, Any]:
        """The fields as JSON values."""
        values = {name: getattr(self, name) for name in attrs.fields_dict(RetentionRow)}
        for name in ("policy", "pending"):
            values[name] = values[name] and values[name].as_map()
        return values

    def in_force(self) -> tuple[RetentionPolicy, ...]:
        """The policies that count; a point is kept that any of them keeps. None: every point is."""
        both = (self.policy, self.pending) if self.has_pending else (self.policy,)
        kept = tuple(policy for policy in both if policy is not None)
        return kept if len(kept) == len(both) else ()


@attrs.frozen
class RetentionDecision:
    """What becomes of a restore point.

    :ivar row: the point, as it was before
    :ivar keep: whether it stays; if not, it is in the bin now, or would be
    :ivar why: as of :class:`cloudconnect.content.retention.Decision`; also ``everything``: there is
        no policy; or what kept a point from the bin that no policy keeps: ``locked``,
        ``frozen`` (the repository), ``bin full``
    """

    row: PointRow
    keep: bool
    why: tuple[str, ...]

    def as_map(self) -> dict[str, Any]:
        """The fields as JSON values, those of the point among them."""
        return {**self.row.as_map(), "keep": self.keep, "why": list(self.why)}


@attrs.frozen
class Retention:
    """The retention of one repository.

    :ivar bin: where it puts what is not kept
    :ivar clock: seconds since 1970
    """

    bin: Bin
    catalogue: Catalogue
    clock: Callable[[], float]

    def rows(self) -> list[RetentionRow]:
        """All that was set, in the order of hosts and jobs."""
        with self.catalogue.reading() as connection:
            return list(_read(connection).values())

    def set(self, host: str, job: str, policy: RetentionPolicy | None) -> RetentionRow:
        """See :meth:`cloudconnect.repository.store.Repository.set_retention`."""
        for text in (host, job):
            if text and (len(text) > LABEL_MAX or not text.isprintable()):
                raise Refused(f"a host or a job has at most {LABEL_MAX} printable characters")
        with self.catalogue.writing() as connection:
            moment = observe(connection, self.clock())
            rules = read_rules(connection)
            rules.check(policy)
            held = _read(connection, [(host, job)]).get((host, job))
            if held is None:
                count = sa.select(sa.func.count()).select_from(retention_table)
                if connection.execute(count).scalar_one() >= POLICIES_MAX:
                    raise Refused(f"a repository has at most {POLICIES_MAX} retention policies")
                held = RetentionRow(host=host, job=job)
            if held.has_pending and held.pending == policy:
                return held  # set once more; its time runs already
            row = _changed(held, policy, moment, rules)
            clock = moment.passed + rules.shorten_days * DAY if row.has_pending else None
            _write(connection, row, clock)
        return row

    def activate(self) -> list[Pair]:
        """Put those into force whose time has come by both clocks; none while frozen."""
        t = retention_table.c
        with self.catalogue.writing() as connection:
            moment = observe(connection, self.clock())
            if moment.frozen:
                return []
            due = sa.select(t.host, t.job).where(
                t.has_pending, moment.over(t.pending_time, t.pending_clock)
            )
            pairs = [(row.host, row.job) for row in connection.execute(due)]
            rows = _read(connection)
            for pair in pairs:
                row = rows[pair]
                _write(
                    connection,
                    attrs.evolve(
                        row,
                        policy=row.pending,
                        has_pending=False,
                        pending=None,
                        pending_time=None,
                    ),
                    None,
                )
        return pairs

    def apply(self, dry_run: bool = False) -> list[RetentionDecision]:
        """See :meth:`cloudconnect.repository.store.Repository.apply_retention`."""
        decisions: list[RetentionDecision] = []
        with self.catalogue.reading() as connection:
            pairs = _pairs(connection)
            rows = _read(connection)
            if dry_run:
                taking = Taking.begin(connection, look(connection, self.clock()), _BY)
                for pair in pairs:
                    decisions += _decided(taking, pair, _governing(rows, pair))
                return decisions
        if rows:
            self.bin.check_disk()
            for pair in pairs:
                decisions += self._apply(pair)
        return decisions

    def preview(
        self, host: str, job: str, policy: RetentionPolicy | None
    ) -> list[RetentionDecision]:
        """See :meth:`cloudconnect.repository.store.Repository.preview_retention`."""
        decisions: list[RetentionDecision] = []
        with self.catalogue.reading() as connection:
            taking = Taking.begin(connection, look(connection, self.clock()), _BY)
            taking.rules.check(policy)
            proposed = RetentionRow(host=host, job=job, policy=policy)
            rows = {**_read(connection), (host, job): proposed}
            for pair in _pairs(connection):
                if _governing(rows, pair) is proposed:
                    decisions += _decided(taking, pair, proposed)
        return decisions

    def _apply(self, pair: Pair) -> list[RetentionDecision]:
        """Decide and delete in one transaction: nobody deletes what is kept in between."""
        with self.catalogue.writing() as connection:
            taking = Taking.begin(connection, observe(connection, self.clock()), _BY)
            governing = _governing(_read(connection, _keys(pair)), pair)
            if governing is None or not governing.in_force():
                return []
            decisions = [
                decision
                for decision in _decided(taking, pair, governing)
                if not decision.keep or decision.why[0] in OBSTACLES
            ]
            leaving = [decision.row for decision in decisions if not decision.keep]
            for row in leaving:
                taking.take(row.arrival)
        self.bin.mark([row.point for row in leaving])
        return decisions


def _changed(
    held: RetentionRow, policy: RetentionPolicy | None, moment: Moment, rules: Rules
) -> RetentionRow:
    """The row with this policy: in force at once where nothing is dropped by that."""
    counting = held.in_force()
    if policy is None or (counting and all(policy.covers(each) for each in counting)):
        return RetentionRow(host=held.host, job=held.job, policy=policy, set_time=moment.now)
    # What counts now goes on to count, also what had been about to.
    both = union(counting[0], counting[-1]) if counting else None
    return RetentionRow(
        host=held.host,
        job=held.job,
        policy=both,
        set_time=moment.now,
        has_pending=True,
        pending=policy,
        pending_time=moment.now + rules.shorten_days * DAY,
    )


def _governing(rows: dict[Pair, RetentionRow], pair: Pair) -> RetentionRow | None:
    """The most specific row of those that are about a host and a job."""
    for key in _keys(pair):
        if key in rows:
            return rows[key]
    return None


def _keys(pair: Pair) -> list[Pair]:
    """Where a policy for a host and a job may stand, the most specific first."""
    host, job = pair
    return [(host, job), (host, ""), ("", job), ("", "")]


def _decided(
    taking: Taking, pair: Pair, governing: RetentionRow | None
) -> Iterator[RetentionDecision]:
    """The decisions over the points of one job on one host; those to go are admitted to the bin."""
    rows = _points(taking.connection, pair)
    policies = governing.in_force() if governing is not None else ()
    if not policies:
        for row in rows:
            yield RetentionDecision(point_row(row), True, ("everything",))
        return
    if taking.rules.floor is not None:  # which may have been raised after the policy was set
        policies = (*policies, taking.rules.floor)
    points = [(row.arrival, row.arrival_time) for row in rows]
    for row, decision in zip(rows, decide(points, policies), strict=True):
        obstacle = "" if decision.keep else taking.admit(row)
        why = (obstacle,) if obstacle else decision.why
        yield RetentionDecision(point_row(row), bool(why), why)


def _pairs(connection: sa.Connection) -> list[Pair]:
    t = points_table.c
    query = sa.select(t.host, t.job).where(t.state == PUBLISHED).group_by(t.host, t.job)
    return [(row.host, row.job) for row in connection.execute(query.order_by(t.host, t.job))]


def _points(connection: sa.Connection, pair: Pair) -> list[sa.Row[Any]]:
    t = points_table.c
    query = sa.select(*known_columns).where(
        t.host == pair[0], t.job == pair[1], t.state == PUBLISHED
    )
    return list(connection.execute(query.order_by(t.arrival)))


def _read(
    connection: sa.Connection, pairs: Sequence[Pair] | None = None
) -> dict[Pair, RetentionRow]:
    """The rows, or those of some pairs only: there may be many, and this is done for many pairs."""
    t = retention_table.c
    query = sa.select(retention_table).order_by(t.host, t.job)
    if pairs is not None:
        query = query.where(sa.or_(*(sa.and_(t.host == host, t.job == job) for host, job in pairs)))
    rows = connection.execute(query)
    return {
        (row.host, row.job): RetentionRow(
            host=row.host,
            job=row.job,
            policy=_policy(row.policy),
            set_time=row.set_time,
            has_pending=bool(row.has_pending),
            pending=_policy(row.pending),
            pending_time=row.pending_time,
        )
        for row in rows
    }


def _policy(fields: dict[str, Any] | None) -> RetentionPolicy | None:
    return None if fields is None else RetentionPolicy.from_map(fields)


def _write(connection: sa.Connection, row: RetentionRow, clock: float | None) -> None:
    t = retention_table.c
    connection.execute(sa.delete(retention_table).where(t.host == row.host, t.job == row.job))
    values = {**row.as_map(), "pending_clock": clock}
    connection.execute(sa.insert(retention_table).values(**values))
