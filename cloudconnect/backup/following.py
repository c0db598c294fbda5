"""Layer 3: the compression level of a backup's chunks, which follows the line.

While chunks wait for the line, time spent on making them smaller costs nothing, and the level goes
up; while the line takes everything, it comes down. Each chunk is a frame of its own, so unlike in
an accelerator's stream (:mod:`cloudconnect.dedup.levels`) a change of level costs nothing: one step
at a time is all the caution that is needed.
"""

from __future__ import annotations

from typing import Final

from cloudconnect.content.compression import LEVEL_DEFAULT

#: Level 1 takes five eighths of the time of level 3 for chunks that are 3 to 5 percent larger;
#: those above 6 take several times as long for one or two percent.
LEVELS: Final = (1, 2, LEVEL_DEFAULT, 6)
#: A level is used for this many groups before the next step: one group's luck says little.
SETTLE: Final = 2


class FollowingLevel:
    """Chooses a level for each group of chunks; used by one thread at a time."""

    def __init__(self) -> None:
        self._at = LEVELS.index(LEVEL_DEFAULT)
        self._used = 0

    @property
    def level(self) -> int:
        """The level to use now."""
        return LEVELS[self._at]

    def observe(self, waited: bool) -> int:
        """Say how the line is doing, once for each group.

        :param waited: the group had to wait for the line
        :return: the level to use now
        """
        self._used += 1
        if self._used >= SETTLE:
            at = min(max(self._at + (1 if waited else -1), 0), len(LEVELS) - 1)
            if at != self._at:
                self._at, self._used = at, 0
        return self.level
