"""Tests of :mod:`cloudconnect.provider.gateway.fairness`:
time is a number, connections are names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.provider.gateway.fairness import (
    BURST_GRANTS,
    GRANT_MAX,
    GRANT_MIN,
    FairShare,
    grant_of,
)

#: A connection: its group, its task and its number.
Flow = tuple[str, str, int]


class Line:
    """A line on which connections move what they are granted, and ask again after a pause.

    :param rate: of the line
    :param flows: each connection with the seconds after which it asks again
    """

    def __init__(self, rate: int, flows: dict[Flow, float], caps: dict[str, int]) -> None:
        self.share = FairShare(rate)
        self.pauses = flows
        self.now = 0.0
        self.moved: Counter[Hashable] = Counter()
        self.asks: list[tuple[float, Flow]] = [(0.0, flow) for flow in flows]
        for group, cap in caps.items():
            self.share.cap(group.encode(), cap, 0.0)

    def run(self, seconds: float) -> None:
        while self.now < seconds:
            for at, flow in sorted(self.asks):
                if at <= self.now:
                    self.share.ask(flow, flow[0].encode(), flow[1])
            self.asks = [entry for entry in self.asks if entry[0] > self.now]
            granted, more = self.share.serve(self.now)
            for flow, count in granted:
                assert isinstance(flow, tuple)
                self.moved[flow] += count
                self.asks.append((self.now + self.pauses[flow], flow))
            times = [at for at, _ in self.asks] + ([] if more is None else [more])
            self.now = max(min(times, default=seconds), self.now + 1e-9)

    def of(self, group: str, task: str = "") -> int:
        """Bytes of a group, or of one of its tasks."""
        return sum(
            count
            for flow, count in self.moved.items()
            if isinstance(flow, tuple) and flow[0] == group and task in ("", flow[1])
        )


class ChangeTests(SynchronousTestCase):
    """Another rate of the line."""

    def test_change(self) -> None:
        """From then on as much is granted as the line has now; and without a rate, without end."""
        line = Line(1_000_000, {("A", "t", 0): 0.0}, {})
        line.run(5)
        slow = line.of("A")
        line.share.change(4_000_000, line.now)
        line.run(10)
        self.assertTrue(3.8 < (line.of("A") - slow) / slow < 4.2)
        line.share.change(0, line.now)
        line.share.ask(("A", "t", 1), b"A", "t")
        granted, more = line.share.serve(line.now)
        self.assertIn(GRANT_MAX, [count for _, count in granted])
        self.assertIsNone(more)

    def test_from_none(self) -> None:
        """A line that had no limit gets one."""
        share = FairShare()
        share.change(1_000_000, 0.0)
        for _ in range(BURST_GRANTS + 1):
            share.ask("flow", b"A", "t")
            granted, more = share.serve(0.0)
        self.assertEqual([], granted)
        self.assertIsNotNone(more)


RATES = st.integers(20_000, 200_000_000)


class ShareTests(SynchronousTestCase):
    """Who gets how much."""

    def test_one_against_sixteen(self) -> None:
        """A tenant with one connection gets as much as one with sixteen."""
        flows: dict[Flow, float] = {("A", "t", n): 0.001 for n in range(16)}
        flows["B", "t", 0] = 0.001
        line = Line(10_000_000, flows, {})
        line.run(5)
        self.assertGreater(line.of("B"), 0.45 * (line.of("A") + line.of("B")))

    @settings(max_examples=40, deadline=None)
    @given(
        rate=RATES,
        many=st.integers(2, 20),
        tasks=st.integers(1, 4),
        pause=st.floats(0, 0.5),
    )
    def test_groups(self, rate: int, many: int, tasks: int, pause: float) -> None:
        """However many connections and tasks one has, and though the other asks again only after a
        pause of half a grant's time, both get the same, and the line is full."""
        pause *= grant_of(rate) / rate
        flows: dict[Flow, float] = {("A", f"t{n % tasks}", n): 0.0 for n in range(many)}
        flows["B", "t", 0] = pause
        line = Line(rate, flows, {})
        seconds = 200 * grant_of(rate) / rate
        line.run(seconds)
        total = line.of("A") + line.of("B")
        self.assertGreater(line.of("B"), 0.45 * total)
        self.assertGreater(total, 0.95 * rate * seconds)
        self.assertLessEqual(total, rate * seconds + (BURST_GRANTS + 1) * grant_of(rate))

    @settings(max_examples=40, deadline=None)
    @given(rate=RATES, counts=st.lists(st.integers(1, 5), min_size=2, max_size=4))
    def test_tasks(self, rate: int, counts: list[int]) -> None:
        """A tenant's tasks get the same, however many connections each has."""
        flows: dict[Flow, float] = {
            ("A", f"t{task}", n): 0.0 for task, count in enumerate(counts) for n in range(count)
        }
        line = Line(rate, flows, {})
        line.run(100 * grant_of(rate) / rate)
        moved = [line.of("A", f"t{task}") for task in range(len(counts))]
        self.assertLessEqual(max(moved) - min(moved), 2 * grant_of(rate))

    @settings(max_examples=40, deadline=None)
    @given(rate=RATES, cap=RATES, connections=st.integers(1, 5))
    def test_cap(self, rate: int, cap: int, connections: int) -> None:
        """A cap is never passed, and what it leaves is the others'."""
        flows: dict[Flow, float] = {("A", "t", n): 0.0 for n in range(connections)}
        flows["B", "t", 0] = 0.0
        line = Line(rate, flows, {"A": cap})
        seconds = 200 * max(grant_of(rate) / rate, grant_of(cap) / cap)
        seconds = min(seconds, 4000 * grant_of(rate) / rate)
        line.run(seconds)
        self.assertLessEqual(line.of("A"), cap * seconds + (BURST_GRANTS + 1) * grant_of(cap))
        self.assertGreater(line.of("A") + line.of("B"), 0.9 * rate * seconds)
        if cap < rate / 2 and cap * seconds > 100 * grant_of(cap):
            self.assertGreater(line.of("A"), 0.9 * cap * seconds)

    def test_cap_without_a_line(self) -> None:
        """Caps hold where the line has no rate; there nobody waits for another."""
        line = Line(0, {("A", "t", 0): 0.0, ("B", "t", 0): 0.0}, {"A": 1_000_000, "B": 100_000})
        line.run(10)
        for group, cap in (("A", 1_000_000), ("B", 100_000)):
            self.assertLess(abs(cap * 10 - line.of(group)), cap * 0.5)

    def test_away(self) -> None:
        """Who was away for long does not get all that it has missed."""
        line = Line(1_000_000, {("A", "t", 0): 0.0}, {})
        line.run(60)
        before = line.of("A")
        line.pauses["B", "t", 0] = 0.0
        line.asks.append((line.now, ("B", "t", 0)))
        line.run(61)
        self.assertGreater(line.of("A") - before, 0.4e6)

    def test_changed_cap(self) -> None:
        """A cap may change, and go."""
        line = Line(10_000_000, {("A", "t", 0): 0.0}, {"A": 1_000_000})
        line.run(10)
        self.assertLess(abs(10e6 - line.of("A")), 1e6)
        line.share.cap(b"A", 2_000_000, line.now)
        line.run(20)
        self.assertLess(abs(30e6 - line.of("A")), 1e6)
        line.share.cap(b"A", 0, line.now)
        line.asks.append((line.now, ("A", "t", 0)))
        line.run(21)
        self.assertLess(abs(40e6 - line.of("A")), 1e6)

    def test_withdrawn(self) -> None:
        """Who does not want any more is granted nothing, and nobody waits for it."""
        share = FairShare(1000)
        share.ask("one", b"A", "t")
        share.ask("one", b"A", "t")
        share.ask("two", b"A", "t")
        share.withdraw("one")
        share.withdraw("one")
        granted, more = share.serve(0)
        self.assertEqual((["two"], None), ([flow for flow, _ in granted], more))
        share.done(b"A", "t")
        share.forget(b"A")
        self.assertEqual(([], None), share.serve(0))

    def test_grants(self) -> None:
        """Grants are neither tiny nor huge."""
        self.assertEqual(
            [GRANT_MIN, 100_000, GRANT_MAX], [grant_of(r) for r in (1, 10_000_000, 10**12)]
        )
