"""Layer 5: one run of a job: what comes before, the backup, what comes after; each a process.

A backup is the command ``cloudconnect backup`` itself, so that it behaves under the agent as it
does by hand. Hooks are programs with arguments, without a shell, and find in their environment what
it is about: ``CLOUDCONNECT_JOB``, and behind the backup ``CLOUDCONNECT_STATUS``,
``CLOUDCONNECT_POINT`` and ``CLOUDCONNECT_ERROR``.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.agent.jobs import Job

#: The last bytes of each output that are kept.
TAIL: Final = 64 << 10
#: A process that was asked to end has so many seconds, then it is killed.
END_SECONDS: Final = 30.0
#: What a program that cannot be started, or was killed, counts as.
KILLED: Final = 137
#: Exit statuses of a backup that made a restore point.
GOOD: Final = (0, 3)

_log = Logger()


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of a run.

    :ivar status: exit status of the first thing that failed, 0 where nothing did; 3: a point
        was made, but some sources could not be read
    :ivar point: the restore point, in hexadecimal, or ""
    :ivar error: why it failed, or ""
    """

    status: int
    point: str = ""
    error: str = ""

    @property
    def good(self) -> bool:
        """Whether a restore point was made, and the hooks went well."""
        return self.status in GOOD


class _Child(ProcessProtocol):
    """Keeps the end of what a process says."""

    def __init__(self) -> None:
        self.said = {1: b"", 2: b""}
        self.ended: Deferred[int] = Deferred()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Keep the end of it."""
        self.said[childFD] = (self.said[childFD] + data)[-TAIL:]

    def processEnded(self, reason: Failure) -> None:
        """It is over."""
        value: Any = reason.value
        status = 0 if isinstance(value, ProcessDone) else value.exitCode
        self.ended.callback(KILLED if status is None else status)


class JobRun:
    """One run of one job.

    :param reactor: processes and clock
    :param environment: of the processes
    """

    def __init__(self, reactor: Any, job: Job, environment: Mapping[str, str]) -> None:
        self._reactor = reactor
        self._job = job
        self._environment = {**environment, "CLOUDCONNECT_JOB": job.name}
        self._process: Any = None
        self._killing: IDelayedCall | None = None
        self._stopped = False

    async def run(self) -> Outcome:
        """From its first hook to its last."""
        outcome = Outcome(status=0)
        if self._job.pre:
            outcome = await self._hook("pre", self._job.pre)
        if outcome.good and not self._stopped:
            outcome = await self._back_up()
            self._tell(outcome)
            if self._job.post:
                after = await self._hook("post", self._job.post)
                if outcome.good and not after.good:
                    outcome = attrs.evolve(after, point=outcome.point)
        if not outcome.good and self._job.on_failure:
            self._tell(outcome)
            await self._hook("on-failure", self._job.on_failure)
        return outcome

    def stop(self) -> None:
        """End it: the backup ends its session properly, and nothing else is begun but ``post``."""
        self._stopped = True
        if self._process is not None:
            self._signal("INT")
            self._killing = self._reactor.callLater(END_SECONDS, self._signal, "KILL")

    def _signal(self, name: str) -> None:
        from twisted.internet.error import ProcessExitedAlready

        try:
            if self._process is not None:
                self._process.signalProcess(name)
        except ProcessExitedAlready:
            pass

    def _tell(self, outcome: Outcome) -> None:
        self._environment |= {
            "CLOUDCONNECT_STATUS": str(outcome.status),
            "CLOUDCONNECT_POINT": outcome.point,
            "CLOUDCONNECT_ERROR": outcome.error,
        }

    async def _hook(self, which: str, command: str) -> Outcome:
        words = shlex.split(command)
        status, said = await self._spawn(words)
        if status == 0:
            return Outcome(status=0)
        last = said[2].decode("utf-8", "replace").strip().splitlines()[-1:]
        error = f"{which} failed with status {status}: {words[0]}"
        return Outcome(status=1, error=error + "".join(f": {line[:300]}" for line in last))

    async def _back_up(self) -> Outcome:
        status, said = await self._spawn(backup_words(self._job))
        point = ""
        for line in _records(said[1]):
            if line.get("message_type") == "summary":
                point = str(line.get("point") or "")
        if status in GOOD:
            return Outcome(status=status, point=point)
        errors = [
            str(line.get("message"))
            for line in _records(said[2])
            if line.get("message_type") == "exit_error"
        ]
        error = errors[-1] if errors else f"the backup failed with status {status}"
        return Outcome(status=status, error=error[:1000])

    async def _spawn(self, words: Sequence[str]) -> tuple[int, dict[int, bytes]]:
        child = _Child()
        try:
            self._process = self._reactor.spawnProcess(
                child,
                words[0],
                list(words),
                env=self._environment,
                path=None,
                childFDs={0: "w", 1: "r", 2: "r"},
            )
            self._process.closeStdin()
            status = await child.ended
        except OSError as error:
            return KILLED, {1: b"", 2: str(error.strerror).encode()}
        finally:
            self._process = None
            if self._killing is not None and self._killing.active():
                self._killing.cancel()
        return status, child.said


def backup_words(job: Job) -> list[str]:
    """The command of a job's backup."""
    words = [sys.executable, "-m", "cloudconnect", "backup", "--json", "--job", job.name]
    return [*words, "--profile", job.profile, *job.words]


def _records(said: bytes) -> list[dict[str, Any]]:
    """The JSON lines in what a command has said."""
    found = []
    for line in said.splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict):
            found.append(values)
    return found
