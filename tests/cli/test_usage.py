"""Tests of :mod:`cloudconnect.cli.usage`: ``provider usage``."""

from __future__ import annotations

import csv
import io
import time

from cloudconnect.cli import usage
from cloudconnect.cli.usage import COLUMNS
from cloudconnect.config.provider import initialize
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.history.session_counts import month_of
from cloudconnect.provider.usage import keep_measured
from tests.cli.commands import CommandCase


class UsageTests(CommandCase):
    """The report, where no provider runs."""

    def setUp(self) -> None:
        super().setUp()
        directory = self.home / "provider"
        self.settings = initialize(directory, ("localhost",))
        self.words = ("--directory", str(directory))
        self.call("provider", "tenant", "add", "acme", "--quota", "1GB", *self.words)
        accounts = Accounts(self.settings.accounts_url)
        self.addCleanup(accounts.close)
        keep_measured(accounts, time.time(), {"acme": 4000, "gone": 1000})
        keep_measured(accounts, 0, {"gone": 7})

    def test_json(self) -> None:
        """A line for each tenant, also for one that is no more, and their sum last."""
        lines = self.call("provider", "usage", *self.words, "--json").lines()
        self.assertEqual(["usage", "usage", "usage_total"], [x["message_type"] for x in lines])
        self.assertEqual([4000, 1000, 5000], [x["bytes_most"] for x in lines])
        self.assertEqual(10**9, lines[0]["quota"])
        self.assertEqual(month_of(time.time()), lines[0]["month"])

    def test_csv(self) -> None:
        """With names in the first line, and the same numbers."""
        done = self.call("provider", "usage", "--csv", *self.words)
        rows = list(csv.DictReader(io.StringIO(done.out)))
        self.assertEqual(list(COLUMNS), list(rows[0]))
        self.assertEqual(["acme", "gone", "TOTAL"], [row["tenant"] for row in rows])
        self.assertEqual("5000", rows[2]["bytes_average"])

    def test_people(self) -> None:
        """A person sees how much of which quota is used, and a bar where there is none."""
        line = self.call("provider", "usage", *self.words).out.splitlines()[1].split()
        self.assertEqual(["acme", "1.0", "GB", "0%"], [line[0], *line[6:9]])
        row = dict.fromkeys(COLUMNS, 0) | {"tenant": "a"}
        for quota, counted, shown in (
            (None, 5, ["-", "-"]),
            (0, 5, ["0 B", "-"]),
            (8, 4, ["8 B", "50%"]),
        ):
            found = usage.shown(row | {"quota": quota, "bytes_counted": counted})
            self.assertEqual(shown, found[4:6])

    def test_month(self) -> None:
        """Of another month only what was kept then; what is no month is a usage error."""
        done = self.call("provider", "usage", "--month", "1970-01", *self.words)
        self.assertEqual(["tenant", "gone", "TOTAL"], [x.split()[0] for x in done.out.splitlines()])
        self.assertEqual(2, self.call("provider", "usage", "--month", "x", *self.words).status)
