"""Tests of :mod:`cloudconnect.provider.accounts.history`: what is forgotten, and what never is."""

from __future__ import annotations

import json
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.accounts import history
from cloudconnect.provider.accounts.history import History, fair_level
from cloudconnect.provider.history.session_counts import SessionCounts, forgotten_counts
from tests.provider.accounts.case import VERIFIER, AccountsCase

#: 2026-11-01, 00:00 UTC.
NOVEMBER = 1793491200.0


class LevelTests(SynchronousTestCase):
    """To which size crowds are cut."""

    @given(st.lists(st.integers(1, 50), max_size=20), st.integers(0, 300))
    def test_level(self, sizes: list[int], most: int) -> None:
        """No more than the bound is left, and one more of each were too many."""

        def left(level: int) -> int:
            return sum(min(size, level) for size in sizes)

        level = fair_level(sizes, most)
        self.assertLessEqual(left(level), most)
        if left(level) < sum(sizes):
            self.assertGreater(left(level + 1), most)


class HistoryCase(AccountsCase):
    """A test with events, warnings and sessions."""

    def event(self, name: str = "started", tenant: str = "acme", count: int = 1) -> None:
        for number in range(count):
            event = SessionEvent(time=1.0, name=name, session="", text=str(number))
            self.accounts.keep_event(event, tenant, "service")

    def warning(
        self,
        kind: WarningKind = WarningKind.TAMPERED,
        tenant: str = "acme",
        session: str = "ab",
        role: str = "target-mover",
    ) -> None:
        warning = SecurityWarning(
            time=1.0, kind=kind, session=session, tenant=tenant, role=role, text="seen"
        )
        self.accounts.keep_warning(warning, role)

    def rows(self, **filters: str) -> list[dict[str, Any]]:
        return self.accounts.events(filters, 0, 10_000)

    def forget(self, what: History, until: int, most: int = 100) -> int:
        return self.accounts.forget_old(what, until, most)

    def thin(self, what: History, tenant: str | None, most: int) -> int:
        return sum(
            self.accounts.forget_crowd(what, tenant, crowd, crowd.count)
            for crowd in self.accounts.crowds(what, tenant, most)
        )


