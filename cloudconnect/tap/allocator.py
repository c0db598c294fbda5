"""Layer 6: how much freed memory a process keeps, as the C library lets it choose.

Threads of codecs take and give back mebibytes all the time; with glibc's heap for each thread a
process keeps half as much again. A restore has some tens of megabytes of chunks at a time, and
frees each of them within a fraction of a second: the C library gives memory back to the system when
that much is free at the end of what it has, and gets it again, page by page and filled with zeros,
for the next chunks: as much work as to write a tenth of them.

Nothing happens where the C library is another one. All of it is best called while there are few
threads: a heap that one has already stays its own.
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


def few_arenas(most: int = 1) -> None:
    """Few heaps for all threads: what one thread gave back another one can use.

    :param most: heaps; two where threads take and give back so often that they would wait for each
        other
    """
    _set((_ARENA_MAX, most))


def keep_freed_memory() -> None:
    """Keep what is freed until the process ends, in one heap."""
    _set((_TRIM_THRESHOLD, KEPT_BYTES), (_MMAP_THRESHOLD, LARGE_BYTES), (_ARENA_MAX, 1))


def _set(*values: tuple[int, int]) -> None:
    import ctypes  # not every command needs it

    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for parameter, value in values:
            library.mallopt(parameter, value)
