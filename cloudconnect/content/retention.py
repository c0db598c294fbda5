"""Layer 1: which restore points a policy keeps (``docs/repository-format.rst``, Retention).

Pure: no clock and no store. Periods are those of UTC, by the time at which the provider received
each point; what "newest" means is the order of arrival, never a time. Nothing is measured from now:
where no new points come, no old one is dropped.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

import attrs

from cloudconnect.errors import ProtocolViolation, UsageError

#: Most points that one rule of a policy keeps: one an hour for eleven years.
COUNT_MAX: Final = 100_000
#: Longest time that a policy, a lock or a rule speaks of: 100 years, in seconds.
SECONDS_MAX: Final = 100 * 365 * 86400

_HOUR: Final = 3600
_DAY: Final = 24 * _HOUR
_UNITS: Final = {"h": _HOUR, "d": _DAY, "w": 7 * _DAY, "y": 365 * _DAY}
#: The end of the year 9999: a clock that says more is wrong, and no reason to fail.
_TIME_MAX: Final = 253_402_300_799
#: Days from 0000-03-01 to 1970-01-01, and in 400 years, after which the calendar repeats.
_DAYS_BEFORE: Final = 719_468
_DAYS_400: Final = 146_097


@attrs.frozen(kw_only=True)
class RetentionPolicy:
    """How much is kept of one job on one host: what any of these keeps. At least one is not 0.

    :ivar keep_last: the newest points, so many
    :ivar keep_hourly: the newest point of each of so many hours that have any; likewise
    :ivar keep_daily: of days, from midnight to midnight in UTC
    :ivar keep_weekly: of weeks, which begin on Monday
    :ivar keep_monthly: of months
    :ivar keep_yearly: of years
    :ivar keep_within: all points that are at most so many seconds older than the newest
    """

    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_within: int = 0

    def __attrs_post_init__(self) -> None:
        for name, value in self.as_map().items():
            most = SECONDS_MAX if name == "keep_within" else COUNT_MAX
            if type(value) is not int or not 0 <= value <= most:
                raise ValueError(f"{name} is a number from 0 to {most}")
        if not any(self.as_map().values()):
            raise ValueError("a retention policy keeps something")

    def __str__(self) -> str:
        """As :meth:`parse` reads it."""
        values = {_word(name): str(value) for name, value in self.as_map().items() if value}
        if self.keep_within:
            values["within"] = format_duration(self.keep_within)
        return ",".join(f"{name}={value}" for name, value in values.items())

    def as_map(self) -> dict[str, int]:
        """The fields by their names."""
        return {name: getattr(self, name) for name in attrs.fields_dict(RetentionPolicy)}

    @classmethod
    def from_map(cls, fields: Mapping[str, Any]) -> Self:
        """The other way round; fields that are missing are 0.

        :raises ProtocolViolation: not a policy, or one of a newer release
        """
        try:
            return cls(**fields)
        except (TypeError, ValueError) as error:
            raise ProtocolViolation(f"a retention policy cannot be used: {error}") from error

    @classmethod
    def parse(cls, text: str) -> Self:
        """The policy that a person wrote, such as ``daily=7,weekly=4,within=30d``.

        :raises UsageError: it is none
        """
        fields: dict[str, int] = {}
        for part in text.split(","):
            name, _, value = (word.strip() for word in part.partition("="))
            if f"keep_{name}" not in attrs.fields_dict(cls) or f"keep_{name}" in fields:
                raise UsageError(f"{text!r} is not a retention policy like daily=7,within=30d")
            if name == "within":
                fields["keep_within"] = parse_duration(value)
            elif re.fullmatch("[0-9]{1,9}", value, re.ASCII):
                fields[f"keep_{name}"] = int(value)
            else:
                raise UsageError(f"{part.strip()!r} does not say how many are kept")
        try:
            return cls(**fields)
        except ValueError as error:
            raise UsageError(f"{text!r} is not a retention policy: {error}") from None

    def covers(self, other: RetentionPolicy) -> bool:
        """Whether this keeps all that ``other`` keeps: at least as much in every field."""
        theirs = other.as_map()
        return all(value >= theirs[name] for name, value in self.as_map().items())


@attrs.frozen
class Decision:
    """What becomes of a restore point.

    :ivar arrival: its arrival number
    :ivar keep: whether it stays
    :ivar why: what keeps it: ``newest``, ``last``, ``hourly`` ... ``yearly``, ``within``, or
        ``out of order``: its time does not fit between those of its neighbours; empty: nothing
    """

    arrival: int
    keep: bool
    why: tuple[str, ...]


def union(one: RetentionPolicy, other: RetentionPolicy) -> RetentionPolicy:
    """The smallest policy that keeps all that either keeps."""
    theirs = other.as_map()
    return RetentionPolicy(
        **{name: max(value, theirs[name]) for name, value in one.as_map().items()}
    )


def decide(
    points: Sequence[tuple[int, float]], policies: Sequence[RetentionPolicy]
) -> list[Decision]:
    """Which points of one job on one host are kept, in the order of arrival.

    A point is kept when any policy keeps it; the newest always is. Where the clock was set back,
    times do not rise with arrival: the fewest points that have to be left out for the rest to be in
    order are kept, and count for no period.

    :param points: arrival number and arrival time (seconds since 1970) of each
    :param policies: those in force
    """
    ordered = sorted(points)
    if not ordered:
        return []
    why: dict[int, dict[str, None]] = {arrival: {} for arrival, _ in ordered}
    why[ordered[-1][0]]["newest"] = None
    regular = _in_order(ordered)
    for policy in policies:
        for arrival, reason in _kept(regular, policy, min(regular[-1][1], ordered[-1][1])):
            why[arrival][reason] = None
    for arrival in why.keys() - {arrival for arrival, _ in regular}:
        why[arrival]["out of order"] = None
    return [Decision(arrival, bool(reasons), tuple(reasons)) for arrival, reasons in why.items()]


def parse_duration(text: str) -> int:
    """Seconds, of a text such as ``36h``, ``7d``, ``2w``, ``1y`` or ``1y6w`` (a year is 365 days).

    :raises UsageError: it is none, or longer than 100 years
    """
    if not re.fullmatch("([0-9]{1,9}[hdwy])+", text, re.ASCII):
        raise UsageError(f"{text!r} is not a time like 36h, 7d, 2w or 1y")
    parts = re.findall("([0-9]+)([hdwy])", text, re.ASCII)
    seconds = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if seconds > SECONDS_MAX:
        raise UsageError(f"{text} is longer than 100 years")
    return seconds


def format_duration(seconds: int) -> str:
    """The text of so many seconds, rounded up to hours, as :func:`parse_duration` reads it."""
    hours = -(-seconds // _HOUR)
    days, hours = divmod(hours, 24)
    return f"{days}d" * bool(days) + f"{hours}h" * bool(hours or not days)


def _word(name: str) -> str:
    return name.removeprefix("keep_")


def _month(time: float) -> tuple[int, int]:
    """Year and month of a time, in UTC: years are counted from March, their leap days come last."""
    cycle, day = divmod(int(time // _DAY) + _DAYS_BEFORE, _DAYS_400)
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    month = (5 * (day - 365 * year - year // 4 + year // 100) + 2) // 153  # 0: March
    return 400 * cycle + year + (month >= 10), (month + 2) % 12 + 1


#: Which period a time lies in. The 1st of January 1970 was a Thursday.
_PERIODS: Final[dict[str, Callable[[float], Any]]] = {
    "hourly": lambda time: time // _HOUR,
    "daily": lambda time: time // _DAY,
    "weekly": lambda time: (time // _DAY + 3) // 7,
    "monthly": _month,
    "yearly": lambda time: _month(time)[0],
}


def _kept(
    points: Sequence[tuple[int, float]], policy: RetentionPolicy, newest: float
) -> Iterator[tuple[int, str]]:
    """Arrival numbers that a policy keeps, with what keeps them; times rise with arrival.

    :param newest: the time from which ``keep_within`` is measured
    """
    for arrival, _ in points[len(points) - min(policy.keep_last, len(points)) :]:
        yield arrival, "last"
    for name, period_of in _PERIODS.items():
        left, last = getattr(policy, f"keep_{name}"), None
        for arrival, time in reversed(points):
            if not left:
                break
            period = period_of(min(max(time, 0), _TIME_MAX))
            if period != last:
                last, left = period, left - 1
                yield arrival, name
    if policy.keep_within:
        for arrival, time in points:
            if newest - time <= policy.keep_within:
                yield arrival, "within"


def _in_order(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """As many of the points as possible such that times rise with arrival.

    A longest non-falling subsequence (patience sorting); of several, one of late arrivals: a clock
    that was wrong is more likely to have been so before it was set.
    """
    ends: list[float] = []  # the least time at which a sequence of each length can end
    holders: list[int] = []  # and the point there
    before: list[int] = []  # what stands before each point in its sequence, or -1
    for index, (_, time) in enumerate(points):
        length = bisect_right(ends, time)
        before.append(holders[length - 1] if length else -1)
        ends[length : length + 1] = [time]
        holders[length : length + 1] = [index]
    chain, index = [], holders[-1]
    while index >= 0:
        chain.append(points[index])
        index = before[index]
    return chain[::-1]
