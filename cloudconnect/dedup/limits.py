"""Layer 1: the limits of the codec, each with its unit and its reason (``docs/wan.rst``).

All of them are checked before anything is allocated for what a peer announces.
"""

from __future__ import annotations

from typing import Final

from cloudconnect.content.chunking import ChunkingParameters

#: Bytes of a block's name: BLAKE3-256 of its content.
NAME_SIZE: Final = 32
#: Smallest block, in bytes: naming a smaller one would hardly save anything.
BLOCK_MIN: Final = 256
#: Largest block, in bytes: holds a mover's chunk of the usual largest size with what goes before.
BLOCK_MAX: Final = 512 << 10
#: A batch is closed once it has this many bytes that the far end has to be given ...
BATCH_LITERAL: Final = 2 << 20
#: ... or this many in all: what is known costs little, but waits in the sender's window.
BATCH_PLAIN: Final = (4 << 20) - BLOCK_MAX
#: Largest batch, in bytes: a full one and the block that filled it.
BATCH_MAX: Final = BATCH_PLAIN + BLOCK_MAX
#: Pieces that any batch may have ...
PIECES_FEW: Final = 16
#: ... and the bytes for which it may have one more: those of the smallest blocks and of what lies
#: between them, on average. Bounds what a receiver keeps in memory for each byte that waits.
PIECE_BYTES: Final = 128
#: Most pieces in one batch.
PIECES_MAX: Final = PIECES_FEW + BATCH_MAX // PIECE_BYTES
#: Most bytes of instructions and bases in one batch: four for each piece, and the bases.
CONTROL_MAX: Final = 4 * PIECES_MAX + 4096
#: Most names in one batch.
NAMES_MAX: Final = PIECES_MAX
#: Largest prefix of a delta, in bytes: with a batch it stays within one window of zstd.
PREFIX_MAX: Final = 4 << 20
#: Bytes taken of the neighbours on each side of a base.
MARGIN: Final = 16 << 10
#: Bases of one batch, at most.
BASES_MAX: Final = 256
#: log2 of the window of the compressed stream, in bytes: what a decoder holds for each direction.
WINDOW_LOG: Final = 23
#: The same of a sender that is one of many in its process.
FRUGAL_WINDOW_LOG: Final = 21
#: Bytes that may be under way before the peer has said how many it allows.
WINDOW_MIN: Final = 2 * BATCH_MAX
#: Bytes under way by default: sent, not yet acknowledged, kept by both ends. What is like something
#: known comes to a twentieth of itself, so that 8 MiB of it are gone before a line of 40 ms has
#: brought the first answer, and the coder would stand still.
WINDOW_DEFAULT: Final = 3 * BATCH_MAX
#: The same of one end that is one of many in its process.
FRUGAL_WINDOW: Final = WINDOW_MIN
#: Batches under way, at most, however small: each costs more than its bytes.
BATCHES_MAX: Final = 512
#: Most bytes under way that a peer may allow.
WINDOW_MAX: Final = 256 << 20
#: Bytes that zstd may add to any section, however small: headers of a frame and of blocks.
CODED_EXTRA: Final = 512
#: Largest body of one message, in bytes: a batch that nothing could be done for, its names and what
#: zstd adds to bytes that cannot be compressed.
BODY_MAX: Final = BATCH_MAX + CONTROL_MAX + NAMES_MAX * NAME_SIZE + (64 << 10)


def coded_max(plain: int) -> int:
    """Most bytes that so many may come to when compressed: what zstd adds to what it cannot help.

    A frame can have any number of empty blocks: without a bound, batches that wait for something
    could be as large as their sender likes, and say next to nothing.

    :param plain: bytes before compression
    """
    return plain + plain // 256 + CODED_EXTRA


#: How content without frames is cut: half the repository's sizes, so that more small files have
#: blocks of their own while the index of a full cache stays small.
BLOCKS: Final = ChunkingParameters(average=32768, minimum=8192, maximum=131072)
