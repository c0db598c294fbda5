"""Layer 6: commands that move much data keep the memory that they have freed.

A restore has some tens of megabytes of chunks at a time, and frees each of them within a fraction
of a second. The C library gives memory back to the system when that much is free at the end of what
it has, and gets it again, page by page and filled with zeros, for the next chunks: as much work as
to write a tenth of them.
"""

from __future__ import annotations

import contextlib
from typing import Final

# Of <malloc.h>.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8

#: Bytes that may be free at the end before they are given back: more than are ever in use.
KEPT_BYTES: Final = 256 << 20
#: What is larger comes from the system by itself; the most that the C library takes.
LARGE_BYTES: Final = 32 << 20
#: Places that memory is taken from. One for each thread keeps what another one could use.
ARENAS: Final = 1


def keep_freed_memory() -> None:
    """Keep what is freed until the process ends; nothing happens where the C library cannot.

    To be called before there are threads.
    """
    import ctypes  # not every command needs it

    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for parameter, value in (
            (_TRIM_THRESHOLD, KEPT_BYTES),
            (_MMAP_THRESHOLD, LARGE_BYTES),
            (_ARENA_MAX, ARENAS),
        ):
            library.mallopt(parameter, value)
