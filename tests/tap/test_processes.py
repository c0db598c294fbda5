"""Tests of :mod:`cloudconnect.tap.processes`."""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.logger import Logger, LogLevel, eventAsText
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import Busy, UsageError
from cloudconnect.settings import BACKLOG
from cloudconnect.tap.processes import endpoint_from, harden, listening_endpoint, stop_with


class Reactor:
    """Keeps what it is asked for.

    :ivar stops: how often it was stopped while it ran
    :ivar exits: what is to be done after the end
    """

    def __init__(self, running: bool = True) -> None:
        self.running = running
        self.stops = 0
        self.exits: list[Any] = []
        self.later: list[Any] = []

    def stop(self) -> None:
        if not self.running:
            raise ReactorNotRunning
        self.stops += 1

    def callWhenRunning(self, call: Any) -> None:
        self.later.append(call)

    def addSystemEventTrigger(self, phase: str, event: str, call: Any) -> None:
        self.exits.append((phase, event, call))


class StopTests(SynchronousTestCase):
    """A process that cannot do its work."""

    def stopped(self, error: BaseException, running: bool = True) -> tuple[Reactor, list[Any]]:
        logged: list[Any] = []

        class Observer:
            def __call__(self, event: Any) -> None:
                logged.append(event)

        log = Logger(observer=Observer())  # type: ignore[arg-type]
        stub = Reactor(running)
        stop_with(stub, log, Failure(error))
        return stub, logged

    def test_reason(self) -> None:
        """What is no bug is one line that says why."""
        for error in (
            Busy("a provider runs already"),
            CannotListenError("127.0.0.1", 6180, OSError(98, "in use")),
            PermissionError(13, "Permission denied", "/file"),
        ):
            stub, (event,) = self.stopped(error)
            self.assertEqual(LogLevel.critical, event["log_level"])
            self.assertIn(str(error), eventAsText(event))
            self.assertNotIn("Traceback", eventAsText(event))
            self.assertEqual(1, stub.stops)

    def test_bug(self) -> None:
        """A bug comes with its traceback."""
        stub, (event,) = self.stopped(ValueError("bug"))
        self.assertIn("ValueError", eventAsText(event))
        self.assertEqual(1, stub.stops)

    def test_not_running_yet(self) -> None:
        """Before the reactor runs it is stopped as soon as it does."""
        stub, _ = self.stopped(Busy("busy"), running=False)
        self.assertEqual([stub.stop], stub.later)

    def test_status(self) -> None:
        """The process ends with status 1, whatever twist makes of it."""
        script = (
            "from twisted.internet import reactor\n"
            "from twisted.logger import Logger\n"
            "from twisted.python.failure import Failure\n"
            "from cloudconnect.errors import Busy\n"
            "from cloudconnect.tap.processes import stop_with\n"
            "reactor.callWhenRunning(stop_with, reactor, Logger(), Failure(Busy('x')))\n"
            "reactor.run()\n"
            "print('unreached')\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        self.assertEqual((1, ""), (done.returncode, done.stdout))


class HardenTests(SynchronousTestCase):
    """What every process of ours does at its start."""

    def test_limits(self) -> None:
        """No core dump can hold a key, and there are as many descriptors as there may be."""
        for limit in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE):
            self.addCleanup(_try_limit, limit, resource.getrlimit(limit))
        harden()
        self.assertEqual((0, 0), resource.getrlimit(resource.RLIMIT_CORE))
        now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.assertEqual(most, now)


def _try_limit(number: int, values: tuple[int, int]) -> None:
    """Set it back, as far as one may: a limit that was lowered stays low."""
    _, most = resource.getrlimit(number)
    if most == values[1]:
        resource.setrlimit(number, values)


class EndpointTests(SynchronousTestCase):
    """Endpoint strings."""

    def test_backlog(self) -> None:
        """A public port has a long accept queue, unless the string says otherwise."""
        for text, backlog in (
            ("tcp:0", BACKLOG),
            (r"tcp6:0:interface=\:\:1", BACKLOG),
            ("tcp:0:backlog=7", 7),
        ):
            endpoint: Any = listening_endpoint(reactor, text)
            self.assertEqual(backlog, endpoint._backlog)

    def test_others(self) -> None:
        """What is no TCP stays as it is."""
        self.assertIsNotNone(listening_endpoint(reactor, "unix:/tmp/socket"))

    def test_wrong(self) -> None:
        """A string that describes none is named as it was written."""
        for text in ("", "nonsense", "nonsense:1", "tcp", "tcp:x", "tcp:1:foo=2"):
            for make in (endpoint_from, listening_endpoint):
                error = self.assertRaises(UsageError, make, reactor, text)
                self.assertIn(repr(text), str(error))
                self.assertNotIn("backlog", str(error))
