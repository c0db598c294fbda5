"""Testing support: what the tests of cloudconnect, and of programs built on it, stand on.

May import layers 0 to 4. :class:`PipePair` is a byte pipe without network or reactor for code that
runs in worker threads; :class:`MemoryPair` a connection in memory with flow control, :class:`Wire`
one with somebody in the middle; :class:`MemoryContract` and :class:`TCPContract` are the tests that
every transport layer must pass.
"""

from __future__ import annotations

from cloudconnect.testing.contract import MemoryContract, TCPContract, TransportContract
from cloudconnect.testing.pipes import PipeEnd, PipePair
from cloudconnect.testing.protocols import (
    BufferRecorder,
    Flood,
    HalfCloseRecorder,
    PullRecorder,
    Recorder,
    flood_bytes,
)
from cloudconnect.testing.wire import DOWN, UP, Wire
from cloudconnect.transports.memory import (
    MemoryAddress,
    MemoryEndpoint,
    MemoryPair,
    MemoryTransport,
)

__all__ = [
    "DOWN",
    "UP",
    "BufferRecorder",
    "Flood",
    "HalfCloseRecorder",
    "MemoryAddress",
    "MemoryContract",
    "MemoryEndpoint",
    "MemoryPair",
    "MemoryTransport",
    "PipeEnd",
    "PipePair",
    "PullRecorder",
    "Recorder",
    "TCPContract",
    "TransportContract",
    "Wire",
    "flood_bytes",
]
