"""Layer 4: the accounts: events, warnings and sessions that have had their time, forgotten.

What is old goes, oldest first. Of a tenant that has more than its share, what goes is the middle of
its *crowds*: rows of one kind that came close together. So nobody pushes out what is another
tenant's, and one that floods its own history thins the flood, not what was there before it or
comes behind it. What a row says of its time does not count here: rows are numbered as they came.

Each call is one short transaction. The newest row always stays: with it the numbers would begin
again.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable
from typing import Final

import attrs
import sqlalchemy as sa

from cloudconnect.errors import WarningKind
from cloudconnect.provider.accounts.clock import ClockAccounts, passed_until_now
from cloudconnect.provider.accounts.tables import (
    events_table,
    sessions_table,
    settings_table,
    tenants_table,
    untold_table,
)
from cloudconnect.provider.history import session_counts

#: Rows that came close together: so many numbers of all tenants.
BLOCK: Final = 10_000
#: Of each crowd so many stay, however many crowds there are: its first and its last.
CROWD_MIN: Final = 2


class History(enum.Enum):
    """What is forgotten, each for itself."""

    EVENTS = "event"
    WARNINGS = "warning"
    SESSIONS = "session"


@attrs.frozen(kw_only=True)
class Crowd:
    """The middle of rows of one tenant that came close together.

    :ivar values: what they have in common, column by column
    :ivar block: where they stand
    :ivar before: how many stay before the first that is to go
    :ivar count: how many are to go
    """

    values: tuple[str, ...]
    block: int
    before: int
    count: int


class HistoryAccounts(ClockAccounts):
    """What is forgotten of the accounts data base."""

    def newest_rows(self) -> tuple[int, int]:
        """The number of the newest event or warning, and of the newest session; 0 for none."""
        with self._engine.connect() as connection:
            newest = [
                connection.execute(sa.select(sa.func.max(table.c.seq))).scalar() or 0
                for table in (events_table, sessions_table)
            ]
        return newest[0], newest[1]

    def forget_old(self, history: History, until: int, most: int) -> int:
        """Forget the oldest rows; how many went.

        :param until: number of the newest that may go
        :param most: rows that go at one call at most
        """
        t = _table(history)
        old = sa.select(t.c.seq).where(*_may_go(history), t.c.seq <= until)
        return self._forget(history, old.order_by(t.c.seq).limit(most))

    def crowds(self, history: History, tenant: str | None, most: int) -> list[Crowd]:
        """What is to go of a tenant's rows where there are more than ``most``.

        Then a tenth more goes, so that not every row that comes is one too many again.

        :param tenant: None for the rows of nobody who is a tenant now
        """
        t, whose = _table(history), _whose(history, tenant)
        with self._engine.connect() as connection:
            count = sa.select(sa.func.count()).select_from(t).where(*whose)
            if (connection.execute(count).scalar() or 0) <= most:
                return []
            for common in _commons(history):
                grouped = (
                    sa.select(*common, _block(t).label("block"), sa.func.count().label("size"))
                    .where(*whose, *_may_go(history))
                    .group_by(*common, sa.text("block"))
                )
                groups = connection.execute(grouped).all()
                level = fair_level((group.size for group in groups), most - most // 10)
                if level >= CROWD_MIN:
                    break
            level = max(CROWD_MIN, level)
            return [
                Crowd(
                    values=tuple(group[: len(common)]),
                    block=group.block,
                    before=level // 2,
                    count=group.size - level,
                )
                for group in groups
                if group.size > level
            ]

    def forget_crowd(self, history: History, tenant: str | None, crowd: Crowd, most: int) -> int:
        """Forget of the middle of a crowd; how many went.

        :param most: rows that go at one call at most
        """
        t = _table(history)
        middle = sa.select(t.c.seq).where(*_of(history, tenant, crowd.values, crowd.block))
        slice_ = middle.order_by(t.c.seq).offset(crowd.before).limit(min(most, crowd.count))
        return self._forget(history, slice_)

    def forget_untold(self, seconds: float) -> None:
        """Forget warnings of jobs that nobody has gone on with for so many seconds, by the
        provider's own clock (:meth:`.clock.ClockAccounts.pass_time`)."""
        u = untold_table
        with self._writing() as connection:
            old = u.c.kept < passed_until_now(connection) - seconds
            connection.execute(u.delete().where(old))

    def _forget(self, history: History, numbers: sa.Select[tuple[int]]) -> int:
        t = _table(history)
        with self._writing() as connection:
            going = [row.seq for row in connection.execute(numbers)]
            if going and history is History.SESSIONS:
                _count_in(connection, going)
            if going:
                connection.execute(t.delete().where(t.c.seq.in_(going)))
        return len(going)


