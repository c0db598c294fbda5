"""Tests of :mod:`cloudconnect.tenant.jobmanager`: sessions that the provider wants to move on, and
what it tells of earlier ones."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.defer import Deferred

from cloudconnect.errors import MovedOn, NotReachable, Tampered, WarningKind
from cloudconnect.events import SecurityWarning
from cloudconnect.tenant.jobmanager import new_job_id
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.login import DEFAULT_LABEL
from tests.provider.stage import TENANT, Tenant, idle
from tests.tenant.managers import ManagerCase


class MovingCase(ManagerCase):
    """A test with a session that goes on until it is told to end, or is ended."""

    def setUp(self) -> None:
        super().setUp()
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.addCleanup(self.go_on.set)

    def waiting(self, tenant: Tenant, job: bytes | None = None, **parts: Any) -> Deferred[Any]:
        """Begin a session, and come into the middle of it."""
        quick = idle(tenant)

        def dialogue(channel: FrameChannel, session: bytes) -> bytes:
            self.entered.set()
            self.go_on.wait(30)
            return quick(channel, session)

        begun = tenant.session(dialogue, job_id=job, **parts)
        while not self.entered.is_set():
            self.reactor.settle()
            self.entered.wait(0.005)
        return begun

    def ask_to_move(self, lost: bool) -> None:
        """The provider says that the one session should move on."""
        (live,) = self.provider.service.sessions
        live.move_on(live.session, lost, "a mover is about to stop")
        self.reactor.settle()
        self.go_on.set()


class MovingTests(MovingCase):
    """A role of the provider stops, or is lost."""

    def test_moves(self) -> None:
        """A session that can be had again ends with an error that says so, and the next one of the
        job, on the same control channel, with new keys, comes to its end."""
        tenant, job = self.connected(), new_job_id()
        waited = self.waiting(tenant, job, movable=lambda: True)
        self.ask_to_move(lost=False)
        error = self.failure_of(waited, MovedOn)
        self.assertIn("about to stop", str(error))
        self.reactor.result_of(tenant.session(idle(tenant), job_id=job))
        self.assertEqual(["interrupted", "done"], self.states())
        keys = {row["key_a"] for row in self.provider.accounts.sessions("", 0, 9)}
        self.assertEqual(2, len(keys))

    def test_stays(self) -> None:
        """One that cannot be had again goes on to its end."""
        tenant = self.connected()
        waited = self.waiting(tenant)
        self.ask_to_move(lost=False)
        self.reactor.result_of(waited)
        self.assertEqual(["done"], self.states())

    def test_lost(self) -> None:
        """Where a role is lost it ends in any case: nothing can come of it."""
        tenant = self.connected()
        waited = self.waiting(tenant)
        self.ask_to_move(lost=True)
        self.failure_of(waited, MovedOn)

    def test_another(self) -> None:
        """What is said of another session does not concern this one."""
        tenant = self.connected()
        waited = self.waiting(tenant)
        (live,) = self.provider.service.sessions
        live.move_on(b"?" * 16, True, "not this one")
        self.reactor.settle()
        self.go_on.set()
        self.reactor.result_of(waited)


class EarlierTests(MovingCase):
    """What the provider's roles saw of an earlier session of the job."""

    def broken(self, tenant: Tenant, job: bytes) -> str:
        """A session whose every line was cut; its name."""
        waited = self.waiting(tenant, job)
        (live,) = self.provider.service.sessions
        self.cut()
        self.go_on.set()
        self.failure_of(waited, NotReachable, *NotReachable.__subclasses__())
        return live.identifier

    def seen(self, session: str, job: bytes) -> None:
        """The mover had seen at the same time that something was changed."""
        warning = SecurityWarning(
            time=1.0,
            kind=WarningKind.TAMPERED,
            session=session,
            tenant=TENANT,
            role="target-mover",
            text="a record was changed",
        )
        self.reactor.result_of(
            self.provider.service.earlier.keep(TENANT, DEFAULT_LABEL, job, [warning])
        )

    def test_noticed(self) -> None:
        """A change that only the provider saw, and whose warning was cut off with the control
        channel, ends the next session of the job before it moves anything."""
        tenant, job = self.connected(), new_job_id()
        self.seen(self.broken(tenant, job), job)
        tenant.log_in()
        error = self.failure_of(tenant.session(idle(tenant), job_id=job), Tampered)
        self.assertIn("a record was changed", str(error))
        self.assertEqual("security_warning", self.states()[-1])
        self.assertIn("tampered", self.warning_kinds(tenant))

    def test_not_ours(self) -> None:
        """What is told of a session that this machine never had does not end anything."""
        tenant, job = self.connected(), new_job_id()
        self.broken(tenant, job)
        self.seen("ab" * 16, job)
        tenant.log_in()
        self.reactor.result_of(tenant.session(idle(tenant), job_id=job))
        self.assertEqual("done", self.states()[-1])
