"""Layer 1: compression of what has to be sent (Zstandard, RFC 8878), with bounds.

Blocks without a likeness go through one compressed stream for each direction, with a window of
8 MiB and long-distance matching, so that small batches cost nothing. Blocks that have one are a
frame of their own, made with the similar blocks as its prefix.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from cloudconnect.dedup.limits import WINDOW_LOG
from cloudconnect.dedup.messages import Coding
from cloudconnect.errors import ProtocolViolation

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Bytes of one compressed stream before its level may change: to change it the window is given up.
LEVEL_KEEP: Final = 4 << 20
#: The lowest level with long-distance matching. It takes half as long as level 1 itself, which is
#: for lines that take more than can be compressed.
LONG_LEVEL: Final = 2
#: Where the last batch came to more than this part of itself, the next one is tried before it is
#: compressed.
FULL: Final = 0.99
#: Length of each sample of such a try, in bytes, and how many there are.
SAMPLE: Final = 8 << 10
SAMPLES: Final = 4
#: log2 of the tables' entries with a prefix on the lower levels, and below which level that is:
#: those of zstd's own choice are too small to remember a prefix of mebibytes. The first two levels
#: fill one table with every third position: half the entries come to 0.2% more.
_TABLE_LOGS: Final = ((3, 19), (6, 20))

_C: Final = zstd.CompressionParameter
_BOUNDED: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG}


class StreamCompressor:
    """Makes the stream sections of one direction.

    :param window_log: log2 of its window in bytes: memory, for which fewer bytes are found again
    """

    def __init__(self, window_log: int = WINDOW_LOG) -> None:
        self._window_log = window_log
        self._compressor: zstd.ZstdCompressor | None = None
        self._level = 0
        self._kept = 0
        self._full = False

    def compress(self, data: bytes, level: int) -> tuple[Coding, bytes]:
        """``data`` compressed, and how.

        :param level: 1 to 19; another one than before is used from time to time only
        """
        if self._full and not _worth(data):
            return Coding.RAW, data
        coding = Coding.ON
        compressor = self._compressor
        if compressor is None or (level != self._level and self._kept >= LEVEL_KEEP):
            options: dict[int, int] = {
                _C.compression_level: level,
                _C.window_log: self._window_log,
            }
            if level >= LONG_LEVEL:
                options[_C.enable_long_distance_matching] = 1
            if level == 3:  # the usual one: twice its own tables are worth 0.5 to 1%
                options[_C.hash_log], options[_C.chain_log] = 18, 17
            compressor = self._compressor = zstd.ZstdCompressor(options=options)
            self._level, self._kept = level, 0
            coding = Coding.ANEW
        self._kept += len(data)
        coded = compressor.compress(data, zstd.ZstdCompressor.FLUSH_BLOCK)
        self._full = len(coded) > FULL * len(data)
        return coding, coded

    def drop(self) -> None:
        """Let go of the compressor's memory; what is compressed later begins anew."""
        self._compressor = None


def _worth(data: bytes) -> bool:
    step = max(len(data) // SAMPLES, 1)
    sample = b"".join(data[at : at + SAMPLE] for at in range(0, len(data), step))
    return len(zstd.compress(sample, 1)) <= FULL * len(sample)


class StreamDecompressor:
    """Reads the stream sections of one direction."""

    def __init__(self) -> None:
        self._decompressor: zstd.ZstdDecompressor | None = None

    def decompress(self, coding: Coding, data: bytes | memoryview, plain: int) -> bytes:
        """The plain bytes of a section; never makes more than one byte more than ``plain``.

        :param plain: how many bytes there must be
        :raises ProtocolViolation: not so many, or not compressed as was said
        """
        if coding == Coding.RAW:
            return bytes(data)
        if coding == Coding.ANEW:
            self._decompressor = zstd.ZstdDecompressor(options=_BOUNDED)
        decompressor = self._decompressor
        if decompressor is None:
            raise ProtocolViolation("a compressed stream goes on that has not begun")
        try:
            found = decompressor.decompress(data, max_length=plain + 1)
        except (zstd.ZstdError, EOFError) as error:
            raise ProtocolViolation("a batch cannot be decompressed") from error
        if len(found) != plain or decompressor.eof or not decompressor.needs_input:
            raise ProtocolViolation(f"a batch does not decompress to its {plain} bytes")
        return found

    def drop(self) -> None:
        """Let go of the decompressor's memory."""
        self._decompressor = None


def compress_delta(prefix: bytes, data: Sequence[bytes | memoryview], level: int) -> bytes:
    """What is in ``data``, joined, as a frame that only ``prefix`` opens.

    :param level: 1 to 19
    """
    size = sum(map(len, data))
    window = min(max((len(prefix) + size).bit_length(), 10), WINDOW_LOG)
    options: dict[int, int] = {_C.compression_level: level, _C.window_log: window}
    table = next((log for below, log in _TABLE_LOGS if level < below), None)
    if table is not None:
        options[_C.hash_log] = options[_C.chain_log] = min(window, table)
    likeness = zstd.ZstdDict(prefix, is_raw=True).as_prefix
    compressor = zstd.ZstdCompressor(options=options, zstd_dict=likeness)
    coded = [compressor.compress(part) for part in data]
    coded.append(compressor.flush(zstd.ZstdCompressor.FLUSH_FRAME))
    return b"".join(coded)


def decompress_delta(prefix: bytes, data: bytes | memoryview, plain: int) -> bytes:
    """The other way round; never makes more than one byte more than ``plain``.

    :param plain: how many bytes there must be
    :raises ProtocolViolation: not so many, or not one frame that ``prefix`` opens
    """
    likeness = zstd.ZstdDict(prefix, is_raw=True).as_prefix
    decompressor = zstd.ZstdDecompressor(zstd_dict=likeness, options=_BOUNDED)
    try:
        found = decompressor.decompress(data, max_length=plain + 1)
    except zstd.ZstdError as error:
        raise ProtocolViolation("changed blocks cannot be decompressed") from error
    if len(found) != plain or not decompressor.eof or decompressor.unused_data:
        raise ProtocolViolation(f"changed blocks do not decompress to their {plain} bytes")
    return found
