"""Layer 2, transports: two sockets joined inside the kernel; no byte is seen by this process.

A :class:`SplicedPair` takes over two of a reactor's transports
(:mod:`cloudconnect.transports.descriptor`) and moves what comes at one to the other with
``splice``, through a pipe that is borrowed (:mod:`cloudconnect.transports.pipes`) only while bytes
are in it. Where none is to be had, it copies.

**Back pressure.** A direction reads only when all that it read before is out. So each direction
waits either for its source or for its sink, never holds more than one pipe, and a slow sink stops
its source in the kernel.

**Ends.** The end of one direction is passed on behind its last byte, while the other goes on. When
both have ended, both sockets close. When one connection is lost, the other gets what is still in
the pipe, and is closed. A pair on which nothing at all has moved for too long is cut: a peer that
vanished is not always reported.

Source: splice(2) and tcp(7) of Linux.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, Final, Protocol

import attrs
from twisted.internet import main
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from cloudconnect.settings import RELAY_IDLE_SECONDS
from cloudconnect.transports.descriptor import can_own, let_go, take_over
from cloudconnect.transports.pipes import Pipe, PipePool
from cloudconnect.transports.switch import hand_over

#: Bytes that one direction moves before the reactor turns to others.
TURN_BYTES: Final = 2 << 20
#: Bytes that are copied at once where there is no pipe.
COPY_BYTES: Final = 64 << 10
#: ``SPLICE_F_MOVE | SPLICE_F_NONBLOCK`` of splice(2).
_FLAGS: Final = 1 | 2


@attrs.define
class Traffic:
    """What relays have moved.

    :ivar up: bytes from those who connected
    :ivar down: bytes to them
    :ivar pairs: relays that are open
    """

    up: int = 0
    down: int = 0
    pairs: int = 0


class IAllowance(Protocol):
    """Grants a direction the bytes that it may move."""

    @property
    def left(self) -> int:
        """Bytes that may be moved now; 0 or less: :meth:`ask`."""

    def spend(self, count: int) -> None:
        """``count`` bytes were moved."""

    def ask(self, granted: Callable[[], None]) -> None:
        """Have ``granted`` called, in a later turn, once some bytes may be moved."""

    def close(self) -> None:
        """Nothing more is asked for; ``granted`` is not called any more."""


def can_splice(*transports: object) -> bool:
    """Whether all of these are sockets of a reactor, and this system can splice."""
    return hasattr(os, "splice") and all(can_own(transport) for transport in transports)


class _End(TwistedProtocol):
    """The protocol of one of the two transports: hears of the connection's end."""

    def __init__(self, pair: SplicedPair, place: int) -> None:
        self._pair = pair
        self._place = place

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._pair._lost(self._place)


class _Way:
    """One direction.

    :ivar held: bytes in the pipe or in the copy
    :ivar ended: the source will send no more
    """

    def __init__(self, pool: PipePool, source: Any, sink: Any) -> None:
        self._pool = pool
        self.source, self.sink = source, sink
        self._from: socket.socket = source.getHandle()
        self._to: socket.socket = sink.getHandle()
        self._pipe: Pipe | None = None
        self._copy: memoryview | None = None
        self.held = 0
        self.ended = False
        self.shut = False

    def fill(self, most: int) -> int:
        """Take at most ``most`` bytes from the source; 0: it has ended.

        :raises OSError: it cannot be read (now)
        """
        pipe = self._pipe
        if pipe is None:
            pipe = self._pipe = self._pool.take()
        if pipe is None:
            copy = self._from.recv(min(most, COPY_BYTES))
            self._copy = memoryview(copy)
            self.held = len(copy)
            return self.held
        self.held = os.splice(self._from.fileno(), pipe.writer, min(most, pipe.size), flags=_FLAGS)
        return self.held

    def drain(self) -> int:
        """Give the sink what it takes of what is held; returns how much that was.

        :raises OSError: it cannot be written (now)
        """
        if self._copy is not None:
            count = self._to.send(self._copy)
            self._copy = self._copy[count:] if count < len(self._copy) else None
        else:
            assert self._pipe is not None
            count = os.splice(self._pipe.reader, self._to.fileno(), self.held, flags=_FLAGS)
        self.held -= count
        return count

    def give_back(self) -> None:
        """Nothing is held: let others have the pipe."""
        if self._pipe is not None:
            pipe, self._pipe = self._pipe, None
            if self.held:
                self._pool.drop(pipe)
            else:
                self._pool.give(pipe)
        self._copy = None
        self.held = 0


