"""Testing support: a blocking byte pipe in memory, without a network or a reactor.

Source: :class:`~cloudconnect.interfaces.IBytePipe`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from zope.interface import implementer

from cloudconnect.errors import LocalError, Truncated
from cloudconnect.interfaces import IBytePipe
from cloudconnect.settings import HIGH_WATER


class _Direction:
    """One direction: a queue of bytes that pauses its writer."""

    def __init__(self, lock: threading.Condition) -> None:
        self.changed = lock
        self.parts: deque[bytes] = deque()
        self.held = 0
        self.finished = False


@implementer(IBytePipe)
class PipeEnd:
    """One end of a :class:`PipePair`; any number of threads may use it.

    :param out: the direction of what is written
    :param into: the direction of what is read
    :param high_water: bytes unread at which a writer waits
    :param timeout: seconds that a call may wait; None for no limit
    :ivar written: bytes accepted by :meth:`write` so far
    """

    def __init__(
        self, out: _Direction, into: _Direction, high_water: int, timeout: float | None
    ) -> None:
        self._out = out
        self._in = into
        self._high_water = high_water
        self._timeout = timeout
        self._changed = out.changed
        self._failure: Exception | None = None
        self._other: PipeEnd = self
        self.written = 0

    def _join(self, other: PipeEnd) -> None:
        self._other = other

    def write(self, *parts: bytes | bytearray | memoryview) -> bool:
        """Hand over ``parts`` in order; block while high-water bytes or more wait unread.

        :return: whether so many did
        :raises LocalError: after :meth:`finish`
        :raises TimeoutError: nobody has read for as long as the pair's time limit
        :raises CloudConnectError: the pipe was aborted
        """
        with self._changed:
            full = self._out.held >= self._high_water
            self._wait(lambda: self._out.held < self._high_water)
            if self._out.finished:
                raise LocalError("write after finish on this pipe")
            for part in parts:
                octets = bytes(part)
                if octets:
                    self._out.parts.append(octets)
                    self._out.held += len(octets)
                    self.written += len(octets)
            self._changed.notify_all()
        return full

    def read(self) -> bytes:
        """The next bytes, at least one; ``b""`` when the other end has finished.

        :raises TimeoutError: nothing was written for as long as the pair's time limit
        :raises CloudConnectError: the pipe was aborted
        """
        with self._changed:
            self._wait(lambda: bool(self._in.parts) or self._in.finished)
            if not self._in.parts:
                return b""
            octets = self._in.parts.popleft()
            self._in.held -= len(octets)
            self._changed.notify_all()
            return octets

    def finish(self) -> None:
        """End this direction properly; may be called again.

        :raises CloudConnectError: the pipe was aborted
        """
        with self._changed:
            if self._failure is not None:
                raise self._failure
            self._out.finished = True
            self._changed.notify_all()

    def abort(self, reason: Exception) -> None:
        """End both directions; later calls raise ``reason`` here, ``Truncated`` at the other end.

        What was not read yet is dropped. The first abort counts.
        """
        with self._changed:
            self._fail(reason)
            self._other._fail(Truncated("the other end of the pipe gave up"))
            self._changed.notify_all()

    def _fail(self, reason: Exception) -> None:
        if self._failure is None:
            self._failure = reason
        self._in.parts.clear()
        self._in.held = 0

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Until ``ready()``; holding the lock."""
        if not self._changed.wait_for(lambda: self._failure is not None or ready(), self._timeout):
            raise TimeoutError(f"the other end of the pipe did nothing for {self._timeout} s")
        if self._failure is not None:
            raise self._failure


class PipePair:
    """Two joined ends of a blocking byte pipe in memory.

    :param high_water: a writer waits while this many bytes, or more, are unread
    :param timeout: seconds after which a call that waits raises ``TimeoutError``, so that a test in
        which both sides wait fails and does not hang; None for no limit
    :ivar left: one end (:class:`~cloudconnect.interfaces.IBytePipe`)
    :ivar right: the other
    """

    def __init__(self, high_water: int = HIGH_WATER, timeout: float | None = 60.0) -> None:
        lock = threading.Condition()
        to_right, to_left = _Direction(lock), _Direction(lock)
        self.left = PipeEnd(to_right, to_left, high_water, timeout)
        self.right = PipeEnd(to_left, to_right, high_water, timeout)
        self.left._join(self.right)
        self.right._join(self.left)
