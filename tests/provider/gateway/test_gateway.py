"""Tests of :mod:`cloudconnect.provider.gateway.gateway`:
connections in memory, routes over a link.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.amp import CommandLocator
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cloudconnect.commands.lan import DrainGateway, PublishRoute, ReportLoad, RetireRoute
from cloudconnect.commands.links import link_in_process
from cloudconnect.errors import Refused
from cloudconnect.provider.gateway import gateway as gateway_module
from cloudconnect.provider.gateway.gateway import Bounds, Gateway
from cloudconnect.settings import LOAD_SECONDS, PREAMBLE_SECONDS
from cloudconnect.testing import Flood, Recorder, flood_bytes
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
    """A test with a gateway and two back ends.

    :cvar bounds: of the gateway
    """

    bounds = Bounds()

    def setUp(self) -> None:
        self.clock = Clock()
        self.service, self.mover = Back("service"), Back("mover")
        self.endpoint = MemoryEndpoint(self.clock, "public")
        self.gateway = Gateway(
            self.clock, self.endpoint, self.resolve, "service", bounds=self.bounds
        )
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


class BoundTests(GatewayCase):
    """How much of it somebody may have."""

    bounds = Bounds(connections=5, of_address=3, of_tenant=2)

    def test_changed(self) -> None:
        """Other bounds hold from then on; who is in stays."""
        self.publish()
        kept = [self.connect(preamble()) for _ in range(2)]
        self.gateway.change(Bounds(connections=5, of_address=5, of_tenant=3))
        kept.append(self.connect(preamble()))
        self.gateway.change(Bounds(connections=1, of_address=1, of_tenant=1, line_rate=1000))
        self.assertEqual([0, 0, 0], [one.losses for one in kept])
        self.assertEqual(1, self.connect(CLIENT_HELLO).losses)
        self.gateway.change(Bounds())
        self.assertEqual(0, self.connect(CLIENT_HELLO).losses)

    def test_tenant(self) -> None:
        """One tenant's group gets so many data connections over all of its routes; one that ends
        makes room, and another tenant is not bothered."""
        other = b"h" * 16
        self.publish()
        self.publish(OTHER)
        self.gateway.publish(b"x" * 16, "here", other, 0, 60_000)
        first = self.connect(preamble())
        self.connect(preamble(OTHER))
        self.assertEqual(1, self.connect(preamble()).losses)
        self.assertEqual(0, self.connect(preamble(b"x" * 16)).losses)
        first.transport.loseConnection()
        self.clock.advance(0)
        self.assertEqual(0, self.connect(preamble()).losses)

    def test_all(self) -> None:
        """There are no more connections than are set, and that is counted."""
        clients = [self.connect(CLIENT_HELLO) for _ in range(6)]
        self.assertEqual([0] * 5 + [1], [client.losses for client in clients])
        self.assertEqual(1, self.gateway.factory.counts[Outcome.CROWDED])


class ShapedTests(GatewayCase):
    """A line with a rate, before roles in this process."""

    bounds = Bounds(line_rate=1_000_000)

    def test_rate(self) -> None:
        """What goes through is held to the rate, and all of it arrives; TLS is not held."""
        self.publish()
        client = self.connect(preamble())
        flood = Flood(client.transport, 500_000)
        flood.start()
        self.connect(CLIENT_HELLO + bytes(300_000))
        self.clock.pump([0.01] * 20)
        self.assertEqual(len(CLIENT_HELLO) + 300_000, len(self.service.data[0]))
        arrived = len(self.mover.data[0])
        self.assertLess(arrived, 320_000)
        self.assertGreater(arrived, 150_000)
        self.clock.pump([0.01] * 60)
        self.assertEqual(preamble() + flood_bytes(0, 500_000), self.mover.data[0])
        self.mover.made[0].transport.write(b"down")
        self.clock.pump([0.01] * 3)
        self.assertEqual(b"down", bytes(client.data))
        client.transport.loseConnection()
        self.clock.advance(0)
        self.assertEqual(({}, 0), (dict(self.gateway._groups), self.gateway.relays.traffic.pairs))

    def test_half_closes(self) -> None:
        """The end of the connection is passed on, either way."""
        self.publish()
        client = self.connect(preamble())
        self.mover.made[0].transport.loseConnection()
        self.clock.pump([0.01] * 3)
        self.assertEqual(1, client.losses)
        self.assertEqual({}, dict(self.gateway._groups))

    def test_addresses(self) -> None:
        """The role sees the address of who connected."""
        self.publish()
        client = self.connect(preamble())
        peer = self.mover.made[0].transport.getPeer()
        self.assertEqual(client.transport.getHost(), peer)


class Service(CommandLocator):
    """Takes what a gateway reports.

    :ivar rates: what it is answered
    """

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[dict[str, Any]] = []
        self.rates: list[Any] = []

    @ReportLoad.responder
    def report_load(self, **load: Any) -> dict[str, Any]:
        self.loads.append(load)
        return {"rates": self.rates}


class LoadTests(GatewayCase):
    """What a gateway reports."""

    def setUp(self) -> None:
        super().setUp()
        self.there = Service()
        self.far, line = link_in_process(self.clock, self.there, self.gateway)
        self.publish()
        self.gateway.report_to(line)
        self.clock.advance(0)

    def test_load(self) -> None:
        """Its connections, what it moves in a second, and whose relays it has, every few seconds;
        nothing more once the line is gone."""
        client = self.connect(preamble())
        self.gateway.relays.traffic.up += 5_000_000
        self.gateway.relays.traffic.down += 1_000_000
        self.clock.advance(LOAD_SECONDS)
        self.clock.advance(0)
        first, second = self.there.loads
        self.assertEqual((0, [], 0), (first["connections"], first["groups"], first["up"]))
        self.assertEqual((1, [[GROUP, 1]]), (second["connections"], second["groups"]))
        self.assertEqual((1_000_000, 200_000), (second["up"], second["down"]))
        client.transport.loseConnection()
        self.far.transport.loseConnection()  # type: ignore[union-attr]
        self.clock.pump([0, LOAD_SECONDS, LOAD_SECONDS])
        self.assertEqual(2, len(self.there.loads))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_caps(self) -> None:
        """The service answers with what is this gateway's part of each tenant's cap."""
        self.gateway.publish(ROUTE, "here", GROUP, 1_000_000, 60_000)
        client = self.connect(preamble())
        self.there.rates = [[GROUP, 100_000]]
        self.clock.advance(LOAD_SECONDS)
        self.clock.advance(0)
        Flood(client.transport, 900_000).start()
        self.clock.pump([0.01] * 200)
        self.assertLess(len(self.mover.data[0]), 350_000)

    def test_leaving(self) -> None:
        """A gateway that is leaving accepts nothing, and takes no route; what runs goes on. It may
        come back."""
        running = self.connect(preamble())
        self.far.call(DrainGateway, leaving=True)
        self.far.call(DrainGateway, leaving=True)
        self.clock.advance(0)
        refused = self.endpoint.connect(Factory.forProtocol(Recorder))
        self.failureResultOf(refused, ConnectionRefusedError)
        self.failureResultOf(self.publish(), Refused)
        running.transport.write(b"on and on")
        self.clock.advance(0)
        self.assertEqual([preamble() + b"on and on"], self.mover.data)
        self.far.call(DrainGateway, leaving=False)
        self.clock.advance(0)
        self.assertEqual(1, self.connect(preamble()).losses)  # its routes are forgotten
        self.successResultOf(self.publish())
        self.assertEqual(0, self.connect(preamble()).losses)


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
