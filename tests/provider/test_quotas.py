"""Tests of quotas through all roles: real movers and threads, connections in memory."""

from __future__ import annotations

import copy
from typing import Any

import sqlalchemy as sa
from twisted.internet.defer import DeferredList
from twisted.python.failure import Failure

from cloudconnect.commands.control import ShowAgreement
from cloudconnect.errors import QuotaUsed
from cloudconnect.repository.store import Repository
from cloudconnect.repository.tables import packs_table
from tests.provider.stage import TENANT, StageCase, Tenant

#: Jobs of one tenant that race.
JOBS = 20


class QuotaCase(StageCase):
    """A test that looks into a tenant's repository."""

    def repository(self, tenant: Tenant) -> Repository:
        folder = self.provider.mover.acts.folder(tenant.repository)
        opened = Repository.open(folder, lease=False)
        self.addCleanup(opened.close)
        return opened

    def counted(self, tenant: Tenant) -> int:
        return self.repository(tenant).statistics()["bytes_counted"]

    def machine(self, tenant: Tenant) -> Tenant:
        """Another machine of the tenant, logged in."""
        made = copy.copy(tenant)
        made.manager = made.make_manager()
        self.addCleanup(made.close)
        made.log_in()
        return made

    def settle(self) -> None:
        """Let the mover do what the end of a session makes it do."""
        maintenance = self.provider.mover.maintenance
        while maintenance._waiting or maintenance._running:
            self.reactor.advance(0)
            for running in list(maintenance._running):
                self.reactor.result_of(running)


class HardQuotaTests(QuotaCase):
    """What is refused."""

    def test_twenty(self) -> None:
        """Twenty jobs of one tenant race for the last bytes: the quota is never passed by a byte,
        who is refused hears so and leaves nothing, and every point restores."""
        sample = self.connected("sample")
        before = self.counted(sample)
        self.reactor.result_of(sample.back_up(self.source()))
        size = self.counted(sample) - before
        quota = 5 * size + size // 2
        acme = self.connected(quota=quota, max_tasks=JOBS)
        jobs = [self.machine(acme).back_up(self.source()) for _ in range(JOBS)]
        results: list[tuple[bool, Any]] = self.reactor.result_of(
            DeferredList(jobs, consumeErrors=True)
        )
        points = [result.point for done, result in results if done]
        refused: list[Failure] = [result for done, result in results if not done]
        self.assertEqual({QuotaUsed}, {failure.type for failure in refused})
        self.assertLessEqual(self.counted(acme), quota)
        self.reactor.advance(0)
        self.settle()
        repository = self.repository(acme)
        self.assertFalse(repository.has_released)
        self.assertEqual(sorted(points), sorted(row.point for row in repository.points()))
        with repository.catalogue.reading() as connection:
            jobs_left = set(connection.execute(sa.select(packs_table.c.job)).scalars())
        self.assertEqual({row.job_id for row in repository.points()}, jobs_left)
        self.assertLessEqual(1, len(points))
        self.assertLessEqual(len(points), 5)
        for point in points:
            restored = self.reactor.result_of(acme.restore(point, self.mktemp()))
            self.assertEqual((1, 0), (restored.files, restored.damaged.count))
        self.assertEqual([], self.provider.events(type="warning"))

    def test_alone(self) -> None:
        """A backup that does not fit leaves no pack, no point, no reservation."""
        acme = self.connected(quota=2000)
        before = self.counted(acme)
        error = self.failure_of(acme.back_up(self.source()), QuotaUsed)
        self.assertIn("quota of 2.0 kB", str(error))
        self.reactor.advance(0)
        self.settle()
        repository = self.repository(acme)
        self.assertEqual(before, self.counted(acme))
        self.assertEqual((0, []), (repository.statistics()["packs"], repository.points()))
        self.provider.accounts.change_tenant(TENANT, {"quota": None})
        self.reactor.result_of(acme.back_up(self.source()))


class SoftQuotaTests(QuotaCase):
    """What is only said."""

    def test_told(self) -> None:
        """Each backup over it tells the tenant; the provider is told once, until it was not so."""
        acme = self.connected(soft_quota=6000)
        noted = []
        for _ in range(4):
            self.reactor.result_of(acme.back_up(self.source()))
            noted.append(len(acme.manager.notes))
        self.assertEqual([0, 1, 1, 1], noted)
        self.assertIn("more than the 6.0 kB agreed", acme.manager.notes[0])
        self.assertEqual(1, self.provider.names(tenant=TENANT).count("soft_quota_passed"))

    def test_asked(self) -> None:
        """A tenant may ask what is agreed, and how much of it is used, also before it has stored
        anything."""
        acme = self.connected(quota=9000, soft_quota=6000)
        before = self.reactor.result_of(acme.manager.agreement())
        self.assertEqual((9000, 6000, 4), (before.quota, before.soft_quota, before.max_tasks))
        self.provider.accounts.change_tenant(TENANT, {"quota": None, "lease_end": "2099-12-31"})
        self.reactor.result_of(acme.back_up(self.source()))
        after = self.reactor.result_of(acme.manager.agreement())
        self.assertGreater(after.bytes_counted, before.bytes_counted)
        self.assertEqual((None, "2099-12-31"), (after.quota, str(after.lease_end)))

    def test_older(self) -> None:
        """A provider that does not know the question is no error, and answers others after it."""
        acme = self.connected()
        self.patch(ShowAgreement, "commandName", b"OfTheNextRelease")
        self.assertIsNone(self.reactor.result_of(acme.manager.agreement()))
        self.assertEqual([], self.reactor.result_of(acme.manager.points()))

    def test_none(self) -> None:
        """Without one, nothing is said."""
        acme = self.connected()
        self.reactor.result_of(acme.back_up(self.source()))
        self.assertEqual([], acme.manager.notes)
