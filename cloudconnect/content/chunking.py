"""Layer 1: where content is cut into chunks (``docs/repository-format.rst``, chunking).

Boundaries depend on the content alone, never on how it was handed over, so that an insertion in
a file moves the boundaries near it only and everything else is recognised as stored already. The
algorithm is FastCDC of 2020 (Xia and others, IEEE TPDS, doi 10.1109/TPDS.2020.2984632) from
``pyfastcdc``. Another algorithm or another parameter gives other chunks, so all of them are
written into the repository's description and a test holds golden boundaries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, cast

import attrs
from pyfastcdc import FastCDC

from cloudconnect.errors import ProtocolViolation
from cloudconnect.settings import CHUNK_MAX
from cloudconnect.shown import Shown

#: The one algorithm that this release knows.
ALGORITHM: Final = "fastcdc-2020"

# What pyfastcdc accepts, and for the sizes (in bytes) at most half of what a frame can carry, so
# that a sealed chunk fits too.
_BOUNDS: Final = {
    "average": (256, CHUNK_MAX // 2),
    "minimum": (64, 1 << 20),
    "maximum": (1024, CHUNK_MAX // 2),
    "normalization": (0, 3),
    "seed": (0, (1 << 63) - 1),
}


@attrs.frozen(repr=False)
class ChunkingParameters(Shown):
    """How a repository's content is cut; fixed when the repository is made.

    :ivar algorithm: ``fastcdc-2020``
    :ivar average: bytes after which, beyond the minimum, a boundary becomes likely
    :ivar minimum: smallest chunk in bytes, but for the last one of a stream
    :ivar maximum: largest chunk in bytes
    :ivar normalization: how sharply sizes gather around the average, 0 to 3
    :ivar seed: 0 for the published gear table, else one of 2**63 - 1 others
    """

    algorithm: str = ALGORITHM
    average: int = 65536
    minimum: int = 16384
    maximum: int = 262144
    normalization: int = 1
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        if self.algorithm != ALGORITHM:
            raise ValueError("the chunking algorithm is unknown to this release")
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"the chunking parameter {name} is not from {low} to {high}")
        if not self.minimum < self.average < self.maximum:
            raise ValueError("chunking needs minimum < average < maximum")

    def as_map(self) -> dict[str, Any]:
        """The fields as CBOR or JSON values."""
        return attrs.asdict(self)

    @classmethod
    def from_map(cls, fields: Mapping[str, Any]) -> ChunkingParameters:
        """The other way round.

        :raises ProtocolViolation: fields missing or too many, or values out of bounds
        """
        try:
            if set(fields) != set(attrs.fields_dict(cls)):
                raise ValueError("other fields than expected")
            return cls(**fields)
        except (TypeError, ValueError) as error:
            raise ProtocolViolation(f"the chunking parameters cannot be used: {error}") from error


class Chunker:
    """Cuts buffers; used by one thread at a time.

    :param parameters: as the repository's description says
    """

    def __init__(self, parameters: ChunkingParameters) -> None:
        self.parameters = parameters
        self._cutter = FastCDC(
            parameters.average,
            min_size=parameters.minimum,
            max_size=parameters.maximum,
            normalized_chunking=cast(Literal[0, 1, 2, 3], parameters.normalization),
            seed=parameters.seed,
        )

    def cut(self, buffer: bytes | bytearray | memoryview) -> Iterator[memoryview]:
        """The chunks of ``buffer`` as views of it, the last one ending where it ends."""
        return (chunk.data for chunk in self._cutter.cut_buf(buffer))


class StreamChunker:
    """Cuts one stream that comes in pieces of any size; used by one thread at a time.

    The chunks are those of the whole stream in one buffer. FastCDC looks at no more than one byte
    behind the chunk that it cuts, so a chunk that is followed by another byte is final. What is not
    final waits: at most ``maximum`` bytes.

    :param parameters: as the repository's description says
    """

    def __init__(self, parameters: ChunkingParameters) -> None:
        self._chunker = Chunker(parameters)
        self._maximum = parameters.maximum
        self._tail = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes | memoryview]:
        """The chunks that are final now that ``data`` follows what was fed before.

        The pieces are views of ``data``, which the caller leaves unchanged for as long as it keeps
        them. At most ``maximum`` bytes of ``data`` are copied.
        The iterator is exhausted before the next call.
        """
        view = memoryview(data)
        tail = self._tail
        while tail:
            # Fill the waiting tail up to the maximum: that always begins with a final chunk.
            room = self._maximum - len(tail)
            if len(view) < room:
                tail += view
                return
            head = b"".join((tail, view[:room]))
            chunk = next(self._chunker.cut(head))
            if len(chunk) < len(tail):
                del tail[: len(chunk)]
            else:
                view = view[len(chunk) - len(tail) :]
                tail.clear()
            yield chunk
        yield from self._cut_view(view)

    def _cut_view(self, view: memoryview) -> Iterator[memoryview]:
        position = 0
        for chunk in self._chunker.cut(view):
            if position + len(chunk) == len(view):
                break  # it may go on with what comes next
            position += len(chunk)
            yield chunk
        self._tail += view[position:]

    def finish(self) -> Iterator[bytes | memoryview]:
        """The chunks of what was still waiting; the stream has ended. May be fed again after."""
        rest = bytes(self._tail)
        self._tail.clear()
        return self._chunker.cut(rest)
