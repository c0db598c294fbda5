"""Tests of :mod:`cloudconnect.tenant.retrying`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.control import SessionKind
from cloudconnect.errors import (
    Aborted,
    Busy,
    Cancelled,
    CloudConnectError,
    ExitCode,
    LoginRefused,
    NotReachable,
    Refused,
    Tampered,
    Truncated,
)
from cloudconnect.keys import Password
from cloudconnect.settings import ORPHAN_SECONDS
from cloudconnect.tenant.retrying import (
    FAILURES_MAX,
    FARTHER_BYTES,
    PAUSE_LONGEST,
    Interruption,
    Journey,
    Retrying,
)
from tests.provider.stage import LABELS, Tenant, idle
from tests.tenant.managers import ManagerCase

DONE = "done"


@attrs.frozen
class _Channel:
    """As much of a channel as is counted."""

    bytes_sent: int = 0
    bytes_received: int = 0


@attrs.frozen
class _Ends:
    """How one session goes.

    :ivar error: what it ends with; None: it is done
    :ivar done: bytes of content that it comes to; None: there is no dialogue
    """

    error: CloudConnectError | None = None
    done: int | None = 0


class RetryingCase(SynchronousTestCase):
    """A test with sessions that end as it says."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[Interruption] = []
        self.journey = Journey()
        self.connected = 0
        self.stopped = False
        self.refusing: CloudConnectError | None = None

    def retrying(self, limit: float = 300.0, chance: float = 0.0) -> Retrying:
        return Retrying(self.clock, limit, self.told.append, lambda: self.stopped, lambda: chance)

    async def connect(self) -> None:
        self.connected += 1
        if self.refusing is not None:
            raise self.refusing

    def begin(
        self, ends: list[_Ends], unrepeatable: Callable[[], str] = lambda: "", **options: Any
    ) -> Deferred[str]:
        """Run a job whose sessions end like this; the last one again and again."""
        waiting = list(ends)

        async def session() -> str:
            end = waiting.pop(0) if len(waiting) > 1 else waiting[0]

            def dialogue(channel: Any, session: bytes) -> None:
                assert end.done is not None
                self.journey.came_to(end.done)
                if end.error is not None:
                    raise end.error

            if end.done is not None:
                channel: Any = _Channel(100, 10)
                self.journey.over(dialogue)(channel, bytes(16))
            if end.error is not None:
                raise end.error
            return DONE

        self.runs = self.retrying(**options)
        return Deferred.fromCoroutine(
            self.runs.run(self.journey, session, self.connect, unrepeatable)
        )

    def pauses(self) -> list[float]:
        return [told.seconds for told in self.told]

    def pass_pauses(self, job: Deferred[Any]) -> None:
        """Let each pause go by, until the job has come to something."""
        while not job.called:
            before = len(self.told)
            self.clock.advance(self.told[-1].seconds)
            self.assertTrue(job.called or len(self.told) > before)


