"""Tests of :mod:`cloudconnect.tenant.asking`: against a real provider, in memory."""

from __future__ import annotations

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
