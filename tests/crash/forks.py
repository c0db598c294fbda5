"""Processes that start in milliseconds: forks of one that has imported everything but a reactor.

They are real processes with descriptors, threads and a reactor of their own; only the seconds that
Python takes to import are saved. Who forks has no threads and no reactor himself.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

#: What the processes need; whatever else they import they import themselves.
_MODULES: Final = (
    "alembic.command",
    "alembic.ddl.sqlite",
    "twisted.application.twist._twist",
    "twisted.internet.epollreactor",
    "twisted.plugins.cloudconnect_plugins",
    "cloudconnect.tap.datamover",
    "cloudconnect.tap.gateway",
    "cloudconnect.tap.provider",
    "cloudconnect.tap.wan",
    "cloudconnect.cli.console",
)


def import_everything() -> None:
    """Import what the children will need; no reactor is installed by it."""
    from cloudconnect.cli import main, provider

    listed = (*main._COMMANDS.values(), *provider._COMMANDS.values())
    modules = {each.module for each in listed}
    for module in (*_MODULES, *sorted(modules)):
        importlib.import_module(module)
    assert "twisted.internet.reactor" not in sys.modules, "a reactor cannot be forked"
    gc.collect()
    gc.freeze()


class Child:
    """A fork that runs one function, and may be killed at any moment.

    :param work: what it does; what it returns or gives to ``sys.exit`` is its exit status
    :param log: file that takes its standard output and error, behind what stands there
    :param environment: all of its environment; this process's where it is left out
    :ivar pid: its process id
    :ivar status: its exit status, or minus the signal that ended it; None while it runs
    """

    def __init__(
        self, work: Callable[[], Any], log: Path, environment: dict[str, str] | None = None
    ) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.log = log
        log.touch()  # it may be killed before it has opened it
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _become(work, log, environment)
        self._descriptor = os.pidfd_open(self.pid)

    def wait(self, seconds: float) -> bool:
        """Whether it ends within so many seconds."""
        if self.status is not None:
            return True
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if not poll.poll(max(seconds, 0.0) * 1000):
            return False
        _, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        os.close(self._descriptor)
        return True

    def send(self, number: int) -> None:
        """Send it a signal, if it still runs; it is a child that nobody else waits for."""
        if self.status is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a crash would, and see it ended."""
        self.send(signal.SIGKILL)
        if not self.wait(60):
            raise AssertionError("a process survives SIGKILL")

    def text(self) -> str:
        """All that stands in its log."""
        return self.log.read_text("utf-8", "backslashreplace")


def _become(work: Callable[[], Any], log: Path, environment: dict[str, str] | None) -> NoReturn:
    """Be the child: never returns into the code of the parent."""
    status: Any = 70
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        nothing = os.open(os.devnull, os.O_RDONLY)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if environment is not None:
            os.environ.clear()
            os.environ.update(environment)
        try:
            status = work()
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0 if status is None else 70)
