"""The key schedule: :mod:`cloudconnect.wire.schedule`."""

from __future__ import annotations

import hashlib
import hmac

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import KeyForgotten, NonceExhausted
from cloudconnect.keys import KeyB, key_b_context
from cloudconnect.settings import EPOCH_MAX
from cloudconnect.wire.schedule import FROM_INITIATOR, FROM_RESPONDER, TrafficSecret

KEY_B = bytes(range(32))
SALTS = b"i" * 32 + b"r" * 32
CONTEXT = key_b_context(b"CCN1\x02" + b"R" * 16, b"S" * 16, "alice", "source-mover>target-mover")


def expand(secret: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand with SHA-256, written down again from RFC 5869, section 2.3."""
    output = block = b""
    counter = 1
    while len(output) < length:
        block = hmac.digest(secret, block + info + bytes((counter,)), hashlib.sha256)
        output += block
        counter += 1
    return output[:length]


def traffic(**changes: object) -> TrafficSecret:
    """A traffic secret, with something changed where that is asked for."""
    arguments = {
        "secret": KeyB(KEY_B),
        "context": CONTEXT,
        "connection": 3,
        "direction": FROM_INITIATOR,
        "salts": SALTS,
    }
    return TrafficSecret(**{**arguments, **changes})  # type: ignore[arg-type]


class TrafficSecretTests(SynchronousTestCase):
    """One direction's chain of secrets."""

    def test_formula(self) -> None:
        """The keys of epochs 0 and 1 are those of the specification, computed another way."""
        extracted = hmac.digest(SALTS, KEY_B, hashlib.sha256)
        secret = expand(extracted, CONTEXT + b"\0\0\0\x03" + b"\x01", 32)
        chain = traffic(direction=FROM_RESPONDER)
        for epoch in (0, 1):
            key = chain.record_key()
            octets = key.key.reveal() + key.iv + key.commitment
            self.assertEqual(octets, expand(secret, b"cloudconnect/1 record", 76))
            self.assertEqual(chain.epoch, epoch)
            self.assertEqual((len(key.iv), len(key.commitment)), (12, 32))
            secret = expand(secret, b"cloudconnect/1 rekey", 32)
            chain.advance()

    def test_test_vector(self) -> None:
        """The test vector of docs/protocol.rst; another value breaks every other implementation."""
        key = traffic().record_key()
        self.assertEqual(
            (key.key.reveal() + key.iv + key.commitment).hex(),
            "6795f9b5de0608efdf3edfea652254d0becaac58fb1261b03e7481cbe579a33f9f1142a5f354"
            "c629d4fa6dcda7b837501c1a5a9a43a998309587ed8e04f1458c23ac12da2826a50a6be7da3d",
        )

    def test_everything_counts(self) -> None:
        """Another secret, context, connection, direction or salt gives other keys."""
        other = KeyB(b"\x01" + KEY_B[1:])
        found = {
            traffic(**change).record_key().key.reveal()
            for change in (
                {},
                {"secret": other},
                {"context": CONTEXT[:-1]},
                {"context": b""},
                {"connection": 4},
                {"direction": FROM_RESPONDER},
                {"salts": SALTS[32:] + SALTS[:32]},
            )
        }
        self.assertEqual(len(found), 7)

    def test_last_epoch(self) -> None:
        """The chain ends at epoch 65535."""
        chain = traffic()
        chain.epoch = EPOCH_MAX
        with self.assertRaises(NonceExhausted):
            chain.advance()
        self.assertEqual(chain.epoch, EPOCH_MAX)

    def test_forget(self) -> None:
        """A forgotten chain gives no key, and none of the next epoch."""
        chain = traffic()
        chain.forget()
        chain.forget()
        with self.assertRaises(KeyForgotten):
            chain.record_key()
        with self.assertRaises(KeyForgotten):
            chain.advance()

    def test_bounds(self) -> None:
        """Numbers and salts that the formula has no room for are refused."""
        for change in (
            {"salts": SALTS[:-1]},
            {"direction": 2},
            {"connection": -1},
            {"connection": 1 << 32},
        ):
            with self.assertRaises(ValueError):
                traffic(**change)

    def test_nothing_is_printed(self) -> None:
        """Neither the chain nor a key of it shows octets."""
        chain = traffic()
        key = chain.record_key()
        shown = repr(chain) + repr(key) + str(key)
        for octets in (KEY_B, key.key.reveal(), key.iv, key.commitment):
            self.assertNotIn(octets.hex(), shown)
            self.assertNotIn(repr(octets), shown)