class OldTests(HistoryCase):
    """What is old goes."""

    def test_oldest(self) -> None:
        """The oldest go first, no more at a time than was said, and none behind the number."""
        self.event(count=10)
        self.assertEqual(3, self.forget(History.EVENTS, 5, 3))
        self.assertEqual([4, 5, 6, 7, 8, 9, 10], [row["seq"] for row in self.rows()])
        self.assertEqual(2, self.forget(History.EVENTS, 5, 3))
        self.assertEqual(0, self.forget(History.EVENTS, 5, 3))

    def test_newest_stays(self) -> None:
        """The newest row stays, so that what comes next does not get the number of an old one."""
        self.event(count=3)
        self.assertEqual(2, self.forget(History.EVENTS, 3))
        self.event()
        self.assertEqual([3, 4], [row["seq"] for row in self.rows()])
        self.assertEqual((4, 0), self.accounts.newest_rows())

    def test_each_for_itself(self) -> None:
        """Events go and warnings stay, or the other way round."""
        self.event()
        self.warning()
        self.event()
        self.assertEqual(1, self.forget(History.EVENTS, 2))
        self.assertEqual(["warning", "event"], [row["type"] for row in self.rows()])
        self.assertEqual(1, self.forget(History.WARNINGS, 2))

    def test_untold(self) -> None:
        """A finding in its repository stays until its tenant was told, or is there no more."""
        self.accounts.add_tenant("acme", VERIFIER)
        for tenant in ("acme", "gone"):
            self.warning(WarningKind.STORED_DATA_DAMAGED, tenant, session="")
        self.event()
        self.assertEqual(1, self.forget(History.WARNINGS, 3))
        ((number, _),) = self.accounts.untold("acme", 9)
        self.assertEqual(0, self.thin(History.WARNINGS, "acme", 0))
        self.accounts.tell("acme", number)
        self.assertEqual(1, self.forget(History.WARNINGS, 3))

    def test_sessions(self) -> None:
        """Sessions that run stay; of those that go the months keep their counts."""
        for number, (kind, started) in enumerate(
            [
                ("backup", NOVEMBER - 1),
                ("backup", NOVEMBER),
                ("restore", NOVEMBER),
                ("check", NOVEMBER),
                ("backup", NOVEMBER),
                ("backup", NOVEMBER),
            ]
        ):
            name = f"{number:032x}"
            self.start(name, kind=kind, started=started)
            if number != 4:
                self.accounts.session_ended(name, "done", {"bytes_sent": 10})
        self.assertEqual(2, self.forget(History.SESSIONS, 6, 2))
        self.assertEqual(2, self.forget(History.SESSIONS, 6, 2))
        self.assertEqual(0, self.forget(History.SESSIONS, 6, 2))
        self.assertEqual([5, 6], [row["seq"] for row in self.accounts.sessions("", 0, 9)])
        self.assertEqual(
            {"acme": SessionCounts(1, 1, 1, 30)}, forgotten_counts(self.accounts, "2026-11")
        )
        self.assertEqual(
            {"acme": SessionCounts(1, 0, 0, 10)}, forgotten_counts(self.accounts, "2026-10")
        )

    def test_summaries(self) -> None:
        """Whatever a tenant says of its sessions, and whatever the clock said, they go."""
        for number, started in enumerate((NOVEMBER, NOVEMBER, 1e15)):
            name = f"{number:032x}"
            self.start(name, started=started)
            self.accounts.session_ended(name, "done", {"bytes_sent": 10**4299 * 9})
        self.start()
        self.assertEqual(3, self.forget(History.SESSIONS, 3))
        self.assertEqual(
            {"acme": SessionCounts(2, 0, 0, 0)}, forgotten_counts(self.accounts, "2026-11")
        )

    def test_all_or_nothing(self) -> None:
        """Where a session's count cannot be kept, the session stays."""
        self.start()
        self.accounts.session_ended("ab" * 16, "done", {})
        self.start("cd" * 16)
        self.execute("INSERT INTO provider VALUES ('usage-sessions-1970-01', 'no JSON')")
        self.assertRaises(ValueError, self.forget, History.SESSIONS, 2)
        self.assertEqual(2, len(self.accounts.sessions("", 0, 9)))

    def test_untold_warnings(self) -> None:
        """Warnings of jobs go by the provider's own clock, those of an older release too."""
        warning = SecurityWarning(time=1.0, kind=WarningKind.TAMPERED, session="01")
        self.accounts.pass_time(0.0)
        self.accounts.keep_untold("acme", "aa", [warning])
        self.execute("UPDATE untold SET kept = 1793491200.0")
        self.accounts.pass_time(100.0)
        self.accounts.forget_untold(50.0)
        self.assertEqual([warning], self.accounts.untold_of("acme", "aa"))
        self.accounts.pass_time(151.0)
        self.accounts.forget_untold(50.0)
        self.assertEqual([], self.accounts.untold_of("acme", "aa"))


