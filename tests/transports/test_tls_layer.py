"""Tests of :mod:`cloudconnect.transports.tls_layer`: one connection, from first byte to last."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ITLSTransport,
    ITransport,
)
from twisted.internet.protocol import Factory
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from cloudconnect.errors import (
    CloudConnectError,
    ControlTampered,
    HandshakeTimeout,
    KeyForgotten,
    ProtocolViolation,
    ProviderNotTrusted,
    Truncated,
)
from cloudconnect.settings import CLOSE_SECONDS, HANDSHAKE_SECONDS
from cloudconnect.transports import tls_layer
from cloudconnect.transports.memory import MemoryPair
from cloudconnect.transports.tls import PinnedTLS
from cloudconnect.transports.trust import TrustPolicy
from cloudconnect.transports.verification import Verification
from tests.certificates import HOST, Authority
from tests.transports.tls_parts import (
    CANARY,
    Application,
    Link,
    OldServer,
    Speaker,
    Teller,
    TLSTestCase,
)


class Echo(Application):
    """Sends back what it gets."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.write(data)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Application):
    """Hears of the peer's end, and answers behind it."""

    ended = 0

    def readConnectionLost(self) -> None:
        self.ended += 1
        self.transport.write(b"answer")
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass


class LayerTestCase(TLSTestCase):
    """Has recipes for both sides."""

    def setUp(self) -> None:
        super().setUp()
        self.client_recipe = self.by_ca()
        self.server_recipe = self.serving(self.good)

    def link(self, **parts: Any) -> Link:
        """A link that is up, unless ``pump=False``."""
        pump = parts.pop("pump", True)
        link = Link(self.client_recipe, self.server_recipe, **parts)
        return link.pump() if pump else link


class EndTests(LayerTestCase):
    """How a connection ends."""

    def test_close_notify(self) -> None:
        """An end with close_notify is clean on both sides, whoever begins it."""
        for end in ("client", "server"):
            link = self.link()
            getattr(link, end).loseConnection()
            link.pump()
            self.assertIsInstance(link.client_app.reason, ConnectionDone)
            self.assertIsInstance(link.server_app.reason, ConnectionDone)

    def test_close_flushes(self) -> None:
        """What was written before the end arrives before it, also what waited for the handshake."""
        link = self.link(pump=False)
        link.client.write(b"1" * 100_000)
        link.client.loseConnection()
        link.client.write(b"too late")
        link.pump()
        self.assertEqual(CANARY + b"1" * 100_000, link.server_app.data)
        self.assertIsInstance(link.server_app.reason, ConnectionDone)

    def test_cut(self) -> None:
        """The transport's end without close_notify is a truncation, however clean it looks."""
        for close in (
            lambda link: link.cut(),
            lambda link: link.pair.right.abortConnection(),
        ):
            link = self.link()
            close(link)
            link.pump()
            self.assertIsInstance(link.client_app.reason, Truncated)

    def test_abort_is_no_end(self) -> None:
        """An abort does not look like an end to the peer: no close_notify goes out."""
        link = self.link()
        link.client.write(b"the half of it")
        before = link.client_wire
        link.client.abortConnection()
        self.assertEqual(before, link.client_wire)
        link.pump()
        self.assertIsInstance(link.client_app.reason, ConnectionAborted)
        self.assertIsInstance(link.server_app.reason, Truncated)

    def test_half_close(self) -> None:
        """One direction may end before the other."""
        link = self.link(pump=False)
        link.server.wrappedProtocol = link.server_app = HalfCloseable()
        link.server_app.makeConnection(link.server)
        link.client.loseWriteConnection()
        link.pump()
        self.assertEqual(1, link.server_app.ended)
        self.assertEqual((CANARY, b"answer"), (link.server_app.data, link.client_app.data))
        self.assertIsInstance(link.client_app.reason, ConnectionDone)
        self.assertIsInstance(link.server_app.reason, ConnectionDone)

    def test_bytes_behind_half_an_end(self) -> None:
        """Nor behind the peer's half of it: that is told once."""
        link = self.link()
        link.client.wrappedProtocol = app = HalfCloseable()
        app.transport = Application()  # its answer goes nowhere
        app.transport.write = app.transport.loseConnection = lambda *_: None
        link.server.loseWriteConnection()
        link.to_client(b"\x17\x03\x03\x00\x05junk!")
        link.pump()
        link.to_client(b"\x17\x03\x03\x00\x05more!")
        link.pump()
        self.assertEqual((1, b"", None), (app.ended, app.data, app.reason))

    def test_no_answer(self) -> None:
        """A peer that does not answer our close_notify is given some seconds."""
        link = self.link()
        link.pair.right.pauseProducing()
        link.client.loseConnection()
        link.pump()
        link.pair.clock.advance(CLOSE_SECONDS - 0.1)
        self.assertIsNone(link.client_app.reason)
        link.pair.clock.advance(0.2)
        link.pump()
        self.assertIsInstance(link.client_app.reason, Truncated)

    def test_bytes_behind_the_end(self) -> None:
        """What comes behind close_notify is not looked at."""
        link = self.link()
        link.server.loseConnection()
        link.to_client(b"\x17\x03\x03\x00\x05junk!")
        link.pump()
        self.assertIsInstance(link.client_app.reason, ConnectionDone)
        self.assertEqual(b"", link.client_app.data)

    def test_timers(self) -> None:
        """Nothing is left on the clock when both ends are told."""
        link = self.link()
        link.client.loseConnection()
        link.pump()
        self.assertEqual([], link.pair.clock.getDelayedCalls())


