"""Layer 1: the compression level that follows the line; a pure controller.

While the line is slow, time spent on making bytes fewer costs nothing, and the level goes up; while
the coder is slow it comes down (the idea of ``zstd --adapt``). Where both wait for something else
it goes back to where it began: a higher level would help nobody, and a lower one neither.

Each change gives up the window of the compressed stream, which costs bytes: so no level changes
soon again, and one that is too low goes at once to the highest for which there is time. (Measured
on the image of a disk, 201 MB: level 3 makes 15.0 MB of it and level 9 13.3; going up and down one
step with every few batches 16.0.)
"""

from __future__ import annotations

from typing import Final

#: The levels of zstd that are worth having, lowest first, and the time that each takes, of that of
#: level 3.
COSTS: Final = {1: 0.6, 2: 0.7, 3: 1.0, 6: 1.5, 9: 2.6, 12: 5.0, 15: 12.0, 19: 30.0}
#: Bytes of the stream for which a level stays, at least.
KEEP: Final = 16 << 20
#: The level goes up while the coder stands still for the line for more of the time than this.
STANDS: Final = 0.5
#: It comes down while the coder works for more of the time than this.
WORKS: Final = 0.8
#: It goes up so far that the coder would not work for more of the time than this.
FILLED: Final = 0.6
#: It goes back to where it began while the coder works for more of the time than this, and stands
#: still for the line for less.
SPARED: Final = 0.25


class LevelController:
    """Chooses a level for each batch.

    :param lowest: the lowest level it may choose, and with a fast line does
    :param highest: the highest one; above 9 each session takes tens of megabytes more
    :param first: where it begins
    :raises ValueError: these are not in order, or not from 1 to 19
    """

    def __init__(self, lowest: int = 1, highest: int = 19, first: int = 3) -> None:
        if not 1 <= lowest <= first <= highest <= 19:
            raise ValueError("levels are 1 <= lowest <= first <= highest <= 19")
        between = {level for level in COSTS if lowest <= level <= highest}
        self._ladder = sorted(between | {lowest, first, highest})
        self._first = self._at = self._ladder.index(first)
        self._since = 0

    @property
    def level(self) -> int:
        """The level to use now, 1 to 19."""
        return self._ladder[self._at]

    def observe(self, plain: int, stands: float, works: float) -> int:
        """Say how things are, for each batch or so.

        :param plain: bytes of the stream that were coded since the beginning
        :param stands: for which part of the time lately the coder stood still because of the line
        :param works: for which part of it the coder worked, in seconds of a processor
        :return: the level to use now
        """
        if plain - self._since >= KEEP:
            at = self._better(stands, works)
            if at != self._at:
                self._at, self._since = at, plain
        return self.level

    def _better(self, stands: float, works: float) -> int:
        if stands > STANDS:
            most = _cost(self.level) * FILLED / max(works, 0.001)
            fitting = [at for at, level in enumerate(self._ladder) if _cost(level) <= most]
            return max([self._at, *fitting])
        if works > WORKS:
            return max(self._at - 1, 0)
        if works > SPARED > stands and self._at > self._first:
            return self._at - 1
        return self._at


def _cost(level: int) -> float:
    return COSTS[max(known for known in COSTS if known <= level)]
