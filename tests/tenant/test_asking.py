"""Tests of :mod:`cloudconnect.tenant.asking`: against a real provider, in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from cloudconnect.errors import ProtocolViolation
from cloudconnect.tenant import asking
from tests.tenant.managers import ManagerCase


class AskingTests(ManagerCase):
    """What a tenant asks beside sessions."""

    def test_points(self) -> None:
        """All points are fetched, whatever the size of a page."""
        tenant = self.connected()
        for _ in range(3):
            self.reactor.result_of(tenant.back_up(self.source()))
        self.patch(asking, "PAGE_ROWS_MAX", 2)
        rows = self.reactor.result_of(tenant.manager.points())
        self.assertEqual([1, 2, 3], [row["arrival"] for row in rows])
        self.assertEqual([], self.reactor.result_of(tenant.manager.points("elsewhere")))

    def test_history(self) -> None:
        """So are sessions and events."""
        tenant = self.connected()
        for _ in range(3):
            self.reactor.result_of(tenant.back_up(self.source()))
        self.patch(asking, "PAGE_ROWS_MAX", 2)
        rows = self.reactor.result_of(tenant.manager.history("session"))
        self.assertEqual(3, len({row["session"] for row in rows}))
        events = self.reactor.result_of(tenant.manager.history("event", rows[0]["session"]))
        self.assertGreater(len(events), 3)


class LyingTests(ManagerCase):
    """A provider whose listings are none."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[dict[str, Any]] = []
        self.pages: list[Any] = []
        case = self

        class Control:
            def call(self, command: Any, **values: Any) -> Deferred[dict[str, Any]]:
                case.asked.append(values)
                page = case.pages.pop(0) if len(case.pages) > 1 else case.pages[0]
                names = ("points", "rows", "decisions", "policies")
                return succeed({"more": True, "rules": {}, **dict.fromkeys(names, page)})

        self.manager = self.tenant().manager
        self.patch(type(self.manager), "control", Control())

    def refused(self, *pages: Any) -> None:
        """None of the listings is taken."""
        manager = self.manager
        for ask in (
            manager.points,
            manager.preview_retention,
            manager.retention,
            lambda: manager.history("event"),
        ):
            self.pages = list(pages)
            self.failure_of(ask(), ProtocolViolation)

    def test_circle(self) -> None:
        """Pages must go on behind the last row."""
        for last in (0, None, "2", True):
            row = {"arrival": last, "cursor": last}
            self.pages = [[row]]
            self.failure_of(self.manager.points(), ProtocolViolation)
            self.pages = [[row]]
            self.failure_of(self.manager.history("session"), ProtocolViolation)
        self.pages = [[{"arrival": 5}], [{"arrival": 5}]]
        self.failure_of(self.manager.points(), ProtocolViolation)
        self.assertEqual(5, self.asked[-1]["after"])

    def test_no_end(self) -> None:
        """No listing goes on for ever."""
        self.patch(asking, "LISTED_ROWS_MAX", 5)
        self.refused(*([{"arrival": n, "cursor": n}] for n in range(1, 9)))
        self.assertEqual(4 * 6, len(self.asked))

    def test_no_rows(self) -> None:
        """Rows are a list of maps."""
        for wrong in (None, "text", [None], [[]], {"arrival": 1}):
            self.refused(wrong)
