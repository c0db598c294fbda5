"""Tests of :mod:`cloudconnect.cli.running`: in other processes, since a reactor runs once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

import cloudconnect
from cloudconnect.cli.running import run_at_once
from cloudconnect.errors import NotFound

#: A process that takes longer than this has hung.
HUNG_SECONDS = 60

HEAD = """
import sys
from twisted.internet.defer import Deferred
from cloudconnect.cli.running import run
from cloudconnect.errors import Cancelled, NotFound, NotReachable, Tampered

def ready():
    print("ready", flush=True)

"""
TAIL = """
try:
    print("result", run(work))
except BaseException as error:
    print(type(error).__name__, error)
"""


class AtOnceTests(SynchronousTestCase):
    """Work that waits for nothing."""

    def test_result(self) -> None:
        """Its result or its error comes out."""

        async def good() -> int:
            return 5

        async def bad() -> int:
            raise NotFound("nothing")

        self.assertEqual(5, run_at_once(good()))
        self.assertRaises(NotFound, run_at_once, bad())

    def test_waiting(self) -> None:
        """Work that waits for something is a bug, and is closed."""
        closed: list[int] = []

        async def waiting() -> None:
            try:
                await Deferred()
            finally:
                closed.append(1)

        self.assertRaises(RuntimeError, run_at_once, waiting())
        self.assertEqual([1], closed)


class RunTests(SynchronousTestCase):
    """Work under the reactor."""

    def started(self, work: str) -> subprocess.Popen[str]:
        """Begin a process that does ``work``."""
        top = os.path.dirname(os.path.dirname(cloudconnect.__file__))
        process = subprocess.Popen(
            [sys.executable, "-c", HEAD + work + TAIL],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": top},
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def done(self, process: subprocess.Popen[str]) -> tuple[str, int]:
        """What it printed last, and its status."""
        out, err = process.communicate(timeout=HUNG_SECONDS)
        self.assertEqual("", err)
        return out.splitlines()[-1] if out else "", process.returncode

    def interrupted(self, work: str, *signals: signal.Signals) -> tuple[str, int]:
        """Interrupt it each time it says that it is ready."""
        process = self.started(work)
        stdout: Any = process.stdout
        for number in signals:
            self.assertEqual("ready\n", stdout.readline())
            process.send_signal(number)
        return self.done(process)

    def test_result(self) -> None:
        """What the work returns is returned."""
        work = "async def work(reactor, interrupt):\n    return 5\n"
        self.assertEqual(("result 5", 0), self.done(self.started(work)))

    def test_error(self) -> None:
        """What it raises is raised."""
        work = "async def work(reactor, interrupt):\n    raise NotFound('nothing')\n"
        self.assertEqual(("NotFound nothing", 0), self.done(self.started(work)))

    WAITING = """
async def work(reactor, interrupt):
    waiting = Deferred()
    interrupt.call = lambda: {0}
    ready()
    return await waiting
"""

    def test_first_interrupt(self) -> None:
        """The first interrupt calls what the work wants; the work ends itself, and its result
        counts."""
        for number in (signal.SIGINT, signal.SIGTERM):
            work = self.WAITING.format("waiting.callback('ended properly')")
            self.assertEqual(("result ended properly", 0), self.interrupted(work, number))

    def test_cancelled(self) -> None:
        """An error in consequence is the interrupt."""
        work = self.WAITING.format("waiting.errback(NotReachable('cut'))")
        self.assertEqual(("Cancelled interrupted", 0), self.interrupted(work, signal.SIGINT))

    def test_security(self) -> None:
        """But not a security error: an interrupt never hides one."""
        work = self.WAITING.format("waiting.errback(Tampered('flipped'))")
        self.assertEqual(("Tampered flipped", 0), self.interrupted(work, signal.SIGINT))

    def test_nothing_to_call(self) -> None:
        """Where the work wants nothing it is given up."""
        work = "async def work(reactor, interrupt):\n    ready()\n    await Deferred()\n"
        self.assertEqual(("Cancelled interrupted", 0), self.interrupted(work, signal.SIGINT))

    def test_second_interrupt(self) -> None:
        """The second interrupt ends the process at once."""
        work = self.WAITING.format("ready()")
        out, status = self.interrupted(work, signal.SIGINT, signal.SIGINT)
        self.assertEqual((130, ""), (status, out))

    def test_process(self) -> None:
        """The end of a process that the work starts is noticed, whichever way it ends."""
        work = """
from twisted.internet.utils import getProcessValue

async def work(reactor, interrupt):
    return await getProcessValue("/bin/sh", ("-c", "exit 3"), reactor=reactor)
"""
        self.assertEqual(("result 3", 0), self.done(self.started(work)))
