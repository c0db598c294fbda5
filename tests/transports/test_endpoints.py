"""Tests of :mod:`cloudconnect.transports.endpoints`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from cloudconnect.errors import HandshakeTimeout, Tampered, Truncated, UsageError
from cloudconnect.keys import Secret
from cloudconnect.testing import Recorder
from cloudconnect.transports.endpoints import (
    connect_protocol,
    wrap_client_endpoint,
    wrap_server_endpoint,
)
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.memory import MemoryEndpoint
from cloudconnect.transports.recipe import Recipe
from cloudconnect.transports.stream import RecordStream
from cloudconnect.transports.tls import PinnedTLS


def stream(secret: int = 1, context: bytes = b"endpoints") -> RecordStream:
    return RecordStream(Secret(bytes((secret,)) * 32), context)


def factory(protocol: Any) -> Factory:
    made = Factory.forProtocol(lambda: protocol)
    made.noisy = False
    return made


class EndpointTests(SynchronousTestCase):
    """Layers on endpoints in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.place = MemoryEndpoint(self.clock, "place")
        self.client, self.server = Recorder(), Recorder()

    def listen(self, *layers: Recipe) -> Any:
        endpoint: Any = self.place
        for layer in layers:
            endpoint = wrap_server_endpoint(layer, endpoint, self.clock)
        return self.successResultOf(endpoint.listen(factory(self.server)))

    def connect(self, *layers: Recipe) -> Deferred[Any]:
        endpoint: Any = self.place
        for layer in layers:
            endpoint = wrap_client_endpoint(layer, endpoint, self.clock)
        return endpoint.connect(factory(self.client))

    def test_one(self) -> None:
        """A protocol that is there already takes the connection, and is what one waits for."""
        self.listen(stream())
        layered = wrap_client_endpoint(stream(), self.place, self.clock)
        connecting = connect_protocol(layered, self.client)
        self.clock.pump([0] * 20)
        self.assertIs(self.client, self.successResultOf(connecting))
        self.assertIsNotNone(self.client.transport)

    def test_interfaces(self) -> None:
        """They are endpoints as Twisted knows them."""
        verifyObject(IStreamClientEndpoint, wrap_client_endpoint(stream(), self.place, self.clock))
        verifyObject(IStreamServerEndpoint, wrap_server_endpoint(stream(), self.place, self.clock))

    def test_done_when_the_handshake_is(self) -> None:
        """connect() gives the protocol above the layer, and not before the handshake is over."""
        self.listen(stream())
        connecting = self.connect(stream())
        self.assertNoResult(connecting)
        self.assertEqual(self.client.handshakes, 0)
        self.clock.advance(0)
        self.assertIs(self.successResultOf(connecting), self.client)
        self.assertEqual(self.client.handshakes, 1)
        transport: Any = self.client.transport
        transport.write(b"question")
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"question")

    def test_layers_upon_layers(self) -> None:
        """The protocol above the uppermost layer, once the last handshake is over."""
        layers = [stream(1), stream(2), stream(3)]
        self.listen(*layers)
        connecting = self.connect(*layers)
        self.clock.advance(0)
        self.assertIs(self.successResultOf(connecting), self.client)
        transport: Any = self.client.transport
        transport.write(b"through three")
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"through three")

    def test_other_secret(self) -> None:
        """connect() fails with the layer's own reason, which the protocol is told too."""
        for there in (stream(2), stream(context=b"other")):
            self.setUp()
            self.listen(there)
            connecting = self.connect(stream())
            self.clock.advance(0)
            failure = self.failureResultOf(connecting, Tampered)
            self.assertIs(self.client.reason, failure.value)
            self.assertIsInstance(self.server.reason, Truncated)
            self.assertEqual((self.client.handshakes, self.server.handshakes), (0, 0))

    def test_upper_layer_fails(self) -> None:
        """So it does where a layer upon the first one fails."""
        self.listen(stream(1), stream(2))
        connecting = self.connect(stream(1), stream(3))
        self.clock.advance(0)
        self.failureResultOf(connecting, Tampered)

    def test_silent_peer(self) -> None:
        """connect() does not wait for ever."""
        self.listen()
        connecting = self.connect(stream())
        self.clock.advance(0)
        self.assertNoResult(connecting)
        self.clock.advance(10)
        self.clock.advance(0)
        self.failureResultOf(connecting, HandshakeTimeout)

    def test_nobody_listens(self) -> None:
        """What the endpoint below says is what connect() says."""
        self.failureResultOf(self.connect(stream()), ConnectionRefusedError)

    def test_refusing_factory(self) -> None:
        """A factory that builds nothing stays a refusal."""
        self.listen(stream())
        nothing = Factory()
        nothing.buildProtocol = lambda _: None  # type: ignore[method-assign]
        endpoint = wrap_client_endpoint(stream(), self.place, self.clock)
        self.failureResultOf(endpoint.connect(nothing), ConnectionRefusedError)

    def test_cancel_in_the_handshake(self) -> None:
        """Cancelling closes the connection."""
        self.listen()
        connecting = self.connect(stream())
        self.clock.advance(0)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.clock.advance(0)
        self.assertEqual((self.client.losses, self.server.losses), (1, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancel_before(self) -> None:
        """Cancelling reaches the endpoint below while that still connects."""
        cancelled: list[Any] = []

        class Slow:
            def connect(self, _: Any) -> Deferred[Any]:
                return Deferred(cancelled.append)

        slow: Any = Slow()
        connecting = wrap_client_endpoint(stream(), slow, self.clock).connect(factory(self.client))
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(len(cancelled), 1)

    def test_cannot_listen(self) -> None:
        """What the endpoint below says is what listen() says."""

        class Taken:
            def listen(self, _: Any) -> Deferred[Any]:
                return fail(OSError("taken"))

        taken: Any = Taken()
        listening = wrap_server_endpoint(stream(), taken, self.clock).listen(factory(self.server))
        self.failureResultOf(listening, OSError)

    def test_unusable_recipe(self) -> None:
        """A recipe that cannot be used fails the Deferred; nothing is raised at once."""
        unusable = PinnedTLS(identity=ServerIdentity("/nonexistent", "/nonexistent"))
        client = wrap_client_endpoint(unusable, self.place, self.clock)
        server = wrap_server_endpoint(unusable, self.place, self.clock)
        self.failureResultOf(client.connect(factory(Recorder())), UsageError)
        self.failureResultOf(server.listen(factory(Recorder())), UsageError)

    def test_port(self) -> None:
        """listen() gives the port of the endpoint below."""
        self.assertIs(self.listen(stream()), self.place)


class RealEndpointTests(TestCase):
    """The same over real sockets."""

    async def exchange(self, there: str, here: Any) -> None:
        """A question, an answer, and an end on both sides."""
        from twisted.internet import reactor

        client, server = Recorder(), Recorder()
        lost = [Deferred[None](), Deferred[None]()]
        for protocol, done in zip((client, server), lost, strict=True):
            told = protocol.connectionLost

            def connection_lost(reason: Any, told: Any = told, done: Any = done) -> None:
                told(reason)
                done.callback(None)

            protocol.connectionLost = connection_lost  # type: ignore[method-assign]
        layer = stream()
        server_endpoint = serverFromString(reactor, there)
        port: Any = await wrap_server_endpoint(layer, server_endpoint, reactor).listen(
            factory(server)
        )
        self.addCleanup(port.stopListening)
        client_endpoint = clientFromString(reactor, here(port))
        connected = await wrap_client_endpoint(layer, client_endpoint, reactor).connect(
            factory(client)
        )
        self.assertIs(connected, client)
        near: Any = client.transport
        self.assertTrue(near.owns_socket)

        def answer(data: bytes) -> None:
            far: Any = server.transport
            far.write(data.upper())
            far.loseConnection()

        server.on_data = answer
        near.write(b"question")
        for done in lost:
            await done
        self.assertEqual((client.data, server.data), (b"QUESTION", b"question"))

    async def test_tcp(self) -> None:
        """Over TCP."""
        await self.exchange(
            "tcp:0:interface=127.0.0.1", lambda port: f"tcp:127.0.0.1:{port.getHost().port}"
        )

    async def test_unix(self) -> None:
        """Over a UNIX socket."""
        path = self.mktemp()[-80:].replace("/", "-")
        await self.exchange(f"unix:{path}", lambda _: f"unix:{path}")
