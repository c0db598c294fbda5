"""Tests of :mod:`cloudconnect.cli.history`, and of what the provider answers."""

from __future__ import annotations

from cloudconnect.cli.history import event_line, session_line
from cloudconnect.errors import ProtocolViolation
from tests.cli.commands import CommandCase
from tests.provider.stage import StageCase, idle


class HistoryTests(StageCase):
    """With a whole provider."""

    def test_own(self) -> None:
        """A tenant gets its own sessions and events, page by page, and nobody else's."""
        tenant, other = self.connected(), self.connected("bcme")
        for one in (tenant, other, tenant):
            self.reactor.result_of(one.session(idle(one)))
        ask = tenant.manager.history
        sessions = self.reactor.result_of(_coroutine(ask("session")))
        self.assertEqual({"acme"}, {row["tenant"] for row in sessions})
        self.assertEqual(2, len(sessions))
        events = self.reactor.result_of(_coroutine(ask("event", sessions[0]["session"])))
        self.assertIn("key_b_received", [row["name"] for row in events])
        self.assertEqual({sessions[0]["session"]}, {row["session"] for row in events})
        theirs = self.provider.accounts.sessions("bcme", 0, 9)[0]["session"]
        self.assertEqual([], self.reactor.result_of(_coroutine(ask("event", theirs))))
        text = f"{session_line(sessions[0])}\n{event_line(events[0])}"
        self.assertIn(sessions[0]["key_a"], text)

    def test_refused(self) -> None:
        """There is no other history."""
        tenant = self.connected()
        self.failure_of(_coroutine(tenant.manager.history("tenant")), ProtocolViolation)


class WordTests(CommandCase):
    """What people type."""

    def test_identifier(self) -> None:
        """A session is named by at least four of its digits, before anybody is asked anything."""
        for identifier in ("abc", "xyz1", "--"):
            self.assertEqual(2, self.call("session", "show", identifier).status)


def _coroutine(made: object) -> object:
    from twisted.internet.defer import Deferred

    return Deferred.fromCoroutine(made)  # type: ignore[arg-type]
