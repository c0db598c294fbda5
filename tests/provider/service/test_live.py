"""Tests of :mod:`cloudconnect.provider.service.live`: which sessions run, and who takes part."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import Role, SessionKind
from cloudconnect.errors import ContextMismatch
from cloudconnect.provider.service.live import LiveSession, LiveSessions
from cloudconnect.provider.service.planning import HERE, Part


def live(tenant: str = "acme", *links: BoundedAMP, **changes: Any) -> LiveSession:
    """A session of a tenant, in which these roles take part."""
    values: dict[str, Any] = {
        "session": os.urandom(16),
        "tenant": tenant,
        "kind": SessionKind.BACKUP,
        "job": bytes(16),
        "labels": ("host", "job"),
        "repository": b"r" * 16,
        "parts": [Part(Role.TARGET_MOVER, link, HERE) for link in links],
        "notify": lambda warning: succeed(True),
    }
    return LiveSession(**{**values, **changes})


class LiveTests(SynchronousTestCase):
    """The sessions that run."""

    def setUp(self) -> None:
        self.sessions = LiveSessions()

    def add(self, *arguments: Any, **changes: Any) -> LiveSession:
        made = live(*arguments, **changes)
        self.sessions.add(made)
        return made

    def test_known_until_removed(self) -> None:
        """A session counts from when it is added until it is removed, which may be said twice."""
        one = self.add()
        self.assertEqual(1, len(self.sessions))
        self.assertIn(one.session, self.sessions)
        self.assertIs(one, self.sessions.named(one.identifier))
        for _ in range(2):
            self.sessions.remove(one)
        self.assertEqual([], list(self.sessions))
        self.assertIsNone(self.sessions.get(one.session))
        self.assertIsNone(self.sessions.named(""))

    def test_removed_while_looking(self) -> None:
        """Sessions may end while one goes through them."""
        known = {self.add().session for _ in range(3)}
        seen = set()
        for one in self.sessions:
            seen.add(one.session)
            self.sessions.remove(one)
        self.assertEqual(known, seen)

    def test_only_ones_own(self) -> None:
        """A tenant has its own sessions and nobody else's."""
        one = self.add("acme")
        self.assertIs(one, self.sessions.of("acme", one.session))
        self.assertRaises(ContextMismatch, self.sessions.of, "other", one.session)
        self.assertRaises(ContextMismatch, self.sessions.of, "acme", bytes(16))

    def test_roles(self) -> None:
        """A role takes part in the sessions that it is a part of, and is as busy as that."""
        busy, idle = BoundedAMP(Clock()), BoundedAMP(Clock())
        one, two = self.add("acme", busy), self.add("acme", busy)
        self.assertEqual([one, two], self.sessions.at(busy))
        self.assertEqual((2, 0), (self.sessions.busy()[busy], self.sessions.busy()[idle]))
        self.assertIs(two, self.sessions.taking_part(busy, two.identifier))
        self.assertRaises(ContextMismatch, self.sessions.taking_part, idle, two.identifier)

    def test_writing(self) -> None:
        """Only backups write to a repository."""
        one = self.add()
        self.add(kind=SessionKind.RESTORE)
        self.add(repository=b"s" * 16)
        self.assertEqual([one], self.sessions.writing_to(b"r" * 16))