class GoingOnTests(RetryingCase):
    """What is tried again, and when."""

    def test_done(self) -> None:
        """A job that meets nothing is one session, and nobody is told anything."""
        self.assertEqual(DONE, self.successResultOf(self.begin([_Ends()])))
        self.assertEqual(([], 0, 1), (self.told, self.connected, self.journey.sessions))

    def test_again(self) -> None:
        """Behind a broken line, and a peer that gave up, it goes on after a pause, on a control
        channel that was looked at; what went over the line is counted over all sessions."""
        job = self.begin([_Ends(Truncated("cut")), _Ends(Aborted("stopping")), _Ends()])
        self.assertEqual([1.0], self.pauses())
        self.assertEqual("cut", str(self.told[0].error))
        self.clock.advance(0.9)
        self.assertEqual(1, self.journey.sessions)
        self.clock.advance(0.1)
        self.assertNoResult(job)
        self.clock.advance(2.0)
        self.assertEqual(DONE, self.successResultOf(job))
        self.assertEqual(([1.0, 2.0], 2), (self.pauses(), self.connected))
        counted = (self.journey.sessions, self.journey.bytes_sent, self.journey.bytes_received)
        self.assertEqual((3, 300, 30), counted)

    def test_pauses(self) -> None:
        """Pauses get longer up to a limit, and shorter by chance, up to half."""
        job = self.begin([_Ends(Truncated("cut"))], limit=100.0)
        self.pass_pauses(job)
        self.assertEqual([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0], self.pauses())
        self.assertEqual(PAUSE_LONGEST, max(self.pauses()))
        self.failureResultOf(job, Truncated)
        self.told.clear()
        self.begin([_Ends(Truncated("cut"))], chance=0.99)
        self.assertAlmostEqual(0.505, self.pauses()[0])

    def test_given_up(self) -> None:
        """When the time is over the error is the last one, with its status, and says how often it
        was tried; what it can go on from is said as well."""
        job = self.begin([_Ends(Truncated("cut")), _Ends(NotReachable("away"), None)], limit=10.0)
        self.pass_pauses(job)
        error = self.failureResultOf(job, NotReachable).value
        self.assertEqual((NotReachable, ExitCode.NOT_REACHABLE), (type(error), error.exit_code))
        self.assertIn("away. It was tried again 3 times in 7 s", str(error))
        self.assertIn("run the same command again", str(error))

    def test_connecting_counts(self) -> None:
        """The time that it takes to find nobody there counts as well; that of a dialogue does
        not."""
        slow: list[Deferred[None]] = []

        async def session() -> str:
            slow.append(Deferred())
            await slow[-1]
            raise NotReachable("away")

        job = Deferred.fromCoroutine(
            self.retrying(limit=20.0).run(self.journey, session, self.connect)
        )
        self.clock.advance(15)
        slow[-1].callback(None)
        self.clock.advance(1)
        self.clock.advance(15)
        slow[-1].callback(None)
        self.failureResultOf(job, NotReachable)
        self.assertEqual(1, len(self.told))

    def test_never(self) -> None:
        """With no time the first error comes as it is."""
        broken = Truncated("cut")
        job = self.begin([_Ends(broken)], limit=0.0)
        self.assertIs(broken, self.failureResultOf(job, Truncated).value)
        self.assertEqual([], self.told)

    def test_farther(self) -> None:
        """A job that gets farther each time is not given up, however long it takes; one that always
        breaks at the same place is, though it moves much each time."""
        farther = [_Ends(Truncated("cut"), n * FARTHER_BYTES) for n in range(1, 200)]
        job = self.begin([*farther, _Ends()], limit=10.0)
        self.pass_pauses(job)
        self.assertEqual(DONE, self.successResultOf(job))
        self.assertEqual({1.0}, set(self.pauses()))

        self.told.clear()
        self.journey = Journey()
        job = self.begin([_Ends(Truncated("cut"), 1 << 40)], limit=1e6)
        self.pass_pauses(job)
        self.failureResultOf(job, Truncated)
        # The first one got farther than nothing.
        self.assertEqual([1, *range(2, FAILURES_MAX + 1)], [told.failures for told in self.told])

    def test_busy(self) -> None:
        """Behind an interruption the old session may still be counted, and a provider that starts
        may lack a role: both pass. When they do not, the line was what was wrong: 22."""
        ends = [_Ends(Truncated("cut")), _Ends(Busy("full"), None), _Ends(Refused("none"), None)]
        job = self.begin([*ends, _Ends()])
        self.pass_pauses(job)
        self.assertEqual(DONE, self.successResultOf(job))
        job = self.begin([_Ends(Truncated("cut")), _Ends(Busy("full"), None)], limit=60.0)
        self.pass_pauses(job)
        error = self.failureResultOf(job, NotReachable).value
        self.assertEqual(ExitCode.NOT_REACHABLE, error.exit_code)
        self.assertIn("full", str(error))

    def test_aborted(self) -> None:
        """A peer's code is kept."""
        job = self.begin([_Ends(Aborted("stopping", 7))], limit=1.0)
        self.pass_pauses(job)
        self.assertEqual(7, self.failureResultOf(job, Aborted).value.code)