class SplicedPair:
    """Relays between two transports, for which :func:`can_splice` holds.

    :param clock: of the idle limit
    :param near: the transport of who connected
    :param far: that of the back end; what it queues is sent first
    :param pool: lends pipes
    :param traffic: counts
    :param up: grants what goes from near to far; None: no limit
    :param down: likewise from far to near
    :param over: called once, when both connections are gone
    """

    def __init__(
        self,
        clock: IReactorTime,
        near: Any,
        far: Any,
        pool: PipePool,
        traffic: Traffic,
        up: IAllowance | None = None,
        down: IAllowance | None = None,
        over: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._ends = [near, far]
        self._ways = [_Way(pool, near, far), _Way(pool, far, near)]
        self._grants = [up, down]
        self._asked = [False, False]
        self._traffic = traffic
        self._over = over
        self._there = [True, True]
        self._taken = 0
        self._moved = self._seen = 0
        self._idle: IDelayedCall | None = None

    def begin(self) -> None:
        """Take both transports over, and relay from then on."""
        self._traffic.pairs += 1
        for place, transport in enumerate(self._ends):
            hand_over(transport, _End(self, place), b"")
            take_over(
                transport,
                lambda place=place: self._do_read(place),  # type: ignore[misc]
                lambda place=place: self._do_write(place),  # type: ignore[misc]
                self._took,
            )
        self._idle = self._clock.callLater(RELAY_IDLE_SECONDS, self._look)

    def _took(self) -> None:
        self._taken += 1
        for place in (0, 1):
            if not all(self._there):  # it is to be closed, and was asked before it was ours
                if self._there[place]:
                    self._ends[place].startWriting()
            elif self._taken == 2:
                self._ends[place].startReading()

    # --- what the reactor calls -----------------------------------------------------------------

    def _do_read(self, place: int) -> None:
        self._pump(place)

    def _do_write(self, place: int) -> Exception | None:
        way = self._ways[1 - place]
        if way.held or not self._ends[place].disconnecting:
            self._pump(1 - place)
        if self._ends[place].disconnecting and not way.held:
            return main.CONNECTION_DONE
        return None

    def _pump(self, place: int) -> None:
        """Move what can be moved in the direction that begins at ``place``."""
        way, grant = self._ways[place], self._grants[place]
        left = TURN_BYTES
        while True:
            if not way.held:
                if way.ended or not self._there[place]:
                    way.sink.stopWriting()
                    break
                if left <= 0:
                    break
                most = left if grant is None else min(left, grant.left)
                if most <= 0:
                    self._wait_for_grant(place)
                    break
                try:
                    count = way.fill(most)
                except (BlockingIOError, InterruptedError):
                    way.give_back()
                    way.source.startReading()
                    way.sink.stopWriting()
                    return
                except OSError:
                    way.give_back()
                    self._fail(place)
                    return
                if not count:
                    self._source_ended(place)
                    return
                left -= count
                self._count(place, count)
                if grant is not None:
                    grant.spend(count)
            try:
                way.drain()
            except (BlockingIOError, InterruptedError):
                way.source.stopReading()
                way.sink.startWriting()
                return
            except OSError:
                way.give_back()
                self._fail(1 - place)
                return
        way.give_back()
        if not self._there[place]:
            way.sink.loseConnection()

    def _count(self, place: int, count: int) -> None:
        self._moved += count
        if place:
            self._traffic.down += count
        else:
            self._traffic.up += count

    def _wait_for_grant(self, place: int) -> None:
        way, grant = self._ways[place], self._grants[place]
        way.source.stopReading()
        way.sink.stopWriting()
        if grant is not None and not self._asked[place]:
            self._asked[place] = True
            grant.ask(lambda: self._granted(place))

    def _granted(self, place: int) -> None:
        self._asked[place] = False
        if all(self._there) and not self._ways[place].ended:
            self._ends[place].startReading()
            self._pump(place)

    # --- ends -----------------------------------------------------------------------------------

    def _source_ended(self, place: int) -> None:
        """Pass the end of one direction on."""
        way = self._ways[place]
        way.ended = True
        way.give_back()
        way.source.stopReading()
        way.sink.stopWriting()
        if self._ways[1 - place].ended:
            for transport in self._ends:
                transport.loseConnection()
            return
        try:
            way.sink.getHandle().shutdown(socket.SHUT_WR)
        except OSError:
            self._fail(1 - place)

    def _fail(self, place: int) -> None:
        """One of the two connections is broken."""
        self._ends[place].abortConnection()

    def _lost(self, place: int) -> None:
        self._there[place] = False
        let_go(self._ends[place])
        self._ways[1 - place].give_back()  # nobody is there to take it
        other = 1 - place
        for grant in self._grants:
            if grant is not None:
                grant.close()
        if self._there[other]:
            self._ends[other].stopReading()
            if self._ways[place].held:
                self._ends[other].startWriting()
            else:
                self._ends[other].loseConnection()
            return
        self._ways[place].give_back()
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        self._traffic.pairs -= 1
        self._over()

    def _look(self) -> None:
        """Cut what has not moved a byte since the last look."""
        if self._moved == self._seen:
            self.abort()
        self._seen = self._moved
        self._idle = self._clock.callLater(RELAY_IDLE_SECONDS, self._look)

    def abort(self) -> None:
        """Close both connections at once."""
        for place in (0, 1):
            if self._there[place]:
                self._fail(place)