class HandshakeTests(LayerTestCase):
    """What does not come to a handshake."""

    def test_timeout(self) -> None:
        """A peer that says nothing is given some seconds; the secret is dropped."""
        link = Link(self.client_recipe, Speaker(b""))
        waiter = link.client.when_ready()
        link.pump()
        link.pair.clock.advance(HANDSHAKE_SECONDS - 0.1)
        self.assertIsNone(link.client_app.reason)
        link.pair.clock.advance(0.2)
        link.pump()
        self.assertIsInstance(link.client_app.reason, HandshakeTimeout)
        self.assertIsInstance(self.failureResultOf(waiter).value, HandshakeTimeout)
        self.assertNotIn(CANARY, link.client_wire)

    def test_server_timeout(self) -> None:
        """So is a client that says nothing to our server."""
        link = Link(Application(), self.server_recipe).pump()
        link.pair.clock.advance(HANDSHAKE_SECONDS)
        link.pump()
        self.assertIsInstance(link.server_app.reason, HandshakeTimeout)

    def test_cut(self) -> None:
        """An end at any byte of the server's handshake is a truncation and gives nothing away."""
        whole = len(self.link().server_wire)
        for offset in range(0, whole, 97):
            link = self.link(pump=False)
            left = offset

            def cut(data: bytes, link: Link = link) -> bytes:
                nonlocal left
                data, left = data[:left], left - len(data)
                if left < 0:
                    link.cut()
                return data

            link.alter = cut
            link.pump()
            if not link.client_app.handshakes:
                self.assertNotIn(CANARY, link.client_wire)
                self.assertEqual(b"", link.server_app.data)
            self.assertIsInstance(link.client_app.reason, Truncated, f"cut at {offset}")

    def test_flipped(self) -> None:
        """A bit flipped at any byte of the server's handshake ends it and gives nothing away."""
        whole = len(self.link().server_wire)
        for offset in range(0, whole, 29):
            position = 0

            def flip(data: bytes, offset: int = offset) -> bytes:
                nonlocal position
                at, position = offset - position, position + len(data)
                if 0 <= at < len(data):
                    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
                return data

            link = self.link(alter=flip)
            if link.client_app.reason is None:  # a length that grew: waits for more
                link.pair.clock.advance(HANDSHAKE_SECONDS)
                link.pump()
            if link.client_app.handshakes:  # it was in one of the session tickets
                self.assertIsInstance(link.client_app.reason, (ControlTampered, type(None)))
            else:
                kinds = (ControlTampered, ProviderNotTrusted, HandshakeTimeout)
                self.assertIsInstance(link.client_app.reason, kinds, str(offset))
                self.assertEqual(b"", link.server_app.data)

    def test_nobody_looked(self) -> None:
        """A handshake in which no policy was asked ends before anything more is sent."""
        link = self.link(pump=False)
        link.client._verification = Verification(TrustPolicy(HOST))  # OpenSSL asks another one
        link.pump()
        self.assertIsInstance(link.client_app.reason, ProviderNotTrusted)
        self.assertEqual(b"", link.server_app.data)
        self.assertEqual([0x16], link.records())

    def test_resumed(self) -> None:
        """A resumed session is refused, should OpenSSL ever allow one."""
        self.patch(tls_layer, "was_resumed", lambda connection: True)
        link = self.link()
        self.assertIsInstance(link.client_app.reason, ProtocolViolation)
        self.assertEqual(b"", link.server_app.data)

    def test_application_leaves(self) -> None:
        """An application may abort when the handshake is over; what waits is not sent then."""

        class Leaver(Teller):
            def handshakeCompleted(self) -> None:
                self.transport.abortConnection()

        link = self.link(pump=False)
        leaver = Leaver()
        leaver.makeConnection(link.client)
        link.client.wrappedProtocol = leaver
        link.pump()
        self.assertIsInstance(leaver.reason, ConnectionAborted)
        self.assertEqual(b"", link.server_app.data)


