"""An attacker on the way: a TCP proxy on loopback between a tenant and its provider's gateway.

It sees what anybody there sees. From the first bytes it knows what a connection is, and it follows
the fields that go in clear (:mod:`tests.attacks.fields`), so that a rule
(:mod:`tests.attacks.rules`) can say where to strike. Every byte is recorded, as it came and as it
went on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IListeningPort
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.attacks.fields import Dissector, Line, Way
from tests.attacks.rules import Cut, Flip, Insert, Omit, Rule, Stall, Trickle

LOOPBACK = "127.0.0.1"


@implementer(IHalfCloseableProtocol)
class _End(Protocol):
    """One of the two sockets of a relayed connection.

    :ivar passing: the direction of what it receives
    """

    def __init__(self, relayed: Relayed, passing: Way) -> None:
        self.relayed = relayed
        self.passing = passing
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]
        self.relayed.connected(self)

    def dataReceived(self, data: bytes) -> None:
        self.relayed.came(self.passing, data)

    def readConnectionLost(self) -> None:
        self.relayed.finished(self.passing)

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.relayed.lost(self, reason)
        self.gone.callback(None)


class Relayed:
    """One connection through the proxy.

    :ivar line: what it is, known from its first bytes
    :ivar came_in: what each side sent, by direction
    :ivar went_on: what the other side got of it
    """

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.line = Line.OTHER
        self.came_in: dict[Way, bytearray] = {way: bytearray() for way in Way}
        self.went_on: dict[Way, bytearray] = {way: bytearray() for way in Way}
        self.tenant = _End(self, Way.UP)
        self.provider = _End(self, Way.DOWN)
        self._known = False
        self._first = b""
        self._dissectors: dict[Way, Dissector] = {}
        self._over = False
        self._held: dict[Way, bytearray] = {}
        self._slow: dict[Way, int] = {}
        self._queues: dict[Way, deque[bytes]] = {way: deque() for way in Way}
        self._finished: set[Way] = set()

    def _from(self, way: Way) -> Any:
        return (self.tenant if way is Way.UP else self.provider).transport

    def _to(self, way: Way) -> Any:
        return (self.provider if way is Way.UP else self.tenant).transport

    def connected(self, end: _End) -> None:
        if end is self.tenant:
            self.tenant.transport.pauseProducing()  # type: ignore[union-attr]
            place = TCP4ClientEndpoint(
                self._proxy.reactor,
                LOOPBACK,
                self._proxy.target,
                bindAddress=(self._proxy.address, 0),
            )
            connecting = place.connect(_factory(lambda: self.provider))
            connecting.addErrback(lambda _: self.close(reset=True))
            return
        if self.tenant.transport is None or self._over:
            self.close(reset=True)
            return
        for way in Way:
            self._to(way).registerProducer(self._from(way), True)
        self._from(Way.UP).resumeProducing()

    def came(self, way: Way, data: bytes) -> None:
        self.came_in[way] += data
        if self._over:
            return
        if not self._known:
            if way is Way.UP:
                self._first += data
                data = self._first
            if not self._find_out(way, data):
                return
        self._pass(way, data)

    def _find_out(self, way: Way, data: bytes) -> bool:
        """Whether it is known what this connection is: the tenant speaks first."""
        if way is Way.UP:
            if data[:1] == b"C" and len(data) < 5:
                return False
            kinds = {1: Line.TUNNEL, 2: Line.STREAM}
            if data[:1] == b"\x16":
                self.line = Line.CONTROL
            elif data[:4] == b"CCN1":
                self.line = kinds.get(data[4], Line.OTHER)
        self._known = True
        self._dissectors = {way: Dissector(self.line, way) for way in Way}
        return True

    def _pass(self, way: Way, data: bytes) -> None:
        if way in self._held:
            self._held[way] += data
            return
        out = bytearray()
        position = 0
        for piece in self._dissectors[way].feed(data):
            octets = bytearray(data[position : position + piece.size])
            position += piece.size
            for rule in self._proxy.rules:
                index = rule.finds(self.line, way, piece)
                if index is None:
                    continue
                rule.tell(self._proxy.reactor)
                if isinstance(rule, Flip):
                    octets[index] ^= rule.mask
                elif isinstance(rule, Insert):
                    index += rule.behind
                    octets[index:index] = rule.octets(self)
                elif isinstance(rule, Omit):
                    octets.clear()
                elif isinstance(rule, Cut):
                    self._send(way, out + octets[:index])
                    self.close(rule.reset)
                    return
                elif isinstance(rule, Stall):
                    self._send(way, out + octets[:index])
                    self._held[way] = octets[index:] + data[position:]
                    self._dissectors[way] = Dissector(Line.OTHER, way)  # from here on, blindly
                    return
                elif isinstance(rule, Trickle):
                    self._slow[way] = rule.count
            out += octets
        self._send(way, out)

    def _send(self, way: Way, octets: bytes | bytearray) -> None:
        queue = self._queues[way]
        slow = min(len(octets), self._slow.get(way, 0))
        if slow or queue:
            began = not queue
            queue.extend(bytes((octet,)) for octet in octets[:slow])
            self._slow[way] = self._slow.get(way, 0) - slow
            if octets[slow:]:
                queue.append(bytes(octets[slow:]))
            if began:
                self._from(way).pauseProducing()
                self._proxy.reactor.callLater(0, self._next, way)
        else:
            self._write(way, bytes(octets))

    def _next(self, way: Way) -> None:
        queue = self._queues[way]
        if self._over or not queue:
            return
        self._write(way, queue.popleft())
        if queue:
            self._proxy.reactor.callLater(0, self._next, way)
        elif way in self._finished:
            self._to(way).loseWriteConnection()
        else:
            self._from(way).resumeProducing()

    def _write(self, way: Way, octets: bytes) -> None:
        if octets and self._to(way) is not None:
            self.went_on[way] += octets
            self._to(way).write(octets)

    def release(self) -> None:
        """Let pass on what was stalled."""
        for way in list(self._held):
            self._write(way, bytes(self._held.pop(way)))
            if way in self._finished:
                self._to(way).loseWriteConnection()

    def finished(self, way: Way) -> None:
        """One side has sent FIN."""
        self._finished.add(way)
        if not (self._over or self._held.get(way) or self._queues[way]):
            to = self._to(way)
            if to is not None:
                to.unregisterProducer()
                to.loseWriteConnection()

    def lost(self, end: _End, reason: Failure) -> None:
        """One socket is closed: so is the other, in the same manner."""
        if not self._over:
            self.close(reset=not reason.check(ConnectionDone))

    def close(self, reset: bool) -> None:
        """Close both sockets."""
        self._over = True
        for end in (self.tenant, self.provider):
            if end.transport is not None:
                end.transport.unregisterProducer()  # type: ignore[attr-defined]
                if reset:
                    end.transport.abortConnection()  # type: ignore[attr-defined]
                else:
                    end.transport.loseConnection()

    def forsake(self) -> None:
        """Close the tenant's socket alone: the provider hears nothing of it."""
        self._over = True
        near: Any = self.tenant.transport
        if near is not None:
            near.unregisterProducer()
            near.abortConnection()

    def over(self) -> Deferred[Any]:
        """Fires when both sockets are closed."""
        ends = [end.gone for end in (self.tenant, self.provider) if end.transport is not None]
        return DeferredList(ends)