class PassingThroughTests(RetryingCase):
    """What is never tried again."""

    def test_at_once(self) -> None:
        """What was changed on the way, and what another session would not mend."""
        for error in (Tampered("changed"), LoginRefused("no"), Busy("full"), Refused("frozen")):
            self.journey = Journey()
            job = self.begin([_Ends(error, None)])
            self.assertIs(error, self.failureResultOf(job, type(error)).value)
        self.assertEqual([], self.told)

    def test_behind_an_interruption(self) -> None:
        """Nor is it behind an interruption; nor what a dialogue itself was refused."""
        for error in (Tampered("changed"), Refused("no"), Busy("keys were changed")):
            self.journey = Journey()
            job = self.begin([_Ends(Truncated("cut")), _Ends(error)])
            self.clock.advance(1)
            self.assertIs(error, self.failureResultOf(job, type(error)).value)

    def test_connecting(self) -> None:
        """Nor a log-in that is refused, or a provider that is another one."""
        job = self.begin([_Ends(Truncated("cut"))])
        self.refusing = LoginRefused("not any more")
        self.clock.advance(1)
        self.failureResultOf(job, LoginRefused)

    def test_unrepeatable(self) -> None:
        """What cannot begin again says why, in an error of the same kind."""
        job = self.begin([_Ends(Truncated("cut."))], lambda: "the input was read")
        error = self.failureResultOf(job, Truncated).value
        self.assertEqual("cut; the input was read", str(error))

    def test_interrupted_while_waiting(self) -> None:
        """The user's interrupt ends a pause at once, and nothing is left on the clock."""
        job = self.begin([_Ends(Truncated("cut"))])
        self.runs.interrupt()
        self.failureResultOf(job, Cancelled)
        self.assertEqual(([], 1), (self.clock.getDelayedCalls(), self.journey.sessions))
        self.failureResultOf(Deferred.fromCoroutine(self.runs.pause(1)), Cancelled)

    def test_interrupted_in_a_session(self) -> None:
        """A session that breaks because the user wants to stop is not tried again."""
        self.stopped = True
        self.failureResultOf(self.begin([_Ends(NotReachable("cut by us"))]), Cancelled)
        self.assertEqual([], self.told)


class ProviderTests(ManagerCase):
    """A job over a real provider, in memory."""

    def job(self, tenant: Tenant, breaking: int) -> Deferred[bytes]:
        """A job whose first sessions lose every connection in the middle."""
        self.journey, self.told = Journey(), []
        retrying = Retrying(self.reactor, 300.0, self.told.append, chance=lambda: 0.0)
        talk, sessions = idle(tenant), self.journey

        def dialogue(channel: Any, session: bytes) -> bytes:
            if sessions.sessions <= breaking:
                self.reactor.callFromThread(self.cut)
            return talk(channel, session)

        async def session() -> bytes:
            return await tenant.manager.session(
                SessionKind.READ, tenant.repository, b"j" * 16, *LABELS, sessions.over(dialogue)
            )

        async def connect() -> None:
            if not await tenant.manager.answers():
                await tenant.manager.log_in(tenant.name, Password(tenant.token.reveal()))

        return Deferred.fromCoroutine(retrying.run(self.journey, session, connect))

    def test_again(self) -> None:
        """A new log-in, a new session with new keys, one job."""
        tenant = self.connected()
        session = self.come_to(self.job(tenant, 1))
        names = tenant.names()
        self.assertEqual((2, 2), (names.count("logged_in"), names.count("started")))
        rows = self.provider.accounts.sessions("", 0, 100)
        self.assertEqual([(b"j" * 16).hex()] * 2, [row["job_id"] for row in rows])
        self.assertEqual((session.hex(), "done"), (rows[-1]["session"], rows[-1]["state"]))
        keys = [e.fields["key"] for e in tenant.events if e.name == "key_b_made"]
        self.assertEqual(2, len(set(keys)))

    def test_not_counted(self) -> None:
        """Where the tenant may run one task only the lost one makes way for the next of its job."""
        tenant = self.connected(max_tasks=1)
        self.come_to(self.job(tenant, 1))
        self.assertNotIn(Busy, [type(told.error) for told in self.told])
        self.assertLess(self.reactor.seconds(), ORPHAN_SECONDS)
