"""Tests of :mod:`cloudconnect.provider.data_mover.seeding`:
from the admin to an accelerator's cache.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from cloudconnect.content.atrest import EncryptionMode
from cloudconnect.dedup.interfaces import IBlockCache
from cloudconnect.dedup.memory import MemoryCache
from cloudconnect.dedup.seeding import SHARE
from cloudconnect.errors import Aborted, CloudConnectError, NotFound, Refused, UsageError
from cloudconnect.provider.data_mover.seeding import CacheWork
from tests.provider.stage import TENANT, StageCase

LIMIT = 64 << 20


class SeedingCase(StageCase):
    """A test with a tenant whose repository can be read, and a cache in the mover's process.

    :ivar cache: the cache
    :ivar asked: whose was to be filled
    """

    def setUp(self) -> None:
        super().setUp()
        self.cache: IBlockCache = MemoryCache(LIMIT)
        self.asked: list[str] = []
        self.stopping = False
        self.provider.mover.fill = self.fill

    def fill(self, tenant: str, work: CacheWork) -> Deferred[dict[str, Any]]:
        """As an accelerator does it, but at once."""
        self.asked.append(tenant)
        return maybeDeferred(work, self.cache, LIMIT, lambda: self.stopping)

    def backed_up(self, mode: EncryptionMode = EncryptionMode.NONE) -> None:
        """A tenant with a restore point."""
        tenant = self.connected(mode=mode)
        self.reactor.result_of(tenant.back_up(self.source()))

    def seed(self, host: str = "", job: str = "", limit: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = self.reactor.result_of(
            self.provider.service.keeping.seed(TENANT, host, job, limit)
        )
        return found


class SeedTests(SeedingCase):
    """What comes of it."""

    def test_seeded(self) -> None:
        """What is stored is in the tenant's cache, is counted, and an event says so."""
        self.backed_up()
        result = self.seed()
        self.assertEqual([TENANT], self.asked)
        self.assertEqual(
            (1, 1, True, 0),
            (result["points"], result["points_total"], result["complete"], result["damaged"]),
        )
        self.assertGreater(result["bytes_added"], 3000)
        self.assertFalse(self.cache.empty())
        self.assertEqual(self.cache.size, result["cache"])
        (row,) = self.provider.events(name="cache_seeded")
        self.assertEqual((TENANT, "target-mover"), (row["tenant"], row["reported_by"]))
        self.assertEqual(0, self.seed()["bytes_added"])

    def test_limit(self) -> None:
        """As a rule it stops at a part of the cache; else at the limit that was named, which the
        cache must be able to hold."""
        self.backed_up()
        self.assertEqual(int(LIMIT * SHARE), self.seed()["limit"])
        self.assertEqual(LIMIT, self.seed(limit=LIMIT)["limit"])
        error = self.failure_of(
            self.provider.service.keeping.seed(TENANT, "", "", LIMIT + 1), UsageError, Refused
        )
        self.assertIn(str(LIMIT), str(error))

    def test_small_limit(self) -> None:
        """A limit that is reached before the end is said."""
        self.backed_up()
        self.assertFalse(self.seed(limit=1)["complete"])

    def test_host_and_job(self) -> None:
        """Only the points that were named are used."""
        self.backed_up()
        self.assertEqual(0, self.seed(host="another")["points_total"])
        self.assertEqual(0, self.seed(job="another")["points_total"])
        self.assertEqual(1, self.seed("some-host", "some-job")["points_total"])

    def test_own_key(self) -> None:
        """In mode ``provider`` the mover's own key opens what is stored."""
        self.backed_up(EncryptionMode.PROVIDER)
        result = self.seed()
        self.assertEqual((1, True, 0), (result["points"], result["complete"], result["damaged"]))
        self.assertGreater(result["bytes_added"], 3000)


class RefusalTests(SeedingCase):
    """When it cannot be."""

    def refused(self, kind: type[CloudConnectError], text: str) -> None:
        error = self.failure_of(self.provider.service.keeping.seed(TENANT, "", "", 0), kind)
        self.assertIn(text, str(error))
        self.assertTrue(self.cache.empty())
        self.assertNotIn("cache_seeded", self.provider.names())

    def test_sealed(self) -> None:
        """What only the tenant can read is not put into a cache."""
        self.backed_up(EncryptionMode.TENANT)
        self.refused(Refused, "encryption mode 'tenant'")

    def test_no_accelerator(self) -> None:
        """Without an accelerator in the process there is no cache to seed."""
        self.backed_up()
        self.provider.mover.fill = None
        self.refused(Refused, "wan_cache_gb")

    def test_no_repository(self) -> None:
        """A tenant without a repository, or none, is told by name."""
        self.refused(NotFound, TENANT)
        self.tenant().log_in()
        self.refused(NotFound, "no repository yet")

    def test_stopped(self) -> None:
        """A provider that stops does not wait for the end."""
        self.backed_up()
        self.stopping = True
        self.failure_of(self.provider.service.keeping.seed(TENANT, "", "", 0), Refused, Aborted)
        self.assertNotIn("cache_seeded", self.provider.names())
