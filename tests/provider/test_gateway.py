"""Tests of :mod:`cloudconnect.provider.gateway`: connections in memory, routes over a link."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cloudconnect.commands.lan import PublishRoute, RetireRoute
from cloudconnect.commands.links import link_in_process
from cloudconnect.errors import Refused
from cloudconnect.provider import gateway as gateway_module
from cloudconnect.provider.gateway import Gateway
from cloudconnect.settings import PREAMBLE_SECONDS
from cloudconnect.testing import Recorder
from cloudconnect.transports.memory import MemoryEndpoint
from cloudconnect.transports.switch import FactoryTarget, Outcome
from cloudconnect.wire.preamble import ConnectionKind, Preamble

ROUTE, OTHER, GROUP = b"r" * 16, b"o" * 16, b"g" * 16
CLIENT_HELLO = b"\x16\x03\x01 a TLS handshake"


def preamble(route: bytes = ROUTE) -> bytes:
    return Preamble(ConnectionKind.KEY_B_STREAM, route).encode()


class Back:
    """A back end that keeps its connections."""

    def __init__(self, name: str) -> None:
        self.made: list[Recorder] = []
        self.target = FactoryTarget(Factory.forProtocol(self.build), name)

    def build(self) -> Recorder:
        self.made.append(Recorder())
        return self.made[-1]

    @property
    def data(self) -> list[bytes]:
        return [bytes(made.data) for made in self.made]


class GatewayCase(SynchronousTestCase):
    """A test with a gateway and two back ends."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.service, self.mover = Back("service"), Back("mover")
        self.endpoint = MemoryEndpoint(self.clock, "public")
        self.gateway = Gateway(self.clock, self.endpoint, self.resolve, "service")
        self.link, _ = link_in_process(self.clock, None, self.gateway)
        self.successResultOf(self.gateway.listen())

    def resolve(self, backend: str) -> Any:
        targets = {"service": self.service.target, "here": self.mover.target}
        if backend not in targets:
            raise Refused(f"no back end {backend}")
        return targets[backend]

    def publish(self, route: bytes = ROUTE, backend: str = "here", lifetime: int = 60_000) -> Any:
        answer = self.link.call(
            PublishRoute, route=route, backend=backend, group=GROUP, rate=0, lifetime=lifetime
        )
        self.clock.advance(0)
        return answer

    def connect(self, data: bytes) -> Recorder:
        """A stranger connects and sends ``data``."""
        client = Recorder()
        client.greeting = data
        self.successResultOf(self.endpoint.connect(Factory.forProtocol(lambda: client)))
        self.clock.advance(0)
        return client


