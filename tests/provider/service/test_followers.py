"""Tests of :mod:`cloudconnect.provider.service.followers`: who knows the next pin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.options import BackupResult
from cloudconnect.commands.notice import Notice
from cloudconnect.errors import FingerprintMismatch, ProtocolViolation
from cloudconnect.keys import Password
from cloudconnect.provider.service.followers import (
    FORGOTTEN_SECONDS,
    MACHINES_MAX,
    PINS_MAX,
    follower_rows,
    keep_known,
    read_known,
)
from cloudconnect.transports.tls import PinnedTLS
from cloudconnect.transports.trust import TrustPolicy
from tests.certificates import self_signed
from tests.provider.audit.test_log import Kept
from tests.provider.stage import HOST, StageCase

PIN = f"SPKI-SHA256:{'ab' * 32}"
NOW = 1e9


def tenant(name: str, **changed: Any) -> dict[str, Any]:
    return {"name": name, "disabled": False, "repository": "ab" * 16, **changed}


class RowTests(SynchronousTestCase):
    """Who is waited for."""

    def test_rows(self) -> None:
        """Each machine of late; a tenant without one, but none that is disabled or made nothing."""
        known = {"acme": {"a": [PIN], "b": []}}
        sessions = [
            {"tenant": "acme", "host": "c", "started": NOW - 5},
            {"tenant": "acme", "host": "long-gone", "started": NOW - FORGOTTEN_SECONDS - 5},
        ]
        tenants = [tenant("acme"), tenant("bcme"), tenant("off", disabled=True)]
        tenants.append(tenant("new", repository=None))
        rows = follower_rows(known, tenants, sessions, [PIN], NOW)
        self.assertEqual(
            [("acme", "a", True), ("acme", "b", False), ("acme", "c", False), ("bcme", "", False)],
            [(row["tenant"], row["machine"], row["knows"]) for row in rows],
        )

    def test_bounds(self) -> None:
        """Only so many machines, and so many pins of one, are remembered: the newest."""
        kept = Kept()
        for number in range(MACHINES_MAX + 5):
            self.assertTrue(keep_known(kept, "acme", f"m{number}", [PIN]))
        machines = read_known(kept)["acme"]
        self.assertEqual(MACHINES_MAX, len(machines))
        self.assertIn(f"m{MACHINES_MAX + 4}", machines)
        for number in range(PINS_MAX + 5):
            keep_known(kept, "acme", "m", [f"pin {number}"])
        self.assertEqual(PINS_MAX, len(read_known(kept)["acme"]["m"]))

    def test_news(self) -> None:
        """What is known already is not written again."""
        kept = Kept()
        keep_known(kept, "acme", "m", [PIN])
        self.assertFalse(keep_known(kept, "acme", "m", [PIN]))


class StageTests(StageCase):
    """With a whole provider and a tenant."""

    def test_told(self) -> None:
        """A tenant hears of the next pin at its log-in; its answer is kept, and only ours."""
        tenant = self.connected()
        self.provider.service.tenants.notice = Notice(pins=(PIN,), address="new.example.com:6180")
        account = tenant.log_in()
        self.assertEqual(self.provider.service.tenants.notice, account.notice)
        listing = ("follower", {"pin": PIN}, 0, 9)
        before, _ = self.provider.administration.listings.page(*listing)
        self.assertEqual([("acme", False)], [(row["tenant"], row["knows"]) for row in before])
        other = f"SPKI-SHA256:{'cd' * 32}"
        self.reactor.result_of(tenant.manager.notice_taken("machine", [PIN, other]))
        after, _ = self.provider.administration.listings.page(*listing)
        self.assertEqual([("machine", True)], [(row["machine"], row["knows"]) for row in after])
        self.assertEqual({"acme": {"machine": [PIN]}}, read_known(self.provider.accounts))
        self.assertEqual(1, len(self.provider.events(name="notice_taken")))

    def test_rotation(self) -> None:
        """The key changes while a backup runs: it goes on and succeeds, and who knows the next pin
        logs in again; who does not is told, and sends no credential."""
        issued = self_signed((HOST,))
        recipe = PinnedTLS(identity=issued.write(self.directory / "next-tls"))
        tenant, other = self.connected(), self.connected("bcme")

        def around(run: Callable[[], BackupResult]) -> BackupResult:
            self.provider.control.reload(recipe)
            return run()

        result = self.reactor.result_of(tenant.back_up(self.source(), around))
        self.assertEqual([result.point.hex()], [row["point"] for row in self.provider.points()])
        pins = (self.provider.issued.spki, issued.spki)
        tenant.manager._trust = TrustPolicy(HOST, fingerprints=pins)
        tenant.log_in()
        self.assertEqual(issued.spki, tenant.manager.presented)
        self.failure_of(
            other.manager.log_in("bcme", Password(other.token.reveal())), FingerprintMismatch
        )

    def test_nothing(self) -> None:
        """Where nothing is announced nothing is told, nor taken."""
        tenant = self.connected()
        self.assertFalse(tenant.log_in().notice)
        self.reactor.result_of(tenant.manager.notice_taken("machine", [PIN]))
        self.assertEqual({}, read_known(self.provider.accounts))

    def test_labels(self) -> None:
        """A machine's label is one, or it is refused."""
        tenant = self.connected()
        for label in ("", "x" * 1000, "a\nb"):
            self.failure_of(tenant.manager.notice_taken(label, [PIN]), ProtocolViolation)

    def test_end(self) -> None:
        """A tenant sees when the provider's certificate will end."""
        tenant = self.connected()
        shown = self.provider.issued.certificate.not_valid_after_utc.timestamp()
        self.assertEqual(shown, tenant.manager.certificate_ends)
