"""Layer 4: what the line to the other accelerator takes, and what follows from it.

A pure model of one direction: told how many bytes left, and when the coder stood still because of
the line, it says how far ahead of the line to code, and at which level.

That much waits for the line says little of it, as no more than a window may be under way, and
kernels hold some of that. What tells a slow line is that the coder stands still while bytes are on
their way. Where none are it waits for a mover, or for a way there and back.
"""

from __future__ import annotations

import math
from typing import Final

from cloudconnect.dedup.levels import LevelController

#: Seconds of the line that are coded ahead, so that it does not wait for the coder ...
AHEAD_SECONDS: Final = 0.5
#: ... but at least so many bytes, and ...
AHEAD_MIN: Final = 1 << 20
#: ... at most so many: they are memory.
AHEAD_MAX: Final = 8 << 20
#: Bytes of the stream for which the times are taken once: small batches say nothing.
STEP: Final = 1 << 20
#: What the coder does is looked at over some such seconds: a window's batches come in bursts.
MEMORY_SECONDS: Final = 0.5


class Line:
    """One direction of a line.

    :param levels: chooses the level
    :param now: seconds, on a clock that never goes back
    :ivar rate: bytes that leave in a second, as measured lately; 0 before that
    """

    def __init__(self, levels: LevelController, now: float) -> None:
        self._levels = levels
        self._at = now
        self._left = 0
        self._plain = 0
        self._stood_since: float | None = None
        self._stood = self._worked = 0.0  # seconds since then
        self._stands = self._works = 0.0  # parts of the time, as it was lately
        self.rate = 0.0

    @property
    def level(self) -> int:
        """The compression level to use now."""
        return self._levels.level

    @property
    def ahead(self) -> int:
        """While more bytes than this wait for the line, nothing more is coded."""
        return int(min(max(self.rate * AHEAD_SECONDS, AHEAD_MIN), AHEAD_MAX))

    @property
    def stands(self) -> bool:
        """Whether the coder stands still."""
        return self._stood_since is not None

    def stand(self, now: float) -> None:
        """The coder has something to code and may not; called as often as one likes."""
        if self._stood_since is None:
            self._stood_since = now

    def look(self, now: float, busy: bool) -> None:
        """Something has happened while the coder stands still; it will :meth:`stand` again, or not.

        :param busy: whether something is on its way still: then it was the line that was slow
        """
        since, self._stood_since = self._stood_since, None
        if since is not None and busy:
            self._stood += now - since

    def work(self, seconds: float) -> None:
        """The coder has worked for so long."""
        self._worked += seconds

    def observe(self, now: float, plain: int, left: int) -> None:
        """Say how things are.

        :param plain: bytes of the stream that were coded, ever
        :param left: bytes that have left, ever
        """
        if plain - self._plain < STEP or now <= self._at:
            return
        seconds = now - self._at
        rate = (left - self._left) / seconds
        self.rate = (self.rate + rate) / 2 if self.rate else rate
        new = 1 - math.exp(-seconds / MEMORY_SECONDS)
        self._stands += new * (min(self._stood / seconds, 1) - self._stands)
        self._works += new * (min(self._worked / seconds, 1) - self._works)
        self._at, self._left, self._plain = now, left, plain
        self._stood = self._worked = 0.0
        self._levels.observe(plain, self._stands, self._works)
