"""Layer 1: features of a block by which a similar one is found.

A block is cut by content once more, into pieces of some 4 KiB, and the smallest checksums of these
are its features (min-wise sampling: Broder, On the resemblance and containment of documents, 1997).
Two blocks that share most of their content share most of their features, wherever in them the
change is. A feature is a hint and nothing more, so CRC-32 will do, which costs a third of a hash.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from cloudconnect.content.chunking import Chunker, ChunkingParameters

#: Features of a block, at most.
FEATURES: Final = 8
#: Those of them that a cache keeps, the smallest: a change may add smaller ones, so more are asked
#: for than are kept.
KEPT: Final = 4
#: Bytes of a block that is worth the search, at least: a smaller one compresses well enough.
SKETCH_MIN: Final = 2048

_PIECES: Final = ChunkingParameters(average=4096, minimum=1024, maximum=16384)


class Sketcher:
    """Computes features; used by one thread at a time."""

    def __init__(self) -> None:
        self._chunker = Chunker(_PIECES)

    def features(self, data: bytes | memoryview) -> tuple[int, ...]:
        """At most eight numbers of 32 bits, ascending; none for a small block."""
        if len(data) < SKETCH_MIN:
            return ()
        return tuple(sorted({crc32(piece) for piece in self._chunker.cut(data)})[:FEATURES])
