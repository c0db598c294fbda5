"""Layer 6: running a command's work under the reactor, to its result or its error.

The first interrupt lets the work end its session properly; the second ends it at once. Processes
that the work starts are waited for.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure

from cloudconnect.errors import Cancelled, ExitCode, SecurityError

_T = TypeVar("_T")


class Interrupt:
    """What the first interrupt does."""

    def __init__(self) -> None:
        self.happened = False
        self.call: Callable[[], None] | None = None


def run(work: Callable[[Any, Interrupt], Coroutine[Any, Any, _T]], debug: bool = False) -> _T:
    """Run ``work(reactor, interrupt)`` and return its result.

    :param debug: the log goes to standard error
    :raises Cancelled: it was interrupted
    :raises Exception: what ``work`` raises
    """
    from twisted.internet import reactor as installed
    from twisted.internet.process import reapAllProcesses

    reactor: Any = installed
    observers = [textFileLogObserver(sys.stderr)] if debug else []
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False)
    interrupt = Interrupt()
    outcome: list[Any] = []

    def begin() -> None:
        done = Deferred.fromCoroutine(work(reactor, interrupt))
        done.addBoth(outcome.append)
        done.addBoth(lambda _: reactor.stop())

    def interrupted(number: int, frame: object) -> None:
        if interrupt.happened:
            os._exit(ExitCode.INTERRUPTED)
        interrupt.happened = True
        if interrupt.call is not None:
            reactor.callFromThread(interrupt.call)
        else:
            reactor.callFromThread(_give_up, reactor)

    def child_ended(number: int, frame: object) -> None:
        reactor.callFromThread(reapAllProcesses)

    before = {s: signal.signal(s, interrupted) for s in (signal.SIGINT, signal.SIGTERM)}
    # The reactor's own handlers are not installed, and without this one it learns of no end.
    before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, child_ended)
    try:
        reactor.callWhenRunning(begin)
        reactor.run(installSignalHandlers=False)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    result = outcome[0] if outcome else Failure(Cancelled("interrupted"))
    if isinstance(result, Failure):
        if interrupt.happened and not isinstance(result.value, (Cancelled, SecurityError)):
            raise Cancelled("interrupted") from result.value
        result.raiseException()
    return result  # type: ignore[no-any-return]


def run_at_once(work: Coroutine[Any, Any, _T]) -> _T:
    """Run ``work``, which waits for nothing, without a reactor."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError("this work waits for something")


def _give_up(reactor: Any) -> None:
    if reactor.running:
        reactor.stop()
