"""Layer 4: the first seconds of a service whose nodes are processes of their own.

They register again with a service that was restarted; until then a session that needs one of them
waits a little, so that a restart fails nobody.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


class Settling:
    """Waits for nodes, but only in the first seconds.

    :param clock: the reactor, or a ``Clock``; None: nothing is ever waited for
    """

    def __init__(self, clock: IReactorTime | None) -> None:
        self._clock = clock
        self._ends = 0.0
        self._waiting: list[Deferred[None]] = []

    def begin(self, seconds: float) -> None:
        """For so many seconds from now on nodes are waited for."""
        if self._clock is not None:
            self._ends = self._clock.seconds() + seconds

    def changed(self) -> None:
        """A node has come."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    async def until(self, there: Callable[[], bool]) -> None:
        """Wait until ``there`` is true, or the first seconds are over."""
        while self._clock is not None and not there():
            left = self._ends - self._clock.seconds()
            if left <= 0:
                return
            one: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(one)
            one.addTimeout(left, self._clock, lambda *_: None)
            await one
