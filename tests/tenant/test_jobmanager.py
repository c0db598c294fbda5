"""Tests of :mod:`cloudconnect.tenant.jobmanager`: against a real provider, in memory."""

from __future__ import annotations

from tests.provider.stage import StageCase, idle


class SessionTests(StageCase):
    """Sessions from Start to Finish."""

    def test_whole_story(self) -> None:
        """A session's steps come in the one order."""
        tenant = self.connected()
        session = self.reactor.result_of(tenant.session(idle(tenant)))
        self.assertEqual(
            [
                "connected",
                "certificate_checked",
                "logged_in",
                "started",
                "key_a_received",
                "tunnel_up",
                "key_b_made",
                "key_a_forgotten",
                "key_b_confirmed",
                "key_b_delivered",
                "key_b_forgotten",
                "stream_up",
            ],
            tenant.names(),
        )
        self.assertEqual({"", session.hex()}, {event.session for event in tenant.events})

    def test_backup(self) -> None:
        """A backup is published."""
        tenant = self.connected()
        result = self.reactor.result_of(tenant.back_up(self.source()))
        self.assertEqual([result.point.hex()], [row["point"] for row in self.provider.points()])
