"""Tests of :mod:`cloudconnect.transports.recipe`."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.testing import (
    MemoryPair,
    Recorder,
)
from cloudconnect.transports.recipe import LayerFactory
from tests.transports.layer_parts import (
    FramedLayer,
    PlainRecipe,
)


class LayerFactoryTests(SynchronousTestCase):
    """What a client factory expects of the factory that wraps it."""

    def test_client_factory(self) -> None:
        """What a connector says is passed on to a client factory, and to no other one."""
        told: list[str] = []

        class Client(ClientFactory):
            protocol = Protocol

            def startedConnecting(self, connector: Any) -> None:
                told.append("started")

            def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
                told.append("failed")

            def clientConnectionLost(self, connector: Any, reason: Any) -> None:
                told.append("lost")

        for inner in (Client(), Factory.forProtocol(Protocol)):
            factory = PlainRecipe().client_factory(inner, Clock())
            factory.startedConnecting(None)
            factory.clientConnectionFailed(None, None)
            factory.clientConnectionLost(None, None)
        self.assertEqual(told, ["started", "failed", "lost"])

    def test_layer_knows_factory(self) -> None:
        """A layer's factory is the one that built it."""
        factory = PlainRecipe().server_factory(Factory.forProtocol(Protocol), Clock())
        layer = factory.buildProtocol(None)
        self.assertIs(layer.factory, factory)
        self.assertIsInstance(factory, LayerFactory)

    def test_pair(self) -> None:
        """Two lines are enough to run a protocol over a layer in memory."""
        client, server = Recorder(), Recorder()
        pair = MemoryPair()
        pair.connect(FramedLayer(client, pair.clock), FramedLayer(server, pair.clock))
        client.transport.write(b"hello")  # type: ignore[union-attr]
        pair.pump()
        self.assertEqual(server.data, b"hello")
