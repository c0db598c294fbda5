"""Tests of :mod:`cloudconnect.provider.service.reports`: what is written down and passed on."""

from __future__ import annotations

import os
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from cloudconnect.errors import NoSpace, WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.service.earlier import EarlierWarnings, name_of
from cloudconnect.provider.service.live import LiveSession, LiveSessions
from cloudconnect.provider.service.reports import REPORTED_MAX, Reports
from cloudconnect.provider.watching import Watcher, Watchers
from cloudconnect.sessions.role import TUNNEL_LOST
from tests.provider.accounts.case import AccountsCase
from tests.provider.service.test_live import live


class Seen(Watcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def happened(self, event: SessionEvent, tenant: str, reported_by: str) -> None:
        self.told.append((event.name, tenant, reported_by))

    def warned(self, warning: SecurityWarning) -> None:
        self.told.append(warning)


class ReportsTests(AccountsCase):
    """Reports of roles, tenants and the service."""

    def setUp(self) -> None:
        super().setUp()
        self.full = False
        self.heard: list[SecurityWarning] = []
        self.sessions, self.seen, watchers = LiveSessions(), Seen(), Watchers()
        watchers.add(self.seen)
        earlier = EarlierWarnings(self.accounts, self.run_call)
        self.reports = Reports(self.accounts, self.run_call, self.sessions, earlier, watchers)

    def run_call(self, call: Any, *arguments: Any, **values: Any) -> Deferred[Any]:
        if self.full:
            return fail(NoSpace("the disk is full"))
        return maybeDeferred(call, *arguments, **values)

    def session(self, hears: bool = True) -> LiveSession:
        def notify(warning: SecurityWarning) -> Deferred[bool]:
            self.heard.append(warning)
            return succeed(hears)

        made = live(notify=notify)
        self.sessions.add(made)
        return made

    def warning(self, of: LiveSession, **changes: Any) -> SecurityWarning:
        made = SecurityWarning(
            time=1.0,
            kind=WarningKind.TAMPERED,
            session=of.identifier,
            tenant="acme",
            role="target-mover",
            text="seen",
        )
        return attrs.evolve(made, **changes)

    def kept(self, **filters: str) -> list[str]:
        return [row["name"] for row in self.accounts.events(filters, 0, 10)]

    def test_role_warns(self) -> None:
        """A role's warning is kept, logged, told to who looks on and to the session's tenant; what
        that one has is not kept for the next session."""
        of = self.session()
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        told = self.warning(of)
        self.successResultOf(self.reports.warned(told))
        self.assertEqual((["tampered"], [told], [told]), (self.kept(), self.heard, of.seen))
        self.assertEqual(([told], [told]), (self.seen.told, of.told))
        self.assertEqual([], self.accounts.untold_of("acme", name_of(of.label, of.job)))
        self.assertEqual(1, sum("security warning" in (e["log_format"] or "") for e in logged))

    def test_not_heard(self) -> None:
        """A warning that the tenant does not answer is on the disk at once."""
        of = self.session(hears=False)
        self.successResultOf(self.reports.warned(self.warning(of)))
        (kept,) = self.accounts.untold_of("acme", name_of(of.label, of.job))
        self.assertEqual((self.warning(of), []), (kept, of.told))

    def test_tenant_warns_without_end(self) -> None:
        """What a tenant reports of one session is bounded: it does not fill the provider's disk."""
        of = self.session()
        for number in range(REPORTED_MAX + 5):
            told = self.warning(of, connection=number)
            self.successResultOf(self.reports.warned_by_tenant(of, told))
        self.assertEqual(REPORTED_MAX, len(self.accounts.events({}, 0, 500)))

    def test_tenant_warns(self) -> None:
        """A tenant reports of its own session under a role of its own, whatever it writes, and is
        not told what it said."""
        of = self.session()
        lie = self.warning(of, tenant="other", session="ff" * 16, role="target-mover")
        self.successResultOf(self.reports.warned_by_tenant(of, lie))
        self.assertEqual([], self.heard)
        (row,) = self.accounts.events({}, 0, 10)
        self.assertEqual(
            ("acme", of.identifier, "source-mover"),
            (row["tenant"], row["session"], row["reported_by"]),
        )

    def test_steps(self) -> None:
        """A step is kept with the tenant whose session it is of, or whom it names."""
        of = self.session()
        step = SessionEvent(time=1.0, name="stream_up", session=of.identifier, text="")
        self.successResultOf(self.reports.happened(step, "target-mover"))
        self.successResultOf(self.reports.note("tenant_removed", "", "gone", tenant="bob"))
        self.assertEqual(
            (["stream_up"], ["tenant_removed"]), (self.kept(tenant="acme"), self.kept(tenant="bob"))
        )
        self.assertEqual(
            [("stream_up", "acme", "target-mover"), ("tenant_removed", "bob", "service")],
            self.seen.told,
        )

    def test_lost_tunnel(self) -> None:
        """A session without its channel is over at once when its tunnel is lost too, and one with
        it goes on."""
        clock, over = Clock(), list[str]()
        lost, up = self.session(), self.session()
        lost.orphaned = clock.callLater(60, over.append, "lost")
        for of in (lost, up):
            step = SessionEvent(time=1.0, name=TUNNEL_LOST, session=of.identifier, text="")
            self.reports.happened(step, "target-mover")
        clock.advance(0)
        self.assertEqual((["lost"], True), (over, up.broken))

    def test_full(self) -> None:
        """Where the disk takes nothing the tenant is told all the same, and nobody waits."""
        self.full = True
        of = self.session()
        self.successResultOf(self.reports.warned(self.warning(of)))
        self.successResultOf(self.reports.note("x", os.urandom(16).hex(), ""))
        self.assertEqual(1, len(self.heard))
