"""Tests for cloudconnect.content.retention."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content.retention import (
    COUNT_MAX,
    SECONDS_MAX,
    Decision,
    RetentionPolicy,
    decide,
    format_duration,
    parse_duration,
    union,
)
from cloudconnect.errors import ProtocolViolation, UsageError

DAY = 86400
#: Monday, the 1st of January 2024, at noon.
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC).timestamp()

FIELDS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
policies = st.builds(
    lambda within, counts: RetentionPolicy(
        keep_within=within,
        **{f"keep_{name}": count for name, count in zip(FIELDS, counts, strict=True)},
    ),
    # At least a second within, so that it is always a policy.
    st.sampled_from((1, 3600, DAY, 40 * DAY)),
    st.lists(st.integers(0, 4), min_size=6, max_size=6),
)
#: Some hours, days, months and years apart, so that periods are shared and not shared.
steps = st.one_of(
    st.integers(0, 3 * 3600), st.integers(0, 40 * DAY), st.integers(0, 500 * DAY)
).map(float)


def times_of(first: float, rises: list[float]) -> list[float]:
    """Times that rise by so much each."""
    times = [first]
    for rise in rises:
        times.append(times[-1] + rise)
    return times


rising = st.builds(times_of, st.floats(0, 2e9), st.lists(steps, max_size=25))
anything = st.lists(st.floats(0, 2e9), min_size=1, max_size=9)


def numbered(times: list[float]) -> list[tuple[int, float]]:
    """Points that arrived at these times, numbered 1, 3, 5 ..."""
    return [(2 * number + 1, time) for number, time in enumerate(times)]


def kept(times: list[float], *by: RetentionPolicy) -> list[int]:
    """Which of the points that arrived at these times are kept, counted from 0."""
    decisions = decide(numbered(times), by)
    return [index for index, decision in enumerate(decisions) if decision.keep]


def period(name: str, time: float) -> Any:
    """The period that a time lies in, as the calendar says it."""
    date = datetime.fromtimestamp(time, UTC)
    return {
        "hourly": (date.date(), date.hour),
        "daily": date.date(),
        "weekly": tuple(date.isocalendar())[:2],
        "monthly": (date.year, date.month),
        "yearly": date.year,
    }[name]


def expected(times: list[float], policy: RetentionPolicy) -> list[set[str]]:
    """What keeps each point, said in the plainest words; times rise."""
    why: list[set[str]] = [set() for _ in times]
    for index, time in enumerate(times):
        later = times[index + 1 :]
        if len(later) < policy.keep_last:
            why[index].add("last")
        for name in FIELDS[1:]:
            mine = period(name, time)
            periods = {period(name, other) for other in later}
            if mine not in periods and len(periods) < getattr(policy, f"keep_{name}"):
                why[index].add(name)
        if policy.keep_within and times[-1] - time <= policy.keep_within:
            why[index].add("within")
    why[-1].add("newest")
    return why


class PolicyTests(SynchronousTestCase):
    """Policies are bounded, compared field by field, and written by people."""

    def test_nothing(self) -> None:
        """A policy that keeps nothing is none."""
        self.assertRaises(ValueError, RetentionPolicy)
        self.assertRaises(ProtocolViolation, RetentionPolicy.from_map, {})
        self.assertRaises(UsageError, RetentionPolicy.parse, "daily=0")

    def test_bounds(self) -> None:
        """Every field is a number within its bounds."""
        for bad in (-1, COUNT_MAX + 1, 1.0, True, "1", None):
            for name in ("keep_last", "keep_yearly"):
                self.assertRaises(ProtocolViolation, RetentionPolicy.from_map, {name: bad})
        self.assertRaises(ValueError, RetentionPolicy, keep_within=SECONDS_MAX + 1)
        self.assertRaises(ProtocolViolation, RetentionPolicy.from_map, {"keep_centuries": 1})
        self.assertEqual(RetentionPolicy(keep_within=SECONDS_MAX).keep_within, SECONDS_MAX)

    @given(policies)
    @settings(max_examples=50, deadline=None)
    def test_round_trip(self, policy: RetentionPolicy) -> None:
        """A policy goes into JSON and comes back; as text too, with its time in whole hours."""
        self.assertEqual(RetentionPolicy.from_map(policy.as_map()), policy)
        read = RetentionPolicy.parse(str(policy))
        self.assertTrue(read.covers(policy))
        self.assertLess(read.keep_within - policy.keep_within, 3600)

    def test_parse(self) -> None:
        """What people write, with or without spaces."""
        wanted = RetentionPolicy(keep_daily=7, keep_weekly=4, keep_within=30 * DAY)
        self.assertEqual(RetentionPolicy.parse("daily=7,weekly=4,within=30d"), wanted)
        self.assertEqual(RetentionPolicy.parse(" within = 30d , daily=7, weekly=4"), wanted)
        self.assertEqual(str(wanted), "daily=7,weekly=4,within=30d")

    def test_parse_wrong(self) -> None:
        """What is not a policy is refused, with the text."""
        for text in ("", "7", "daily", "daily=", "daily=x", "daily=-1", "daily=7,daily=8"):
            error = self.assertRaises(UsageError, RetentionPolicy.parse, text)
            self.assertIn("'", str(error))
        for text in ("keep_daily=7", "centuries=1", "within=7", "daily=\u0667", "last=999999"):
            self.assertRaises(UsageError, RetentionPolicy.parse, text)

    def test_durations(self) -> None:
        """Hours, days, weeks and years, and several of them."""
        for text, seconds in (
            ("36h", 36 * 3600),
            ("7d", 7 * DAY),
            ("2w", 14 * DAY),
            ("1y", 365 * DAY),
            ("1y6w2d", (365 + 42 + 2) * DAY),
            ("100y", SECONDS_MAX),
        ):
            self.assertEqual(parse_duration(text), seconds)
            self.assertEqual(parse_duration(format_duration(seconds)), seconds)
        self.assertEqual(format_duration(0), "0h")
        self.assertEqual(format_duration(DAY + 1), "1d1h")
        for text in ("", "7", "d", "7m", "-7d", "7 d", "101y", "7d;", "1.5d", "7D"):
            self.assertRaises(UsageError, parse_duration, text)

    @given(policies, policies)
    @settings(max_examples=50, deadline=None)
    def test_covers(self, one: RetentionPolicy, other: RetentionPolicy) -> None:
        """A policy covers another when it is as large in every field; the union covers both."""
        theirs = other.as_map()
        fields = one.as_map().items()
        self.assertEqual(one.covers(other), all(value >= theirs[name] for name, value in fields))
        both = union(one, other)
        self.assertTrue(both.covers(one) and both.covers(other))
        self.assertEqual(both, union(other, one))


class ExampleTests(SynchronousTestCase):
    """Examples that can be checked with a calendar."""

    def test_nothing(self) -> None:
        """No points, no decisions."""
        self.assertEqual(decide([], [RetentionPolicy(keep_last=1)]), [])

    def test_order(self) -> None:
        """Decisions come in the order of arrival, whatever the order of the points."""
        points = [(9, NOON + 2), (4, NOON), (7, NOON + 1)]
        decisions = decide(points, [RetentionPolicy(keep_last=2)])
        self.assertEqual(
            decisions,
            [
                Decision(4, False, ()),
                Decision(7, True, ("last",)),
                Decision(9, True, ("newest", "last")),
            ],
        )

    def test_last(self) -> None:
        """The newest three of five; all where there are fewer."""
        times = [NOON + number for number in range(5)]
        self.assertEqual(kept(times, RetentionPolicy(keep_last=3)), [2, 3, 4])
        self.assertEqual(kept(times, RetentionPolicy(keep_last=9)), [0, 1, 2, 3, 4])

    def test_daily(self) -> None:
        """Twice a day for a week, three days kept: the evening's points of the last three days."""
        times = [NOON + DAY * day + hours * 3600 for day in range(7) for hours in (0, 11)]
        self.assertEqual(kept(times, RetentionPolicy(keep_daily=3)), [9, 11, 13])

    def test_midnight(self) -> None:
        """A day ends at midnight in UTC."""
        times = [NOON + 12 * 3600 - 1, NOON + 12 * 3600]
        self.assertEqual(kept(times, RetentionPolicy(keep_daily=2)), [0, 1])
        self.assertEqual(kept([times[0] - 1, times[0]], RetentionPolicy(keep_daily=2)), [1])

    def test_days_without_points(self) -> None:
        """Days without a point do not count: seven daily points may reach back for months."""
        times = [NOON + 30 * DAY * number for number in range(10)]
        self.assertEqual(kept(times, RetentionPolicy(keep_daily=7)), list(range(3, 10)))

    def test_weekly(self) -> None:
        """One a day from Monday the 1st to Wednesday the 17th: two Sundays, and the newest."""
        times = [NOON + DAY * day for day in range(17)]
        self.assertEqual(kept(times, RetentionPolicy(keep_weekly=3)), [6, 13, 16])
        self.assertEqual(kept(times, RetentionPolicy(keep_weekly=2)), [13, 16])

    def test_monthly_and_yearly(self) -> None:
        """One a day over 800 days: the last of each month; the last of each year."""
        first = datetime(2023, 1, 1, 12, tzinfo=UTC)
        days = [first + timedelta(number) for number in range(800)]  # to the 10th of March 2025
        times = [day.timestamp() for day in days]
        monthly = [days[n].date().isoformat() for n in kept(times, RetentionPolicy(keep_monthly=4))]
        self.assertEqual(monthly, ["2024-12-31", "2025-01-31", "2025-02-28", "2025-03-10"])
        yearly = [days[n].date().isoformat() for n in kept(times, RetentionPolicy(keep_yearly=9))]
        self.assertEqual(yearly, ["2023-12-31", "2024-12-31", "2025-03-10"])

    def test_hourly(self) -> None:
        """Every twenty minutes for four hours, two hours kept."""
        times = [NOON + 1200 * number for number in range(12)]
        self.assertEqual(kept(times, RetentionPolicy(keep_hourly=2)), [8, 11])

    def test_within(self) -> None:
        """What is at most three days older than the newest point, however old that is."""
        times = [NOON + DAY * day for day in range(10)]
        self.assertEqual(kept(times, RetentionPolicy(keep_within=3 * DAY)), [6, 7, 8, 9])
        self.assertEqual(kept(times, RetentionPolicy(keep_within=3 * DAY - 1)), [7, 8, 9])

    def test_several_policies(self) -> None:
        """A point is kept that any policy keeps, and says all that keep it."""
        times = [NOON + DAY * day for day in range(10)]
        daily, weekly = RetentionPolicy(keep_daily=2), RetentionPolicy(keep_weekly=2, keep_last=1)
        decisions = decide(numbered(times), [daily, weekly])
        self.assertEqual([n for n, each in enumerate(decisions) if each.keep], [6, 8, 9])
        self.assertEqual(decisions[6].why, ("weekly",))
        self.assertEqual(decisions[9].why, ("newest", "daily", "last", "weekly"))

    def test_ahead_for_a_day(self) -> None:
        """A clock that was a year ahead once: that point stays, and drops nothing else."""
        times = [NOON + DAY * day for day in range(10)]
        times[5] += 365 * DAY
        decisions = decide(numbered(times), [RetentionPolicy(keep_daily=3, keep_within=2 * DAY)])
        self.assertEqual([n for n, each in enumerate(decisions) if each.keep], [5, 7, 8, 9])
        self.assertEqual(decisions[5].why, ("out of order",))

    def test_set_back(self) -> None:
        """A clock that was set back by three days: what lies between is kept, and no day less."""
        times = [NOON + DAY * day for day in (1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8)]
        decisions = decide(numbered(times), [RetentionPolicy(keep_daily=3)])
        why = {n: each.why for n, each in enumerate(decisions) if each.keep}
        self.assertEqual(
            why,
            {
                4: ("out of order",),
                5: ("out of order",),
                8: ("daily",),
                9: ("daily",),
                10: ("newest", "daily"),
            },
        )

    def test_newest_is_set_back(self) -> None:
        """Where the newest point's time is wrong, it is kept, and so is what was kept before."""
        times = [NOON + DAY * day for day in range(5)]
        policy = RetentionPolicy(keep_daily=2, keep_within=DAY)
        self.assertEqual(kept(times, policy), [3, 4])
        self.assertEqual(kept([*times, NOON - 900 * DAY], policy), [0, 1, 2, 3, 4, 5])

    def test_wild_times(self) -> None:
        """Times that are no dates are compared, and kill nothing."""
        policy = RetentionPolicy(keep_yearly=2, keep_daily=1, keep_within=5)
        for times in ([-5.0, 1e300, 2e300], [-1e300, 0.0, 1e18], [float("-inf"), float("inf")]):
            self.assertEqual(kept(times, policy)[-1], len(times) - 1)


