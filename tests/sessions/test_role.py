"""Tests of :mod:`cloudconnect.sessions.role`: sessions at a role, from their offer to their end.

Tunnels and streams are in :mod:`tests.sessions.test_acceptance`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.protocols.amp import CommandLocator
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.lan import EndSession, OfferKeyA, ReportEvent, ReportWarning
from cloudconnect.commands.links import link_in_process
from cloudconnect.errors import NotFound, Refused, Tampered, Truncated
from cloudconnect.keys import IntegrityKey, KeyA, KeyB
from cloudconnect.sessions.machine import SessionState
from cloudconnect.sessions.package import KeyAPackage
from cloudconnect.sessions.role import FAILURES, RoleSession, TargetRole
from cloudconnect.settings import CLOSE_SECONDS, KEY_A_SECONDS, KEY_B_SECONDS
from tests.sessions.test_machine import package

A, B, FRAMES = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))
SESSION, ROUTE = package().session, package().route


class Role(TargetRole):
    """A role that does nothing.

    :ivar back: the sessions that were taken back
    :ivar unknown: a repository that it does not have
    """

    role = "target-mover"
    holds_integrity_key = True

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.back: list[RoleSession] = []
        self.unknown = b""

    def look_at(self, package: KeyAPackage) -> None:
        if package.repository == self.unknown:
            raise NotFound("not here")

    def stream_up(self, session: RoleSession, stream: Any) -> None:
        """Nothing speaks."""

    async def take_back(self, session: RoleSession) -> None:
        self.back.append(session)
        session.core.points.clear()


class Service(CommandLocator):
    """The service's end: keeps what is reported."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.warnings: list[dict[str, Any]] = []

    @ReportEvent.responder
    def report_event(self, event: Any) -> dict[str, Any]:
        self.events.append(event["name"])
        return {}

    @ReportWarning.responder
    def report_warning(self, warning: Any) -> dict[str, Any]:
        self.warnings.append(warning)
        return {}


class Worker:
    """Something that goes on until it is aborted.

    :ivar reasons: with what it was
    :ivar done: fires when it has ended
    """

    def __init__(self) -> None:
        self.reasons: list[Exception] = []
        self.done: Deferred[None] = Deferred()

    def abort(self, reason: Exception) -> None:
        self.reasons.append(reason)
        if not self.done.called:
            self.done.callback(None)


class Stream:
    """As much of a stream as a role looks at."""

    connection = 0