def _factory(build: Callable[[], Protocol]) -> Factory:
    factory = Factory.forProtocol(build)  # type: ignore[arg-type]
    factory.noisy = False
    return factory


class Proxy:
    """Listens on a port of its own and relays to ``target``.

    :param reactor: the reactor
    :param target: TCP port of the gateway, on loopback
    :param address: what it connects from, an address of loopback
    :ivar rules: what to do; may be exchanged at any time
    :ivar connections: every connection so far, with what was recorded of it
    """

    def __init__(self, reactor: Any, target: int, address: str = LOOPBACK) -> None:
        self.reactor = reactor
        self.target = target
        self.address = address
        self.rules: list[Rule] = []
        self.connections: list[Relayed] = []
        listening: IListeningPort = reactor.listenTCP(0, _factory(self._accept), interface=LOOPBACK)
        self._listening = listening
        #: The port that tenants connect to.
        self.port: int = listening.getHost().port  # type: ignore[attr-defined]

    def _accept(self) -> Protocol:
        relayed = Relayed(self)
        self.connections.append(relayed)
        return relayed.tenant

    def of(self, line: Line) -> list[Relayed]:
        """The connections of this kind."""
        return [relayed for relayed in self.connections if relayed.line is line]

    def recorded(self) -> Iterator[bytes]:
        """Every direction of every connection, as it was sent."""
        for relayed in self.connections:
            for octets in relayed.came_in.values():
                yield bytes(octets)

    def size(self, way: Way) -> int:
        """Bytes that were sent in this direction, on all connections."""
        return sum(len(relayed.came_in[way]) for relayed in self.connections)

    def forget(self) -> None:
        """Drop what was recorded of connections that are over, and all rules."""
        self.rules = []
        self.connections = [r for r in self.connections if not r.over().called]

    def release(self) -> None:
        """Let pass on everything that was stalled; nothing new stalls."""
        self.rules = [rule for rule in self.rules if not isinstance(rule, Stall)]
        for relayed in self.connections:
            relayed.release()

    async def close(self) -> None:
        """Stop listening and end every connection."""
        stopping = self._listening.stopListening()
        if stopping is not None:
            await stopping
        for relayed in self.connections:
            relayed.close(reset=True)
        await DeferredList([relayed.over() for relayed in self.connections])
