"""Tests of :mod:`cloudconnect.provider.service.service`:
jobs that go on, and movers that come and go.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import SessionKind
from cloudconnect.commands.links import link_in_process
from cloudconnect.commands.repositories import WithdrawSession
from cloudconnect.errors import Busy, NotReachable, WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.accounts.credentials import CAPABILITIES
from cloudconnect.provider.nodes.movers import MoverPlace
from cloudconnect.provider.service.access import Login
from cloudconnect.provider.service.starting import HANDOVER_SECONDS
from cloudconnect.settings import ORPHAN_SECONDS
from tests.provider.service_parts import ServiceCase, ToldMover
from tests.provider.stage import TENANT

JOB = b"1" * 16


class OtherMover(ToldMover):
    """A mover of another process."""

    def __init__(self) -> None:
        super().__init__()
        self.withdrawn: list[bytes] = []

    @WithdrawSession.responder
    def withdraw(self, repository: bytes, session: bytes) -> dict[str, Any]:
        self.withdrawn.append(session)
        return {"count": 1}


class NodesCase(ServiceCase):
    """A test with movers of other processes, in the place of the one in this."""

    def setUp(self) -> None:
        super().setUp()
        self.service.nodes.movers.lose(self.service.nodes.mover)
        self.moved: list[tuple[bytes, bool]] = []

    def add_mover(self, name: str) -> tuple[OtherMover, BoundedAMP]:
        mover = OtherMover()
        link, _ = link_in_process(self.reactor, None, mover)
        self.service.nodes.join(link, "mover", name)
        self.service.nodes.movers.add(link, MoverPlace(f"{name}:1", "s", "h", name))
        return mover, link

    def lose(self, link: BoundedAMP) -> None:
        """A mover is killed."""
        line: Any = link.transport
        line.abortConnection()
        self.reactor.settle()
        self.service.nodes.left(link)
        self.service.endings.role_lost(link)

    def begin(
        self, tenant: str = TENANT, login: Login | None = None, **changes: Any
    ) -> Deferred[Any]:
        return Deferred.fromCoroutine(
            self.service.starts.start(
                tenant,
                self.ask(**changes),
                lambda session, role: session + role.encode(),
                "192.0.2.1",
                self.tell,
                lambda session, lost, text: self.moved.append((session, lost)),
                login=login,
            )
        )


class TakeOverTests(NodesCase):
    """A job goes on in a new session."""

    def test_alive(self) -> None:
        """A Start of the same job ends the session before it though its control channel is not
        known to be lost, and has its place among the tenant's tasks; another job's stays."""
        self.add_mover("a")
        first, other = self.start(job=JOB), self.start()
        again = self.start(job=JOB)
        self.assertEqual("interrupted", self.state(first))
        self.assertEqual(("started", "started"), (self.state(other), self.state(again)))
        self.failure_of(self.begin(), Busy)

    def test_of_another_machine(self) -> None:
        """A Start with another credential ends nothing of a job whose id that machine has learned,
        also where the session's control channel is lost for the moment."""
        other = Login(TENANT, 5, "other", frozenset(CAPABILITIES))
        mover, _ = self.add_mover("a")
        session = self.start(job=b"1" * 16)
        self.service.endings.orphan([session])
        self.start(job=b"1" * 16, login=other)
        self.assertEqual([], mover.ends)
        self.start(job=b"1" * 16)
        self.assertEqual([(session, "unreported")], mover.ends)

    def test_while_it_starts(self) -> None:
        """One that is only being started ends too, and nobody gets its keys."""
        mover, _ = self.add_mover("a")
        mover.wait = Deferred()
        first = self.begin(job=JOB)
        self.reactor.settle()
        waiting, mover.wait = mover.wait, None
        again = self.start(job=JOB)
        waiting.callback(None)
        self.failure_of(first, NotReachable)
        self.assertEqual("started", self.state(again))

    def test_what_was_seen(self) -> None:
        """What roles saw of a session whose tenant could not be told is told with the next Start
        of its job, also when the session had ended before; and with no other job's."""
        self.add_mover("a")
        session = self.seen_and_lost(hears=False)
        self.start()
        self.assertEqual([], self.told)
        self.start(job=JOB)
        self.assertEqual([session.hex()], [told.session for told in self.told])

    def test_what_it_has(self) -> None:
        """What the tenant has said that it has, while the session ran, is not told again."""
        self.add_mover("a")
        self.seen_and_lost(hears=True)
        self.start(job=JOB)
        self.assertEqual([], self.told)

    def seen_and_lost(self, hears: bool) -> bytes:
        """A session in which a role has seen a change, and that its tenant has left."""
        self.hears = hears
        session = self.start(job=JOB)
        warning = SecurityWarning(
            time=1.0, kind=WarningKind.TAMPERED, session=session.hex(), role="target-mover"
        )
        self.reactor.result_of(self.service.reports.warned(warning))
        self.service.endings.orphan([session])
        self.reactor.pass_time(ORPHAN_SECONDS + 1)
        self.told.clear()
        return session


