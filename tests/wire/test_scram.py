"""Logging in: :mod:`cloudconnect.wire.scram`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import CloudConnectError, LoginRefused, ProtocolViolation, UsageError
from cloudconnect.keys import Password
from cloudconnect.wire.scram import (
    MESSAGE_MAX,
    ScramClient,
    ScramServer,
    Verifier,
    is_tenant_name,
    is_token,
    make_token,
    make_verifier,
)

BINDING = b"\xcb" * 32
DECOY_KEY = b"\xdc" * 32
TOKEN = Password(b"cct1-" + b"abcdefg234567hijklmnopqrstuvwxyz" + b"a" * 20)
VERIFIER = make_verifier(TOKEN, 4096)


def lookup(name: str) -> Verifier | None:
    """One tenant, alice, with the token."""
    return VERIFIER if name == "alice" else None


def server(
    find: Callable[[str], Verifier | None] = lookup,
    binding: bytes = BINDING,
    iterations: int = 4096,
) -> ScramServer:
    """The provider's side, with few iterations for unknown names too."""
    return ScramServer(find, binding, DECOY_KEY, iterations)


def field(message: str, name: str) -> str:
    """One attribute of a SCRAM message."""
    return {part[0]: part[2:] for part in message.split(",") if part[1:2] == "="}[name]


def reference_final(client_first: str, server_first: str, password: bytes) -> tuple[str, bytes]:
    """The client's second message and the server's signature, written down again from RFC 5802."""
    bare = client_first.split(",", 2)[2]
    salt, iterations = base64.b64decode(field(server_first, "s")), int(field(server_first, "i"))
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    binding = base64.b64encode(b"p=tls-exporter,," + BINDING).decode()
    without_proof = f"c={binding},r={field(server_first, 'r')}"
    message = f"{bare},{server_first},{without_proof}".encode()
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return (
        f"{without_proof},p={base64.b64encode(proof).decode()}",
        hmac.digest(server_key, message, "sha256"),
    )


