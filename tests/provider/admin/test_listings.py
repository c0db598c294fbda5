"""Tests of :mod:`cloudconnect.provider.admin.listings`: what an admin can list, in pages."""

from __future__ import annotations

from typing import Any

from cloudconnect.errors import NotFound, UsageError
from cloudconnect.provider.admin.listings import LISTINGS
from cloudconnect.repository.store import Repository
from cloudconnect.settings import PAGE_ROWS_MAX
from tests.provider.stage import TENANT, StageCase
from tests.repository.repositories import record


class PageTests(StageCase):
    """Listings."""

    def setUp(self) -> None:
        super().setUp()
        self.acts = self.provider.administration.listings

    def all(self, what: str, limit: int, **filters: str) -> list[dict[str, Any]]:
        """All rows, page by page."""
        rows: list[dict[str, Any]] = []
        more = True
        while more:
            page, more = self.acts.page(what, filters, rows[-1]["cursor"] if rows else 0, limit)
            self.assertLessEqual(len(page), limit)
            rows += page
        return rows

    def test_tenants(self) -> None:
        """Every tenant once, by name, whatever the size of a page."""
        for name in "cabed":
            self.provider.add_tenant(name)
        for limit in (1, 2, 5, PAGE_ROWS_MAX):
            self.assertEqual(list("abcde"), [row["name"] for row in self.all("tenant", limit)])

    def test_points(self) -> None:
        """One tenant's points in pages; another's are not among them."""
        tenant = self.connected()
        self.connected("other")
        with Repository.open(self.provider.repositories / tenant.repository.hex()) as repository:
            for number in range(5):
                made = record(
                    number.to_bytes(16, "big"),
                    repository=tenant.repository,
                    host="odd" if number % 2 else "even",
                )
                encoded = made.encode()
                repository.publish(made, encoded, tenant.keys.sign(encoded), [])
        rows = self.all("point", 2, tenant=TENANT)
        self.assertEqual([f"{number:032x}" for number in range(5)], [r["point"] for r in rows])
        self.assertEqual({TENANT}, {row["tenant"] for row in rows})
        self.assertEqual(2, len(self.all("point", 2, tenant=TENANT, host="odd")))
        self.assertEqual([], self.all("point", 2, tenant="other"))

    def test_points_of_nobody(self) -> None:
        """Points are of a tenant that there is, and that has a repository."""
        self.provider.add_tenant("new")
        self.assertRaises(UsageError, self.acts.page, "point", {}, 0, 10)
        for name in ("nobody", "new"):
            self.assertRaises(NotFound, self.acts.page, "point", {"tenant": name}, 0, 10)

    def test_events_and_sessions(self) -> None:
        """Sessions and events are listed a page at a time."""
        tenant = self.connected()
        for _ in range(2):
            self.reactor.result_of(tenant.back_up(self.source()))
        self.reactor.settle()
        sessions = self.all("session", 1)
        self.assertEqual(["done"] * 2, [row["state"] for row in sessions])
        events = self.all("event", 3, session=sessions[0]["session"])
        self.assertIn("key_a_made", [row["name"] for row in events])
        self.assertEqual({sessions[0]["session"]}, {row["session"] for row in events})

    def test_bounds(self) -> None:
        """No other listing, and no page without bounds."""
        for what, limit in (("password", 10), ("tenant", 0), ("tenant", PAGE_ROWS_MAX + 1)):
            self.assertRaises(UsageError, self.acts.page, what, {}, 0, limit)
        listings = {"tenant", "credential", "point", "event", "session", "usage", "follower"}
        self.assertEqual(listings, set(LISTINGS))
