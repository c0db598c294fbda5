"""Layer 1: the compression level that follows the line; a pure controller.

While bytes wait for the line, time spent on making them fewer costs nothing, and the level goes up;
while the line waits for bytes it goes down (the idea of ``zstd --adapt``). One step at a time, so
that one burst changes little.
"""

from __future__ import annotations

from typing import Final

#: The levels of zstd that are worth having, lowest first.
LADDER: Final = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 18, 19)
#: With more than this many seconds of bytes waiting for the line, the line is what limits.
BUSY_SECONDS: Final = 0.25
#: With fewer than this many seconds it soon has nothing to send.
IDLE_SECONDS: Final = 0.05
#: A level is tried this many times before the next step: one batch's time is not a measurement.
SETTLE: Final = 2


class LevelController:
    """Chooses a level for each batch.

    :param lowest: the lowest level it may choose, and with a fast line does
    :param highest: the highest one
    :param first: where it begins
    :raises ValueError: these are not in order, or not from 1 to 19
    :ivar level: the level to use now
    """

    def __init__(self, lowest: int = 1, highest: int = 19, first: int = 3) -> None:
        if not 1 <= lowest <= first <= highest <= 19:
            raise ValueError("levels are 1 <= lowest <= first <= highest <= 19")
        self._ladder = tuple(level for level in LADDER if lowest <= level <= highest) or (first,)
        self._at = max(i for i, level in enumerate(self._ladder) if level <= first or i == 0)
        self._tried = 0

    @property
    def level(self) -> int:
        """The level to use now, 1 to 19."""
        return self._ladder[self._at]

    def observe(self, waiting: int, rate: float) -> int:
        """Say how the line is doing, once for each batch.

        :param waiting: bytes that were coded and did not leave yet
        :param rate: bytes that leave in a second, as measured lately; 0 where nothing left
        :return: the level to use now
        """
        self._tried += 1
        if self._tried < SETTLE:
            return self.level
        if waiting > BUSY_SECONDS * rate and waiting > 0:
            step = 1
        elif waiting <= IDLE_SECONDS * rate:
            step = -1
        else:
            return self.level
        at = min(max(self._at + step, 0), len(self._ladder) - 1)
        if at != self._at:
            self._at, self._tried = at, 0
        return self.level
