"""Tests of :mod:`cloudconnect.provider.history.session_counts`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.provider.history.session_counts import (
    SessionCounts,
    added,
    count_sessions,
    month_of,
    read_counts,
    written,
)

#: 2026-11-01, 00:00 UTC.
NOVEMBER = 1793491200.0


def session(started: float, kind: str, summary: dict[str, Any]) -> dict[str, Any]:
    return {"tenant": "acme", "started": started, "kind": kind, "summary": summary}


class CountTests(SynchronousTestCase):
    """What sessions count."""

    def test_counted(self) -> None:
        """Sessions count in the month, of UTC, in which they started; odd counts do not."""
        sessions = [
            session(NOVEMBER - 1, "backup", {"bytes_sent": 7}),
            session(NOVEMBER, "backup", {"bytes_sent": 5}),
            session(NOVEMBER, "backup", {"bytes_sent": "many"}),
            session(NOVEMBER, "restore", {"bytes_sent": -5}),
            session(NOVEMBER, "restore", {"bytes_sent": 10**4000}),
            session(NOVEMBER, "check", {}),
            session(1e15, "backup", {}),
        ]
        self.assertEqual(
            {
                "2026-10": {"acme": SessionCounts(1, 0, 0, 7)},
                "2026-11": {"acme": SessionCounts(2, 2, 1, 5)},
            },
            count_sessions(sessions),
        )
        self.assertEqual(("2026-10", "2026-11"), (month_of(NOVEMBER - 1), month_of(NOVEMBER)))

    def test_kept(self) -> None:
        """What is written is read again, and added up by tenant."""
        one = {"acme": SessionCounts(1, 2, 3, 4)}
        self.assertEqual(one, read_counts(written(one)))
        self.assertEqual({}, read_counts(None))
        self.assertEqual(
            {"acme": SessionCounts(2, 4, 6, 8), "other": SessionCounts(1)},
            added(one, {**one, "other": SessionCounts(1)}),
        )
