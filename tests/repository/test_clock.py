"""Tests for cloudconnect.repository.clock."""

from __future__ import annotations

import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.repository.clock import STEP_MAX, Moment, look, observe
from cloudconnect.repository.tables import repository_table
from tests.repository.repositories import RepositoryCase

HOUR = 3600.0
DAY = 24 * HOUR
YEAR = 365 * DAY
NOW = 1.7e9

#: What a clock may show next: something near the last time, or anything at all.
steps = st.one_of(st.floats(-2 * DAY, 2 * DAY), st.floats(-3 * YEAR, 3 * YEAR))


def clocks(clock_seen: float = 0.0, frozen: bool = False) -> sa.Engine:
    """A data base with the clocks of a repository, and nothing else."""
    engine = sa.create_engine("sqlite://")
    repository_table.create(engine)
    with engine.begin() as connection:
        connection.execute(
            sa.insert(repository_table).values(
                repository=b"", format_version=1, description=b"", removals=0, frozen=frozen
            )
        )
        connection.execute(sa.update(repository_table).values(clock_seen=clock_seen))
    return engine


class ObserveTests(RepositoryCase):
    """The clock counts what has surely passed."""

    def setUp(self) -> None:
        super().setUp()
        self.repository = self.created()
        self.time = NOW

    def observed(self, now: float | None = None) -> float:
        self.time = self.time if now is None else now
        with self.repository.catalogue.writing() as connection:
            return observe(connection, self.time).passed

    def test_counts(self) -> None:
        """It begins at 0 and counts the time between looks."""
        self.assertEqual(self.observed(), 0)
        self.assertEqual(self.observed(NOW + HOUR), HOUR)
        self.assertEqual(self.observed(NOW + 2.5 * HOUR), 2.5 * HOUR)
        self.assertEqual(self.observed(), 2.5 * HOUR)

    def test_kept(self) -> None:
        """Another process goes on from there."""
        self.observed()
        self.observed(NOW + HOUR)
        other = self.opened()
        self.time += HOUR
        other.observe_clock()
        with other.catalogue.reading() as connection:
            self.assertEqual(look(connection, self.time), Moment(NOW + 2 * HOUR, 2 * HOUR, False))

    def test_year_ahead(self) -> None:
        """A clock that jumps ahead by a year counts 26 hours, and from there on as usual."""
        self.observed()
        self.assertEqual(self.observed(NOW + YEAR), 26 * HOUR)
        self.assertEqual(self.observed(NOW + YEAR + HOUR), 27 * HOUR)

    def test_back(self) -> None:
        """A clock that is put back counts nothing, and from there on as usual."""
        self.observed()
        self.assertEqual(self.observed(NOW - YEAR), 0)
        self.assertEqual(self.observed(NOW - YEAR + HOUR), HOUR)

    def test_switched_off(self) -> None:
        """A provider that was off for a week counts a day of it: things are kept for longer."""
        self.observed()
        self.assertEqual(self.observed(NOW + 7 * DAY), STEP_MAX)

    def test_frozen(self) -> None:
        """It stands still from the freeze to the thaw."""
        self.observed()
        self.time += HOUR
        self.repository.freeze()
        for _ in range(3):
            self.assertEqual(self.observed(self.time + 9 * HOUR), HOUR)
        self.time += 9 * HOUR
        self.repository.thaw()
        self.assertEqual(self.observed(), HOUR)
        self.assertEqual(self.observed(self.time + HOUR), 2 * HOUR)

    def test_look(self) -> None:
        """Looking changes nothing."""
        self.observed()
        with self.repository.catalogue.reading() as connection:
            for _ in range(3):
                self.assertEqual(look(connection, NOW + YEAR).passed, STEP_MAX)
        self.assertEqual(self.observed(NOW + HOUR), HOUR)


class AnyClockTests(SynchronousTestCase):
    """Whatever the clock of the machine shows."""

    @given(st.floats(1, 4e9), st.lists(st.tuples(steps, st.booleans()), max_size=30))
    @settings(max_examples=60, deadline=None)
    def test_never_faster(self, first: float, readings: list[tuple[float, bool]]) -> None:
        """It never goes back, nor by more than 26 hours a look, nor while it is frozen."""
        engine = clocks()
        now, before, rises = first, 0.0, 0.0
        with engine.begin() as connection:
            self.assertEqual(observe(connection, first).passed, 0)
            for step, frozen in readings:
                connection.execute(sa.update(repository_table).values(frozen=frozen))
                now += step
                moment = observe(connection, now)
                rises += 0 if frozen else max(step, 0)
                self.assertEqual(moment.now, now)
                self.assertLessEqual(moment.passed - before, 0 if frozen else STEP_MAX + 1e-3)
                self.assertGreaterEqual(moment.passed, before)
                before = moment.passed
            self.assertLessEqual(before, rises + 1)
        engine.dispose()

    @given(st.floats(1, 4e9), st.lists(st.floats(0, STEP_MAX), max_size=30))
    @settings(max_examples=30, deadline=None)
    def test_right_clock(self, first: float, readings: list[float]) -> None:
        """A clock that is right, and looked at every day, is followed."""
        engine = clocks()
        now = first
        with engine.begin() as connection:
            observe(connection, now)
            for step in readings:
                now += step
                observe(connection, now)
            self.assertAlmostEqual(look(connection, now).passed, now - first, delta=1e-2)
        engine.dispose()


class DeadlineTests(SynchronousTestCase):
    """A deadline is over when it is by both clocks."""

    def test_both(self) -> None:
        """One of them is not enough."""
        moment = Moment(1000.0, 50.0, False)
        self.assertTrue(moment.is_over(1000.0, 50.0))
        self.assertFalse(moment.is_over(1001.0, 50.0))
        self.assertFalse(moment.is_over(1000.0, 51.0))
        self.assertTrue(moment.is_over(None, None))