class CrowdTests(HistoryCase):
    """A tenant that has more than its share."""

    def setUp(self) -> None:
        super().setUp()
        for tenant in ("acme", "other"):
            self.accounts.add_tenant(tenant, VERIFIER)
        self.patch(history, "BLOCK", 20)

    def test_enough(self) -> None:
        """Nothing goes while there is room."""
        self.event(count=20)
        self.assertEqual([], self.accounts.crowds(History.EVENTS, "acme", 20))

    def test_flood(self) -> None:
        """A flood thins itself: its first and last rows stay, what was rare stays, and so does all
        that is another tenant's, or of another kind."""
        self.event("points_deleted")
        self.event("started", "other", 10)
        self.warning()
        self.event("started", count=70)
        self.event("points_deleted")
        self.event("nothing", "other")
        self.thin(History.EVENTS, "acme", 30)
        self.assertEqual(2, len(self.rows(tenant="acme", name="points_deleted")))
        self.assertEqual(11, len(self.rows(tenant="other")))
        self.assertEqual(1, len(self.rows(type="warning")))
        texts = [int(row["text"]) for row in self.rows(tenant="acme", name="started")]
        self.assertEqual((0, 69), (texts[0], texts[-1]))
        self.assertTrue(20 <= len(texts) <= 28, texts)

    def test_slices(self) -> None:
        """It can be done a few rows at a time, with the same outcome, while others go on."""
        self.event("started", count=18)
        self.event("started", "other")
        (crowd,) = self.accounts.crowds(History.EVENTS, "acme", 5)
        self.assertEqual(13, crowd.count)
        while crowd.count:
            self.event("started", "other")
            went = self.accounts.forget_crowd(History.EVENTS, "acme", crowd, 6)
            crowd = attrs.evolve(crowd, count=crowd.count - went)
        texts = [int(row["text"]) for row in self.rows(tenant="acme")]
        self.assertEqual([0, 1, 15, 16, 17], texts)

    def test_warnings(self) -> None:
        """Warnings that a tenant reports of itself push out none that the provider has seen."""
        self.warning(role="target-mover")
        for _ in range(50):
            self.warning(role="source-mover")
        self.warning(role="target-mover")
        self.event()
        self.assertLess(30, self.thin(History.WARNINGS, "acme", 20))
        reporters = [row["reported_by"] for row in self.rows(type="warning")]
        self.assertEqual(2, reporters.count("target-mover"))
        self.assertLessEqual(len(reporters), 20)

    def test_many_crowds(self) -> None:
        """Where there is little room, of each crowd the first and the last row stay."""
        for name in ("one", "two", "three"):
            self.event(name, count=5)
        self.event("last", "other")
        self.assertEqual(9, self.thin(History.EVENTS, "acme", 6))
        for name in ("one", "two", "three"):
            self.assertEqual(["0", "4"], [row["text"] for row in self.rows(name=name)])

    def test_invented_names(self) -> None:
        """A node that invents a name for each event makes no crowds so, and pushes out nothing that
        others have reported."""
        self.event("points_deleted")
        for number in range(60):
            event = SessionEvent(time=1.0, name=f"name{number}", session="", text="")
            self.accounts.keep_event(event, "acme", "target-wan")
        self.event("last", "other")
        self.thin(History.EVENTS, "acme", 20)
        kept = self.rows(tenant="acme")
        self.assertTrue(12 <= len(kept) <= 20, len(kept))
        self.assertEqual("points_deleted", kept[0]["name"])

    def test_nobody(self) -> None:
        """What strangers cause under names that they invent is one tenant's share in all, and
        pushes out nothing of those that are gone."""
        self.event("tenant_gone", "gone")
        for number in range(40):
            self.warning(WarningKind.AUTHENTICATION_FAILED, f"invented{number}", "", "service")
        self.event(count=25)
        self.assertLessEqual(20, self.thin(History.WARNINGS, None, 20))
        self.assertEqual(0, self.thin(History.EVENTS, None, 20))
        self.assertEqual(1, len(self.rows(tenant="gone")))
        self.assertEqual(25, len(self.rows(tenant="acme")))

    def test_sessions(self) -> None:
        """Sessions are thinned likewise, whatever hosts and jobs they name, and are counted."""
        self.start("ff" * 16, kind="restore", started=NOVEMBER)
        self.accounts.session_ended("ff" * 16, "done", {})
        for number in range(30):
            name = f"{number:032x}"
            self.start(name, host=f"host{number}", started=NOVEMBER)
            self.accounts.session_ended(name, "done", {"bytes_sent": 1})
        self.start("ee" * 16, tenant="other")
        gone = self.thin(History.SESSIONS, "acme", 10)
        kinds = [row["kind"] for row in self.accounts.sessions("acme", 0, 99)]
        self.assertEqual((1, 30 - gone), (kinds.count("restore"), kinds.count("backup")))
        self.assertTrue(20 < gone < 25, gone)
        self.assertEqual(
            {"acme": SessionCounts(gone, 0, 0, gone)}, forgotten_counts(self.accounts, "2026-11")
        )

    def test_index(self) -> None:
        """What a tenant has is counted by an index."""
        plan = self.execute(
            "EXPLAIN QUERY PLAN SELECT count(*) FROM events WHERE tenant = 'a' AND type = 'event'"
        )
        self.assertIn("ix_events_tenant_type", json.dumps([list(row) for row in plan]))