class DataTests(LayerTestCase):
    """Bytes on their way."""

    def test_tampered(self) -> None:
        """A record with a flipped bit is not delivered, nor is anything behind it."""
        size = len(self.record(self.link(), b"two"))
        for offset in range(size):
            link = self.link()
            link.server.write(b"one")
            link.alter = lambda data, at=offset: data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
            link.server.write(b"two")
            link.alter = bytes
            link.server.write(b"three")
            link.pump()
            self.assertEqual(b"one", link.client_app.data)
            if offset in (3, 4):  # the length: more is waited for, or what follows is garbage
                link.cut()
                link.pump()
                self.assertIsInstance(link.client_app.reason, (ControlTampered, Truncated))
            else:
                self.assertIsInstance(link.client_app.reason, ControlTampered, str(offset))
                self.assertIsInstance(link.server_app.reason, ControlTampered, str(offset))

    def record(self, link: Link, data: bytes) -> bytes:
        """The record that the server sends for ``data``."""
        before = len(link.server_wire)
        link.server.write(data)
        return link.server_wire[before:]

    def test_replayed(self) -> None:
        """So is a record that comes twice, or not in its turn."""
        link = self.link()
        record = self.record(link, b"one")
        link.to_client(record)
        link.pump()
        self.assertEqual(b"one", link.client_app.data)
        self.assertIsInstance(link.client_app.reason, ControlTampered)

    def test_both_ways(self) -> None:
        """Any amount goes both ways."""
        link = self.link()
        data = os.urandom(1_500_000)
        link.server.wrappedProtocol = echo = Echo()
        echo.makeConnection(link.server)
        link.client.writeSequence([data[:7], b"", bytearray(data[7:20]), memoryview(data)[20:]])
        link.pump()
        self.assertEqual(data, link.client_app.data)

    def test_one_byte_at_a_time(self) -> None:
        """It makes no difference in which pieces the bytes arrive."""
        link = self.link(pump=False)
        for transport in (link.pair.left, link.pair.right):
            deliver = transport.protocol.dataReceived

            def slowly(data: bytes, deliver: Any = deliver) -> None:
                for offset in range(len(data)):
                    deliver(data[offset : offset + 1])

            transport.protocol.dataReceived = slowly
        self.assert_works(link)

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(1, 4000), max_size=12))
    def test_any_pieces(self, sizes: list[int]) -> None:
        """Nor in which random ones."""
        link = Link(self.client_recipe, self.server_recipe)
        for transport in (link.pair.left, link.pair.right):
            deliver = transport.protocol.dataReceived
            cuts = list(sizes)

            def in_pieces(data: bytes, deliver: Any = deliver, cuts: list[int] = cuts) -> None:
                while cuts and data:
                    size = cuts.pop()
                    deliver(data[:size])
                    data = data[size:]
                deliver(data)

            transport.protocol.dataReceived = in_pieces
        self.assert_works(link)

    def test_nothing(self) -> None:
        """An empty write makes no record."""
        link = self.link()
        before = link.client_wire
        link.client.write(b"")
        link.client.writeSequence([])
        self.assertEqual(before, link.client_wire)

    def test_wrong_types(self) -> None:
        """Text is refused, before the handshake and after it."""
        for link in (self.link(pump=False), self.link()):
            self.assertRaises(TypeError, link.client.write, "text")

    def test_paused(self) -> None:
        """A paused application gets nothing, not even of what is decrypted already."""
        link = self.link()
        app = link.client_app
        app.dataReceived = lambda data: (app.transport.pauseProducing(), setattr(app, "data", data))
        link.server.writeSequence([b"x" * 50_000])
        link.pump()
        self.assertEqual(16384, len(app.data))
        app.dataReceived = lambda data: setattr(app, "data", app.data + data)
        link.client.resumeProducing()
        link.pump()
        self.assertEqual(b"x" * 50_000, app.data)

    def test_over_each_other(self) -> None:
        """TLS works over TLS."""
        pair = MemoryPair()
        clock = pair.clock
        apps = (Teller(), Application())
        client, server = (Factory.forProtocol(lambda app=app: app) for app in apps)
        for _ in range(2):
            client = self.client_recipe.client_factory(client, clock)
            server = self.server_recipe.server_factory(server, clock)
        pair.connect(client.buildProtocol(None), server.buildProtocol(None))
        pair.pump()
        self.assertEqual(CANARY, apps[1].data)


