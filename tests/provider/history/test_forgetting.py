"""Tests of :mod:`cloudconnect.provider.history.forgetting`: a provider, its accounts, audit log."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed

from cloudconnect.errors import NoSpace, WarningKind
from cloudconnect.events import SecurityWarning
from cloudconnect.provider.accounts import history
from cloudconnect.provider.accounts.clock import STEP_MAX
from cloudconnect.provider.history import forgetting
from cloudconnect.provider.history.forgetting import ROUND_SECONDS, Forgetting, forgetter
from cloudconnect.provider.history.keep import Keep
from cloudconnect.provider.history.marks import DAY
from tests.provider.stage import StageCase

#: Some day.
NOW = 1793491200.0
KEEP = Keep(events_days=2, sessions_days=4, audit_days=3)


class ForgettingCase(StageCase):
    """A test with what forgets, on a clock of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.now = NOW
        self.lines: list[int] = []
        self.sizes: list[int] = []
        self.cut = 0
        self.service, self.accounts = self.provider.service, self.provider.accounts
        self.forgetting = self.made(KEEP)
        self.provider.add_tenant("acme")

    def made(self, keep: Keep) -> Forgetting:
        return Forgetting(
            self.reactor,
            self.service,
            self.accounts,
            maybeDeferred,
            self.forget_lines,
            keep,
            lambda: self.now,
        )

    def forget_lines(self, until: int, size: int) -> Deferred[int]:
        self.sizes.append(size)
        if until:
            self.lines.append(until)
        return succeed(self.cut)

    def note(self, name: str, tenant: str = "acme") -> None:
        self.reactor.result_of(self.service.reports.note(name, "", "text", tenant=tenant))

    def days(self, days: float) -> None:
        """Let days pass, as a provider that runs does."""
        for _ in range(round(days * DAY / STEP_MAX)):
            self.now += STEP_MAX
            self.round()

    def round(self) -> None:
        self.reactor.result_of(self.forgetting.round())

    def names(self) -> list[str]:
        return self.provider.names()


class AgeTests(ForgettingCase):
    """What is old."""

    def test_old(self) -> None:
        """An event goes when its days are over, and not before."""
        self.note("first")
        self.round()
        self.note("second")
        self.days(1.9)
        self.assertIn("first", self.names())
        self.days(0.2)
        self.assertNotIn("first", self.names())
        self.assertIn("second", self.names())

    def test_in_slices(self) -> None:
        """However much is old, it goes at one round, a few rows in each transaction."""
        self.patch(forgetting, "SLICE", 3)
        for _ in range(10):
            self.note("old")
        self.round()
        self.note("new")
        self.days(2.1)
        self.assertEqual(0, self.names().count("old"))

    def test_clock_jumps(self) -> None:
        """A time of day that jumps ten years ahead, again and again, forgets nothing early; nor
        does what reports lie about theirs."""
        self.note("first")
        early = SecurityWarning(
            time=0.0, kind=WarningKind.TAMPERED, tenant="acme", role="source-mover", text="said"
        )
        self.reactor.result_of(self.service.reports.warned(early))
        self.round()
        for _ in range(10):
            self.now += 3650 * DAY
            self.round()
        self.now = NOW
        self.days(1)
        self.assertIn("first", self.names())
        self.assertIn("tampered", self.names())

    def test_each_its_days(self) -> None:
        """Sessions and lines of the audit log have days of their own; 0 is for ever."""
        tenant = self.connected("other")
        self.reactor.result_of(tenant.back_up(self.source()))
        self.accounts.keep_value("audit-head", b"7:" + b"0" * 64)
        self.days(2.5)
        self.reactor.result_of(tenant.back_up(self.source()))
        self.assertEqual(([], 2), (self.lines, len(self.accounts.sessions("", 0, 9))))
        self.days(0.7)
        self.assertEqual({7}, set(self.lines))
        self.days(1)
        self.assertEqual(1, len(self.accounts.sessions("", 0, 9)))
        self.forgetting.keep = Keep(events_days=0, sessions_days=0, audit_days=0)
        self.note("stays")
        self.lines.clear()
        self.days(10)
        self.assertIn("stays", self.names())
        self.assertEqual(([], 1), (self.lines, len(self.accounts.sessions("", 0, 9))))


