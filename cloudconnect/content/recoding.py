"""Layer 1: a blob in another coding than it came in (``docs/wan.rst``, what to feed it).

Between two accelerators chunks go uncompressed, so that what repeats in them can be seen; what is
stored is compressed. Neither changes what a blob is of: its name and its plain length stay, and
whoever opens it compares its content with its name. Sealed blobs cannot be recoded.
"""

from __future__ import annotations

import attrs
from blake3 import blake3

from cloudconnect.content.compression import LEVEL_DEFAULT, compress, decompress
from cloudconnect.errors import StoredDataDamaged
from cloudconnect.wire.frames import Coding, StoredBlob


def compressed(blob: StoredBlob, level: int = LEVEL_DEFAULT) -> StoredBlob:
    """``blob`` as it is stored: Zstandard where it is PLAIN and that is smaller, else itself.

    :param level: of compression, 0 to 19; 0 does not compress
    """
    if blob.coding != Coding.PLAIN:
        return blob
    frame = compress(blob.data, level)
    return blob if frame is None else _recoded(blob, Coding.ZSTD, frame)


def plain(blob: StoredBlob) -> StoredBlob:
    """``blob`` as it was before :func:`compressed`: PLAIN where it is ZSTD, else itself.

    Never makes more bytes than the plain length that it announces, CHUNK_MAX at most.

    :raises StoredDataDamaged: it does not decompress to so many bytes
    """
    if blob.coding != Coding.ZSTD:
        return blob
    if blob.plain_length < 1:
        raise StoredDataDamaged("a chunk announces that it has no content")
    return _recoded(blob, Coding.PLAIN, decompress(blob.data, blob.plain_length))


def _recoded(blob: StoredBlob, coding: Coding, data: bytes) -> StoredBlob:
    return attrs.evolve(blob, coding=coding, digest=blake3(data).digest(), data=data)
