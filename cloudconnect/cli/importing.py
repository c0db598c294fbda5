"""Layer 6: how commands are imported: without Python's collector of cyclic garbage.

What is imported is never garbage. To look through all of it again and again while it grows takes a
fifth of a short command's time.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected(for_good: bool = False) -> Iterator[None]:
    """Nothing is collected inside.

    :param for_good: nor is what is there at its end ever looked at again
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
        if for_good:
            gc.freeze()
    finally:
        if before:
            gc.enable()