class RoleCase(SynchronousTestCase):
    """A test with a role and its service."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.role = Role(self.clock)
        self.service = Service()
        self.link, self.role.link = link_in_process(self.clock, self.service, self.role)

    def settle(self) -> None:
        self.clock.pump([0] * 30)

    def call(self, command: Any, **values: Any) -> Any:
        """What the role answers."""
        answer = self.link.call(command, **values)
        self.settle()
        return answer

    def offer(self, **changes: Any) -> RoleSession:
        """Offer a session."""
        offered = package(**changes)
        self.successResultOf(self.call(OfferKeyA, package=offered.as_map(), key_a=KeyA(A)))
        session = self.role.by_route(offered.route)
        assert session is not None
        return session

    def keyed(self) -> RoleSession:
        """A session with Key B."""
        session = self.offer()
        tunnel: Any = Tunnel()
        self.role.key_a_proved(session, tunnel)
        self.role.key_b_delivered(session, key_b=KeyB(B), integrity_key=IntegrityKey(FRAMES))
        return session

    def streaming(self) -> tuple[RoleSession, Worker]:
        """A session with a stream, and what runs for it."""
        session, worker, stream = self.keyed(), Worker(), Stream()
        session.running.append(worker)
        session.workers.append(worker.done)
        self.assertTrue(self.role.stream_proved(session, stream))
        return session, worker

    def end(self, outcome: str = "done") -> Any:
        return self.call(EndSession, session=SESSION, outcome=outcome)


class Tunnel:
    """A tunnel that is there.

    :ivar closed: whether it was closed
    """

    def __init__(self) -> None:
        self.transport = self
        self.closed = False

    def loseConnection(self) -> None:
        self.closed = True


class OfferTests(RoleCase):
    """What the service offers."""

    def test_offered(self) -> None:
        """A session is known by its route, and its Key A can be used."""
        session = self.offer()
        self.assertEqual(package(), session.package)
        self.assertTrue(self.role.key_a_usable(session))
        self.assertIsNone(self.role.by_route(b"x" * 16))

    def test_refused(self) -> None:
        """What is not for this role, not of a version that it speaks, or no package, is refused."""
        whole = package().as_map()
        for wrong in (
            {**whole, "role": "target-wan"},
            {**whole, "version": 2},
            {**whole, "more": 1},
            {name: value for name, value in whole.items() if name != "hops"},
            [],
            None,
        ):
            offering = self.call(OfferKeyA, package=wrong, key_a=KeyA(A))
            self.failureResultOf(offering, Refused)
        self.assertIsNone(self.role.by_route(ROUTE))

    def test_twice(self) -> None:
        """A session or a route that is there already is refused, and the first one stays."""
        first = self.offer()
        for changes in ({"session": b"t" * 16}, {"route": b"p" * 16}, {}):
            offered = package(**changes).as_map()
            self.failureResultOf(self.call(OfferKeyA, package=offered, key_a=KeyA(A)), Refused)
        self.assertIs(first, self.role.by_route(ROUTE))
        self.assertIsNone(self.role.by_route(b"p" * 16))

    def test_hook(self) -> None:
        """What the role itself cannot serve is refused by name."""
        self.role.unknown = package().repository
        offering = self.call(OfferKeyA, package=package().as_map(), key_a=KeyA(A))
        self.failureResultOf(offering, NotFound)
        self.assertIsNone(self.role.by_route(ROUTE))


class TimeTests(RoleCase):
    """How long things are kept."""

    def test_key_a(self) -> None:
        """A Key A that nobody used goes after its time, and the session with it."""
        session = self.offer()
        self.clock.advance(KEY_A_SECONDS)
        self.assertFalse(self.role.key_a_usable(session))
        self.assertIsNone(self.role.by_route(ROUTE))
        self.assertIs(SessionState.ENDED, session.core.state)
        self.assertIsNone(session.core.key_a)

    def test_key_b(self) -> None:
        """A Key B with which nobody came goes after its time, and the tunnel with it."""
        session = self.keyed()
        tunnel: Any = session.tunnel
        self.clock.advance(KEY_B_SECONDS - 1)
        self.assertIsNotNone(session.core.key_b)
        self.clock.advance(1)
        self.assertIsNone(session.core.key_b)
        self.assertTrue(tunnel.closed)

    def test_all_up(self) -> None:
        """Once everything is up Key B goes, and the session has all the time it wants."""
        session, worker = self.streaming()
        self.role.forget_key_b(session)
        self.assertIsNone(session.core.key_b)
        self.clock.advance(10 * KEY_B_SECONDS)
        self.assertEqual([], worker.reasons)

    def test_late_stream(self) -> None:
        """A stream that proves itself after the end is turned away."""
        session = self.keyed()
        self.clock.advance(KEY_B_SECONDS)
        stream: Any = Stream()
        self.assertFalse(self.role.stream_proved(session, stream))


class EndTests(RoleCase):
    """How sessions end."""

    def test_unknown(self) -> None:
        """Of a session that is not there nothing was seen."""
        self.assertEqual(
            {"warnings": [], "points": [], "failed": False}, self.successResultOf(self.end())
        )

    def test_done(self) -> None:
        """At a good end the stream has some time to end itself; its points stay."""
        session, worker = self.streaming()
        session.core.points.append(b"1" * 16)
        ending = self.end()
        self.assertNoResult(ending)
        worker.done.callback(None)
        self.settle()
        answer = self.successResultOf(ending)
        self.assertEqual(([b"1" * 16], False), (answer["points"], answer["failed"]))
        self.assertEqual(([], []), (worker.reasons, self.role.back))
        self.assertIsNone(self.role.by_route(ROUTE))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_does_not_end(self) -> None:
        """A stream that does not is aborted."""
        _, worker = self.streaming()
        ending = self.end()
        self.clock.advance(CLOSE_SECONDS)
        self.settle()
        self.assertIsInstance(worker.reasons[0], Truncated)
        self.successResultOf(ending)

    def test_failed(self) -> None:
        """Where the tenant says that it has failed, it is aborted at once and taken back."""
        for outcome in FAILURES:
            session, worker = self.streaming()
            session.core.points.append(b"1" * 16)
            answer = self.successResultOf(self.end(outcome))
            self.assertEqual(1, len(worker.reasons))
            self.assertEqual(([], [session]), (answer["points"], self.role.back))
            self.role.back.clear()

    def test_unreported(self) -> None:
        """Where nobody said anything, it is aborted, and what was published stays."""
        session, worker = self.streaming()
        session.core.points.append(b"1" * 16)
        answer = self.successResultOf(self.end("unreported"))
        self.assertEqual(([b"1" * 16], 1), (answer["points"], len(worker.reasons)))
        self.assertEqual([], self.role.back)

    def test_security_error(self) -> None:
        """A security error ends it at once, is told once, and taken back without being asked; the
        end says so, whatever the tenant says."""
        session, worker = self.streaming()
        for _ in range(2):
            self.role.failed(session, Tampered("flipped"), "a>b", 0, "192.0.2.9")
            self.settle()
        self.assertEqual([session], self.role.back[:1])
        self.assertIsNone(session.core.integrity_key)
        (warning,) = self.service.warnings
        self.assertEqual(
            ("tampered", "a>b", "192.0.2.9", "target-mover", SESSION.hex()),
            tuple(warning[name] for name in ("kind", "hop", "peer", "role", "session")),
        )
        answer = self.successResultOf(self.end("done"))
        self.assertTrue(answer["failed"])
        self.assertEqual(["tampered"], [one["kind"] for one in answer["warnings"]])
        self.assertGreater(len(worker.reasons), 0)

    def test_too_late(self) -> None:
        """What is seen of a session that has ended is nobody's."""
        session, worker = self.streaming()
        worker.done.callback(None)
        self.successResultOf(self.end())
        self.role.failed(session, Tampered("flipped"), "a>b", 0)
        self.role.tunnel_lost(session, Tampered("flipped"))
        self.settle()
        self.assertEqual([], self.service.warnings)

    def test_nobody_asks(self) -> None:
        """A session that has failed is forgotten after a while, also where nobody asks."""
        session, _ = self.streaming()
        self.role.failed(session, Tampered("flipped"), "a>b", 0)
        self.settle()
        self.clock.advance(KEY_B_SECONDS)
        self.assertFalse(self.successResultOf(self.end())["failed"])
        self.assertEqual([], self.clock.getDelayedCalls())


