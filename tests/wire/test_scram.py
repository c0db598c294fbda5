"""The provider's side of a login, and both together: :mod:`cloudconnect.wire.scram`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import LoginRefused
from cloudconnect.keys import Password
from cloudconnect.wire.login import MESSAGE_MAX, Verifier, make_token
from cloudconnect.wire.scram import ScramServer, make_verifier
from cloudconnect.wire.scram_client import ScramClient

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


class VerifierTests(SynchronousTestCase):
    """What a provider keeps of a login password."""

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
