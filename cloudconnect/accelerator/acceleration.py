"""Layer 4: what an accelerator does for one session: much in from the mover, less out, and back.

An :class:`Acceleration` stands between two connections, the *near* one to a mover and the *far* one
to the other accelerator, around one :class:`~cloudconnect.dedup.exchange.Exchange`. The codec works
in a thread pool, one job at a time; each job takes all that came since the one before.

**No direction waits for the other one**, so that two movers who do not read before they have
written find no other buffers between them than those of one connection each way. The far connection
is read whatever the near one takes: what cannot be passed on to the mover is not acknowledged, the
other accelerator's window fills, and it stops sending *that* direction. It is read, too, whatever
itself takes: acknowledgements, and what was missing, are all that is answered, and both are
bounded by the window. Only reading *near* waits: for the window, and while the far connection has
enough to send.

**Memory** of one session, beside its cache, with ``w`` for the window (12 MiB by default): near and
far 1 MiB and one piece each that was not worked on; the sent bytes that were not acknowledged,
``w``, and a batch; the received ones that the mover did not take, ``w``, which the codec enforces;
coded bytes that wait for the line, at most 8 MiB and one job's, and ``w`` more where a far end that
has lost its cache asks for all of it; 16 MiB of the compressors' windows.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from cloudconnect.accelerator.line import AHEAD_MAX, Line
from cloudconnect.accelerator.sides import Side
from cloudconnect.dedup.exchange import Exchange
from cloudconnect.dedup.levels import LevelController
from cloudconnect.dedup.limits import WINDOW_DEFAULT
from cloudconnect.dedup.statistics import Statistics
from cloudconnect.errors import CloudConnectError, ProtocolViolation, Truncated
from cloudconnect.transports.layer import Octets

#: The highest level by default: those above it take tens of megabytes for each session, and on what
#: was measured came to 1 or 2% less ...
LEVEL_MAX: Final = 9
#: ... and the lowest: level 1 does without long distances, and is hardly faster.
LEVEL_MIN: Final = 2
#: Where it begins: the first megabytes are what a short session waits for, and level 3 takes half
#: as long again. A line that is slow soon raises it.
LEVEL_FIRST: Final = 2
#: What the mover sent goes on its way once nothing more has come for so many seconds: it may wait
#: for an answer, and a batch for each piece of a fast stream would cost bytes ...
QUIET_SECONDS: Final = 0.002
#: ... and at the latest after so many, while the line has nothing else to send.
LONGEST_SECONDS: Final = 0.02
#: Acknowledgements that may wait for the line: enough for a window of usual batches.
ACKS_MAX: Final = 64
#: Bytes that may wait for the line: what is coded ahead, a window that a far end without its cache
#: asks for, and one to spare. Who asks for more has not read what it asked for before.
HELD_MAX: Final = AHEAD_MAX + 2 * WINDOW_DEFAULT


@attrs.define
class _Job:
    """What is to be done in the pool, and what came of it.

    :ivar near: pieces of the mover's stream; what the window had no room for stays here
    :ivar far: pieces from the other accelerator
    :ivar flush: send also what waits for more
    :ivar finish: the mover's stream ends here
    :ivar plain: for the mover
    :ivar wire: for the other accelerator
    :ivar fed: bytes of the mover's stream that were used
    :ivar ended: the other stream has ended
    :ivar seconds: what it took, of a processor
    """

    near: deque[bytes] = attrs.field(factory=deque)
    far: deque[bytes] = attrs.field(factory=deque)
    flush: bool = False
    finish: bool = False
    plain: list[Octets] = attrs.field(factory=list)
    wire: list[Octets] = attrs.field(factory=list)
    fed: int = 0
    ended: bool = False
    seconds: float = 0.0

    def run(self, exchange: Exchange) -> None:
        """Do it; what comes from afar first, as it may make room in the window.

        :raises ProtocolViolation: the other accelerator sent what it may not
        :raises DigestMismatch: it sent other bytes than it announced
        """
        began = time.thread_time()
        for piece in self.far:
            received = exchange.receive(piece)
            self.plain += received.plain
            self.wire += received.wire
            self.ended = received.ended
        while self.near and exchange.ready:
            piece = self.near.popleft()
            self.fed += len(piece)
            self.wire += exchange.send(piece)
        if self.near:
            self.flush = self.finish = False
        elif self.finish:
            self.wire += exchange.finish()
        elif self.flush:
            self.wire += exchange.flush()
        self.seconds = time.thread_time() - began


class Acceleration:
    """One session's work.

    :param reactor: clock and threads
    :param pool: where the codec works; it must not stop before ``ended`` was called
    :param exchange: a new one, used by nobody else; it is closed at the end
    :param ended: called once: with None and ``""`` when both streams have ended, everything was
        passed on and both connections are closed, or the far one is about to close by itself; else
        with what went wrong and where: ``"near"``, ``"far"``, ``"codec"``, or ``""`` after
        :meth:`abort`. The exchange is closed by then
    :param passed: called at most once, before that: everything was passed on both ways and
        acknowledged, and only the far connection has to end
    :param levels: chooses the compression level; by default one from ``LEVEL_MIN`` to
        ``LEVEL_MAX``, ``LEVEL_FIRST`` at first
    :ivar near: the protocol for the connection to the mover
    :ivar far: the protocol for the line to the other accelerator
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        pool: ThreadPool,
        exchange: Exchange,
        ended: Callable[[BaseException | None, str], None],
        levels: LevelController | None = None,
        passed: Callable[[], None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._pool = pool
        self._exchange = exchange
        self._tell = ended
        self._tell_passed: Callable[[], None] | None = passed
        self._line = Line(
            levels or LevelController(LEVEL_MIN, LEVEL_MAX, LEVEL_FIRST), reactor.seconds()
        )
        self.near = Side(self._turn)
        self.far = Side(self._turn)
        self._turning = self._turn_again = False
        self._started = False
        self._job: _Job | None = None
        self._finished = False  # the exchange knows that the mover's stream has ended
        self._received_all = False  # all of the far end's stream was given to near
        self._unflushed = False
        self._fed_at = self._unflushed_at = 0.0
        self._timer: IDelayedCall | None = None
        self._outcome: tuple[BaseException | None, str] | None = None
        self._acks_waiting: deque[int] = deque()  # where each ends, in bytes to the far end
        exchange.hold()

    @property
    def sent(self) -> Statistics:
        """Counts of the direction from the mover to the other accelerator, as they are now."""
        return attrs.evolve(self._exchange.sent)

    @property
    def received(self) -> Statistics:
        """Counts of the direction from the other accelerator to the mover, as they are now."""
        return attrs.evolve(self._exchange.received)

    @property
    def coded(self) -> tuple[int, int]:
        """Bytes that went to the other accelerator, and that came from it."""
        return self.far.left, self.far.came

    @property
    def level(self) -> int:
        """The compression level in use."""
        return self._line.level

    @property
    def over(self) -> bool:
        """Whether it has ended, though perhaps ``ended`` was not called yet."""
        return self._outcome is not None

    def abort(self, reason: BaseException) -> None:
        """End the session at once, unless it has ended.

        :param reason: what ``ended`` is called with
        """
        self._end(reason, "")

    # --- turns ------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Something came, left or ended: do what is due."""
        self._turn_again = True
        if self._turning:  # called from inside a write
            return
        self._turning = True
        try:
            while self._turn_again:
                self._turn_again = False
                if self._outcome is None:
                    self._look_at_sides()
                if self._outcome is None and self._job is None and self._started:
                    if self._line.stands:
                        self._line.look(self._reactor.seconds(), self.far.unsent > 0)
                    self._acknowledge()
                    self._look_at_ends()
                    self._work()
        finally:
            self._turning = False

    def _look_at_sides(self) -> None:
        near, far = self.near, self.far
        if far.error is not None:
            self._end(far.error, "far")
        elif near.error is not None:
            self._end(near.error, "near")
        elif near.lost and not near.finished:
            self._end(Truncated("the mover closed before it had everything"), "near")
        elif far.transport is not None and not self._started:
            self._started = True
            self._exchange.level = self._line.level
            far.send(self._exchange.start())

    def _acknowledge(self) -> None:
        """What the mover's connection took need not be kept at the far end any more.

        Where many wait for the line, the next one waits too, and is for all of it: who sends and
        never reads would else have us keep one for each of its batches.
        """
        far, waiting = self.far, self._acks_waiting
        while waiting and waiting[0] <= far.left:
            waiting.popleft()
        if len(waiting) < ACKS_MAX:
            parts = self._exchange.taken(self.near.left)
            if parts:
                far.send(parts)
                waiting.append(far.left + far.held)

    def _look_at_ends(self) -> None:
        near, far = self.near, self.far
        if self._received_all and not near.held:
            near.finish()
        over = self._finished and near.finished and self._exchange.settled
        if over and not (far.held or far.queued):
            far.finish(close=True)
            tell, self._tell_passed = self._tell_passed, None
            if tell is not None:
                tell()
            if near.lost and (far.lost or far.ended):
                self._end(None, "")
        elif far.read_ended and not far.queued:
            try:
                self._exchange.eof()
            except Truncated as error:
                self._end(error, "far")

    def _end(self, error: BaseException | None, where: str) -> None:
        if self._outcome is not None:
            return
        self._outcome = (error, where)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if error is not None:
            self.near.abort(error)
            self.far.abort(error)
        if self._job is None:
            self._close()

    def _close(self) -> None:
        """No job will come any more."""
        closing = deferToThreadPool(self._reactor, self._pool, self._exchange.close)
        closing.addErrback(lambda f: self._log.failure("an exchange cannot be closed", f))
        closing.addCallback(lambda _: self._closed())

    def _closed(self) -> None:
        assert self._outcome is not None
        self._tell(*self._outcome)

    # --- jobs -------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Have the codec work, where there is anything to do."""
        if self._outcome is not None:
            return
        near, far, exchange = self.near, self.far, self._exchange
        job = _Job()
        if exchange.ready and (far.free or far.waiting < self._line.ahead):
            job.finish = near.read_ended and not self._finished
            job.flush = not (near.queued or job.finish) and self._is_flush_due()
            if near.queued:
                job.near = near.take()
        if near.queued:  # still
            self._line.stand(self._reactor.seconds())
        if far.queued:
            job.far = far.take()
        if not (job.near or job.far or job.flush or job.finish):
            return
        self._job = job
        exchange.level = self._line.level
        working = deferToThreadPool(self._reactor, self._pool, job.run, exchange)
        working.addCallbacks(lambda _: self._worked(job), self._broke)
        working.addErrback(self._broke)

    def _broke(self, failure: Failure) -> None:
        """The codec raised."""
        self._job = None
        if not isinstance(failure.value, CloudConnectError):
            self._log.failure("bug in an accelerator", failure)
        if self._outcome is not None:
            self._close()
        else:
            self._end(failure.value, "codec")

    def _worked(self, job: _Job) -> None:
        self._job = None
        if self._outcome is not None:
            self._close()
            return
        now = self._reactor.seconds()
        if job.near:
            self.near.put_back(job.near)
        if job.fed:
            self._fed_at = now
            self._unflushed_at = self._unflushed_at if self._unflushed else now
            self._unflushed = True
        self._unflushed = self._unflushed and not (job.flush or job.finish)
        self._finished = self._finished or job.finish
        self._received_all = self._received_all or job.ended
        self._line.work(job.seconds)
        far = self.far
        self._line.observe(now, self._exchange.sent.plain, far.left + far.held - far.waiting)
        far.send(job.wire)
        self.near.send(job.plain)
        if far.held > HELD_MAX:
            error = ProtocolViolation("an accelerator asks again for what it did not read")
            self._end(error, "far")
        self._turn()

    # --- flushing ---------------------------------------------------------------------------------

    def _is_flush_due(self) -> bool:
        """Whether what waits for more is to go now; if it will later, a timer is set."""
        if not (self._unflushed and self.far.free):
            return False  # the far connection says when it is free
        due = min(self._fed_at + QUIET_SECONDS, self._unflushed_at + LONGEST_SECONDS)
        seconds = due - self._reactor.seconds()
        if seconds <= 0:
            return True
        if self._timer is None:
            self._timer = self._reactor.callLater(seconds, self._timer_over)
        return False

    def _timer_over(self) -> None:
        self._timer = None
        self._turn()
