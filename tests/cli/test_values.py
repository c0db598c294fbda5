"""Tests of :mod:`cloudconnect.cli.values`."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli.values import parse_duration, parse_rate, parse_size, parse_time
from cloudconnect.errors import UsageError


class ValueTests(SynchronousTestCase):
    """What people write."""

    def refused(self, parse: Callable[[str], object], *texts: str) -> None:
        """Each is refused, repeated, and shown how it should be."""
        for text in texts:
            error = self.assertRaises(UsageError, parse, text)
            self.assertIn(repr(text), str(error))
            self.assertIn("write", str(error))

    def test_sizes(self) -> None:
        """Decimal and binary units, either case, with or without B."""
        for text, count in (
            ("0", 0),
            ("1234", 1234),
            ("1k", 1000),
            ("1kB", 1000),
            ("1 KB", 1000),
            ("50GB", 50 * 10**9),
            ("20MiB", 20 << 20),
            ("1TiB", 1 << 40),
            ("1.5M", 1_500_000),
            (" 5B ", 5),
        ):
            self.assertEqual(count, parse_size(text), text)

    def test_no_sizes(self) -> None:
        """Anything else is refused."""
        self.refused(parse_size, "", "B", "x", "5X", "-1", "-1k", "1e400", "nan", "5 GB B", "0x10")

    def test_rates(self) -> None:
        """A rate is a size a second; none is no limit; nothing a second is refused."""
        self.assertEqual(0, parse_rate(None))
        for text in ("5MB", "5MB/s", "5000kB/s"):
            self.assertEqual(5_000_000, parse_rate(text))
        self.refused(parse_rate, "0", "0/s")
        self.assertRaises(UsageError, parse_rate, "fast")

    def test_durations(self) -> None:
        """Seconds, minutes, hours, days; a plain number is seconds."""
        for text, seconds in (
            ("90", 90),
            ("90s", 90),
            ("1.5m", 90),
            ("26h", 93600),
            ("7d", 604800),
        ):
            self.assertEqual(seconds, parse_duration(text))

    def test_no_durations(self) -> None:
        """Anything else is refused."""
        self.refused(parse_duration, "", "s", "x", "5y", "-1s", "inf", "nan", "1e12")

    def test_times(self) -> None:
        """A day means its end, a moment itself; without a zone they are local."""

        def at(*parts: int) -> float:
            return datetime.datetime(*parts).timestamp()  # type: ignore[arg-type, misc]

        self.assertEqual(at(2026, 11, 23, 14, 30), parse_time("2026-11-23 14:30"))
        self.assertEqual(at(2026, 11, 23, 14, 30), parse_time("2026-11-23T14:30:00"))
        self.assertApproximates(at(2026, 11, 24), parse_time("2026-11-23"), 0.001)
        self.assertLess(parse_time("2026-11-23"), at(2026, 11, 24))
        self.assertEqual(parse_time("2026-11-23"), parse_time("20261123"))
        self.assertEqual(0.0, parse_time("1970-01-01T00:00:00+00:00"))

    def test_no_times(self) -> None:
        """Anything else is refused."""
        self.refused(parse_time, "", "yesterday", "23.11.2026", "2026-13-01", "14:30")
        self.refused(parse_time, "0001-01-01", "0001-01-01T00:00")

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=12))
    def test_anything(self, text: str) -> None:
        """No text makes any of them fail in another way."""
        parsers: list[Any] = [parse_size, parse_rate, parse_duration, parse_time]
        for parse in parsers:
            try:
                self.assertGreaterEqual(parse(text), -1e12)
            except UsageError:
                continue
