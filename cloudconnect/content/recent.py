"""Layer 1: which chunks came not long ago, in bounded memory."""

from __future__ import annotations

from typing import Final

#: Ids that are known, in each of two generations: a chunk that comes again later than that costs a
#: few bytes of a question, or is read once more.
RECENT_IDS: Final = 1 << 17


class RecentIds:
    """A set of ids that forgets the oldest ones when it is full.

    :param size: so many are always known, twice as many at most
    """

    def __init__(self, size: int = RECENT_IDS) -> None:
        self._size = size
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()

    def __contains__(self, name: bytes) -> bool:
        return name in self._new or name in self._old

    def add(self, name: bytes) -> bool:
        """Whether it was not there yet; it is now."""
        if name in self._new or name in self._old:
            return False
        if len(self._new) >= self._size:
            self._old, self._new = self._new, set()
        self._new.add(name)
        return True