class TunnelTests(RoleCase):
    """The tunnel is the session's liveness line."""

    def test_proper_end(self) -> None:
        """Its proper end leaves streams some time to end themselves, then they are cut."""
        session, worker = self.streaming()
        self.role.tunnel_lost(session, None)
        self.assertEqual([], worker.reasons)
        self.clock.advance(CLOSE_SECONDS)
        self.assertIsInstance(worker.reasons[0], Truncated)
        self.assertEqual([], self.service.warnings)

    def test_without_streams(self) -> None:
        """Its proper end before any stream is the session's end."""
        session = self.keyed()
        self.role.tunnel_lost(session, None)
        self.assertIs(SessionState.ENDED, session.core.state)

    def test_cut(self) -> None:
        """When it just stops, the session ends with a warning."""
        session, worker = self.streaming()
        self.role.tunnel_lost(session, Truncated("stopped"))
        self.settle()
        self.assertIsInstance(worker.reasons[0], Truncated)
        self.assertEqual(["truncated"], [one["kind"] for one in self.service.warnings])

    def test_changed(self) -> None:
        """When it was changed, the session has failed."""
        session, _ = self.streaming()
        self.role.tunnel_lost(session, Tampered("flipped"))
        self.settle()
        self.assertEqual([session], self.role.back)
        self.assertEqual(["tampered"], [one["kind"] for one in self.service.warnings])


class StopTests(RoleCase):
    """How a role stops."""

    def test_stop(self) -> None:
        """Every session is aborted; when each has ended, all are forgotten."""
        _, worker = self.streaming()
        reason = Truncated("stopping")
        ended = self.role.end_all(reason)
        self.assertEqual([reason], worker.reasons)
        for one in ended:
            self.successResultOf(one)
        self.role.drop_all()
        self.settle()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_no_link(self) -> None:
        """Without a line to the service nothing fails; what is seen is kept for who asks."""
        session = self.offer()
        self.role.link = None
        self.role.warn(session, Tampered("flipped"), "a>b", 0)
        self.assertEqual(1, len(session.core.warnings))
