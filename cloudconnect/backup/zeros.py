"""Layer 3: zeros in what is read, which are recorded as holes and never sent.

Sparse files say where their holes are. Raw images and block devices do not: what was never written
in them, or was wiped, reads as zeros. Blocks of nothing but zeros, at the places in a file where
blocks begin, become holes here. The exact bytes come back, as a hole reads as zeros; a file that
had zeros on the disk takes less of it when it is restored.
"""

from __future__ import annotations

from typing import Final

from cloudconnect.backup.drafts import ContentStream, Draft

#: What is looked at, and stands at a multiple of itself in the file: the usual size of a chunk.
ZERO_BLOCK: Final = 64 << 10

_ZEROS: Final = bytes(ZERO_BLOCK)


def has_zeros(data: bytes) -> bool:
    """Whether a whole block of ``data``, which is the beginning of a file, is zeros."""
    starts = range(0, len(data) - ZERO_BLOCK + 1, ZERO_BLOCK)
    return any(data.startswith(_ZEROS, start) for start in starts)


class ZeroSkipper:
    """Hands the content of one file to a stream, zeros as holes.

    :param stream: gets the content
    :param draft: of the file
    """

    def __init__(self, stream: ContentStream, draft: Draft) -> None:
        self._stream = stream
        self._draft = draft
        self._position = 0
        self._zeros = 0  # that came last and are not in the stream

    def hole(self, length: int) -> None:
        """So many zeros follow, which nobody has read."""
        self._position += length
        self._zeros += length

    def add(self, data: bytes) -> None:
        """``data`` follows."""
        kept, at = 0, 0  # what stands before kept is done with, before at looked at
        while at < len(data):
            end = min(len(data), at + ZERO_BLOCK - (self._position + at) % ZERO_BLOCK)
            if self._is_zero(data, at, end, kept < at):
                self._give(data, kept, at)
                self._zeros += end - at
                kept = end
            at = end
        self._give(data, kept, len(data))
        self._position += len(data)

    def finish(self) -> None:
        """That was all of the file."""
        self._stream.hole(self._draft, self._zeros)
        self._zeros = 0

    def _is_zero(self, data: bytes, start: int, end: int, follows_data: bool) -> bool:
        """Whether a block is to be a hole: a part of one, at an end, only behind another hole."""
        if end - start == ZERO_BLOCK:
            return data.startswith(_ZEROS, start)
        behind_hole = self._zeros > 0 and not follows_data
        return behind_hole and data.count(0, start, end) == end - start

    def _give(self, data: bytes, start: int, end: int) -> None:
        if start < end:
            self._stream.hole(self._draft, self._zeros)
            self._zeros = 0
            whole = end - start == len(data)
            self._stream.add(self._draft, data if whole else data[start:end])