class ModelTests(SynchronousTestCase):
    """Against the same thing said plainly."""

    @given(rising, st.lists(policies, min_size=1, max_size=2))
    @settings(max_examples=200, deadline=None)
    def test_model(self, times: list[float], by: list[RetentionPolicy]) -> None:
        """Where times rise, exactly that is kept, for exactly these reasons."""
        wanted = [
            set().union(*reasons)
            for reasons in zip(*(expected(times, policy) for policy in by), strict=True)
        ]
        decisions = decide(numbered(times), by)
        self.assertEqual([set(each.why) for each in decisions], wanted)
        self.assertEqual([each.keep for each in decisions], [bool(why) for why in wanted])
        self.assertEqual([each.arrival for each in decisions], [n for n, _ in numbered(times)])

    @given(anything, policies)
    @settings(max_examples=200, deadline=None)
    def test_any_times(self, times: list[float], policy: RetentionPolicy) -> None:
        """Where they do not, as few as possible are left out, and kept; the rest is as before."""
        decisions = decide(numbered(times), [policy])
        out = [n for n, each in enumerate(decisions) if "out of order" in each.why]
        rest = [n for n in range(len(times)) if n not in out]
        regular = [times[n] for n in rest]
        self.assertEqual(regular, sorted(regular))
        best = [1] * len(times)  # the longest rising sequence that ends at each point
        for n, time in enumerate(times):
            best[n] += max((best[m] for m in range(n) if times[m] <= time), default=0)
        self.assertEqual(len(rest), max(best))
        self.assertTrue(all(decisions[n].keep for n in out) and decisions[-1].keep)
        for n, why in zip(rest, expected(regular, policy), strict=True):
            self.assertLessEqual(why - {"newest"}, set(decisions[n].why))
            if decisions[n].keep and times[-1] >= regular[-1]:
                self.assertTrue(why - {"newest"} or n == len(times) - 1)

    @given(anything, policies, policies)
    @settings(max_examples=100, deadline=None)
    def test_larger_keeps_more(
        self, times: list[float], one: RetentionPolicy, other: RetentionPolicy
    ) -> None:
        """What covers a policy keeps all that it keeps: so a change to it can be at once."""
        both = set(kept(times, union(one, other)))
        self.assertLessEqual(set(kept(times, one, other)), both)
        self.assertEqual(
            set(kept(times, one)) | set(kept(times, other)), set(kept(times, one, other))
        )
