"""Two accelerations back to back between two movers that the test plays; nothing is in threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from cloudconnect.accelerator.acceleration import Acceleration
from cloudconnect.dedup.cutting import ContentCutter
from cloudconnect.dedup.exchange import Exchange
from cloudconnect.dedup.interfaces import IBlockCache
from cloudconnect.dedup.memory import MemoryCache
from cloudconnect.testing import HalfCloseRecorder, MemoryPair


class Turns(Clock):
    """A clock that takes calls from threads, in order, in a later turn."""

    def callFromThread(self, call: Callable[..., object], *arguments: Any) -> None:
        """As a reactor's."""
        self.callLater(0, call, *arguments)

    def settle(self, seconds: float = 0.0) -> None:
        """Run what is due, and what that makes due, until nothing is."""
        self.advance(seconds)
        while any(call.getTime() <= self.seconds() for call in self.getDelayedCalls()):
            self.advance(0)


class Pool:
    """A thread pool without threads.

    :ivar jobs: how many it has done
    :ivar waiting: jobs that it has not begun, while :attr:`stopped`
    """

    def __init__(self) -> None:
        self.jobs = 0
        self.stopped = False
        self.waiting: list[Callable[[], None]] = []

    def callInThreadWithCallback(
        self, result: Callable[[bool, Any], object], call: Callable[..., Any], *arguments: Any
    ) -> None:
        """Do it at once."""

        def work() -> None:
            self.jobs += 1
            try:
                value = call(*arguments)
            except Exception:
                result(False, Failure())
            else:
                result(True, value)

        if self.stopped:
            self.waiting.append(work)
        else:
            work()

    def go_on(self) -> None:
        """Do what waits."""
        self.stopped = False
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()


class Chain:
    """mover - acceleration - line - acceleration - mover, in memory.

    :param wrap: makes of the protocol for one end of a connection what is connected there
    :ivar movers: what the movers were told
    :ivar ends: what each acceleration said at its end
    """

    def __init__(
        self,
        caches: tuple[IBlockCache, IBlockCache] | None = None,
        piece: Callable[[], int] = lambda: 65536,
        wrap: Callable[[Any, int, Any], Any] = lambda protocol, end, clock: protocol,
        connect_line: bool = True,
        **more: Any,
    ) -> None:
        self.clock = Turns()
        self.pool = Pool()
        self.caches = caches or (MemoryCache(), MemoryCache())
        self.ends: list[list[tuple[BaseException | None, str]]] = [[], []]
        self.accelerations = [
            Acceleration(
                self.clock,
                self.pool,  # type: ignore[arg-type]
                Exchange(cache, ContentCutter(), **more),
                lambda error, where, ends=ends: ends.append((error, where)),  # type: ignore
            )
            for cache, ends in zip(self.caches, self.ends, strict=True)
        ]
        self.movers: list[Any] = [HalfCloseRecorder(), HalfCloseRecorder()]
        self.hops = [MemoryPair(self.clock, piece=piece) for _ in range(2)]
        self.line = MemoryPair(self.clock, piece=piece)
        self._wrap = wrap
        for mover, hop, acceleration in zip(
            self.movers, self.hops, self.accelerations, strict=True
        ):
            hop.connect(wrap(mover, 0, self.clock), wrap(acceleration.near, 1, self.clock))
        if connect_line:
            self.connect_line()

    def connect_line(self) -> None:
        """Connect the two accelerations."""
        here, there = (acceleration.far for acceleration in self.accelerations)
        self.line.connect(self._wrap(here, 0, self.clock), self._wrap(there, 1, self.clock))

    def write(self, data: bytes, mover: int = 0) -> None:
        """A mover writes."""
        self.movers[mover].transport.write(data)

    def end(self, mover: int) -> None:
        """A mover ends its direction."""
        self.movers[mover].transport.loseWriteConnection()

    def close(self) -> None:
        """Both movers end."""
        self.end(0)
        self.end(1)
        self.settle(1)

    def settle(self, seconds: float = 0.0) -> None:
        """Until nothing happens any more; then time passes, and until nothing happens again."""
        self.clock.settle()
        if seconds:
            self.clock.settle(seconds)

    def got(self, mover: int) -> bytes:
        """What came out at a mover."""
        return bytes(self.movers[mover].data)
