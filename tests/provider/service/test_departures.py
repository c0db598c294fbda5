"""Tests of :mod:`cloudconnect.provider.service.departures`: with a real mover and repository."""

from __future__ import annotations

import time

from twisted.internet.defer import maybeDeferred

from cloudconnect.content.atrest import EncryptionMode
from cloudconnect.errors import NotFound
from cloudconnect.provider.service.departures import FIRST_SECONDS, ROUND_SECONDS, Departures
from tests.provider.stage import TENANT, StageCase


class DepartureTests(StageCase):
    """Removed tenants that go, or are held."""

    def setUp(self) -> None:
        super().setUp()
        self.departures = Departures(
            self.reactor, self.provider.service, self.provider.accounts, maybeDeferred
        )
        self.departures.startService()
        self.addCleanup(self.departures.stopService)
        self.acme, self.other = self.connected(), self.connected("other")
        self.point = self.reactor.result_of(self.acme.back_up(self.source())).point
        self.folder = self.provider.mover.acts.folder(self.acme.repository)

    def remove(self, days: int = 0) -> None:
        self.provider.administration.tenants.removed_days = days
        self.provider.administration.tenants.switch(TENANT, "removed")
        self.reactor.result_of(self.provider.service.cut(TENANT))

    def round(self) -> None:
        self.reactor.result_of(self.departures.round())

    def test_gone(self) -> None:
        """When its time is over all that it stored goes, then it; nobody else, and it is said."""
        self.remove()
        self.round()
        self.assertFalse(self.folder.exists())
        self.assertRaises(NotFound, self.provider.accounts.tenant, TENANT)
        self.assertIn("tenant_gone", self.provider.names(tenant=TENANT))
        self.assertEqual("other", self.provider.accounts.tenant("other").name)
        self.assertTrue(self.provider.mover.acts.folder(self.other.repository).is_dir())
        self.provider.add_tenant(TENANT)  # the name is free

    def test_not_before(self) -> None:
        """Before that nothing goes, and it can come back with everything."""
        self.remove(30)
        self.round()
        self.assertTrue(self.folder.is_dir())
        self.provider.administration.tenants.switch(TENANT, "enabled")
        self.reactor.result_of(self.acme.manager.close())
        self.acme.manager = self.acme.make_manager()
        self.acme.log_in()
        self.reactor.result_of(self.acme.restore(self.point, self.mktemp()))

    def test_by_the_hour(self) -> None:
        """It happens by itself, soon after the start and then by the hour."""
        self.reactor.result_of(self.provider.mover.maintenance.stopService())  # in its way
        self.remove()
        self.reactor.advance(FIRST_SECONDS - 1)
        self.assertIsNone(self.departures._round)
        self.reactor.advance(1)
        assert self.departures._round is not None
        self.reactor.result_of(self.departures.stopService())
        self.assertFalse(self.folder.exists())

    def test_locked(self) -> None:
        """A locked point holds all of it; that is told once; it can still come back."""
        until = int(time.time()) + 3600
        self.reactor.result_of(self.acme.manager.lock_points([self.point], until))
        self.remove()
        for _ in range(2):
            self.round()
        self.assertTrue(self.folder.is_dir())
        (row,) = self.provider.events(name="tenant_held")
        self.assertIn("locked", row["text"])
        self.assertTrue(self.provider.accounts.enable(TENANT))

    def test_frozen(self) -> None:
        """So does a freeze."""
        self.reactor.result_of(self.provider.service.keeping.freeze(TENANT, True))
        self.remove()
        self.round()
        self.assertTrue(self.folder.is_dir())
        self.assertIn("tenant_held", self.provider.names(tenant=TENANT))

    def test_without_a_repository(self) -> None:
        """A tenant that never made one just goes."""
        self.provider.add_tenant("empty")
        self.provider.administration.tenants.removed_days = 0
        self.provider.administration.tenants.switch("empty", "removed")
        self.round()
        self.assertRaises(NotFound, self.provider.accounts.tenant, "empty")

    def test_key(self) -> None:
        """The provider's own key of a repository goes with it."""
        sealed = self.connected("sealed", mode=EncryptionMode.PROVIDER)
        key = self.provider.mover._keys._path(sealed.repository)
        self.assertTrue(key.exists())
        self.provider.administration.tenants.removed_days = 0
        self.provider.administration.tenants.switch("sealed", "removed")
        self.reactor.result_of(self.provider.service.cut("sealed"))
        self.round()
        self.assertFalse(key.exists())

    def test_rounds(self) -> None:
        """A round begins each hour, whatever the last one came to."""
        self.reactor.advance(FIRST_SECONDS)
        self.reactor.settle()
        self.assertIsNone(self.departures._round)
        self.remove()
        self.reactor.advance(ROUND_SECONDS)
        self.assertIsNotNone(self.departures._round)
        self.reactor.result_of(self.departures._round)