def fair_level(sizes: Iterable[int], most: int) -> int:
    """The greatest size to which crowds can be cut so that not more than ``most`` are left."""
    known = sorted(sizes)
    left, many = most, len(known)
    for size in known:
        if size * many > left:
            return left // many
        left, many = left - size, many - 1
    return known[-1] if known else 0


def _table(history: History) -> sa.Table:
    return sessions_table if history is History.SESSIONS else events_table


def _commons(history: History) -> tuple[tuple[sa.Column[str], ...], ...]:
    """What rows of a crowd have in common.

    Of each there are few, whatever a tenant does. A node that invents names of events makes as many
    crowds as it likes: then who has reported them is all that counts.
    """
    if history is History.SESSIONS:
        return ((sessions_table.c.kind,),)
    e = events_table.c
    return ((e.reported_by, e.name), (e.reported_by,))


def _block(table: sa.Table) -> sa.ColumnElement[int]:
    return table.c.seq - table.c.seq % BLOCK


def _whose(history: History, tenant: str | None) -> list[sa.ColumnElement[bool]]:
    t = _table(history)
    found: list[sa.ColumnElement[bool]] = []
    if tenant is None:
        found.append(t.c.tenant.not_in(sa.select(tenants_table.c.name)))
    else:
        found.append(t.c.tenant == tenant)
    if history is not History.SESSIONS:
        found.append(t.c.type == history.value)
    return found


def _may_go(history: History) -> list[sa.ColumnElement[bool]]:
    """What always stays: the newest row, sessions that run, findings that were not told yet."""
    t = _table(history)
    found = [t.c.seq < sa.select(sa.func.max(t.c.seq)).scalar_subquery()]
    if history is History.SESSIONS:
        return [*found, t.c.ended.is_not(None)]
    found.append(t.c.type == history.value)
    if history is History.WARNINGS:
        e, whom = events_table.c, tenants_table.c
        waits = sa.exists().where(whom.name == e.tenant, whom.told < e.seq)
        finding = sa.and_(e.name == WarningKind.STORED_DATA_DAMAGED.value, e.session == "")
        found.append(sa.not_(sa.and_(finding, waits)))
    return found


def _of(
    history: History, tenant: str | None, values: tuple[str, ...], block: int
) -> list[sa.ColumnElement[bool]]:
    """The rows of one crowd."""
    t = _table(history)
    return [
        *_whose(history, tenant),
        *_may_go(history),
        *(column == value for column, value in zip(_commons(history)[0], values, strict=False)),
        t.c.seq.between(block, block + BLOCK - 1),
    ]


def _count_in(connection: sa.Connection, numbers: list[int]) -> None:
    """Add sessions that go to what is counted of their months."""
    s, v = sessions_table, settings_table
    columns = (s.c.tenant, s.c.kind, s.c.started, s.c.summary)
    rows = connection.execute(sa.select(*columns).where(s.c.seq.in_(numbers)))
    sessions = [{**row, "summary": json.loads(row["summary"])} for row in rows.mappings()]
    for month, counts in session_counts.count_sessions(sessions).items():
        name = session_counts.name_of(month)
        kept = connection.execute(sa.select(v.c.value).where(v.c.name == name)).scalar()
        both = session_counts.added(session_counts.read_counts(kept), counts)
        value = session_counts.written(both)
        if kept is None:
            connection.execute(v.insert().values(name=name, value=value))
        else:
            connection.execute(v.update().where(v.c.name == name).values(value=value))
