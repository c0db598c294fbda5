"""Testing support: what the tests of cloudconnect, and of programs built on it, stand on.

May import layers 0 to 4. :class:`PipePair` is a byte pipe without network or reactor for code that
runs in worker threads; :class:`MemoryPair` a connection in memory with flow control, :class:`Wire`
one with somebody in the middle; :class:`MemoryContract`, :class:`TCPContract` and
:class:`UNIXContract` are the tests that every transport wrapper must pass.
"""

from __future__ import annotations

from cloudconnect.testing.contract import TransportContract
from cloudconnect.testing.middle import MemoryContract
from cloudconnect.testing.pipes import PipeEnd, PipePair
from cloudconnect.testing.protocols import (
    BufferRecorder,
    Flood,
    HalfCloseRecorder,
    PullRecorder,
    Recorder,
    flood_bytes,
)
from cloudconnect.testing.sockets import SocketContract, TCPContract, UNIXContract
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
    "SocketContract",
    "TCPContract",
    "TransportContract",
    "UNIXContract",
    "Wire",
    "flood_bytes",
]