class SurfaceTests(LayerTestCase):
    """What the layer shows to others."""

    def test_interfaces(self) -> None:
        """It is a transport, and claims neither what TCP can do nor ``startTLS``."""
        layer = self.link().client
        for interface in (ITransport, IConsumer, IPushProducer):
            verifyObject(interface, layer)
        self.assertFalse(ITLSTransport.providedBy(layer))
        self.assertFalse(hasattr(layer, "startTLS"))

    def test_exporter_needs_a_connection(self) -> None:
        """Nothing is exported before the handshake is over, nor after the end."""
        link = self.link(pump=False)
        self.assertRaises(KeyForgotten, link.client.exporter, b"EXPORTER-x", None, 32)
        link.pump()
        exported = link.client.exporter(b"EXPORTER-x", None, 32)
        self.assertEqual(exported, link.server.exporter(b"EXPORTER-x", b"", 32))
        self.assertNotEqual(exported, link.client.exporter(b"EXPORTER-x", b"s", 32))
        link.client.loseConnection()
        link.pump()
        self.assertRaises(KeyForgotten, link.client.exporter, b"EXPORTER-x", None, 32)
        self.assertIsNone(link.client.getPeerCertificate())
        self.assertEqual("ca", link.client.facts.checked_by)

    def test_log(self) -> None:
        """A refusal is logged once, and no secret is."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        link = Link(self.by_ca("other.example"), OldServer(self.good))
        link.pump()
        mine = [event for event in events if event.get("layer") == "TLS"]
        self.assertEqual(["HostnameMismatch"], [event["kind"] for event in mine])
        self.assertNotIn(CANARY.decode(), repr(mine))


class LoopbackTests(TestCase):
    """The same over real sockets."""

    @inlineCallbacks
    def test_works(self) -> Any:
        """A client and a server speak over TCP, and close cleanly."""
        directory = self.mktemp()
        authority = Authority()
        identity = authority.issue([HOST]).write(directory)
        trust = TrustPolicy(HOST, authority.write(f"{directory}/ca.pem"))
        client, server = Teller(), Echo()
        port = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            PinnedTLS(identity=identity).server_factory(
                Factory.forProtocol(lambda: server), reactor
            )
        )
        self.addCleanup(port.stopListening)
        layer = yield TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(
            PinnedTLS(trust).client_factory(Factory.forProtocol(lambda: client), reactor)
        )
        protocol = yield layer.when_ready()
        self.assertIs(client, protocol)
        self.assertEqual("X25519MLKEM768", layer.facts.group)
        yield server.transport.when_ready()
        self.assertEqual(layer.facts.group, server.transport.facts.group)
        layer.write(b"x" * 300_000)
        layer.loseConnection()
        yield gatherResults([client.lost, server.lost])
        self.assertEqual(CANARY + b"x" * 300_000, server.data)
        self.assertIsInstance(client.reason, ConnectionDone)
        self.assertIsInstance(server.reason, ConnectionDone)

    @inlineCallbacks
    def test_refuses(self) -> Any:
        """A refusal reaches the server as an end, and nothing of the secret does."""
        directory = self.mktemp()
        identity = Authority().issue([HOST]).write(directory)
        trust = TrustPolicy(HOST, Authority().write(f"{directory}/ca.pem"))
        client, server = Teller(), Application()
        port = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            PinnedTLS(identity=identity).server_factory(
                Factory.forProtocol(lambda: server), reactor
            )
        )
        self.addCleanup(port.stopListening)
        layer = yield TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(
            PinnedTLS(trust).client_factory(Factory.forProtocol(lambda: client), reactor)
        )
        yield self.assertFailure(layer.when_ready(), ProviderNotTrusted)
        yield gatherResults([client.lost, server.lost])
        self.assertIsInstance(client.reason, ProviderNotTrusted)
        self.assertIsInstance(server.reason, CloudConnectError)
        self.assertEqual(b"", server.data)
