"""Layer 3: whether two files of restore points have the same content.

Where the same bytes were cut in another way, or lie in other chunks, the names of the chunks do not
tell; then those parts are fetched and compared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from cloudconnect.backup.fetching import Fetcher, Slot
from cloudconnect.content.runs import Run
from cloudconnect.errors import StoredDataDamaged

#: Differing parts of a file whose chunks are asked for ahead.
PARTS_AHEAD: Final = 32
#: Zeros that are compared with at a time, where one side has a hole.
_ZEROS: Final = bytes(1 << 16)


def same_content(fetcher: Fetcher, one: Sequence[Run], two: Sequence[Run]) -> bool:
    """Whether two files of the same size have the same content.

    :raises StoredDataDamaged: a chunk that is needed to tell is damaged or missing
    """
    if sum(run.length for run in one) != sum(run.length for run in two):
        return False  # a further name whose first one is not in the manifest has no content
    parts: deque[tuple[Slot | None, int, Slot | None, int, int]] = deque()

    def equal() -> bool:
        left, left_offset, right, right_offset, length = parts.popleft()
        sides = []
        for slot, offset in ((left, left_offset), (right, right_offset)):
            plain = None if slot is None else memoryview(fetcher.wait(slot))
            if plain is not None and offset + length > len(plain):
                raise StoredDataDamaged("a file needs more of a chunk than there is")
            sides.append(None if plain is None else plain[offset : offset + length])
        if sides[0] is not None and sides[1] is not None:
            return sides[0] == sides[1]
        data = sides[0] if sides[0] is not None else sides[1]
        assert data is not None
        return all(
            data[at : at + len(_ZEROS)] == _ZEROS[: len(data) - at]
            for at in range(0, len(data), len(_ZEROS))
        )

    for left, left_offset, right, right_offset, length in _differing(one, two):
        slots = [None if name is None else fetcher.want(name) for name in (left, right)]
        parts.append((slots[0], left_offset, slots[1], right_offset, length))
        if len(parts) > PARTS_AHEAD and not equal():
            return False
        if fetcher.unasked >= PARTS_AHEAD:
            fetcher.ask()
    return all(equal() for _ in range(len(parts)))


def _differing(
    one: Sequence[Run], two: Sequence[Run]
) -> Iterator[tuple[bytes | None, int, bytes | None, int, int]]:
    """The parts of two files of one size that are not the same by name: (id, offset, id, offset,
    length), a hole without an id."""
    left, right = iter(one), iter(two)
    here, there = next(left, None), next(right, None)
    passed, gone = 0, 0  # bytes of each of these that are done
    while here is not None and there is not None:
        length = min(here.length - passed, there.length - gone)
        places = here.offset + passed, there.offset + gone
        if here.id != there.id or (here.id is not None and places[0] != places[1]):
            yield here.id, places[0], there.id, places[1], length
        passed, gone = passed + length, gone + length
        if passed == here.length:
            here, passed = next(left, None), 0
        if gone == there.length:
            there, gone = next(right, None), 0
