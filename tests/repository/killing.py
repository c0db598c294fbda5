"""Processes that store in a repository and die at any of their steps."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from cloudconnect.repository.store import Repository


def in_child(work: Callable[[Callable[[bytes], None]], None]) -> tuple[bytes, int]:
    """Run ``work`` in a process of its own; what it said, and its wait status.

    ``work`` gets a function that says something to this process.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            work(lambda octets: os.write(writing, octets) and None)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    return said, os.waitpid(child, 0)[1]


def kill_before_step(kill_at: int, repository: Repository) -> None:
    """Let this process die by SIGKILL before its step of that number, from here on.

    A step is a call that changes the disk, or says something, or the moment after a commit.
    """
    done = [0]

    def step() -> None:
        if done[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        done[0] += 1

    def stepping(real: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any, **options: Any) -> Any:
            step()
            return real(*arguments, **options)

        return stepped

    for name in ("fsync", "link", "unlink", "write"):
        setattr(os, name, stepping(getattr(os, name)))
    dialect = repository.catalogue.engine.dialect
    commit = stepping(dialect.do_commit)

    def committed(connection: Any) -> None:
        commit(connection)
        step()

    dialect.do_commit = committed  # type: ignore[method-assign]
