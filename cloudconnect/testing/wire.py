"""Testing support: a connection in memory with somebody in the middle.

Source: ``docs/threat-model.rst``: what somebody on the way can do.
"""

# mypy: allow-untyped-calls
# (trial's and Twisted's methods have no types)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.transports.memory import PIECE, MemoryPair

#: From the side that opened the connection to the other one.
UP = "up"
#: The other way.
DOWN = "down"


@implementer(IPushProducer)
class _Tap(Protocol):
    """Takes what comes on one side of the middle and passes it on to the other side."""

    other: _Tap

    def __init__(self, wire: Wire, direction: str) -> None:
        self._wire = wire
        self._direction = direction

    def dataReceived(self, data: bytes) -> None:
        passed = self._wire._pass(self._direction, data)
        if passed:
            self._far.write(passed)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._far.unregisterProducer()
        if isinstance(reason.value, ConnectionDone):
            self._far.loseConnection()
        else:
            self._far.abortConnection()

    @property
    def _far(self) -> Any:
        return self.other.transport

    @property
    def _near(self) -> Any:
        return self.transport

    def pauseProducing(self) -> None:
        self._near.pauseProducing()

    def resumeProducing(self) -> None:
        self._near.resumeProducing()

    def stopProducing(self) -> None:
        """Said by ``connectionLost`` too."""


class Wire:
    """Joins two protocols in memory, with flow control, through somebody who can change bytes.

    :param clock: delivers
    :param piece: most bytes of one delivery, asked before each one
    :ivar client: the transport of the side that opens the connection
    :ivar server: the transport of the other side
    :ivar seen: the bytes that came into the middle, for :data:`UP` and :data:`DOWN`
    :ivar flips: bits to change: ``{(direction, offset): mask}``
    :ivar muted: directions whose bytes vanish
    """

    def __init__(self, clock: IReactorTime, piece: Callable[[], int] = lambda: PIECE) -> None:
        self._up, self._down = _Tap(self, UP), _Tap(self, DOWN)
        self._up.other, self._down.other = self._down, self._up
        self._near = MemoryPair(clock, piece=piece)
        self._far = MemoryPair(clock, piece=piece)
        self.client = self._near.left
        self.server = self._far.right
        self.seen: dict[str, bytearray] = {UP: bytearray(), DOWN: bytearray()}
        self.flips: dict[tuple[str, int], int] = {}
        self.muted: set[str] = set()
        self._cuts: dict[str, int] = {}

    def connect(self, client: IProtocol, server: IProtocol) -> None:
        """Connect both protocols, the server first.

        :param client: for the side that opens the connection
        :param server: for the other one
        """
        self._near.right.protocol = self._up
        self._far.left.protocol = self._down
        self._up.makeConnection(self._near.right)
        self._down.makeConnection(self._far.left)
        self._far.left.registerProducer(self._up, True)
        self._near.right.registerProducer(self._down, True)
        self.client.protocol, self.server.protocol = client, server
        server.makeConnection(self.server)
        client.makeConnection(self.client)

    def cut(self, direction: str, offset: int) -> None:
        """Close both sides, as an ordinary end, once ``offset`` bytes have passed and more came.

        :param direction: :data:`UP` or :data:`DOWN`
        """
        self._cuts[direction] = offset

    def _pass(self, direction: str, data: bytes) -> bytes:
        seen = self.seen[direction]
        start = len(seen)
        seen += data
        if direction in self.muted:
            return b""
        changed = bytearray(data)
        for (where, offset), mask in self.flips.items():
            if where == direction and start <= offset < start + len(data):
                changed[offset - start] ^= mask
        cut = self._cuts.get(direction)
        if cut is not None and start + len(data) > cut:
            tap = self._up if direction == UP else self._down
            tap._far.write(bytes(changed[: cut - start]))
            self._close()
            return b""
        return bytes(changed)

    def _close(self) -> None:
        self.muted |= {UP, DOWN}
        for tap in (self._up, self._down):
            tap._near.unregisterProducer()
            tap._near.loseConnection()
