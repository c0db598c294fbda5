"""Layer 5: the jobs of one user on one machine: what to back up, when, and what to run around it.

Each is a TOML file of mode 0600 below the folder of profiles. No secret stands in one: the profile
names the files that hold them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from cloudconnect.agent.schedule import Schedule
from cloudconnect.config.profile import DEFAULT_PROFILE, config_folder, write_private
from cloudconnect.errors import NotFound, UsageError

#: A job's name, which is its restore points' job label too.
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
#: Most words of a job, and most jobs.
WORDS_MAX: Final = 10_000
JOBS_MAX: Final = 1000
#: Longest jitter, in seconds: a day.
JITTER_MAX: Final = 86400.0


@attrs.frozen(kw_only=True)
class Job:
    """What is backed up, and when.

    :ivar name: also the job label of its restore points
    :ivar schedule: when it is due
    :ivar words: paths and options of ``cloudconnect backup``
    :ivar profile: which saved profile
    :ivar pre: a program and its arguments, run before; the backup is left out where it fails
    :ivar post: run afterwards wherever ``pre`` went well, whatever became of the backup
    :ivar on_failure: run where something failed
    :ivar jitter: seconds by which it is delayed at most
    :ivar created: seconds since 1970
    """

    name: str
    schedule: Schedule
    words: tuple[str, ...]
    profile: str = DEFAULT_PROFILE
    pre: str = ""
    post: str = ""
    on_failure: str = ""
    jitter: float = 0.0
    created: float = 0.0

    def __attrs_post_init__(self) -> None:
        """Check what a person has written.

        :raises UsageError: it cannot be used
        """
        if not NAME.match(self.name):
            raise UsageError(f"job name {self.name!r}: letters, digits, and . _ - after the first")
        if not self.words or len(self.words) > WORDS_MAX or any("\0" in w for w in self.words):
            raise UsageError(f"job {self.name}: name what to back up")
        if not 0 <= self.jitter <= JITTER_MAX:
            raise UsageError(f"job {self.name}: a jitter is at most a day")
        for command in (self.pre, self.post, self.on_failure):
            try:
                shlex.split(command)
            except ValueError as error:
                raise UsageError(f"job {self.name}: {command!r}: {error}") from None

    def to_toml(self) -> str:
        """As it is saved."""
        lines = [
            f"schedule = {json.dumps(self.schedule.text)}",
            f"words = {json.dumps(list(self.words))}",
            f"profile = {json.dumps(self.profile)}",
            *(
                f"{name} = {json.dumps(getattr(self, name))}"
                for name in ("pre", "post", "on_failure")
                if getattr(self, name)
            ),
            f"jitter = {float(self.jitter)}",
            f"created = {float(self.created)}",
        ]
        return "\n".join(lines) + "\n"


def jobs_folder(environment: Mapping[str, str]) -> Path:
    """Where the jobs are."""
    return config_folder(environment) / "jobs"


def job_path(environment: Mapping[str, str], name: str) -> Path:
    """The file of the job ``name``.

    :raises UsageError: not a name
    """
    if not NAME.match(name):
        raise UsageError(f"job name {name!r}: letters, digits, and . _ - after the first")
    return jobs_folder(environment) / f"{name}.toml"


def save_job(environment: Mapping[str, str], job: Job) -> Path:
    """Keep a job, in the place of one of the same name; where."""
    path = job_path(environment, job.name)
    write_private(path, job.to_toml().encode("utf-8", "surrogateescape"))
    return path


def load_job(environment: Mapping[str, str], name: str) -> Job:
    """The job of this name.

    :raises NotFound: there is none
    :raises UsageError: its file cannot be used, or others may write to it
    """
    path = job_path(environment, name)
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            octets = file.read()
    except FileNotFoundError:
        raise NotFound(f"there is no job {name}: see cloudconnect job list") from None
    except OSError as error:
        raise UsageError(f"job {path}: {error.strerror}") from None
    if status.st_mode & 0o022 or status.st_uid not in (os.geteuid(), 0):
        raise UsageError(f"job {path}: others could change what it runs; chmod 600 {path}")
    try:
        values = tomllib.loads(octets.decode("utf-8"))
        return _from_values(name, values)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise UsageError(f"job {path} cannot be used: {error}") from None


def _from_values(name: str, values: dict[str, Any]) -> Job:
    words = values.pop("words")
    schedule = values.pop("schedule")
    numbers = {key: float(values.pop(key, 0.0)) for key in ("jitter", "created")}
    texts = [*words, schedule, *values.values()]
    if not isinstance(words, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError("every value but jitter and created is a text, words a list of them")
    texts_by_name: dict[str, Any] = {**values, **numbers}
    return Job(name=name, schedule=Schedule(schedule), words=tuple(words), **texts_by_name)


def load_jobs(environment: Mapping[str, str]) -> tuple[list[Job], list[UsageError]]:
    """All jobs by name, and what is wrong with those that cannot be used."""
    jobs: list[Job] = []
    wrong: list[UsageError] = []
    for path in sorted(jobs_folder(environment).glob("*.toml"))[:JOBS_MAX]:
        try:
            jobs.append(load_job(environment, path.stem))
        except UsageError as error:
            wrong.append(error)
        except NotFound:  # removed meanwhile
            continue
    return jobs, wrong


def remove_job(environment: Mapping[str, str], name: str) -> None:
    """Forget a job; its restore points stay.

    :raises NotFound: there is none
    """
    try:
        job_path(environment, name).unlink()
    except FileNotFoundError:
        raise NotFound(f"there is no job {name}: see cloudconnect job list") from None
