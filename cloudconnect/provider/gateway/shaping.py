"""Layer 4: a gateway's line shared between those who use it, as time goes.

:mod:`cloudconnect.provider.gateway.fairness` decides; here is the clock, and what a relay asks
(:class:`~cloudconnect.transports.splice.IAllowance`). Each direction of the line has its rate, and
a tenant its cap in each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from cloudconnect.provider.gateway.fairness import FairShare


class Allowance:
    """What one direction of one relay may move.

    :ivar left: bytes that may be moved now; in debt, where more came than was granted
    """

    def __init__(self, lane: Lane, group: bytes, task: bytes) -> None:
        self._lane = lane
        self.group, self.task = group, task
        self.left = 0
        self._granted: Callable[[], None] | None = None

    def spend(self, count: int) -> None:
        """``count`` bytes were moved."""
        self.left -= count

    def ask(self, granted: Callable[[], None]) -> None:
        """Have ``granted`` called, in a later turn, once some bytes may be moved."""
        self._granted = granted
        self._lane.ask(self)

    def add(self, count: int) -> None:
        """So many bytes are granted."""
        self.left += count
        if self.left <= 0:
            self._lane.ask(self)
            return
        granted, self._granted = self._granted, None
        if granted is not None:
            granted()

    def close(self) -> None:
        """Nothing more is asked for."""
        self._granted = None
        self._lane.remove(self)


class Lane:
    """One direction of a gateway's line.

    :param clock: the reactor
    :param rate: bytes a second, 0 for no limit
    """

    def __init__(self, clock: IReactorTime, rate: int) -> None:
        self._clock = clock
        self._share = FairShare(rate)
        self._there: set[Allowance] = set()
        self._groups: Counter[bytes] = Counter()
        self._tasks: Counter[tuple[bytes, bytes]] = Counter()
        self._next: IDelayedCall | None = None

    def join(self, group: bytes, task: bytes, cap: int) -> Allowance:
        """Another relay.

        :param cap: bytes a second that all of this group's may move, 0 for no limit
        """
        made = Allowance(self, group, task)
        self._there.add(made)
        self._groups[group] += 1
        self._tasks[group, task] += 1
        self._share.cap(group, cap, self._clock.seconds())
        return made

    def cap(self, group: bytes, rate: int) -> None:
        """Another cap for a group that is here."""
        if group in self._groups:
            self._share.cap(group, rate, self._clock.seconds())
            self._serve_soon(0)

    def change(self, rate: int) -> None:
        """Another rate of the line."""
        self._share.change(rate, self._clock.seconds())
        self._serve_soon(0)

    def ask(self, allowance: Allowance) -> None:
        """It wants to move bytes."""
        if allowance in self._there:
            self._share.ask(allowance, allowance.group, allowance.task)
            self._serve_soon(0)

    def remove(self, allowance: Allowance) -> None:
        """It is gone; nothing happens the second time."""
        if allowance not in self._there:
            return
        self._there.discard(allowance)
        self._share.withdraw(allowance)
        group, task = allowance.group, (allowance.group, allowance.task)
        self._groups[group] -= 1
        self._tasks[task] -= 1
        if not self._tasks[task]:
            del self._tasks[task]
            self._share.done(*task)
        if not self._groups[group]:
            del self._groups[group]
            self._share.forget(group)

    def _serve_soon(self, seconds: float) -> None:
        if self._next is not None and self._next.active():
            if self._next.getTime() <= self._clock.seconds() + seconds:
                return
            self._next.cancel()
        self._next = self._clock.callLater(seconds, self._serve)

    def _serve(self) -> None:
        now = self._clock.seconds()
        granted, more = self._share.serve(now)
        for allowance, count in granted:
            found: Any = allowance
            if found in self._there:
                found.add(count)
        if more is not None:
            self._serve_soon(max(0.0, more - now))


class Shaper:
    """A gateway's line, both directions.

    :param clock: the reactor
    :param rate: bytes a second of each direction, 0 for no limit
    """

    def __init__(self, clock: IReactorTime, rate: int = 0) -> None:
        self._rate = rate
        self._up, self._down = Lane(clock, rate), Lane(clock, rate)

    def join(self, group: bytes, task: bytes, cap: int) -> tuple[Allowance, Allowance] | None:
        """What another relay may move, up and down; None where there is no limit at all."""
        if not (self._rate or cap):
            return None
        return self._up.join(group, task, cap), self._down.join(group, task, cap)

    def change(self, rate: int) -> None:
        """Another rate of the line; who has joined without any limit goes on without one."""
        self._rate = rate
        self._up.change(rate)
        self._down.change(rate)

    def cap(self, group: bytes, rate: int) -> None:
        """Another cap for a group that is here."""
        self._up.cap(group, rate)
        self._down.cap(group, rate)
