"""Tests of :mod:`cloudconnect.provider.ways`: who is reached in memory, and who over the LAN."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Protocol

from cloudconnect.errors import UsageError
from cloudconnect.interfaces import IRelayTarget
from cloudconnect.provider.service.planning import HERE
from cloudconnect.provider.ways import backend_factory, dial_from
from cloudconnect.transports.memory import MemoryEndpoint
from cloudconnect.transports.switch import FactoryTarget, SayingEndpoint
from cloudconnect.wire.preamble import ROUTE_SIZE, ConnectionKind, Preamble
from tests.provider.stage import StageCase

BACKEND = "10.0.0.5:6182"


class DialTests(StageCase):
    """From an accelerator to the movers."""

    def test_own(self) -> None:
        """The mover of the own process is reached in memory, by both of its names."""
        dial = dial_from(self.reactor, BACKEND, self.provider.mover)
        self.assertIs(dial(HERE), dial(BACKEND))
        self.assertIsInstance(dial(HERE), MemoryEndpoint)

    def test_others(self) -> None:
        """Others over the LAN, and so is everything where this process has no mover."""
        dial = dial_from(self.reactor, BACKEND, self.provider.mover)
        self.assertIsInstance(dial("10.0.0.6:6183"), SayingEndpoint)
        alone = dial_from(self.reactor, BACKEND, None)
        self.assertIsInstance(alone(BACKEND), SayingEndpoint)
        self.assertRaises(UsageError, alone, HERE)


class BackEndTests(StageCase):
    """Into the process, from gateways of other hosts."""

    def connected_to(self, first: bytes) -> Any:
        """A connection that begins with these bytes, once the process has looked at them."""
        service: IRelayTarget = FactoryTarget(self.provider.control, "service")
        endpoint = MemoryEndpoint(self.reactor, "back end")
        endpoint.listen(backend_factory(self.reactor, [self.provider.mover], service))
        made: Any = self.reactor.result_of(connectProtocol(endpoint, Protocol()))
        lost: list[Any] = []
        made.connectionLost = lost.append
        made.transport.write(first)
        self.reactor.settle()
        return lost

    def test_routes(self) -> None:
        """A route that no role has is closed, once they were asked."""
        routes: list[bytes] = []
        real = self.provider.mover.by_route

        def by_route(route: bytes) -> Any:
            routes.append(route)
            return real(route)

        self.patch(self.provider.mover, "by_route", by_route)
        unknown = Preamble(ConnectionKind.KEY_A_TUNNEL, bytes(ROUTE_SIZE)).encode()
        self.assertEqual(1, len(self.connected_to(unknown)))
        self.assertEqual(bytes(ROUTE_SIZE), routes[-1])

    def test_service(self) -> None:
        """What begins like TLS goes to the service, and waits for the rest of its handshake."""
        self.assertEqual([], self.connected_to(b"\x16\x03\x01\x02\x00"))
