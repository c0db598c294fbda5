"""Tests of :mod:`cloudconnect.provider.admin.needs`: what somebody has to see to."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.provider.admin.needs import NEEDS_MAX, needs
from cloudconnect.provider.alarms.expiry import DAY

NOW = 1000 * DAY
NODE = {"role": "mover", "name": "store1", "enrolled": 1.0, "leaving": False, "connected": True}
WELL: dict[str, Any] = {
    "running": True,
    "ready": {"service": "", "mover": ""},
    "nodes": [NODE],
    "certificates": [{"name": "the provider's certificate", "ends": NOW + 90 * DAY, "due": None}],
    "missed": [],
    "missed_count": 0,
    "warnings": [],
    "trouble": [],
    "alarms": [{"way": "webhook", "waiting": 0, "failing": False, "given_up": 0}],
    "storage": {"disk_bytes": 1000, "free_bytes": 500, "read_since": NOW - 20 * DAY},
    "scrub_days": 30,
}
COUNT = {"count": 3, "last": NOW, "tenants": 2}


class NeedsTests(SynchronousTestCase):
    """Each thing that can be wrong."""

    def needs(self, **changes: Any) -> list[str]:
        return needs({**WELL, **changes}, NOW)

    def test_well(self) -> None:
        """Nothing where all is well; nor of nodes that are to stop, or that never came."""
        self.assertEqual([], self.needs())
        away = {**NODE, "connected": False}
        for node in ({**away, "leaving": True}, {**away, "enrolled": None}):
            self.assertEqual([], self.needs(nodes=[node]))

    def test_each(self) -> None:
        """One sentence for each, which names it."""
        ending = {"name": "the certificate of mover store1", "ends": NOW + 2 * DAY, "due": 3}
        missed = {"tenant": "acme", "host": "web", "job": "nightly", "last": 1.0}
        full = {**WELL["storage"], "free_bytes": 10}
        late = {**WELL["storage"], "read_since": NOW - 90 * DAY}
        failing = {"way": "mail server", "waiting": 4, "failing": True, "given_up": 0}
        for changes, words in (
            ({"ready": {"mover": "there is none"}}, "mover: there is none"),
            ({"nodes": [{**NODE, "connected": False}]}, "mover store1 is away"),
            ({"certificates": [ending]}, "expires on"),
            ({"missed": [missed], "missed_count": 1}, "acme did not come: web/nightly"),
            ({"warnings": [{"name": "tampered", **COUNT}]}, "security warning tampered: 3"),
            ({"trouble": [{"name": "maintenance_failed", **COUNT}]}, "maintenance_failed: 3"),
            ({"alarms": [failing]}, "mail server; 4 wait"),
            ({"storage": full}, "nearly full"),
            ({"storage": late}, "for 90 days"),
        ):
            (found,) = self.needs(**changes)
            self.assertIn(words, found)

    def test_resting(self) -> None:
        """A provider that does not run is one thing, and not each of its nodes."""
        node = {name: NODE[name] for name in NODE if name != "connected"}
        found = self.needs(running=False, ready={}, nodes=[node], alarms=[])
        self.assertEqual(["no provider runs on this directory"], found)

    def test_many(self) -> None:
        """However much is wrong, the list has an end, which says so."""
        missed = {"tenant": "acme", "host": "web", "job": "nightly", "last": 1.0}
        found = self.needs(missed=[missed] * 500, missed_count=500)
        self.assertEqual((NEEDS_MAX, "and 401 more"), (len(found), found[-1]))
