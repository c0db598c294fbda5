"""Layer 3: the compression level of a backup's chunks, which follows the line and the processor.

While chunks wait for the line, time spent on making them smaller costs nothing, and the level goes
up. While they wait for a thread that compresses them, compressing is what a backup waits for, and
the level comes down. Where neither is so, such as where little of much has changed, it stays. Each
chunk is a frame of its own, so unlike in an accelerator's stream (:mod:`cloudconnect.dedup.levels`)
a change of level costs nothing: one step at a time is all the caution that is needed.
"""

from __future__ import annotations

from typing import Final

from cloudconnect.content.compression import LEVEL_DEFAULT

#: Level 1 takes seven tenths of the time of level 3 for chunks that are 3 to 5 percent larger;
#: those above 6 take several times as long for one or two percent.
LEVELS: Final = (1, 2, LEVEL_DEFAULT, 6)
#: Where it begins: two thirds of what level 3 saves over level 1, for a quarter of the time.
LEVEL_FIRST: Final = 2
#: A level is used for this many groups before the next step: one group's luck says little.
SETTLE: Final = 2


class FollowingLevel:
    """Chooses a level for each group of chunks; used by one thread at a time."""

    def __init__(self) -> None:
        self._at = LEVELS.index(LEVEL_FIRST)
        self._used = 0

    @property
    def level(self) -> int:
        """The level to use now."""
        return LEVELS[self._at]

    def observe(self, waited: bool, behind: bool) -> int:
        """Say how it is going, once for each group.

        :param waited: the group had to wait for the line
        :param behind: other groups wait to be compressed
        :return: the level to use now
        """
        self._used += 1
        if self._used >= SETTLE:
            step = 1 if waited else -1 if behind else 0
            at = min(max(self._at + step, 0), len(LEVELS) - 1)
            if at != self._at:
                self._at, self._used = at, 0
        return self.level
