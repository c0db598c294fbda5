"""Layer 4: what the line to the other accelerator takes, and what follows from it.

A pure model of one direction: told how many bytes left and how many wait, it says how far ahead of
the line to code, and at which level.
"""

from __future__ import annotations

from typing import Final

from cloudconnect.dedup.levels import LevelController

#: Seconds of the line that are coded ahead: more than what the controller calls a busy line, so
#: that it sees one ...
AHEAD_SECONDS: Final = 0.5
#: ... but at least so many bytes, and ...
AHEAD_MIN: Final = 1 << 20
#: ... at most so many: they are memory.
AHEAD_MAX: Final = 8 << 20
#: Bytes of the stream for which the level is thought over once: small batches say nothing.
STEP: Final = 1 << 20


class Line:
    """One direction of a line.

    :param levels: chooses the level
    :param now: seconds, on a clock that never goes back
    :ivar rate: bytes that leave in a second, as measured while some waited; 0 before that
    """

    def __init__(self, levels: LevelController, now: float) -> None:
        self._levels = levels
        self._at = now
        self._left = 0
        self._plain = 0
        self._busy = False
        self.rate = 0.0

    @property
    def level(self) -> int:
        """The compression level to use now."""
        return self._levels.level

    @property
    def ahead(self) -> int:
        """While more bytes than this wait for the line, nothing more is coded."""
        return int(min(max(self.rate * AHEAD_SECONDS, AHEAD_MIN), AHEAD_MAX))

    def observe(self, now: float, plain: int, left: int, waiting: int) -> None:
        """Say how things are, before what was coded last is added to what waits.

        :param plain: bytes of the stream that were coded, ever
        :param left: bytes that have left, ever
        :param waiting: bytes that were coded and did not leave yet
        """
        if plain - self._plain < STEP or now <= self._at:
            return
        rate = (left - self._left) / (now - self._at)
        if not self._busy:  # the line was idle some of the time: it could do this much at least
            rate = max(rate, self.rate)
        self.rate = (self.rate + rate) / 2 if self.rate else rate
        self._at, self._left, self._plain = now, left, plain
        self._busy = waiting > 0
        self._levels.observe(waiting, self.rate)
