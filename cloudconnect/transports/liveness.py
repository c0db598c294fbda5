"""Layer 2, transports: does the peer still go on?

:class:`Liveness` watches one connection's times: it asks for a PING when nothing was sent for
``PING_SECONDS``, and reports the peer as gone when nothing at all came for ``SILENCE_SECONDS``, or
when a record that has started does not go on. Nothing is held against the peer while our own side
does not read.

"Goes on" means that within each ``RECORD_SECONDS`` the record is completed, or grows by
``RECORD_PAYLOAD_PLAIN`` bytes. That is one minimum rate for records of every size, 6.5 kB/s: with
one limit for the whole record, a line of 1 Mbit/s that four connections share could not carry
records of 1 MiB, and whoever never finishes them is found no later than with small ones.

One timer serves all, and is set anew only when it must come earlier or when it has fired, so that
a busy connection pays for two additions and a clock reading a record.

Source: ``docs/protocol.rst``, sections 6 and "Limits".
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from cloudconnect.errors import Truncated
from cloudconnect.settings import (
    PING_SECONDS,
    RECORD_PAYLOAD_PLAIN,
    RECORD_SECONDS,
    SILENCE_SECONDS,
)


class Liveness:
    """Watches one connection, from :meth:`start` to :meth:`stop`.

    :param clock: the reactor, or a ``Clock``
    :param ping: sends a PING
    :param look: takes in what may have come unnoticed, and reports it here; asked for before the
        peer is given up
    :param gone: told why the peer is given up; nothing is asked for after that
    """

    def __init__(
        self,
        clock: IReactorTime,
        ping: Callable[[], None],
        look: Callable[[], None],
        gone: Callable[[Truncated], None],
    ) -> None:
        self._clock = clock
        self._ping = ping
        self._look = look
        self._gone = gone
        self._running = False
        self._reading = True
        self._timer: IDelayedCall | None = None
        self._wakes_at = 0.0
        self._sent_at = 0.0
        self._heard_at = 0.0
        self._heard = 0
        self._records = 0
        self._grew_at: float | None = None  # a record has started
        self._grew_from = 0

    def start(self) -> None:
        """The handshake is over: both sides have just been heard."""
        self._running = True
        self._sent_at = self._heard_at = self._clock.seconds()
        self._arm()

    def stop(self) -> None:
        """Watch no more; may be called again."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sent(self) -> None:
        """A record of ours goes out."""
        self._sent_at = self._clock.seconds()

    def heard(self, count: int, records: int, started: bool) -> None:
        """The peer was heard.

        :param count: bytes that have come in all
        :param records: records that are complete in all
        :param started: whether one has started that is not complete
        """
        self._heard_at = self._clock.seconds()
        self._heard = count
        completed, self._records = records != self._records, records
        if not started:
            self._grew_at = None
        elif completed or self._grew_at is None or self._grown() >= RECORD_PAYLOAD_PLAIN:
            self._record_grew()
            if self._wakes_at > self._heard_at + RECORD_SECONDS:
                self._arm()

    def reading(self, reading: bool) -> None:
        """Our own side has stopped reading, or goes on: then everything is counted afresh.

        :param reading: whether it reads
        """
        if reading and not self._reading:
            self._heard_at = self._clock.seconds()
            if self._grew_at is not None:
                self._record_grew()
            self._reading = True
            self._arm()
        self._reading = reading

    def _grown(self) -> int:
        return self._heard - self._grew_from

    def _record_grew(self) -> None:
        self._grew_at = self._heard_at
        self._grew_from = self._heard

    def _silence_at(self) -> float:
        """When the peer is to be given up, on the clock."""
        if not self._reading:
            return float("inf")
        silence = self._heard_at + SILENCE_SECONDS
        return silence if self._grew_at is None else min(silence, self._grew_at + RECORD_SECONDS)

    def _arm(self) -> None:
        if not self._running:
            return
        if self._timer is not None:
            self._timer.cancel()
        now = self._clock.seconds()
        self._wakes_at = min(self._sent_at + PING_SECONDS, self._silence_at())
        self._timer = self._clock.callLater(max(self._wakes_at - now, 0.0), self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        if now >= self._silence_at():
            self._look()
        if not self._running:
            return
        if now >= self._silence_at():
            self._running = False
            if self._grew_at is None:
                why = f"nothing came from the peer for {SILENCE_SECONDS:g} s"
            else:
                why = f"a record has started and does not go on for {RECORD_SECONDS:g} s"
            self._gone(Truncated(why))
            return
        if now >= self._sent_at + PING_SECONDS:
            self._sent_at = now
            self._ping()
        self._arm()
