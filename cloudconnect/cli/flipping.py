"""Layer 6: somebody on the way, for a drill: a relay on loopback that changes one bit.

It sees what anybody there sees: the first bytes of a connection go in clear and say what it is
(``docs/protocol.rst``, section 1), so it can pick out a Key B stream and strike its first record.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.settings import CONNECT_SECONDS
from cloudconnect.wire.preamble import PREAMBLE_SIZE, ConnectionKind, Preamble
from cloudconnect.wire.records import BEGIN_SIZE, HEADER_SIZE, HELLO_SIZE

_LOOPBACK: Final = "127.0.0.1"
#: Where the bit is changed: in the first byte of ciphertext that a Key B stream carries upwards.
STRUCK: Final = PREAMBLE_SIZE + HELLO_SIZE + BEGIN_SIZE + HEADER_SIZE
_MAGIC_AND_KIND: Final = Preamble(ConnectionKind.KEY_B_STREAM, bytes(16)).encode()[:5]


class _Side(Protocol):
    """One side of a relayed connection; what it receives, the other one writes."""

    other: _Side | None = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.other is not None and self.other.transport is not None:
            line: Any = self.other.transport
            line.unregisterProducer()
            line.loseConnection()

    def join(self, other: _Side) -> None:
        self.other, other.other = other, self
        near: Any = self.transport
        far: Any = other.transport
        near.registerProducer(far, True)
        far.registerProducer(near, True)

    def dataReceived(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)


class _Upward(_Side):
    """The tenant's side: changes a bit where its flipper says so."""

    def __init__(self, flipper: Flipper, endpoint: IStreamClientEndpoint) -> None:
        self._flipper = flipper
        self._endpoint = endpoint
        self._start = b""
        self._count = 0

    def connectionMade(self) -> None:
        line: Any = self.transport
        line.pauseProducing()
        self._flipper.opened(self)
        factory = Factory.forProtocol(_Side)
        factory.noisy = False
        self._endpoint.connect(factory).addCallbacks(self._joined, lambda _: line.abortConnection())

    def _joined(self, far: _Side) -> None:
        line: Any = self.transport
        if line is None or line.disconnected:
            far.transport.loseConnection()  # type: ignore[union-attr]
            return
        self.join(far)
        line.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        self._start = (self._start + data)[: len(_MAGIC_AND_KIND)]
        at = STRUCK - self._count
        self._count += len(data)
        if 0 <= at < len(data) and self._start == _MAGIC_AND_KIND and self._flipper.strike():
            data = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        super().dataReceived(data)


class Flipper:
    """Relays, on ports of its own on loopback, and changes one bit of one connection if it is told.

    :param reactor: the reactor
    :ivar armed: the next Key B stream is struck
    :ivar struck: how many bits were changed
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._listening: dict[tuple[str, int], Deferred[Any]] = {}
        self._lines: list[_Upward] = []
        self.armed = False
        self.struck = 0

    def endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        """Connects to ``host`` and ``port`` by way of the relay."""
        return _Through(self, host, port)

    def port_for(self, host: str, port: int) -> Deferred[Any]:
        """The listening port from which connections go on to ``host`` and ``port``."""
        key = (host, port)
        if key not in self._listening:
            onward = HostnameEndpoint(self._reactor, host, port, timeout=CONNECT_SECONDS)
            factory = Factory.forProtocol(lambda: _Upward(self, onward))
            factory.noisy = False
            server = TCP4ServerEndpoint(self._reactor, 0, interface=_LOOPBACK)
            self._listening[key] = server.listen(factory)
        shared: Deferred[Any] = Deferred()

        def pass_on(result: Any) -> Any:
            shared.callback(result)
            return result

        self._listening[key].addBoth(pass_on)
        return shared

    def opened(self, line: _Upward) -> None:
        """A connection was accepted."""
        self._lines.append(line)

    def strike(self) -> bool:
        """Whether to change a bit now: once for each time that it was armed."""
        if not self.armed:
            return False
        self.armed = False
        self.struck += 1
        return True

    async def close(self) -> None:
        """Stop listening, and cut what is left."""
        ports = await DeferredList(list(self._listening.values()), consumeErrors=True)
        await DeferredList([port.stopListening() for good, port in ports if good])
        for line in self._lines:
            if line.transport is not None:
                line.transport.abortConnection()  # type: ignore[attr-defined]


@implementer(IStreamClientEndpoint)
class _Through:
    def __init__(self, flipper: Flipper, host: str, port: int) -> None:
        self._flipper = flipper
        self._place = (host, port)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> Any:
        port = await self._flipper.port_for(*self._place)
        reactor = self._flipper._reactor
        return await TCP4ClientEndpoint(reactor, _LOOPBACK, port.getHost().port).connect(factory)
