"""Tests of :mod:`cloudconnect.provider.usage`: what is measured, and what the report adds up to."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import UsageError
from cloudconnect.provider.accounts.history import History
from cloudconnect.provider.history.session_counts import SessionCounts, month_of
from cloudconnect.provider.usage import (
    Month,
    UsageRecorder,
    check_month,
    keep_measured,
    read_months,
    usage_rows,
)
from tests.provider.audit.test_log import Kept
from tests.provider.stage import StageCase

DAY = 86400.0
#: 2026-11-01, 00:00 UTC.
NOVEMBER = 1793491200.0


class MonthTests(SynchronousTestCase):
    """What is kept of a month."""

    def test_days(self) -> None:
        """Of a day the most counts, and the average is over the days that were measured."""
        kept = Kept()
        for day, hour, stored in ((0, 1, 10), (0, 7, 30), (0, 13, 20), (3, 1, 50)):
            keep_measured(kept, NOVEMBER + day * DAY + hour * 3600, {"acme": stored})
        self.assertEqual(
            {"acme": Month(day=4, today=50, days=1, total=30, most=50)},
            read_months(kept, "2026-11"),
        )
        self.assertEqual(40, read_months(kept, "2026-11")["acme"].average)
        self.assertEqual({}, read_months(kept, "2026-12"))

    def test_who_went(self) -> None:
        """Who is measured no more stays in the month."""
        kept = Kept()
        keep_measured(kept, NOVEMBER, {"acme": 1, "bcme": 2})
        keep_measured(kept, NOVEMBER + DAY, {"bcme": 2})
        self.assertEqual(["acme", "bcme"], list(read_months(kept, "2026-11")))

    def test_names(self) -> None:
        """What is no month is refused."""
        for text in ("", "2026", "2026-13", "2026-1", "2026-011"):
            self.assertRaises(UsageError, check_month, text)

    def test_rows(self) -> None:
        """There is a row for who had something stored, and for who had a session."""
        rows = usage_rows({"acme": Month(1, 5, 0, 0, 5)}, {"other": SessionCounts(1, 2, 3, 4)}, "m")
        self.assertEqual(
            [("acme", 5, 0, 0), ("other", 0, 1, 4)],
            [(r["tenant"], r["bytes_most"], r["backups"], r["bytes_sent"]) for r in rows],
        )


class RecorderTests(StageCase):
    """With a whole provider."""

    def test_adds_up(self) -> None:
        """What is measured of all tenants is what lies in the packs on the disk."""
        for name in ("acme", "bcme"):
            tenant = self.connected(name)
            self.reactor.result_of(tenant.back_up(self.source()))
        kept: list[dict[str, int]] = []

        def keep(stored: dict[str, int]) -> Deferred[None]:
            kept.append(stored)
            return succeed(None)

        recorder = UsageRecorder(
            self.reactor, self.provider.service, lambda: succeed(["acme", "bcme"]), keep
        )
        recorder.startService()
        self.addCleanup(recorder.stopService)
        self.reactor.result_of(Deferred.fromCoroutine(recorder.measure()))
        packs = self.provider.repositories.glob("*/**/packs/**/*")
        on_disk = sum(path.stat().st_size for path in packs if path.is_file())
        self.assertGreater(on_disk, 6000)
        self.assertEqual([on_disk], [sum(stored.values()) for stored in kept])
        self.assertEqual(kept[0], recorder.stored)

    def test_forgotten(self) -> None:
        """A month's report is the same when some of its sessions are not kept any more."""
        tenant = self.connected()
        for _ in range(3):
            self.reactor.result_of(tenant.back_up(self.source()))
        accounts, listings = self.provider.accounts, self.provider.administration.listings
        month = month_of(accounts.sessions("", 0, 9)[0]["started"])
        before = listings.page("usage", {"month": month}, 0, 9)
        self.assertEqual(2, accounts.forget_old(History.SESSIONS, 2, 9))
        self.assertEqual(1, len(accounts.sessions("", 0, 9)))
        self.assertEqual(before, listings.page("usage", {"month": month}, 0, 9))
        self.assertEqual(3, before[0][0]["backups"])

    def test_listing(self) -> None:
        """The admin's listing has a row for each tenant of the month."""
        tenant = self.connected()
        self.reactor.result_of(tenant.back_up(self.source()))
        (session,) = self.provider.accounts.sessions("", 0, 9)
        month = month_of(session["started"])
        keep_measured(self.provider.accounts, session["started"], {"acme": 4000})
        rows, more = self.provider.administration.listings.page("usage", {"month": month}, 0, 9)
        self.assertEqual(
            [("acme", 1, 4000)], [(r["tenant"], r["backups"], r["bytes_most"]) for r in rows]
        )
        self.assertFalse(more)
        self.assertRaises(
            UsageError, self.provider.administration.listings.page, "usage", {"month": "x"}, 0, 9
        )
