"""Layer 3: the list of blobs that a restore point needs, as a blob of its own.

A terabyte has some 16 million ids, half a gigabyte: too many for rows, and for memory. The list is
written while it arrives, and is the plain ids one after the other, 32 bytes each; how many there
are and their SHA-256 stand in the point's row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from cloudconnect.errors import Refused, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore, IBlobWriter
from cloudconnect.settings import IDS_MAX
from cloudconnect.wire.frames import ID_SIZE

#: Most references of one point: 16 TiB in chunks of the usual size.
REFERENCES_MAX: Final = 1 << 28
_BATCH_BYTES: Final = IDS_MAX * ID_SIZE


def references_name(point: bytes) -> str:
    """The name under which the list of the point with these 16 bytes is stored."""
    return f"points/{point.hex()}-references"


class ReferenceWriter:
    """Takes a list of references while it arrives.

    :param writer: where to
    """

    def __init__(self, writer: IBlobWriter) -> None:
        self._writer = writer
        self._hash = hashlib.sha256()

    @property
    def count(self) -> int:
        """How many there are so far."""
        return int(self._writer.size) // ID_SIZE

    @property
    def digest(self) -> bytes:
        """SHA-256 of them so far, 32 bytes."""
        return self._hash.digest()

    def extend(self, ids: bytes | memoryview) -> None:
        """Append ids, which stand one after the other in ``ids``.

        :raises Refused: too many
        :raises NoSpace: the disk is full
        """
        if len(ids) % ID_SIZE:
            raise ValueError("a list of references ends inside an id")
        if self.count + len(ids) // ID_SIZE > REFERENCES_MAX:
            raise Refused(f"a restore point has at most {REFERENCES_MAX} references")
        self._hash.update(ids)
        self._writer.write(ids)

    def batches(self) -> Iterator[list[bytes]]:
        """The ids again, at most 8192 at a time."""
        for offset in range(0, self._writer.size, _BATCH_BYTES):
            yield _split(self._writer.read(offset, _BATCH_BYTES))

    def commit(self, point: bytes) -> None:
        """Make the list durable.

        :raises FileExistsError: there is one already
        """
        self._writer.commit(references_name(point))

    def discard(self) -> None:
        """Forget it; nothing happens after a commit."""
        self._writer.discard()


def read_references(
    store: IBlobStore, point: bytes, count: int, digest: bytes
) -> Iterator[list[bytes]]:
    """The references of a published point, at most 8192 at a time.

    As :func:`read_joined`, each by itself.
    """
    for octets in read_joined(store, point, count, digest):
        yield _split(octets)


def read_joined(store: IBlobStore, point: bytes, count: int, digest: bytes) -> Iterator[bytes]:
    """The references of a published point, at most 8192 at a time, one behind the other.

    :param count: as the point's row says
    :param digest: likewise
    :raises StoredDataDamaged: they are not those that were published; the last ids may have been
        returned by then
    """
    name, hasher = references_name(point), hashlib.sha256()
    size = count * ID_SIZE
    if store.size(name) != size:
        raise StoredDataDamaged(f"{name} does not hold {count} references")
    for offset in range(0, size, _BATCH_BYTES):
        octets = store.read(name, offset, min(_BATCH_BYTES, size - offset))
        hasher.update(octets)
        if offset + len(octets) == size and hasher.digest() != digest:
            raise StoredDataDamaged(f"{name} was changed")
        yield octets


def _split(octets: bytes) -> list[bytes]:
    return [octets[at : at + ID_SIZE] for at in range(0, len(octets), ID_SIZE)]
