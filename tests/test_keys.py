"""Keys as opaque objects: :mod:`cloudconnect.keys`."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import pickle
import traceback

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import KeyForgotten
from cloudconnect.keys import (
    IntegrityKey,
    KeyA,
    KeyB,
    MasterKey,
    Password,
    Secret,
    Subkey,
    frame_key,
    hkdf,
    hkdf_expand,
    hkdf_extract,
    key_b_confirmation,
    key_b_context,
    lp,
)

OCTETS = bytes(range(100, 132))
KINDS = (Secret, KeyA, KeyB, IntegrityKey, MasterKey, Subkey, Password)


class SecretTests(SynchronousTestCase):
    """Octets that do not leave by accident."""

    def test_reveal(self) -> None:
        """The octets are there for who asks for them, whatever they were given as."""
        for kind in KINDS:
            for given_as in (OCTETS, bytearray(OCTETS), memoryview(OCTETS)):
                self.assertEqual(kind(given_as).reveal(), OCTETS)

    def test_never_shown(self) -> None:
        """No way of printing shows the octets, in any usual writing of them."""
        for kind in KINDS:
            secret = kind(OCTETS)
            shown = "".join(
                (
                    repr(secret),
                    str(secret),
                    f"{secret}",
                    f"{secret!r:>100}",
                    "{} {!r}".format(*[secret] * 2),
                )
            )
            shown += repr([secret]) + repr({"key": secret})
            self.assertIn(kind.__name__, shown)
            for written in (OCTETS.hex(), repr(OCTETS), str(list(OCTETS)), "defg", "\\x7f"):
                self.assertNotIn(written, shown)

    def test_not_in_a_traceback(self) -> None:
        """A traceback with all local variables does not show the octets."""
        secret = KeyB(OCTETS)
        try:
            raise RuntimeError(f"trouble with {secret}")
        except RuntimeError as error:
            shown = "".join(
                traceback.TracebackException.from_exception(error, capture_locals=True).format()
            )
        self.assertIn("secret = <KeyB>", shown)
        self.assertNotIn("defg", shown)

    def test_not_copied_nor_serialised(self) -> None:
        """A key lives in one object: no copy, no pickle, no JSON."""
        for kind in KINDS:
            secret = kind(OCTETS)
            for attempt in (
                lambda secret=secret: copy.copy(secret),
                lambda secret=secret: copy.deepcopy(secret),
                lambda secret=secret: copy.deepcopy([secret]),
                lambda secret=secret: pickle.dumps(secret),
                lambda secret=secret: pickle.dumps(secret, 0),
                lambda secret=secret: json.dumps(secret),
                lambda secret=secret: bytes(secret),
                lambda secret=secret: vars(secret),
            ):
                with self.assertRaises(TypeError):
                    attempt()

    def test_size(self) -> None:
        """A key has 256 bits; a password any number."""
        for kind in KINDS[:-1]:
            for size in (0, 16, 31, 33, 64):
                with self.assertRaises(ValueError) as caught:
                    kind(bytes(size))
                self.assertIn(kind.__name__, str(caught.exception))
        for size in (0, 1, 31, 33, 1000):
            self.assertEqual(len(Password(bytes(size)).reveal()), size)

    def test_forget(self) -> None:
        """After forget nobody gets the octets, and the object says so; forgetting twice is one."""
        secret = KeyA(OCTETS)
        self.assertFalse(secret.forgotten)
        secret.forget()
        secret.forget()
        self.assertTrue(secret.forgotten)
        self.assertEqual(repr(secret), "<KeyA (forgotten)>")
        with self.assertRaises(KeyForgotten):
            secret.reveal()
        with self.assertRaises(KeyForgotten):
            secret.identifier  # noqa: B018
        self.assertIsNone(secret._octets)

    def test_identifier(self) -> None:
        """16 hexadecimal digits name a key: always the same, others for another key or kind."""
        expected = hashlib.sha256(b"cloudconnect/1 key-id\x04KeyB" + OCTETS).hexdigest()[:16]
        self.assertEqual(KeyB(OCTETS).identifier, expected)
        found = {kind(OCTETS).identifier for kind in KINDS[:-1]}
        self.assertEqual(len(found | {KeyB(bytes(32)).identifier}), len(KINDS))

    def test_identifier_survives(self) -> None:
        """A timeline can still name a key that has been forgotten, if it did before."""
        secret = KeyB(OCTETS)
        identifier = secret.identifier
        secret.forget()
        self.assertEqual(secret.identifier, identifier)

    def test_no_identifier_of_a_password(self) -> None:
        """A hash of something that can be guessed is not given out."""
        with self.assertRaises(TypeError):
            Password(OCTETS).identifier  # noqa: B018

    def test_equality(self) -> None:
        """Equal are two of the same kind with the same octets; none can be in a set."""
        self.assertEqual(KeyB(OCTETS), KeyB(OCTETS))
        self.assertNotEqual(KeyB(OCTETS), KeyB(bytes(32)))
        self.assertNotEqual(KeyB(OCTETS), KeyA(OCTETS))
        self.assertNotEqual(KeyB(OCTETS), OCTETS)
        with self.assertRaises(TypeError):
            hash(KeyB(OCTETS))

    def test_generate(self) -> None:
        """Each generated key is another one, of its class."""
        found = [KeyA.generate() for _ in range(20)]
        self.assertEqual({type(secret) for secret in found}, {KeyA})
        self.assertEqual(len({secret.reveal() for secret in found}), 20)
        self.assertEqual(len(Password.generate().reveal()), 32)


class DerivationTests(SynchronousTestCase):
    """The formulas, computed another way."""

    def test_length_prefix(self) -> None:
        """lp puts one byte of length in front, and has none for more than 255 bytes."""
        self.assertEqual(lp(b""), b"\0")
        self.assertEqual(lp(b"abc"), b"\x03abc")
        self.assertEqual(lp(bytes(255)), b"\xff" + bytes(255))
        with self.assertRaises(ValueError):
            lp(bytes(256))

    @settings(deadline=None, max_examples=50)
    @given(
        st.binary(max_size=80), st.binary(max_size=40), st.integers(1, 200), st.binary(max_size=80)
    )
    def test_hkdf(self, ikm: bytes, info: bytes, length: int, salt: bytes) -> None:
        """The whole is its two halves, and they are those of RFC 5869."""
        secret = hkdf_extract(salt, ikm)
        self.assertEqual(secret, hmac.digest(salt or bytes(32), ikm, "sha256"))
        output = block = b""
        while len(output) < length:
            block = hmac.digest(secret, block + info + bytes((len(output) // 32 + 1,)), "sha256")
            output += block
        self.assertEqual(hkdf_expand(secret, info, length), output[:length])
        self.assertEqual(hkdf(ikm, info, length, salt), output[:length])

    def test_confirmation(self) -> None:
        """The confirmation is the specification's, and every part of it counts."""
        key = hkdf(OCTETS, b"cloudconnect/1 confirm")
        message = b"h" * 32 + b"\x0ctarget-mover" + b"d" * 32
        arguments = (KeyB(OCTETS), b"h" * 32, "target-mover", b"d" * 32)
        self.assertEqual(
            key_b_confirmation(*arguments), hmac.new(key, message, hashlib.sha256).digest()
        )
        others = {
            key_b_confirmation(KeyB(bytes(32)), *arguments[1:]),
            key_b_confirmation(arguments[0], b"i" * 32, *arguments[2:]),
            key_b_confirmation(*arguments[:2], "target-wan", arguments[3]),
            key_b_confirmation(*arguments[:3], b"e" * 32),
            key_b_confirmation(*arguments),
        }
        self.assertEqual(len(others), 5)

    def test_frame_key(self) -> None:
        """Each session, stream and direction has its own key for frame tags."""
        self.assertEqual(
            frame_key(IntegrityKey(OCTETS), b"s" * 16, 258, 1).reveal(),
            hkdf(OCTETS, b"cloudconnect/1 frame" + b"s" * 16 + b"\x01\x02\x01"),
        )
        found = {
            frame_key(IntegrityKey(octets), session, stream, direction).reveal()
            for octets in (OCTETS, bytes(32))
            for session in (b"s" * 16, b"t" * 16)
            for stream in (0, 1)
            for direction in (0, 1)
        }
        self.assertEqual(len(found), 16)

    def test_context(self) -> None:
        """The context of a hop is the specification's, and every part of it counts."""
        preamble, session = b"CCN1\x02" + b"R" * 16, b"S" * 16
        where = hashlib.sha256(preamble + session + b"\x05alice").digest()
        hop = "source-mover>target-mover"
        self.assertEqual(
            key_b_context(preamble, session, "alice", hop),
            b"cloudconnect/1 key-b" + where + bytes((len(hop),)) + hop.encode(),
        )
        found = {
            key_b_context(preamble, session, "alice", hop),
            key_b_context(preamble[:-1] + b"x", session, "alice", hop),
            key_b_context(preamble, b"T" * 16, "alice", hop),
            key_b_context(preamble, session, "bob", hop),
            key_b_context(preamble, session, "alice", "source-mover>source-wan"),
        }
        self.assertEqual(len(found), 5)
