"""Layer 6: what ``twist cloudconnect-agent`` starts: a tenant's scheduler."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError as OptionError

from cloudconnect.agent.jobs import Job, jobs_folder, load_jobs
from cloudconnect.agent.running import JobRun
from cloudconnect.agent.scheduler import Scheduler
from cloudconnect.agent.state import States, lock_path, states_path, take_lock
from cloudconnect.config.profile import load
from cloudconnect.errors import UsageError
from cloudconnect.tap.processes import harden

_log = Logger()


class Options(UsageOptions):
    """``twist cloudconnect-agent``: it runs what ``cloudconnect job add`` has made."""

    synopsis = ""

    def postOptions(self) -> None:
        """A home is needed, in which jobs and profiles are."""
        try:
            jobs_folder(os.environ)
        except UsageError as error:
            raise OptionError(str(error)) from None


class Agent(Scheduler):
    """The scheduler of this user's jobs on this machine."""

    def __init__(self, reactor: Any, environment: Mapping[str, str]) -> None:
        self._wrong: set[str] = set()
        self._environment = environment
        super().__init__(
            reactor,
            self._load,
            States(states_path(environment)),
            lambda job: JobRun(reactor, job, environment),
            lambda job: repository_of(environment, job),
            lambda name: take_lock(lock_path(environment, name)),
            time.time,
            socket.gethostname(),
        )

    def startService(self) -> None:
        """Begin."""
        harden()
        super().startService()

    def _load(self) -> list[Job]:
        """The jobs that can be used; what is wrong with others is said once."""
        jobs, wrong = load_jobs(self._environment)
        texts = {str(error) for error in wrong}
        for text in sorted(texts - self._wrong):
            _log.error("{why}", why=text)
        self._wrong = texts
        return jobs


def repository_of(environment: Mapping[str, str], job: Job) -> str:
    """What a job's repository is called: by its profile, or by the profile's name alone."""
    try:
        profile = load(environment, job.profile)
    except UsageError:
        profile = None
    if profile is None or not profile.repository:
        return f"profile {job.profile}"
    return profile.repository


def makeService(options: Options) -> Agent:
    """The service of ``twist cloudconnect-agent``."""
    from twisted.internet import reactor

    folder = Path(states_path(os.environ)).parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"cloudconnect-agent: {folder}: {error.strerror}") from None
    return Agent(reactor, os.environ)
