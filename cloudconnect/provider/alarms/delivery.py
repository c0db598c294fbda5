"""Layer 4: brings alarms to somebody, by whatever way: a webhook, mail.

Each way has a queue of its own, bounded, and tries again for a day. What it cannot take any more is
counted, and the count is told with the next alarm that gets through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.provider.alarms.alarms import Alarm

#: Alarms that may wait for one way.
QUEUE_MAX: Final = 1000
#: Alarms of one message.
BATCH_MAX: Final = 50
#: Seconds for which alarms are collected into one message, after the first.
COLLECT_SECONDS: Final = 5.0
#: Seconds to wait after each failure in turn; the last one again and again.
RETRY_SECONDS: Final = (5.0, 30.0, 120.0, 600.0, 1800.0)
#: Alarms that could not be delivered for so many seconds are given up.
GIVE_UP_SECONDS: Final = 86400.0
#: One attempt may take so many seconds.
SEND_SECONDS: Final = 30.0


class Way(Protocol):
    """How alarms get to somebody."""

    @property
    def name(self) -> str:
        """What it is, for the log."""

    def send(self, alarms: Sequence[Alarm], dropped: int) -> Deferred[Any]:
        """Send them; fires when they are there.

        :param dropped: how many others were given up since something got through last
        """


class Delivery(Service):
    """A queue of alarms before one way.

    :param reactor: clock
    :param way: how they are sent
    :param changed: is told when something does not get through, and when it does again: the way's
        name, and why not or ""
    :ivar dropped: alarms that were given up since something got through
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        way: Way,
        changed: Callable[[str, str], Any] = lambda name, why: None,
    ) -> None:
        self._reactor = reactor
        self._way = way
        self._changed = changed
        self._waiting: list[tuple[float, Alarm]] = []
        self._next: IDelayedCall | None = None
        self._sending: Deferred[Any] | None = None
        self._failures = 0
        self.dropped = 0

    @property
    def way(self) -> str:
        """The name of the way."""
        return self._way.name

    @property
    def waiting(self) -> int:
        """How many alarms wait."""
        return len(self._waiting)

    @property
    def failing(self) -> bool:
        """Whether nothing has got through since something was to."""
        return bool(self._failures)

    def add(self, alarm: Alarm) -> None:
        """Send an alarm soon."""
        if len(self._waiting) >= QUEUE_MAX:
            self.dropped += 1
            return
        self._waiting.append((self._reactor.seconds(), alarm))
        if self._next is None and self._sending is None:
            self._later(COLLECT_SECONDS)

    def take_over(self, other: Delivery) -> None:
        """Send what waits for another way, which has stopped, and soon."""
        self._waiting += other._waiting[: QUEUE_MAX - len(self._waiting)]
        self.dropped += other.dropped
        if self._waiting and self._next is None and self._sending is None:
            self._later(COLLECT_SECONDS)

    def stopService(self) -> Any:
        """Send no more; what is on its way is given up."""
        stopped = maybeDeferred(super().stopService)
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._sending is not None:
            self._sending.cancel()
        return stopped

    def _later(self, seconds: float) -> None:
        self._next = self._reactor.callLater(seconds, self._send)

    def _send(self) -> None:
        self._next = None
        oldest = self._reactor.seconds() - GIVE_UP_SECONDS
        before = len(self._waiting)
        self._waiting = [kept for kept in self._waiting if kept[0] > oldest]
        self.dropped += before - len(self._waiting)
        batch = self._waiting[:BATCH_MAX]
        if not batch:
            return
        alarms = [alarm for _, alarm in batch]
        sending = maybeDeferred(self._way.send, alarms, self.dropped)
        self._sending = sending.addTimeout(SEND_SECONDS, self._reactor)
        sending.addCallbacks(self._sent, self._failed, callbackArgs=(len(batch),))

    def _sent(self, _: Any, count: int) -> None:
        self._sending = None
        del self._waiting[:count]
        if self._failures:
            self._changed(self._way.name, "")
        self._failures = self.dropped = 0
        if self._waiting and self.running:
            self._later(0)

    def _failed(self, failure: Failure) -> None:
        self._sending = None
        if not self.running:
            return
        seconds = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
        self._failures += 1
        self._log.warn(
            "{count} alarm(s) did not get to the {way}: {why}; again in {seconds} s",
            count=len(self._waiting),
            way=self._way.name,
            why=failure.getErrorMessage(),
            seconds=seconds,
        )
        if self._failures == 1:
            self._changed(self._way.name, failure.getErrorMessage())
        self._later(seconds)