class LoginTests(SynchronousTestCase):
    """Both sides together."""

    def test_login(self) -> None:
        """The right password on the right channel: both sides are convinced."""
        client, provider = ScramClient("alice", TOKEN, BINDING), server()
        provider_first = provider.first(client.first())
        self.assertEqual((provider.tenant, provider.authenticated), ("alice", False))
        client.verify(provider.final(client.final(provider_first)))
        self.assertTrue(provider.authenticated)
        self.assertEqual(provider.detail, "")

    def test_human_password(self) -> None:
        """A password that a human chose works with the iterations that it needs."""
        password = Password("correct horse, båtterie".encode())
        verifier = make_verifier(password)
        self.assertEqual(verifier.iterations, 600_000)
        client, provider = ScramClient("bob", password, BINDING), server(lambda name: verifier)
        client.verify(provider.final(client.final(provider.first(client.first()))))
        self.assertTrue(provider.authenticated)

    def test_our_client_against_the_rfc(self) -> None:
        """Our client's messages are those of RFC 5802 with this binding, computed another way."""
        client, provider = ScramClient("alice", TOKEN, BINDING), server()
        first = client.first()
        self.assertTrue(re.fullmatch(r"p=tls-exporter,,n=alice,r=[!-+\--~]{32,}", first), first)
        provider_first = provider.first(first)
        expected, signature = reference_final(first, provider_first, TOKEN.reveal())
        self.assertEqual(client.final(provider_first), expected)
        client.verify("v=" + base64.b64encode(signature).decode())

    def test_our_server_against_the_rfc(self) -> None:
        """Our server is content with a client that was written from RFC 5802, and proves itself."""
        provider = server()
        first = "p=tls-exporter,,n=alice,r=fyko+d2lbbFgONRv9qkxdawL"
        provider_first = provider.first(first)
        self.assertTrue(field(provider_first, "r").startswith("fyko+d2lbbFgONRv9qkxdawL"))
        self.assertEqual(base64.b64decode(field(provider_first, "s")), VERIFIER.salt)
        final, signature = reference_final(first, provider_first, TOKEN.reveal())
        self.assertEqual(provider.final(final), "v=" + base64.b64encode(signature).decode())

    def _refused(
        self, password: Password, name: str = "alice", binding: bytes = BINDING
    ) -> tuple[ScramServer, LoginRefused]:
        client, provider = ScramClient(name, password, binding), server()
        final = client.final(provider.first(client.first()))
        with self.assertRaises(LoginRefused) as caught:
            provider.final(final)
        self.assertFalse(provider.authenticated)
        return provider, caught.exception

    def test_one_error_for_all(self) -> None:
        """A wrong password, an unknown name and another channel look the same to the peer."""
        cases = {
            "invalid-proof": self._refused(make_token()),
            "unknown-user": self._refused(TOKEN, name="mallory"),
            "channel-bindings-dont-match": self._refused(TOKEN, binding=b"\xcc" * 32),
        }
        self.assertEqual(len({str(error) for _, error in cases.values()}), 1)
        for detail, (provider, error) in cases.items():
            self.assertEqual(provider.detail, detail)
            self.assertNotIn(TOKEN.reveal().decode(), str(error))

    def test_unknown_names(self) -> None:
        """An unknown name gets a salt of its own that stays the same, as a known one would."""

        def answer(name: str, decoy_key: bytes = DECOY_KEY) -> tuple[str, str]:
            provider = ScramServer(lambda name: None, BINDING, decoy_key)
            message = provider.first(ScramClient(name, TOKEN, BINDING).first())
            return field(message, "s"), field(message, "i")

        self.assertEqual(answer("bob"), answer("bob"))
        self.assertNotEqual(answer("bob")[0], answer("bobby")[0])
        self.assertNotEqual(answer("bob")[0], answer("bob", bytes(32))[0])
        self.assertEqual(len(base64.b64decode(answer("bob")[0])), len(VERIFIER.salt))
        self.assertEqual(answer("bob")[1], "600000")

    def test_replayed_login(self) -> None:
        """A recorded login does not pass again: the server's nonce is another one."""
        client, provider = ScramClient("alice", TOKEN, BINDING), server()
        first = client.first()
        final = client.final(provider.first(first))
        again = server()
        again.first(first)
        with self.assertRaises(LoginRefused):
            again.final(final)

    def test_second_use(self) -> None:
        """One object is one login: after its end, good or bad, it says no more."""
        client, provider = ScramClient("alice", TOKEN, BINDING), server()
        first = client.first()
        final = client.final(provider.first(first))
        provider.final(final)
        with self.assertRaises(LoginRefused):
            provider.final(final)
        refused = server()
        with self.assertRaises(LoginRefused):
            refused.first("n,,n=alice,r=abc")
        with self.assertRaises(LoginRefused):
            refused.final(final)

    def test_lookup_fails(self) -> None:
        """A data base that cannot be read is not a wrong password."""

        def broken(name: str) -> Verifier | None:
            raise OSError("the data base cannot be read")

        with self.assertRaises(OSError):
            server(broken).first(ScramClient("alice", TOKEN, BINDING).first())


