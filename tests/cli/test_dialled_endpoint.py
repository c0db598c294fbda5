"""The endpoint of a provider that was dialled ahead of time, over real sockets."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from cloudconnect.cli import dialling
from cloudconnect.cli.dialled_endpoint import DialledEndpoint
from cloudconnect.cli.dialling import Dialled


class Echoing(Protocol):
    """Sends back what it gets, and tells when a connection is there."""

    made: Deferred[Protocol]

    def connectionMade(self) -> None:
        assert self.factory is not None
        self.factory.connections.append(self)  # type: ignore[attr-defined]

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Hearing(Protocol):
    """Waits for some octets."""

    def __init__(self) -> None:
        self.heard: Deferred[bytes] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.heard.callback(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.ended.callback(None)


class DialledEndpointTests(TestCase):
    """Whoever connects does not see which of the two ways it went."""

    async def setUp(self) -> None:
        self.patch(dialling, "PATIENCE_SECONDS", 60.0)  # however busy the machine is
        self.accepting: Any = Factory.forProtocol(Echoing)
        self.accepting.noisy = False
        self.accepting.connections = []
        listening = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await listening.listen(self.accepting)
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port
        self.otherwise = 0

    def endpoint(self, port: int, dialled: Dialled) -> DialledEndpoint:
        def otherwise() -> IStreamClientEndpoint:
            self.otherwise += 1
            return TCP4ClientEndpoint(reactor, "127.0.0.1", port)

        made = DialledEndpoint(reactor, dialled, otherwise)
        self.assertTrue(verifyObject(IStreamClientEndpoint, made))
        return made

    async def speak(self, endpoint: DialledEndpoint) -> Hearing:
        protocol: Hearing = await endpoint.connect(Factory.forProtocol(Hearing))
        assert protocol.transport is not None
        protocol.transport.write(b"hello")
        self.assertEqual(b"hello", await protocol.heard)
        self.assertEqual(self.port, protocol.transport.getPeer().port)
        protocol.transport.loseConnection()
        await protocol.ended
        return protocol

    async def test_ahead(self) -> None:
        """The connection that is there is used, also where it comes up only now."""
        for wait in (True, False):
            dialled = Dialled("127.0.0.1", self.port)
            if wait:
                dialled._thread.join()
            await self.speak(self.endpoint(self.port, dialled))
        self.assertEqual((0, 2), (self.otherwise, len(self.accepting.connections)))

    async def test_again(self) -> None:
        """The next connection is a new one."""
        endpoint = self.endpoint(self.port, Dialled("127.0.0.1", self.port))
        await self.speak(endpoint)
        await self.speak(endpoint)
        self.assertEqual((1, 2), (self.otherwise, len(self.accepting.connections)))

    async def test_failed(self) -> None:
        """One that did not come up is as if it had never been: the other way's error is told."""
        dialled = Dialled("127.0.0.1", 1)
        await self.speak(self.endpoint(self.port, dialled))
        nowhere = self.endpoint(1, dialled)
        with self.assertRaises(ConnectError):
            await nowhere.connect(Factory.forProtocol(Hearing))

    async def test_refusing(self) -> None:
        """A factory that builds nothing is not asked for a second connection's sake."""
        refusing: Any = Factory()
        refusing.buildProtocol = lambda address: None
        with self.assertRaises(ConnectError):
            await self.endpoint(1, Dialled("127.0.0.1", self.port)).connect(refusing)
