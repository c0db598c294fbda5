"""The tenant's side of a login: :mod:`cloudconnect.wire.scram_client`."""

from __future__ import annotations

import base64

from scramp import ScramException
from scramp.utils import saslprep
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import CloudConnectError, LoginRefused, ProtocolViolation, UsageError
from cloudconnect.keys import Password
from cloudconnect.wire.login import MESSAGE_MAX
from cloudconnect.wire.scram import make_verifier
from cloudconnect.wire.scram_client import ScramClient, prepared
from tests.wire.test_scram import BINDING, TOKEN, field, reference_final, server


class ClientTests(SynchronousTestCase):
    """What a false provider sends to the tenant."""

    def _answer(self, client: ScramClient, iterations: object, nonce: str = "{}more") -> str:
        salt = base64.b64encode(bytes(16)).decode()
        return f"r={nonce.format(field(client.first(), 'r'))},s={salt},i={iterations}"

    def test_too_few_iterations(self) -> None:
        """No proof is sent to a server that wants it cheap, for passwords and for tokens."""
        for password, iterations, least, error in (
            (Password(b"human"), 4096, "600000", LoginRefused),
            (Password(b"human"), 599_999, "600000", LoginRefused),
            (TOKEN, 4095, "4096", ProtocolViolation),
            (TOKEN, 1, "4096", ProtocolViolation),
        ):
            client = ScramClient("alice", password, BINDING)
            with self.assertRaises(error) as caught:
                client.final(self._answer(client, iterations))
            self.assertIn(least, str(caught.exception))

    def test_too_many_iterations(self) -> None:
        """No client computes for minutes because a server says so."""
        client = ScramClient("alice", TOKEN, BINDING)
        with self.assertRaises(ProtocolViolation):
            client.final(self._answer(client, 10_000_001))

    def test_malformed_answers(self) -> None:
        """Another nonce, no number, no salt: not an answer to what was asked."""
        for make in (
            lambda client: self._answer(client, 4096, "another"),
            lambda client: self._answer(client, 4096, "{}"),
            lambda client: self._answer(client, 4096, "x{}"),
            lambda client: self._answer(client, "many"),
            lambda client: self._answer(client, "+5000"),
            lambda client: self._answer(client, 4096) + ",m=must-be-known",
            lambda client: self._answer(client, 4096) + ",r=again\0",
            lambda client: self._answer(client, 4096) + ",x=\ud800",
            lambda client: self._answer(client, 4096).replace("A==", "A"),
            lambda client: self._answer(client, 4096).replace("A" * 22 + "==", "AAAA"),
            lambda client: "s=AAAA," + self._answer(client, 4096),
            lambda client: self._answer(client, 4096).replace("s=", "x="),
            lambda client: client.first() and "",
            lambda client: self._answer(client, "9" * MESSAGE_MAX),
        ):
            client = ScramClient("alice", TOKEN, BINDING)
            with self.assertRaises(ProtocolViolation):
                client.final(make(client))

    def test_an_error_is_a_refusal(self) -> None:
        """A server that answers with an error has refused the login."""
        client = ScramClient("alice", TOKEN, BINDING)
        client.first()
        with self.assertRaises(LoginRefused):
            client.final("e=unknown-user")

    def test_false_server(self) -> None:
        """A server without the verifier cannot prove itself, whatever it answers."""
        signature = base64.b64encode(bytes(32)).decode()
        for answer in (f"v={signature}", "v=", "", "e=other-error", "x" * (MESSAGE_MAX + 1)):
            client, provider = ScramClient("alice", TOKEN, BINDING), server()
            client.final(provider.first(client.first()))
            with self.assertRaises(LoginRefused) as caught:
                client.verify(answer)
            self.assertIn("could not prove", str(caught.exception))

    def test_refused_by_the_server(self) -> None:
        """``invalid-proof`` is the server's word for a wrong password."""
        client, provider = ScramClient("alice", TOKEN, BINDING), server()
        client.final(provider.first(client.first()))
        with self.assertRaises(LoginRefused) as caught:
            client.verify("e=invalid-proof")
        self.assertIn("does not accept", str(caught.exception))

    def test_unusable_words(self) -> None:
        """A name or a password that cannot be one is said before anything is sent."""
        for name in ("", "Alice", "a" * 65, "a,b", "a\n"):
            with self.assertRaises(UsageError):
                ScramClient(name, TOKEN, BINDING)
        for octets in (b"", b"\xff", b"bell\x07"):
            with self.assertRaises(UsageError) as caught:
                ScramClient("alice", Password(octets), BINDING)
            self.assertNotIn("bell", str(caught.exception))
            with self.assertRaises(CloudConnectError):
                make_verifier(Password(octets))

    def test_password_is_dropped(self) -> None:
        """After the proof was made the client object no longer holds the password."""
        client, provider = ScramClient("alice", TOKEN, BINDING), server()
        provider_first = provider.first(client.first())
        client.final(provider_first)
        self.assertIsNone(client._password)
        with self.assertRaises(RuntimeError):
            client.final(provider_first)

    def test_extensions(self) -> None:
        """Extensions that need not be known are part of what both sides have signed."""
        client = ScramClient("alice", TOKEN, BINDING)
        first = client.first()
        answer = self._answer(client, 4096) + ",x=any thing"
        expected, signature = reference_final(first, answer, TOKEN.reveal())
        self.assertEqual(client.final(answer), expected)
        client.verify("v=" + base64.b64encode(signature).decode() + ",y=more")

    def test_proof_is_wanted(self) -> None:
        """A signature is believed once, and not before ours was made."""
        client = ScramClient("alice", TOKEN, BINDING)
        with self.assertRaises(LoginRefused):
            client.verify("v=")
        first = client.first()
        answer = self._answer(client, 4096)
        _, signature = reference_final(first, answer, TOKEN.reveal())
        client.final(answer)
        client.verify("v=" + base64.b64encode(signature).decode())
        with self.assertRaises(LoginRefused):
            client.verify("v=" + base64.b64encode(signature).decode())


class PreparedTests(SynchronousTestCase):
    """Passwords are prepared as the provider's library does it."""

    def test_ascii(self) -> None:
        """Of every ASCII character, alone and among others, what the library makes of it."""
        for code in range(128):
            for text in (chr(code), f"a{chr(code)} 1"):
                try:
                    expected = saslprep(text)
                except ScramException:
                    self.assertRaises(UsageError, prepared, text)
                else:
                    self.assertEqual(prepared(text), expected)

    def test_others(self) -> None:
        """What looks the same becomes the same; what may not be, or leaves nothing, is refused."""
        self.assertEqual(prepared("I\u00adX \u2168\u00a0a\u030a"), "IX IX \u00e5")
        for text in ("\u00ad", "a\u0627", "\ue000", "\u06ddx", "\u0085"):
            self.assertRaises(UsageError, prepared, text)
