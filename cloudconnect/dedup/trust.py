"""Layer 1: whether the far end can be believed to have what we have."""

from __future__ import annotations

from typing import Final

from cloudconnect.dedup.interfaces import Place

#: References are judged by at least this many bytes of them.
SAMPLE: Final = 4 << 20
#: After too many misses only what was appended since is named, for this many bytes of the stream at
#: first, and twice as many each time.
PAUSE_FIRST: Final = 32 << 20
#: ... and at most this many: a cache that is warm again is noticed.
PAUSE_MAX: Final = 4 << 30


class Trust:
    """Which blocks of the own cache the far end probably has too.

    Those that were appended since the session began have been seen by both. Older ones are believed
    in until more than half of what was named was missed: then the far end's cache is cold or
    another one, and naming its blocks only costs a way back and forth.

    :param horizon: the own cache's horizon when the session began
    """

    def __init__(self, horizon: int) -> None:
        self._horizon = horizon
        self._named = 0
        self._missed = 0
        self._left = 0
        self._pause = PAUSE_FIRST

    def believes(self, place: Place) -> bool:
        """Whether the block at ``place`` may be named."""
        return not self._left or self.is_new(place)

    def is_new(self, place: Place) -> bool:
        """Whether the block at ``place`` was appended since the session began."""
        return place.segment >= self._horizon

    def passed(self, plain: int, named: int) -> None:
        """A batch was made.

        :param plain: its bytes
        :param named: those in older blocks that were named
        """
        self._left = max(self._left - plain, 0)
        self._named += named
        if self._named >= 8 * SAMPLE:  # what is long ago counts less
            self._named, self._missed = self._named // 2, self._missed // 2

    def missed(self, size: int) -> None:
        """The far end did not have blocks of ``size`` bytes."""
        self._missed += size
        if self._missed >= SAMPLE // 2 and 2 * self._missed > self._named:
            self.distrust()

    def distrust(self) -> None:
        """Name older blocks no more for a while."""
        if not self._left:
            self._left, self._pause = self._pause, min(2 * self._pause, PAUSE_MAX)
            self._named = self._missed = 0
