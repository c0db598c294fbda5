"""Tests of :mod:`cloudconnect.provider.admin.reach`: what an admin's acts reach, running or not."""

from __future__ import annotations

from typing import Any

from cloudconnect.errors import NotFound, Refused
from cloudconnect.provider.admin.reach import RestingProvider, RunningProvider
from cloudconnect.repository.store import Repository
from cloudconnect.transports.nodes import GATEWAY
from tests.provider.stage import TENANT, StageCase


class ReachCase(StageCase):
    """A provider with a tenant that has a repository with a restore point."""

    def setUp(self) -> None:
        super().setUp()
        self.tenant_of_it = self.connected()
        self.reactor.result_of(self.tenant_of_it.back_up(self.source()))

    def opened(self) -> Repository:
        folder = self.provider.repositories / self.tenant_of_it.repository.hex()
        return Repository.open(folder)


class RestingTests(ReachCase):
    """Where none runs: the directory."""

    def setUp(self) -> None:
        super().setUp()
        self.reach = RestingProvider(self.provider.administration)

    def result(self, waited: Any) -> Any:
        return self.reactor.result_of(waited)

    def test_repository(self) -> None:
        """Measures, collects and scrubs what lies there."""
        self.assertEqual(1, self.result(self.reach.measure(TENANT))["points"])
        self.assertEqual(0, self.result(self.reach.collect(TENANT))["points_removed"])
        self.assertEqual(0, self.result(self.reach.scrub(TENANT, 0))["found"])
        self.provider.add_tenant("new")
        self.failure_of(self.reach.measure("new"), NotFound)

    def test_rules(self) -> None:
        """Puts rules and a freeze into the repository."""
        self.provider.administration.set_tenant(TENANT, None, False, {"rules": {"bin_days": 3}})
        self.result(self.reach.rules_changed(TENANT))
        self.assertTrue(self.result(self.reach.freeze(TENANT, True)))
        with self.opened() as opened:
            self.assertEqual((3, True), (opened.rules.bin_days, opened.frozen))

    def test_nothing_runs(self) -> None:
        """There is nobody to cut, to tell or to seed, and no other place with points."""
        self.result(self.reach.cut(TENANT))
        self.assertEqual(1, len(self.provider.service.connections))
        self.failure_of(self.reach.seed(TENANT, "", "", 0), Refused)
        self.assertIsNone(self.result(self.reach.points({"tenant": TENANT}, 0, 9)))
        self.assertEqual({}, self.reach.node_fields(GATEWAY, "edge"))
        self.assertEqual(0, self.reach.node_changed(GATEWAY, "edge", "drain"))
        self.assertFalse(self.reach.reload())


class RunningTests(ReachCase):
    """Where one runs: its service."""

    def setUp(self) -> None:
        super().setUp()
        self.reach = RunningProvider(self.provider.service)

    def test_points(self) -> None:
        """Points come from the mover that has them, with their tenant and a cursor."""
        rows, more = self.reactor.result_of(self.reach.points({"tenant": TENANT}, 0, 9))
        self.assertEqual(([TENANT], False), ([row["tenant"] for row in rows], more))
        after = rows[0]["cursor"]
        self.assertEqual(
            ([], False), self.reactor.result_of(self.reach.points({"tenant": TENANT}, after, 9))
        )

    def test_cut(self) -> None:
        """Who is cut is cut at once, and what was done is kept."""
        self.reactor.result_of(self.reach.cut(TENANT))
        self.assertEqual(0, len(self.provider.service.connections))
        self.reactor.result_of(self.reach.note("tenant_disabled", "said", TENANT))
        self.assertIn("tenant_disabled", self.provider.names(tenant=TENANT))

    def test_reload(self) -> None:
        """A service that cannot read its files again says so."""
        self.assertFalse(self.reach.reload())
        done: list[int] = []
        self.provider.service.reload = lambda: done.append(1)
        self.assertTrue(self.reach.reload())
        self.assertEqual([1], done)

    def test_nodes(self) -> None:
        """A node that is not there has no sessions."""
        self.assertEqual(
            {"connected": False, "sessions": 0}, self.reach.node_fields(GATEWAY, "edge")
        )
        self.assertEqual(0, self.reach.node_changed(GATEWAY, "edge", "drain"))
