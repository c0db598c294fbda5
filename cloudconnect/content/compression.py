"""Layer 1: compression of chunks with bounds (Zstandard, RFC 8878).

Each chunk is one frame. A compressor and its tables are kept for each thread and level: making
one costs more than half as much as compressing a chunk does.
"""

from __future__ import annotations

import sys
import threading
from typing import Final

from cloudconnect.errors import StoredDataDamaged
from cloudconnect.settings import CHUNK_MAX

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: The level that the commands use when they are not told another one.
LEVEL_DEFAULT: Final = 3
#: The highest level: those above need more memory than they are worth for chunks of this size.
LEVEL_MAX: Final = 19

#: Data of at least so many bytes is looked at in samples ...
SAMPLED_MIN: Final = 16 << 10
#: ... so many, spread over it, ...
SAMPLES: Final = 4
#: ... of so many bytes each: a sixteenth of a usual chunk.
SAMPLE: Final = 1 << 10

# A frame of at most CHUNK_MAX never needs a larger window, so none may ask for the memory of one.
_OPTIONS: Final[dict[int, int]] = {
    zstd.DecompressionParameter.window_log_max: (CHUNK_MAX - 1).bit_length()
}
_ONE_FRAME: Final = zstd.ZstdCompressor.FLUSH_FRAME


class _Kept(threading.local):
    """The compressors of one thread, by level.

    :ivar random: what it was given last could not be made smaller
    """

    def __init__(self) -> None:
        self.compressors: dict[int, zstd.ZstdCompressor] = {}
        self.random = False

    def compressor(self, level: int) -> zstd.ZstdCompressor:
        """The one of ``level``."""
        compressor = self.compressors.get(level)
        if compressor is None:
            compressor = self.compressors[level] = zstd.ZstdCompressor(level=level)
        return compressor


_kept = _Kept()


def compress(data: bytes | bytearray | memoryview, level: int = LEVEL_DEFAULT) -> bytes | None:
    """``data`` as one Zstandard frame, or None where that is not smaller.

    Behind data that could not be made smaller, more of the same is likely, such as the inside of a
    large archive: then samples are tried first, and all of it only where these can be made smaller.

    Safe to call from several threads; the interpreter's lock is not held meanwhile.

    :param level: 1 to 19; 0 does not try
    :raises ValueError: another level, or more than CHUNK_MAX bytes
    """
    if not 0 <= level <= LEVEL_MAX:
        raise ValueError(f"a compression level is from 0 to {LEVEL_MAX}")
    if len(data) > CHUNK_MAX:
        raise ValueError(f"a chunk has at most {CHUNK_MAX} bytes")
    if level == 0:
        return None
    kept = _kept
    if kept.random and len(data) >= SAMPLED_MIN and _looks_random(kept, data):
        return None
    frame = kept.compressor(level).compress(data, _ONE_FRAME)
    kept.random = len(frame) >= len(data)
    return None if kept.random else frame


def _looks_random(kept: _Kept, data: bytes | bytearray | memoryview) -> bool:
    """Whether samples of ``data`` cannot be made smaller."""
    view = memoryview(data)
    step = len(view) // SAMPLES
    samples = b"".join(view[at : at + SAMPLE] for at in range(0, step * SAMPLES, step))
    return len(kept.compressor(1).compress(samples, _ONE_FRAME)) >= len(samples)


def decompress(data: bytes | bytearray | memoryview, plain_length: int) -> bytes:
    """The plain bytes of one Zstandard frame.

    Never makes more than ``plain_length`` bytes, whatever the frame announces.

    :param plain_length: how many bytes there must be
    :raises StoredDataDamaged: not one whole frame of ``plain_length`` bytes, or that is more than
        CHUNK_MAX
    """
    if not 0 <= plain_length <= CHUNK_MAX:
        raise StoredDataDamaged(f"a chunk announces {plain_length} bytes, more than is allowed")
    decompressor = zstd.ZstdDecompressor(options=_OPTIONS)
    try:
        plain = decompressor.decompress(data, max_length=plain_length)
    except zstd.ZstdError as error:
        raise StoredDataDamaged("a chunk cannot be decompressed") from error
    if len(plain) != plain_length or not decompressor.eof or decompressor.unused_data:
        raise StoredDataDamaged(f"a chunk does not decompress to its {plain_length} bytes")
    return plain
