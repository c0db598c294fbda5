"""Layer 3: the calls of one side that have no answer yet."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.protocols import amp

from cloudconnect.errors import CloudConnectError, NotReachable
from cloudconnect.shown import Shown


@attrs.define(repr=False)
class Call(Shown):
    """One of them.

    :ivar command: what was called
    :ivar answer: fires with the values of the answer
    :ivar given_up: nobody waits for the answer any more
    """

    command: type[amp.Command]
    answer: Deferred[dict[str, Any]]
    given_up: bool = False
    _timer: IDelayedCall | None = None

    def give_up(self) -> None:
        """Wait no longer; whoever says so also says what becomes of :attr:`answer`."""
        self.given_up = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def limit(self, seconds: float, clock: IReactorTime) -> None:
        """Fail with ``NotReachable`` after so many seconds."""
        self._timer = clock.callLater(seconds, self._late, seconds)

    def _late(self, seconds: float) -> None:
        self.give_up()
        text = f"no answer to {self.command.__name__} within {seconds:g} s"
        self.answer.errback(NotReachable(text))


class OpenCalls:
    """All of them, by their tags.

    A call that was given up keeps its tag, and counts, until its answer comes: a peer that never
    answers cannot make this grow beyond the limit that the caller holds ``len()`` against.

    :param clock: the reactor, or a ``Clock``
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._calls: dict[bytes, Call] = {}
        self._last_tag = 0

    def __len__(self) -> int:
        return len(self._calls)

    def new_tag(self) -> bytes:
        """A tag that no call of this connection has had."""
        self._last_tag += 1
        return b"%x" % self._last_tag

    def open(self, tag: bytes, command: type[amp.Command], timeout: float | None) -> Call:
        """``command`` goes out with ``tag``; ``timeout`` is in seconds, None for no limit."""
        call = Call(command, Deferred(lambda _: call.give_up()))
        self._calls[tag] = call
        if timeout is not None:
            call.limit(timeout, self._clock)
        return call

    def answered(self, tag: bytes) -> Call | None:
        """The call that an answer with ``tag`` belongs to, which is open no more; None if none."""
        return self._calls.pop(tag, None)

    def fail(self, error: CloudConnectError) -> None:
        """All that are open fail with ``error``."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if not call.given_up:
                call.give_up()
                call.answer.errback(error)