class RouteTests(GatewayCase):
    """Where connections go."""

    def test_tls(self) -> None:
        """TLS goes to the service whole, from its first byte."""
        client = self.connect(CLIENT_HELLO)
        self.assertEqual([CLIENT_HELLO], self.service.data)
        self.service.made[0].transport.write(b"server hello")
        self.clock.advance(0)
        self.assertEqual(b"server hello", bytes(client.data))

    def test_published(self) -> None:
        """A connection with a published route goes to its back end, preamble and all."""
        self.assertEqual({}, self.successResultOf(self.publish()))
        self.connect(preamble() + b"more")
        self.assertEqual([preamble() + b"more"], self.mover.data)
        self.assertEqual([], self.service.data)

    def test_again(self) -> None:
        """A route serves any number of connections."""
        self.publish()
        for _ in range(3):
            self.connect(preamble())
        self.assertEqual([preamble()] * 3, self.mover.data)

    def test_unknown(self) -> None:
        """A route id that nobody has published is refused, and so is garbage."""
        self.publish()
        for data in (preamble(OTHER), b"GET / HTTP/1.0\r\n\r\n", b"\x00"):
            self.assertEqual(1, self.connect(data).losses)
        self.assertEqual([], self.mover.data + self.service.data)
        counts = self.gateway.factory.counts
        self.assertEqual((1, 2), (counts[Outcome.UNKNOWN_ROUTE], counts[Outcome.GARBAGE]))

    def test_retired(self) -> None:
        """A retired route takes no new connections; one that runs goes on."""
        self.publish()
        running = self.connect(preamble())
        self.link.call(RetireRoute, route=ROUTE)
        self.clock.advance(0)
        self.assertEqual(1, self.connect(preamble()).losses)
        running.transport.write(b"on and on")
        self.clock.advance(0)
        self.assertEqual([preamble() + b"on and on"], self.mover.data)

    def test_retired_twice(self) -> None:
        """Retiring what is not there is no error."""
        answer = self.link.call(RetireRoute, route=ROUTE)
        self.clock.advance(0)
        self.assertEqual({}, self.successResultOf(answer))

    def test_lifetime(self) -> None:
        """A route lives as long as it was published for, and no longer."""
        self.publish(lifetime=1500)
        self.clock.advance(1.5)
        self.assertEqual(0, self.connect(preamble()).losses)
        self.clock.advance(0.01)
        self.assertEqual(1, self.connect(preamble()).losses)

    def test_renewed(self) -> None:
        """Publishing a route again gives it a new lifetime."""
        self.publish(lifetime=1000)
        self.clock.advance(0.9)
        self.publish(lifetime=1000)
        self.clock.advance(0.9)
        self.assertEqual(0, self.connect(preamble()).losses)

    def test_no_such_back_end(self) -> None:
        """A back end that the gateway must not reach is not published."""
        self.failureResultOf(self.publish(backend="192.0.2.1:22"), Refused)
        self.assertEqual(1, self.connect(preamble()).losses)

    def test_slow_loris(self) -> None:
        """Who does not say what it wants is closed after a time limit."""
        client = self.connect(preamble()[:20])
        self.clock.advance(PREAMBLE_SECONDS)
        self.assertEqual(1, client.losses)
        self.assertEqual(1, self.gateway.factory.counts[Outcome.TIMEOUT])

    def test_full(self) -> None:
        """The table of routes is bounded; expired ones make room, live ones are never dropped."""
        self.patch(gateway_module, "ROUTES_MAX", 3)
        for number in range(3):
            self.publish(bytes([number]) * 16, lifetime=1000 * (number + 1))
        self.failureResultOf(self.publish(ROUTE), Refused)
        self.clock.advance(1.1)
        self.successResultOf(self.publish(ROUTE))
        for route, losses in ((b"\0" * 16, 1), (b"\1" * 16, 0), (ROUTE, 0)):
            self.assertEqual(losses, self.connect(preamble(route)).losses, route)

    def test_service_moves(self) -> None:
        """A gateway may learn later where TLS goes."""
        self.gateway.serve_tls_from("here")
        self.connect(CLIENT_HELLO)
        self.assertEqual([CLIENT_HELLO], self.mover.data)

    def test_no_service_yet(self) -> None:
        """A gateway that does not know the service yet refuses TLS."""
        endpoint = MemoryEndpoint(self.clock, "new")
        gateway = Gateway(self.clock, endpoint, self.resolve)
        gateway.listen()
        self.endpoint = endpoint
        self.assertEqual(1, self.connect(CLIENT_HELLO).losses)

    def test_stopped(self) -> None:
        """A stopped gateway accepts nothing and knows no route."""
        self.publish()
        self.gateway.stopService()
        refused = self.endpoint.connect(Factory.forProtocol(Recorder))
        self.failureResultOf(refused, ConnectionRefusedError)
        self.assertIsNone(self.gateway.target(ROUTE))

    def test_stopped_before_it_listened(self) -> None:
        """A gateway that never listened can be stopped."""
        gateway = Gateway(self.clock, MemoryEndpoint(self.clock, "x"), self.resolve, "service")
        self.assertIsNone(gateway.stopService())


class LoopbackTests(TestCase):
    """The same over real TCP."""

    timeout = 60

    @inlineCallbacks
    def test_both_kinds(self) -> Any:
        """TLS and data connections of one port reach their back ends with every byte."""
        back = {"service": Back("service"), "here": Back("mover")}
        gateway = Gateway(
            reactor,
            TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
            lambda name: back[name].target,
            "service",
        )
        gateway.startService()
        port: Any = yield gateway.listen()
        gateway.publish(ROUTE, "here", GROUP, 0, 60_000)
        target = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        for name, data in (("service", CLIENT_HELLO), ("here", preamble() + b"x" * 100_000)):
            client, echoed = Recorder(), Deferred[None]()
            client.greeting = data
            client.on_data = lambda _, done=echoed: done.callback(None)
            build = back[name].build

            def answering(build: Any = build, size: int = len(data)) -> Recorder:
                made = build()

                def look(_: bytes) -> None:
                    if len(made.data) == size:
                        made.transport.write(b".")

                made.on_data = look
                return made

            back[name].target.factory.protocol = answering
            yield connectProtocol(target, client)
            yield echoed
            self.assertEqual([data], back[name].data)
            gone = Deferred[None]()
            back[name].made[0].connectionLost = lambda _, gone=gone: gone.callback(None)
            client.transport.loseConnection()
            yield gone
        yield gateway.stopService()
