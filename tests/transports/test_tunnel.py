"""Tests of :mod:`cloudconnect.transports.tunnel`."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cloudconnect.errors import (
    HandshakeTimeout,
    KeyARejected,
    KeyForgotten,
    Replayed,
    Tampered,
    Truncated,
)
from cloudconnect.keys import KeyA
from cloudconnect.settings import HANDSHAKE_SECONDS, RECORD_SECONDS, TUNNEL_PAYLOAD_MAX
from cloudconnect.testing import DOWN, UP, Recorder, Wire
from cloudconnect.transports.tunnel import (
    PART_MAX,
    INoiseTunnelTransport,
    NoiseTunnel,
    framed,
)
from cloudconnect.wire.noise import FIRST_MESSAGE_SIZE, NoiseHandshake


class TunnelTests(SynchronousTestCase):
    """What is the tunnel's own."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.key = KeyA.generate()
        self.refusals: list[Exception] = []
        self.client_app, self.server_app = Recorder(), Recorder()

    def recipe(self, **changes: Any) -> NoiseTunnel:
        arguments: Any = {"psk": self.key, "prologue": b"prologue", **changes}
        return NoiseTunnel(**arguments)

    def connect(self, client: NoiseTunnel, server: NoiseTunnel) -> Wire:
        self.wire = Wire(self.clock)
        self.client: Any = client.layer(True, self.client_app, self.clock)
        self.server: Any = server.layer(False, self.server_app, self.clock)
        self.wire.connect(self.client, self.server)
        return self.wire

    def run_over(self, client: NoiseTunnel, server: NoiseTunnel) -> None:
        self.connect(client, server)
        self.clock.advance(0)

    def raw_server(self, recipe: NoiseTunnel) -> Any:
        """A responder whose bytes the test makes itself."""
        layer = recipe.layer(False, self.server_app, self.clock)
        self.wire = Wire(self.clock)
        self.wire.connect(Recorder(), layer)
        return layer

    def test_handshake(self) -> None:
        """Both sides have one hash; the responder's payload is handed to the initiator."""
        self.connect(self.recipe(), self.recipe(payload=b"versions and limits"))
        for layer in (self.client, self.server):
            self.assertRaises(RuntimeError, getattr, layer, "handshake_hash")
            self.assertRaises(RuntimeError, getattr, layer, "payload")
        self.clock.advance(0)
        self.assertEqual(self.client.handshake_hash, self.server.handshake_hash)
        self.assertEqual(len(self.client.handshake_hash), 32)
        self.assertEqual(self.client.payload, b"versions and limits")
        verifyObject(INoiseTunnelTransport, self.client)
        self.assertTrue(self.client.proven and self.server.proven)
        self.assertEqual(len(self.wire.seen[UP]), 2 + FIRST_MESSAGE_SIZE)
        self.assertEqual(len(self.wire.seen[DOWN]), 2 + FIRST_MESSAGE_SIZE + 19)
        self.assertNotIn(b"versions", self.wire.seen[DOWN])

    def test_hash_differs(self) -> None:
        """Two tunnels of one key do not have the same hash."""
        self.run_over(self.recipe(), self.recipe())
        first = self.client.handshake_hash
        self.run_over(self.recipe(), self.recipe())
        self.assertNotEqual(first, self.client.handshake_hash)

    def test_key_taken_first(self) -> None:
        """The key is taken after message 1 has verified and before anything is answered."""
        taken: list[tuple[int, bool]] = []

        def take() -> None:
            taken.append((len(self.wire.seen[DOWN]), self.server._is_ready))
            self.key.forget()

        self.run_over(self.recipe(), self.recipe(psk_taken=take))
        self.assertEqual(taken, [(0, False)])
        self.assertTrue(self.server._is_ready and self.client._is_ready)

    def test_key_taken_before(self) -> None:
        """Who comes second with a valid message is refused, unanswered; it may be a replay."""

        def take() -> None:
            raise Replayed("this Key A was used")

        server = self.recipe(psk_taken=take, refused=self.refusals.append)
        self.run_over(self.recipe(), server)
        self.assertEqual(self.wire.seen[DOWN], b"")
        self.assertIsInstance(self.server_app.reason, Replayed)
        self.assertEqual(self.refusals, [self.server_app.reason])
        self.assertIsInstance(self.client_app.reason, Truncated)
        self.assertFalse(self.server.proven)

    def test_wrong_key(self) -> None:
        """A peer without the key closes its own connection only: the key stays, the next one works.

        Nothing is answered, and nobody is told that a session has failed.
        """
        taken: list[bool] = []
        server = self.recipe(psk_taken=lambda: taken.append(True), refused=self.refusals.append)
        self.run_over(self.recipe(psk=KeyA.generate()), server)
        self.assertEqual(self.wire.seen[DOWN], b"")
        self.assertIsInstance(self.server_app.reason, KeyARejected)
        self.assertEqual((len(self.refusals), taken), (1, []))
        self.assertIsInstance(self.refusals[0], KeyARejected)
        self.setUp_apps()
        self.run_over(self.recipe(), server)
        self.assertEqual((len(self.refusals), taken), (1, [True]))
        self.assertTrue(self.client._is_ready)

    def setUp_apps(self) -> None:
        self.client_app, self.server_app = Recorder(), Recorder()

    def test_wrong_prologue(self) -> None:
        """Two sides that speak of different things do not get a tunnel."""
        self.run_over(
            self.recipe(prologue=b"session one"),
            self.recipe(prologue=b"session two", refused=self.refusals.append),
        )
        self.assertIsInstance(self.server_app.reason, KeyARejected)
        self.assertIsInstance(self.client_app.reason, Truncated)

    def test_initiator_rejects(self) -> None:
        """A responder that does not hold the key is seen by the initiator for what it is."""
        self.connect(self.recipe(), self.recipe())
        self.wire.flips[(DOWN, 40)] = 1
        self.clock.advance(0)
        self.assertIsInstance(self.client_app.reason, KeyARejected)
        self.assertFalse(self.client.proven)
        self.assertEqual(self.client_app.handshakes, 0)

    def test_length_of_first_message(self) -> None:
        """A first message is exactly 48 bytes; another length is refused before it has come."""
        for size in (0, 16, 47, 49, 65535):
            self.setUp_apps()
            layer = self.raw_server(self.recipe(refused=self.refusals.append))
            layer.dataReceived(size.to_bytes(2, "big"))
            self.clock.advance(0)
            self.assertIsInstance(self.server_app.reason, KeyARejected)
        self.assertEqual(len(self.refusals), 5)

    def test_length_of_second_message(self) -> None:
        """A second message has at most the payload that is allowed; more is refused at once."""
        for payload, fits in ((TUNNEL_PAYLOAD_MAX, True), (TUNNEL_PAYLOAD_MAX + 1, False)):
            self.setUp_apps()
            layer = self.recipe().layer(True, self.client_app, self.clock)
            Wire(self.clock).connect(layer, Recorder())
            layer.dataReceived((FIRST_MESSAGE_SIZE + payload).to_bytes(2, "big"))
            self.clock.advance(0)
            self.assertEqual(self.client_app.losses, 0 if fits else 1)
            layer.abortConnection()

    def test_largest_payload(self) -> None:
        """The largest payload arrives; a larger one cannot be asked for."""
        self.run_over(self.recipe(), self.recipe(payload=bytes(TUNNEL_PAYLOAD_MAX)))
        self.assertEqual(self.client.payload, bytes(TUNNEL_PAYLOAD_MAX))
        self.assertRaises(ValueError, self.recipe, payload=bytes(TUNNEL_PAYLOAD_MAX + 1))

    def test_silent_stranger(self) -> None:
        """A stranger that says nothing is refused after a time, in the same way."""
        self.raw_server(self.recipe(refused=self.refusals.append))
        self.clock.advance(HANDSHAKE_SECONDS)
        self.assertIsInstance(self.refusals[0], HandshakeTimeout)

    def test_failing_observer(self) -> None:
        """A bug in the observer of refusals is logged; the connection is closed all the same."""

        def bug(error: Exception) -> None:
            raise KeyError("bug")

        self.run_over(self.recipe(psk=KeyA.generate()), self.recipe(refused=bug))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(self.server_app.losses, 1)

    def test_refusal_is_logged(self) -> None:
        """Without an observer a refusal is one warning in the log, without the key in it."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.run_over(self.recipe(psk=KeyA.generate()), self.recipe())
        warnings = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertEqual([event["kind"] for event in warnings], ["KeyARejected"])
        self.assertNotIn(self.key.reveal().hex(), repr(warnings))

    def test_forgotten_key(self) -> None:
        """A recipe whose key has been forgotten makes no connection."""
        self.key.forget()
        self.run_over(self.recipe(), self.recipe())
        self.assertIsInstance(self.client_app.reason, KeyForgotten)
        self.assertEqual(self.wire.seen[UP], b"")

    def test_large_write(self) -> None:
        """What is larger than a Noise message goes in several."""
        self.run_over(self.recipe(), self.recipe())
        before = len(self.wire.seen[UP])
        self.client.write(bytes(2 * PART_MAX + 1))
        self.clock.advance(0)
        self.assertEqual(self.server_app.data, bytes(2 * PART_MAX + 1))
        self.assertEqual(len(self.wire.seen[UP]) - before, 2 * PART_MAX + 1 + 3 * 18)

    def shaken(self) -> Any:
        """A responder after a handshake with the test; the test's ciphers."""
        layer = self.raw_server(self.recipe())
        handshake = NoiseHandshake(True, self.key.reveal(), b"prologue")
        layer.dataReceived(framed(handshake.write_message()))
        self.clock.advance(0)
        handshake.read_message(bytes(self.wire.seen[DOWN][2:]))
        return layer, handshake.split()[0]

    def test_bytes_after_end(self) -> None:
        """Nothing may come after the end."""
        layer, sender = self.shaken()
        layer.dataReceived(framed(sender.encrypt(b"", b"x")) + framed(sender.encrypt(b"", b"")))
        self.assertEqual((self.server_app.data, self.server_app.losses), (b"x", 0))
        layer.dataReceived(framed(sender.encrypt(b"", b"y")))
        self.clock.advance(0)
        self.assertEqual(self.server_app.data, b"x")
        self.assertIsInstance(self.server_app.reason, Tampered)

    def test_replayed_message(self) -> None:
        """A message that comes again is not believed."""
        layer, sender = self.shaken()
        message = framed(sender.encrypt(b"", b"x"))
        layer.dataReceived(message + message)
        self.clock.advance(0)
        self.assertEqual(self.server_app.data, b"x")
        self.assertIsInstance(self.server_app.reason, Tampered)

    def test_impossible_length(self) -> None:
        """A message too short for its tag is refused."""
        layer, _ = self.shaken()
        layer.dataReceived(b"\0\x0f")
        self.clock.advance(0)
        self.assertIsInstance(self.server_app.reason, Tampered)

    def test_stalled_message(self) -> None:
        """A message that has started must be complete in time, unless it is us who do not read."""
        layer, sender = self.shaken()
        message = framed(sender.encrypt(b"", b"whole"))
        layer.dataReceived(message[:5])
        self.clock.advance(RECORD_SECONDS - 1)
        layer.dataReceived(message[5:] + b"\0")
        self.clock.advance(RECORD_SECONDS - 1)
        self.assertEqual((self.server_app.data, self.server_app.losses), (b"whole", 0))
        layer.pauseProducing()
        self.clock.advance(RECORD_SECONDS)
        self.assertEqual(self.server_app.losses, 0)
        layer.resumeProducing()
        self.clock.advance(RECORD_SECONDS)
        self.clock.advance(0)
        self.assertIsInstance(self.server_app.reason, Truncated)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_replayed_session(self) -> None:
        """A recorded session played again gets nothing out of a responder that takes the key."""
        self.run_over(self.recipe(), self.recipe())
        self.client.write(b"deliver this")
        self.client.loseConnection()
        self.clock.advance(0)
        self.assertEqual(self.server_app.data, b"deliver this")
        recorded = bytes(self.wire.seen[UP])
        self.setUp_apps()
        layer = self.raw_server(self.recipe())  # even one that would not take the key away
        layer.dataReceived(recorded)
        self.clock.advance(0)
        self.assertEqual(self.server_app.data, b"")
        self.assertIsInstance(self.server_app.reason, Tampered)

    def test_repr(self) -> None:
        """A recipe shows neither key nor prologue."""
        text = repr(self.recipe(payload=b"inside"))
        for secret in (self.key.reveal().hex(), repr(self.key.reveal()), "prologue=", "inside"):
            self.assertNotIn(secret, text)
