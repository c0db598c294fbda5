"""Tests of :mod:`cloudconnect.provider.control.connections`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import Busy
from cloudconnect.provider.control.connections import Connections
from cloudconnect.provider.service.access import Login
from cloudconnect.settings import TENANT_CHANNELS_MAX


class ConnectionsTests(SynchronousTestCase):
    """Control channels that are cut."""

    def setUp(self) -> None:
        self.connections = Connections()
        self.cut: list[str] = []

    def add(self, tenant: str, label: str, name: str) -> Login:
        login = Login(tenant, 1, label, frozenset())
        self.connections.add(login, lambda: self.cut.append(name))
        return login

    def test_whose(self) -> None:
        """Those of a tenant, or of one of its credentials; each once; no others."""
        self.add("acme", "a", "first")
        self.add("acme", "a", "second")
        self.add("acme", "b", "third")
        self.add("other", "a", "fourth")
        self.assertEqual(2, self.connections.cut("acme", "a"))
        self.assertEqual(["first", "second"], self.cut)
        self.assertEqual(1, self.connections.cut("acme"))
        self.assertEqual(0, self.connections.cut("acme"))
        self.assertEqual((["first", "second", "third"], 1), (self.cut, len(self.connections)))

    def test_gone(self) -> None:
        """One that has gone by itself is not cut."""
        self.connections.remove(self.add("acme", "a", "first"))
        self.assertEqual(0, self.connections.cut("acme"))

    def test_many(self) -> None:
        """A tenant has no more than so many; one that goes makes room, and others are not
        bothered."""
        logins = [self.add("acme", "a", str(n)) for n in range(TENANT_CHANNELS_MAX)]
        self.assertRaises(Busy, self.add, "acme", "b", "one more")
        self.add("other", "a", "another's")
        self.connections.remove(logins[0])
        self.add("acme", "b", "in its place")
