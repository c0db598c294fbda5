"""Layer 6: how commands are imported: without Python's collector of cyclic garbage.

What is imported is never garbage. To look through all of it again and again while it grows takes a
fifth of a short command's time. Afterwards the collector looks more seldom than it usually does:
entries, chunks and frames come and go by the hundred thousand, none of them is in a cycle, and to
look through those that are just in use took a twentieth of a restore's time.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

#: Objects made and not freed before the collector looks through them, and how many such looks there
#: are before it looks through older ones, and likewise through all; Python's own: 700, 10, 10.
THRESHOLDS: Final = (20_000, 10, 10)


@contextlib.contextmanager
def uncollected(for_good: bool = False) -> Iterator[None]:
    """Nothing is collected inside.

    :param for_good: nor is what is there at its end ever looked at again, and at what comes later
        after :data:`THRESHOLDS`
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
        if for_good:
            gc.freeze()
            gc.set_threshold(*THRESHOLDS)
    finally:
        if before:
            gc.enable()