class MoverTests(NodesCase):
    """Several movers."""

    def test_shared(self) -> None:
        """What reads goes to the mover with the fewest sessions; backups of one repository go to
        the one that takes one already, wherever there are fewer."""
        (one, _), (two, _) = self.add_mover("a"), self.add_mover("b")
        self.provider.accounts.change_tenant(TENANT, {"max_tasks": 9})
        for _ in range(2):
            self.start()
        writing, other = (one, two) if one.offers else (two, one)
        self.assertEqual((2, 0), (len(writing.offers), len(other.offers)))
        for _ in range(2):
            self.start(kind=SessionKind.RESTORE)
        self.assertEqual((2, 2), (len(writing.offers), len(other.offers)))
        self.start()
        self.assertEqual(3, len(writing.offers))

    def test_lost(self) -> None:
        """A mover that is lost: the tenants of its sessions are told that they are over, and the
        job goes on at the other one. Where the tenant says that all is well nobody can confirm
        it."""
        _, link = self.add_mover("a")
        session = self.start(job=JOB)
        two, _ = self.add_mover("b")
        self.lose(link)
        self.assertEqual([(session, True)], self.moved)
        self.assertRaises(NotReachable, self.finish, session)
        again = self.start(job=JOB)
        self.assertEqual(1, len(two.offers))
        self.assertEqual("done", self.state(session))
        self.assertEqual("started", self.state(again))

    def test_withdrawn(self) -> None:
        """What a lost mover's session has published is withdrawn by another one where the tenant
        saw that something was changed."""
        _, link = self.add_mover("a")
        session = self.start()
        two, _ = self.add_mover("b")
        self.lose(link)
        self.finish(session, "security_warning")
        self.reactor.settle()
        self.assertEqual([session], two.withdrawn)

    def test_silent(self) -> None:
        """One that does not take a session in time is lost, and the next Start goes elsewhere."""
        one, link = self.add_mover("a")
        one.wait = Deferred()
        first = self.begin()
        self.reactor.pass_time(6)
        self.failure_of(first, NotReachable)
        two, _ = self.add_mover("b")
        self.start()
        self.assertEqual((1, False), (len(two.offers), link in self.service.nodes.movers))

    def test_leaving(self) -> None:
        """A mover that is to stop gets no new sessions; its tenants are asked to move on, and one
        backup waits for the others of its repository, but not for ever."""
        one, _ = self.add_mover("a")
        session = self.start()
        two, _ = self.add_mover("b")
        self.assertEqual(1, self.service.leave("mover", "a", True))
        self.assertEqual([(session, False)], self.moved)
        self.start(kind=SessionKind.RESTORE)
        self.assertEqual(1, len(two.offers))
        self.provider.accounts.change_tenant(TENANT, {"max_tasks": 9})
        waiting = self.begin()
        self.reactor.settle()
        self.finish(session, "interrupted")
        self.reactor.result_of(waiting)
        self.assertEqual((1, 2), (len(one.offers), len(two.offers)))

    def test_does_not_leave(self) -> None:
        """A backup that cannot move on stays where it is, and others of its repository with it."""
        one, _ = self.add_mover("a")
        self.start()
        two, _ = self.add_mover("b")
        self.service.leave("mover", "a", True)
        waiting = self.begin()
        self.reactor.pass_time(HANDOVER_SECONDS + 1)
        self.reactor.result_of(waiting)
        self.assertEqual((2, 0), (len(one.offers), len(two.offers)))
        self.assertEqual(0, self.service.leave("mover", "b", True))
        self.assertEqual(2, self.service.leave("mover", "a", False))

    def test_expelled(self) -> None:
        """A node whose certificate was taken back has its line cut."""
        _, link = self.add_mover("a")
        self.service.expel("mover", "a")
        self.reactor.settle()
        self.assertIsNone(link.transport)


class BrokenTests(NodesCase):
    """A session of which nothing is left at the tenant."""

    def lost_tunnel(self, session: bytes) -> None:
        event = SessionEvent(time=1.0, name="tunnel_lost", session=session.hex(), text="")
        self.reactor.result_of(self.service.reports.happened(event, "target-mover"))
        self.reactor.pass_time(1)

    def test_over(self) -> None:
        """Where the mover has lost the tunnel and the control channel is gone too, in either order,
        it is over at once: the tenant's task is free for the next command."""
        self.add_mover("a")
        first, second = self.start(), self.start()
        self.service.endings.orphan([first])
        self.lost_tunnel(first)
        self.assertEqual("interrupted", self.state(first))
        self.lost_tunnel(second)
        self.assertEqual("started", self.state(second))
        self.service.endings.orphan([second])
        self.reactor.pass_time(1)
        self.assertEqual("interrupted", self.state(second))
