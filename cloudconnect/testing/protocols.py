"""Testing support: protocols and producers that keep what they are told.

Source: Twisted's ``IProtocol``, ``IHalfCloseableProtocol``, ``IHandshakeListener`` and
producers; :class:`~cloudconnect.interfaces.IBufferReceiver`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPullProducer,
    IPushProducer,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.interfaces import IBufferReceiver


@implementer(IHandshakeListener)
class Recorder(Protocol):
    """Keeps what it is told.

    :ivar data: the bytes received
    :ivar sizes: how many came in each call
    :ivar reason: the exception of ``connectionLost``, or None before
    :ivar losses: how often ``connectionLost`` was called
    :ivar handshakes: how often ``handshakeCompleted`` was called
    :ivar on_data: called with the bytes of each call, after they were kept; None for nothing
    :ivar greeting: written in ``connectionMade``
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.sizes: list[int] = []
        self.reason: BaseException | None = None
        self.losses = 0
        self.handshakes = 0
        self.on_data: Any = None
        self.greeting = b""

    def connectionMade(self) -> None:
        """Write the greeting."""
        if self.greeting:
            assert self.transport is not None
            self.transport.write(self.greeting)

    def handshakeCompleted(self) -> None:
        """Count it."""
        self.handshakes += 1

    def dataReceived(self, data: bytes) -> None:
        """Keep it, then call ``on_data``."""
        self.data += data
        self.sizes.append(len(data))
        if self.on_data is not None:
            self.on_data(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Keep the reason."""
        self.losses += 1
        self.reason = reason.value


@implementer(IHalfCloseableProtocol)
class HalfCloseRecorder(Recorder):
    """Hears of the end of each direction.

    :ivar read_ends: how often ``readConnectionLost`` was called
    :ivar write_ends: how often ``writeConnectionLost`` was called
    """

    read_ends = 0
    write_ends = 0

    def readConnectionLost(self) -> None:
        """Count it."""
        self.read_ends += 1

    def writeConnectionLost(self) -> None:
        """Count it."""
        self.write_ends += 1


@implementer(IBufferReceiver)
class BufferRecorder(Recorder):
    """Takes received bytes as ``memoryview``.

    :ivar buffers: how often ``bufferReceived`` was called
    """

    buffers = 0

    def bufferReceived(self, buffer: memoryview) -> None:
        """Keep a copy."""
        self.buffers += 1
        super().dataReceived(bytes(buffer))

    def dataReceived(self, data: bytes) -> None:
        """Never called by a layer that looks at what its protocol provides."""
        raise AssertionError("dataReceived was called in the place of bufferReceived")


@implementer(IPushProducer)
class Flood:
    """Writes whenever it may, ``total`` bytes in all; then it unregisters.

    The byte at offset n of what it writes is ``n % 251``, so that a gap or a swap shows.

    :param transport: the consumer that it registers with
    :param total: how many bytes; less than 0 for a producer that only keeps what it is told
    :param size: of each write
    :ivar calls: ``pause``, ``resume`` and ``stop``, in order
    :ivar left: bytes that were not written yet
    """

    def __init__(self, transport: Any, total: int, size: int = 30_000) -> None:
        self.transport = transport
        self.left = total
        self.calls: list[str] = []
        self._written = 0
        self._size = size
        self._running = True
        self._writing = False

    def start(self) -> None:
        """Register with the transport and write until paused."""
        self.transport.registerProducer(self, True)
        self._go()

    def _go(self) -> None:
        if self._writing:
            return
        self._writing = True
        while self._running and self.left > 0:
            size = min(self.left, self._size)
            self.left -= size
            self.transport.write(flood_bytes(self._written, size))
            self._written += size
        self._writing = False
        if self.left == 0:
            self.left = -1
            self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """Keep it, and stop writing."""
        self.calls.append("pause")
        self._running = False

    def resumeProducing(self) -> None:
        """Keep it, and write."""
        self.calls.append("resume")
        self._running = True
        self._go()

    def stopProducing(self) -> None:
        """Keep it, and stop writing."""
        self.calls.append("stop")
        self._running = False
        self.left = -1


_PATTERN = bytes(range(251)) * 500


def flood_bytes(offset: int, size: int) -> bytes:
    """What a :class:`Flood` writes from ``offset`` on: ``size`` bytes."""
    start = offset % 251
    repeats = (start + size) // len(_PATTERN) + 1
    return (_PATTERN * repeats)[start : start + size]


@implementer(IPullProducer)
class PullRecorder:
    """Writes ``part`` each time it is asked, ``parts`` times in all; then it unregisters.

    :param transport: the consumer that it writes to
    :ivar parts: how often it will still write
    :ivar stops: how often it was stopped
    """

    def __init__(self, transport: Any, parts: int, part: bytes) -> None:
        self.transport = transport
        self.parts = parts
        self.part = part
        self.stops = 0

    def resumeProducing(self) -> None:
        """Write one part, or unregister."""
        if self.parts:
            self.parts -= 1
            self.transport.write(self.part)
        else:
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        """Count it."""
        self.stops += 1
