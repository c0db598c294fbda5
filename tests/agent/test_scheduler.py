"""Tests of :mod:`cloudconnect.agent.scheduler`: days of jobs, under a fake clock."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.agent.jobs import Job
from cloudconnect.agent.running import Outcome
from cloudconnect.agent.schedule import Schedule
from cloudconnect.agent.scheduler import Scheduler
from cloudconnect.agent.state import States

HOUR = 3600.0
#: 2026-11-30, 00:00 UTC.
BEGIN = 1795996800.0


class Run:
    """A run that takes as long as the test says."""

    def __init__(self, case: SchedulerTests, job: Job) -> None:
        self.job = job
        self.over: Deferred[Outcome] = Deferred()
        self.stopped = False
        case.runs.append(self)

    async def run(self) -> Outcome:
        return await self.over

    def stop(self) -> None:
        self.stopped = True
        self.over.callback(Outcome(status=130, error="interrupted"))

    def end(self, status: int = 0) -> None:
        point = "ab" * 16 if status in (0, 3) else ""
        self.over.callback(Outcome(status=status, point=point, error="" if point else "why"))


class SchedulerTests(SynchronousTestCase):
    """An agent's days."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.slept = 0.0
        self.path = Path(self.mktemp()).absolute() / "jobs.json"
        self.states = States(self.path)
        self.jobs: list[Job] = []
        self.runs: list[Run] = []
        self.locked: set[str] = set()
        self.logged: list[str] = []
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)

    def log(self, event: object) -> None:
        self.logged.append(eventAsText(event))  # type: ignore[arg-type]

    def now(self) -> float:
        return BEGIN + self.clock.seconds() + self.slept

    def job(self, name: str, schedule: str, profile: str = "one", jitter: float = 0.0) -> Job:
        made = Job(
            name=name,
            schedule=Schedule(schedule),
            words=("/",),
            profile=profile,
            jitter=jitter,
            created=self.now(),
        )
        self.jobs.append(made)
        return made

    def begin(self) -> Scheduler:
        def lock(name: str) -> int | None:
            return None if name in self.locked else os.open(os.devnull, os.O_RDONLY)

        scheduler = Scheduler(
            self.clock,
            lambda: self.jobs,
            self.states,
            lambda job: Run(self, job),
            lambda job: job.profile,
            lock,
            self.now,
            "machine",
        )
        scheduler.startService()
        self.addCleanup(scheduler.stopService)
        return scheduler

    def pass_hours(self, hours: float) -> None:
        self.clock.pump([30.0] * int(hours * 120))

    def ended(self) -> list[str]:
        """End what runs; the names of all that were run."""
        for run in self.runs:
            if not run.over.called:
                run.end()
        return [run.job.name for run in self.runs]

    def test_due(self) -> None:
        """A job runs when it is due, not when it is made, and again a day later."""
        self.job("nightly", "0 2 * * *")
        self.begin()
        self.pass_hours(1.9)
        self.assertEqual([], self.runs)
        self.pass_hours(0.2)
        self.assertEqual(["nightly"], self.ended())
        state = self.states.of("nightly")
        self.assertEqual((0, "ab" * 16), (state.status, state.point))
        self.assertAlmostEqual(BEGIN + 2 * HOUR, state.started, delta=60)
        self.pass_hours(24)
        self.assertEqual(2, len(self.runs))

    def test_made_up(self) -> None:
        """After a sleep, however long, what was missed runs once, at once."""
        self.job("hourly", "@hourly")
        self.begin()
        self.pass_hours(1.1)
        self.assertEqual(1, len(self.ended()))
        self.slept = 50 * HOUR
        self.pass_hours(0.05)
        self.assertEqual(2, len(self.ended()))
        self.pass_hours(0.5)
        self.assertEqual(2, len(self.runs))

    def test_made_up_after_restart(self) -> None:
        """What was missed while the agent did not run is made up too."""
        self.job("nightly", "0 2 * * *")
        self.begin().stopService()
        self.slept = 30 * HOUR
        self.begin()
        self.assertEqual(["nightly"], self.ended())

    def test_interrupted(self) -> None:
        """A run that the agent's end has cut off is run again by the next agent."""
        self.job("nightly", "0 2 * * *")
        scheduler = self.begin()
        self.pass_hours(2.1)
        scheduler.stopService()
        self.assertTrue(self.runs[0].stopped)
        self.begin()
        self.assertEqual(2, len(self.ended()))
        self.assertGreater(self.states.of("nightly").succeeded, 0)

    def test_one_at_a_time(self) -> None:
        """Two jobs of one repository run one after the other, those of two side by side."""
        for name, profile in (("a", "one"), ("b", "one"), ("c", "two")):
            self.job(name, "0 2 * * *", profile)
        self.begin()
        self.pass_hours(2.1)
        self.assertEqual(["a", "c"], [run.job.name for run in self.runs])
        self.runs[0].end()
        self.assertEqual(["a", "c", "b"], [run.job.name for run in self.runs])

    def test_locked(self) -> None:
        """A repository that another process uses is waited for."""
        self.job("nightly", "0 2 * * *")
        self.locked.add("one")
        self.begin()
        self.pass_hours(3)
        self.assertEqual([], self.runs)
        self.locked.clear()
        self.pass_hours(0.1)
        self.assertEqual(["nightly"], self.ended())

    def test_too_slow(self) -> None:
        """A job that still runs when it is due again is not begun twice."""
        self.job("hourly", "@hourly")
        self.begin()
        self.pass_hours(3.2)
        self.assertEqual(1, len(self.runs))
        self.assertTrue(any("still runs" in text for text in self.logged))
        self.runs[0].end()
        self.pass_hours(1)
        self.assertEqual(2, len(self.runs))

    def test_failed(self) -> None:
        """A failure is kept with its reason, and what succeeded before stays known."""
        self.job("hourly", "@hourly")
        self.begin()
        self.pass_hours(1.1)
        self.ended()
        self.pass_hours(1)
        self.runs[-1].end(12)
        state = self.states.of("hourly")
        self.assertEqual((12, "why", "ab" * 16), (state.status, state.error, state.point))
        self.assertLess(state.succeeded, state.ended)

    def test_bug(self) -> None:
        """A run that fails by a bug of ours is logged, and the agent goes on."""
        self.job("hourly", "@hourly")
        self.begin()
        self.pass_hours(1.1)
        self.runs[0].over.errback(ValueError("a bug"))
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))
        self.pass_hours(1)
        self.assertEqual(2, len(self.runs))

    def test_jitter(self) -> None:
        """A job is delayed by some of its jitter, once for each time that it is due."""
        job = self.job("nightly", "0 2 * * *", jitter=HOUR)
        scheduler = self.begin()
        due = scheduler.due(job)
        self.assertTrue(BEGIN + 2 * HOUR < due < BEGIN + 3 * HOUR)
        self.pass_hours((due - BEGIN) / HOUR - 0.05)
        self.assertEqual([], self.runs)
        self.pass_hours(1)
        self.assertEqual(1, len(self.ended()))
        self.pass_hours(20)
        self.assertEqual(1, len(self.runs))

    def test_clock_back(self) -> None:
        """A clock that was wrong by years once does not keep a job from running."""
        self.job("hourly", "@hourly")
        self.begin()
        self.slept = 10_000 * HOUR
        self.pass_hours(0.1)
        self.ended()
        self.slept = 0.0
        self.pass_hours(2)
        self.assertGreaterEqual(len(self.runs), 2)

    def test_new_job(self) -> None:
        """A job that is added or removed while the agent runs is noticed within a minute."""
        self.begin()
        self.pass_hours(0.5)
        self.job("hourly", "@hourly")
        self.pass_hours(0.6)
        self.assertEqual(["hourly"], self.ended())
        self.jobs.clear()
        self.pass_hours(2)
        self.assertEqual(1, len(self.runs))
