"""Tests of :mod:`cloudconnect.agent.schedule`."""

from __future__ import annotations

import datetime
import os
import time

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.agent.schedule import Schedule, delay
from cloudconnect.errors import UsageError


def moment(text: str) -> float:
    """Seconds since 1970, from local time."""
    return datetime.datetime.fromisoformat(text).timestamp()


class ScheduleTests(SynchronousTestCase):
    """When something is due."""

    def zone(self, name: str) -> None:
        """Be in another zone."""
        self.patch(os, "environ", {**os.environ, "TZ": name})
        os.putenv("TZ", name)
        time.tzset()
        self.addCleanup(time.tzset)
        self.addCleanup(os.unsetenv, "TZ")

    def test_after(self) -> None:
        """The next moment by the local clock, never the same one again."""
        nightly = Schedule("30 2 * * *")
        self.assertEqual(moment("2026-11-30T02:30"), nightly.after(moment("2026-11-29T12:00")))
        self.assertEqual(moment("2026-12-01T02:30"), nightly.after(moment("2026-11-30T02:30")))
        self.assertEqual(
            moment("2026-12-01T00:00"), Schedule("@monthly").after(moment("2026-11-02T00:00"))
        )

    def test_summer_time(self) -> None:
        """Where an hour is left out or repeated, a job of each night runs once a night."""
        self.zone("Europe/Berlin")
        nightly = Schedule("30 2 * * *")
        for day, after in (("2027-03-28", "2027-03-29"), ("2027-10-31", "2027-11-01")):
            first = nightly.after(moment(f"{day}T00:00"))
            second = nightly.after(first)
            self.assertLess(first, moment(f"{day}T04:00"))
            self.assertEqual(moment(f"{after}T02:30"), second)

    def test_refused(self) -> None:
        """What is no schedule, or never comes, is refused."""
        texts = ["", "* * * *", "* * * * * *", "60 * * * *", "0 0 31 2 *", "x y z a b", "@reboot"]
        for text in [*texts, "0 2 * * *;rm", "* * * * " + "1," * 300 + "1"]:
            self.assertRaises(UsageError, Schedule, text)

    def test_last(self) -> None:
        """The last moment that was missed, also after a long sleep."""
        since = moment("2020-01-01T00:00")
        now = moment("2026-11-30T12:00:30")
        for text, last in (
            ("* * * * *", "2026-11-30T12:00"),
            ("30 2 * * *", "2026-11-30T02:30"),
            ("@monthly", "2026-11-01T00:00"),
            ("0 0 29 2 *", "2024-02-29T00:00"),
        ):
            self.assertEqual(moment(last), Schedule(text).last_before(now, since), text)
        self.assertEqual(now, Schedule("@daily").last_before(now, now))

    def test_delay(self) -> None:
        """Always the same for one machine and job, within the jitter, and not the same for all."""
        delays = {delay(300.0, f"machine-{number}", "job") for number in range(100)}
        self.assertEqual(100, len(delays))
        self.assertTrue(all(0 <= seconds < 300 for seconds in delays))
        self.assertEqual(delay(300.0, "a", "b"), delay(300.0, "a", "b"))
        self.assertEqual(0.0, delay(0.0, "a", "b"))