class ShareTests(ForgettingCase):
    """What is too much."""

    def test_flood(self) -> None:
        """A tenant that has too much loses of its flood, which is said; others lose nothing."""
        self.patch(history, "BLOCK", 10)
        self.forgetting.keep = Keep(tenant_events=20)
        self.provider.add_tenant("other")
        for tenant in ("acme", "other"):
            self.note("points_deleted", tenant)
        for number in range(40):
            self.note("session_started", "acme" if number % 4 else "other")
        self.round()
        self.assertEqual(11, len(self.provider.events(tenant="other")))
        kept = self.provider.events(tenant="acme")
        self.assertLessEqual(len(kept), 21)  # and what says so
        (said,) = [row for row in kept if row["name"] == "history_thinned"]
        self.assertEqual("event", said["fields"]["history"])
        self.assertEqual(31, len(kept) - 1 + said["fields"]["rows"])
        self.assertIn("points_deleted", [row["name"] for row in kept])

    def test_enough(self) -> None:
        """Nothing is said where nothing is too much."""
        self.note("something")
        self.round()
        self.assertNotIn("history_thinned", self.names())


class LifeTests(ForgettingCase):
    """How it goes on by itself."""

    def test_by_the_hour(self) -> None:
        """It is done at the start, and then by the hour."""
        passed: list[float] = []
        real = self.accounts.pass_time

        def pass_time(now: float) -> float:
            passed.append(real(now))
            return passed[-1]

        self.patch(self.accounts, "pass_time", pass_time)
        self.forgetting.startService()
        self.addCleanup(self.forgetting.stopService)
        self.assertEqual([0.0], passed)
        self.now += ROUND_SECONDS
        self.reactor.advance(ROUND_SECONDS)
        self.assertEqual([0.0, ROUND_SECONDS], passed)

    def test_full_disk(self) -> None:
        """Where nothing can be written it is tried again at the next round."""
        full = True
        real = self.accounts.forget_old

        def forget_old(*arguments: Any) -> int:
            if full:
                raise NoSpace("full")
            return real(*arguments)

        self.patch(self.accounts, "forget_old", forget_old)
        self.note("first")
        self.round()
        self.note("second")
        self.now += STEP_MAX
        self.forgetting.keep = Keep(events_days=0)
        self.days(2)
        self.forgetting.keep = KEEP
        self.forgetting.startService()
        self.addCleanup(self.forgetting.stopService)
        self.assertIn("first", self.names())
        full = False
        self.reactor.advance(ROUND_SECONDS)
        self.assertNotIn("first", self.names())

    def test_no_room_to_shrink(self) -> None:
        """Where the data base cannot be made smaller the audit log still is."""

        def give_back() -> int:
            raise NoSpace("no room for a copy")

        self.patch(self.accounts, "give_back", give_back)
        self.round()
        self.assertEqual(1, len(self.sizes))
        self.assertIn("no room for a copy", self.log_text())

    def test_names(self) -> None:
        """Segments that went are named in the log."""

        class Log:
            def forget(self, until: int) -> list[str]:
                return [f"up to {until}"]

            def bound(self, limit: int) -> list[str]:
                return [f"beyond {limit}"]

        log: Any = Log()
        forget = forgetter(log, lambda call, *rest: maybeDeferred(call, *rest))
        self.assertEqual(1, self.reactor.result_of(forget(5, 7)))
        self.assertIn("up to 5 of the audit log was removed", self.log_text())
        self.assertIn("beyond 7 of the audit log was removed for its size", self.log_text())
        self.assertEqual(1, self.reactor.result_of(forget(0, 7)))
        self.assertNotIn("up to 0", self.log_text())

    def test_size(self) -> None:
        """The audit log may have so many bytes, as it is set now; where it has lost lines for that
        an event says so."""
        self.round()
        self.assertNotIn("audit_log_cut", self.names())
        self.forgetting.keep = Keep(audit_gb=3)
        self.cut = 2
        self.round()
        self.assertEqual([8 << 30, 3 << 30], self.sizes)
        self.assertEqual(1, self.names().count("audit_log_cut"))
