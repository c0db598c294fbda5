"""Layer 5: runs jobs when they are due, one at a time for each repository.

A job that came due while the machine slept or was off is run once when it wakes, however often it
was missed. The clock is the wall's: it is looked at each minute, because machines sleep and clocks
are set. A repository that another process uses is tried again then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from cloudconnect.agent.jobs import Job
from cloudconnect.agent.running import Outcome
from cloudconnect.agent.schedule import delay
from cloudconnect.agent.state import States

#: Seconds from one look at the clock to the next at most.
LOOK_SECONDS: Final = 60.0
DAY: Final = 86400.0


class Run(Protocol):
    """A run of a job."""

    async def run(self) -> Outcome:
        """From its beginning to its end."""

    def stop(self) -> None:
        """End it soon."""


class Scheduler(Service):
    """Runs jobs.

    :param reactor: clock
    :param jobs: the jobs as they are now
    :param states: what became of them
    :param start: begins a run of a job
    :param repository: what a job's repository is called, so that two jobs of one can be told
    :param lock: takes a repository's lock; a descriptor, or None where another process has it
    :param now: seconds since 1970
    :param machine: delays this machine's jobs in a way of its own
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        jobs: Callable[[], Iterable[Job]],
        states: States,
        start: Callable[[Job], Run],
        repository: Callable[[Job], str],
        lock: Callable[[str], int | None],
        now: Callable[[], float],
        machine: str = "",
    ) -> None:
        self._reactor = reactor
        self._jobs = jobs
        self._states = states
        self._start = start
        self._repository = repository
        self._lock = lock
        self._now = now
        self._machine = machine
        self._waiting: list[Job] = []
        self._running: dict[str, tuple[Job, Run, Deferred[Any]]] = {}
        self._next: IDelayedCall | None = None

    def startService(self) -> None:
        """Begin."""
        super().startService()  # type: ignore[no-untyped-call]
        self._make_up()
        self.look()

    def _make_up(self) -> None:
        """What was under way when the last agent ended is run again."""
        for job in self._jobs():
            state = self._states.of(job.name)
            if state.started and not state.ended:
                self._log.info("job {name} was interrupted, and is run again", name=job.name)
                self._waiting.append(job)

    def stopService(self) -> Deferred[Any]:
        """End what runs, and wait for it."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._waiting.clear()
        ends: list[Deferred[None]] = []
        for _, run, done in list(self._running.values()):
            ended: Deferred[None] = Deferred()

            def over(result: Any, ended: Deferred[None] = ended) -> Any:
                ended.callback(None)
                return result

            done.addBoth(over)
            run.stop()
            ends.append(ended)
        return DeferredList(ends) if ends else succeed(None)

    def due(self, job: Job) -> float:
        """When a job is due next, in seconds since 1970."""
        moment = job.schedule.after(self._since(job))
        return moment + delay(job.jitter, self._machine, job.name)

    def _since(self, job: Job) -> float:
        """Up to when a job's schedule has been done."""
        since, now = self._states.of(job.name).due or job.created, self._now()
        if since > now + DAY:  # the clock was wrong once
            self._states.change(job.name, due=now)
            return now
        return since

    def look(self) -> None:
        """Begin what is due; called when that may be something else than before."""
        if not self.running:
            return
        if self._next is not None and self._next.active():
            self._next.cancel()
        wait = LOOK_SECONDS
        try:
            jobs = list(self._jobs())
            now = self._now()
            for job in jobs:
                due = self.due(job)
                if due <= now:
                    self._came_due(job, now)
                    due = self.due(job)
                wait = min(wait, max(0.1, due - now))
            names = {job.name for job in jobs}
            self._waiting = [job for job in self._waiting if job.name in names]
        except Exception:
            self._log.failure("jobs cannot be looked at")
        self._begin()
        self._next = self._reactor.callLater(wait, self.look)

    def _came_due(self, job: Job, now: float) -> None:
        since = self._since(job)
        last = job.schedule.last_before(now - delay(job.jitter, self._machine, job.name), since)
        self._states.change(job.name, due=last)
        under_way = [running.name for running, _, _ in self._running.values()]
        if job.name in under_way or any(job.name == waiting.name for waiting in self._waiting):
            self._log.warn("job {name} is due, and still runs or waits", name=job.name)
            return
        self._waiting.append(job)

    def _begin(self) -> None:
        for job in list(self._waiting):
            repository = self._repository(job)
            if repository in self._running:
                continue
            descriptor = self._lock(repository)
            if descriptor is None:
                self._log.info("job {name} waits: its repository is in use", name=job.name)
                continue
            self._waiting.remove(job)
            self._states.change(job.name, started=self._now(), ended=0.0)
            self._log.info("job {name} begins", name=job.name)
            run = self._start(job)
            done = Deferred.fromCoroutine(run.run())
            self._running[repository] = (job, run, done)
            done.addBoth(self._ended, job, repository, descriptor)

    def _ended(self, result: Any, job: Job, repository: str, descriptor: int) -> None:
        os.close(descriptor)
        self._running.pop(repository, None)
        if not isinstance(result, Outcome):
            self._log.failure("job {name} failed", result, name=job.name)
            result = Outcome(status=1, error="an internal error; see the agent's log")
        if not self.running and not result.good:
            return  # we have ended it ourselves: it is made up for at the next start
        try:
            keep_outcome(self._states, job.name, result, self._now())
        except OSError as error:
            self._log.error("the agent's state was not written: {why}", why=str(error))
        if result.good:
            self._log.info("job {name} is done: {point}", name=job.name, point=result.point)
        else:
            self._log.error("job {name} failed: {why}", name=job.name, why=result.error)
        if self.running:
            self._begin()


def keep_outcome(states: States, name: str, outcome: Outcome, now: float) -> None:
    """Note what became of a run.

    :param now: seconds since 1970
    """
    values: dict[str, Any] = {"ended": now, "status": outcome.status, "error": outcome.error}
    if outcome.good:
        values |= {"succeeded": now, "point": outcome.point}
    states.change(name, **values)