class ServerTests(SynchronousTestCase):
    """What strangers send to the provider."""

    def test_malformed_first(self) -> None:
        """Everything that is not this mechanism's first message with this binding is refused."""
        for message in (
            "",
            "n,,n=alice,r=abc",  # no binding
            "y,,n=alice,r=abc",  # "you have none"
            "p=tls-unique,,n=alice,r=abc",  # another binding
            "p=tls-server-end-point,,n=alice,r=abc",
            "p=tls-exporter,a=bob,n=alice,r=abc",
            "p=tls-exporter,,n=alice",
            "p=tls-exporter,,n=alice,r=",
            "p=tls-exporter,,m=x,n=alice,r=abc",
            "p=tls-exporter,,n==,r=abc",
            "p=tls-exporter,,n=\x00,r=abc",
            "p=tls-exporter,,n=alice,r=" + "a" * MESSAGE_MAX,
        ):
            provider = server()
            with self.assertRaises(LoginRefused):
                provider.first(message)
            self.assertFalse(provider.authenticated)

    def test_names_that_cannot_be(self) -> None:
        """A name that no tenant can have is an unknown one, and is not even looked up."""
        asked: list[str] = []

        def find(name: str) -> Verifier | None:
            asked.append(name)
            return VERIFIER

        for name in (
            "Alice",
            "a" * 65,
            "../alice",
            "al ice",
            "älice",
            "alice/",
            "/alice",
            "alice/.x",
            "a/b/c",
        ):
            provider = server(find)
            first = f"p=tls-exporter,,n={name},r=abcdef"
            final, _ = reference_final(first, provider.first(first), TOKEN.reveal())
            with self.assertRaises(LoginRefused):
                provider.final(final)
            self.assertEqual(provider.tenant, "")
        self.assertEqual(asked, [])

    def test_every_changed_character(self) -> None:
        """A proof with one character changed is refused, whichever it is."""
        for position in range(len(self._login()[1])):
            provider, final = self._login()
            # Not B: the last digit of a base 64 text has bits that nobody reads.
            replacement = "A" if final[position] != "A" else "Q"
            with self.assertRaises(LoginRefused):
                provider.final(final[:position] + replacement + final[position + 1 :])
            self.assertFalse(provider.authenticated)

    def _login(self) -> tuple[ScramServer, str]:
        provider = server()
        first = "p=tls-exporter,,n=alice,r=fyko+d2lbbFgONRv9qkxdawL"
        final, _ = reference_final(first, provider.first(first), TOKEN.reveal())
        return provider, final

    def test_sizes(self) -> None:
        """A binding and a decoy key of another size are a bug of the caller."""
        with self.assertRaises(ValueError):
            ScramServer(lookup, BINDING[:-1], DECOY_KEY)
        with self.assertRaises(ValueError):
            ScramServer(lookup, BINDING, DECOY_KEY[:-1])
        with self.assertRaises(ValueError):
            ScramClient("alice", TOKEN, b"")


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
        client.final(provider.first(client.first()))
        self.assertIsNone(client._scram.password)


class WordTests(SynchronousTestCase):
    """Names, tokens, verifiers."""

    def test_tokens(self) -> None:
        """A token is cct1- and 256 random bits, and is recognised."""
        tokens = {make_token().reveal() for _ in range(20)}
        self.assertEqual(len(tokens), 20)
        for token in tokens:
            self.assertTrue(is_token(Password(token)))
            octets = base64.b32decode(token[5:].upper() + b"====")
            self.assertEqual((token[:5], len(token), len(octets)), (b"cct1-", 57, 32))

    def test_not_tokens(self) -> None:
        """Everything else counts as chosen by a human, and needs many iterations."""
        token = make_token().reveal()
        for octets in (b"", b"human", token[:-1], token + b"a", token.upper(), b"\xff" + token[1:]):
            self.assertFalse(is_token(Password(octets)))
        self.assertFalse(is_token(Password(token[:-1] + b"b")))
        self.assertFalse(is_token(Password(token + b"\n")))

    def test_names(self) -> None:
        """Tenants' names: 1 to 64 of a few characters."""
        for name in ("a", "alice", "a.b_c-9", "a" * 64):
            self.assertTrue(is_tenant_name(name))
        for name in ("", "a" * 65, "A", "a/b", "a b", "a\n", "ä"):
            self.assertFalse(is_tenant_name(name))

    def test_verifier(self) -> None:
        """A verifier has a salt of its own, and shows nothing when printed."""
        other = make_verifier(TOKEN, 4096)
        self.assertNotEqual(other.salt, VERIFIER.salt)
        self.assertEqual(
            (len(other.salt), len(other.stored_key), len(other.server_key)), (16, 32, 32)
        )
        self.assertEqual(repr(other), "Verifier(iterations=4096)")

    def test_verifier_that_no_client_accepts(self) -> None:
        """A verifier is not made with iterations that every client refuses."""
        for password, iterations in (
            (Password(b"human"), 599_999),
            (TOKEN, 4095),
            (TOKEN, 10_000_001),
        ):
            with self.assertRaises(ValueError):
                make_verifier(password, iterations)
