"""Tests of :mod:`cloudconnect.provider.admin.health`: what is gathered, at a provider that runs."""

from __future__ import annotations

import json
import time
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.admin import ShowStatus
from cloudconnect.errors import WarningKind
from cloudconnect.events import SecurityWarning
from cloudconnect.provider.admin.health import ROWS_MAX, certificate_rows, look_at_accounts
from cloudconnect.provider.admin.needs import needs
from cloudconnect.provider.alarms.expected import told_name
from cloudconnect.provider.alarms.expiry import Ending
from tests.provider.stage import StageCase
from tests.provider.test_assembly import AssemblyCase


class RunningTests(AssemblyCase):
    """Through the admin socket."""

    @inlineCallbacks
    def test_status(self) -> Any:
        """Roles, ports, certificates, sessions, tenants, what is stored and what went wrong; a
        provider at which all is well needs nothing."""
        provider = self.made()
        port = yield Deferred.fromCoroutine(provider.listen())
        yield Deferred.fromCoroutine(self.whole_session(port.getHost().port))
        provider.health.endings = lambda: [Ending("it", time.time() + 1e8)]
        admin = yield Deferred.fromCoroutine(self.admin())
        status = (yield admin.call(ShowStatus, seconds=3600))["status"]
        self.assertEqual([], needs(status, time.time()))
        self.assertEqual(["service", "gateway", "mover", "wan"], status["roles"])
        where = {row["name"]: row["where"] for row in status["listening"]}
        self.assertEqual(f"127.0.0.1:{port.getHost().port}", where["gateway"])
        self.assertEqual(str(self.settings.admin_socket), where["admin socket"])
        self.assertEqual(["it"], [row["name"] for row in status["certificates"]])
        self.assertEqual((1, 1), (status["tenants"]["all"], status["storage"]["measured"]))
        self.assertGreater(status["storage"]["free_bytes"], 0)
        self.assertEqual(({}, 0), (status["sessions"], status["connections"]))
        admin.transport.loseConnection()


class AccountTests(StageCase):
    """What the accounts data base says."""

    def look(self, since: float = 0.0) -> dict[str, Any]:
        return look_at_accounts(self.provider.accounts, since)

    def warn(self, kind: WarningKind, moment: float, tenant: str = "acme") -> None:
        warning = SecurityWarning(time=moment, kind=kind, tenant=tenant, role="target-mover")
        self.provider.accounts.keep_warning(warning, warning.role)

    def test_warnings(self) -> None:
        """They are counted by kind since a moment; lines that broke and mistyped passwords are
        none."""
        self.warn(WarningKind.TAMPERED, 5.0)
        for tenant in ("acme", "acme", "other"):
            self.warn(WarningKind.TAMPERED, 20.0, tenant)
        self.warn(WarningKind.TRUNCATED, 20.0)
        self.warn(WarningKind.AUTHENTICATION_FAILED, 20.0)
        row = {"name": "tampered", "count": 3, "last": 20.0, "tenants": 2}
        self.assertEqual([row], self.look(10.0)["warnings"])

    def test_missed(self) -> None:
        """Backups that did not come are those that were told; a list has an end, and a count."""
        names = [json.dumps(["acme", "web", f"job-{number:03}"]) for number in range(ROWS_MAX + 9)]
        told = json.dumps(dict.fromkeys(names, 7.0)).encode()
        self.provider.accounts.keep_value(told_name(), told)
        found = self.look()
        self.assertEqual((ROWS_MAX, ROWS_MAX + 9), (len(found["missed"]), found["missed_count"]))
        first = {"tenant": "acme", "host": "web", "job": "job-000", "last": 7.0}
        self.assertEqual(first, found["missed"][0])

    def test_nodes(self) -> None:
        """Nodes that were removed are gone."""
        accounts = self.provider.accounts
        for name in ("one", "two"):
            accounts.note_node("mover", name, "SPKI-SHA256:" + "0" * 64, 5.0)
        accounts.revoke_node("mover", "one")
        found = self.look()
        self.assertEqual((["two"], 1), ([r["name"] for r in found["nodes"]], found["node_count"]))


class CertificateTests(SynchronousTestCase):
    """When certificates end."""

    def test_order(self) -> None:
        """The first to end first, and whether that was reached by which it is told."""
        rows = certificate_rows([Ending("far", 1e9), Ending("near", 86400.0)], 0.0)
        self.assertEqual([("near", 3), ("far", None)], [(r["name"], r["due"]) for r in rows])
