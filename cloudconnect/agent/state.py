"""Layer 5: what became of jobs: a small file that outlives the agent."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from cloudconnect.config.profile import write_private


@attrs.frozen(kw_only=True)
class JobState:
    """What became of one job; moments are in seconds since 1970.

    :ivar due: up to when its schedule has been done
    :ivar started: when it began last, or 0
    :ivar ended: when that ended, or 0 while it runs
    :ivar status: its exit status, or -1
    :ivar succeeded: when it last ended well, or 0
    :ivar point: the restore point that it made then
    :ivar error: why it failed the last time, or ""
    """

    due: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    status: int = -1
    succeeded: float = 0.0
    point: str = ""
    error: str = ""

    @classmethod
    def from_map(cls, values: Any) -> Self:
        """From JSON; what cannot be read counts as nothing known."""
        if not isinstance(values, dict):
            return cls()
        known = {
            field.name: values[field.name]
            for field in attrs.fields(cls)
            if type(values.get(field.name)) in (type(field.default), int)
            and isinstance(values[field.name], str) == isinstance(field.default, str)
        }
        return cls(**known)


def agent_folder(environment: Mapping[str, str]) -> Path:
    """Where the agent keeps what it knows."""
    home = environment.get("HOME") or str(Path("~").expanduser())
    base = environment.get("XDG_STATE_HOME") or str(Path(home) / ".local" / "state")
    return Path(base) / "cloudconnect" / "agent"


class States:
    """The states of all jobs, in one file; several processes may change it in turn.

    :param path: the file
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._states: dict[str, JobState] = {}

    def of(self, name: str) -> JobState:
        """What is known of a job."""
        self._look()
        return self._states.get(name, JobState())

    def change(self, name: str, **values: Any) -> JobState:
        """Note something; durable when this returns.

        :raises OSError: it cannot be written
        """
        descriptor = _open_lock(self._path.with_suffix(".lock"))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            changed = attrs.evolve(self.of(name), **values)
            self._states[name] = changed
            states = {name: attrs.asdict(state) for name, state in sorted(self._states.items())}
            write_private(self._path, json.dumps(states, indent=1).encode())
        finally:
            os.close(descriptor)
        return changed

    def _look(self) -> None:
        """Read the file again where it is another one than before."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                seen = (status.st_ino, status.st_mtime_ns, status.st_size)
                if seen == self._seen:
                    return
                values = json.loads(file.read())
        except FileNotFoundError:
            return
        except (OSError, ValueError):
            values, seen = {}, (0, 0, 0)
        self._seen = seen
        if isinstance(values, dict):
            self._states = {name: JobState.from_map(found) for name, found in values.items()}


def states_path(environment: Mapping[str, str]) -> Path:
    """The file of the states."""
    return agent_folder(environment) / "jobs.json"


def lock_path(environment: Mapping[str, str], repository: str) -> Path:
    """The lock of one repository: one job at a time.

    :param repository: what names it, such as ``HOST tenant``
    """
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in repository)[:200]
    return agent_folder(environment) / f"{name or 'default'}.lock"


def take_lock(path: Path) -> int | None:
    """The lock's descriptor, to be closed at the end; None where another process has it."""
    descriptor = _open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def is_held(path: Path) -> bool:
    """Whether a process has the lock; nothing is changed by looking."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _open_lock(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
