"""Tests of :mod:`cloudconnect.commands.tunnel`: what a Key A tunnel is bound to."""

from __future__ import annotations

import hashlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.fields import read_fields, write_fields
from cloudconnect.commands.tunnel import DeliverKeyB, agreed_digest, prologue
from cloudconnect.errors import ProtocolViolation
from cloudconnect.keys import IntegrityKey, KeyA, KeyB

AGREED: dict[str, Any] = {
    "preamble": b"CCN1\x01" + b"r" * 16,
    "session": b"s" * 16,
    "tenant": "acme",
    "role": "target-mover",
    "exporter": b"e" * 32,
    "agreed": b"a" * 32,
}
DELIVERY: dict[str, Any] = {
    "key_b": KeyB(bytes(range(32))),
    "integrity_key": IntegrityKey(bytes(range(32, 64))),
    "hops": ["source-mover>target-mover"],
    "versions": [1],
    "version": 1,
}


class PrologueTests(SynchronousTestCase):
    """The prologue."""

    def test_bytes(self) -> None:
        """It is the label and every part in order, names behind their length."""
        self.assertEqual(
            b"cloudconnect/1 key-a"
            b"CCN1\x01rrrrrrrrrrrrrrrr"
            b"ssssssssssssssss"
            b"\x04acme"
            b"\x0ctarget-mover" + b"e" * 32 + b"a" * 32,
            prologue(**AGREED),
        )

    def test_every_part_counts(self) -> None:
        """No two agreements that differ in a part have the same prologue."""
        changes = {
            "preamble": b"CCN1\x02" + b"r" * 16,
            "session": b"t" * 16,
            "tenant": "acm",
            "role": "etarget-mover",
            "exporter": b"f" * 32,
            "agreed": b"b" * 32,
        }
        made = {prologue(**AGREED)}
        made |= {prologue(**{**AGREED, name: value}) for name, value in changes.items()}
        made.add(prologue(**{**AGREED, "tenant": "acme\x0c", "role": "target-mover"}))
        self.assertEqual(2 + len(changes), len(made))


class AgreedTests(SynchronousTestCase):
    """The digest of plan and Start."""

    def test_known(self) -> None:
        """It is SHA-256 over the canonical CBOR of the list of both, whatever their order."""
        encoded = bytes.fromhex("8281 a2 6161 01 6162 4102a1 6163 f5".replace(" ", ""))
        digest = hashlib.sha256(encoded).digest()
        self.assertEqual(digest, agreed_digest([{"b": b"\x02", "a": 1}], {"c": True}))
        self.assertEqual(digest, agreed_digest([{"a": 1, "b": b"\x02"}], {"c": True}))

    def test_differs(self) -> None:
        """It changes with either, and when something moves from the one to the other."""
        made = {
            agreed_digest([{"a": 1}], {"c": 1}),
            agreed_digest([{"a": 2}], {"c": 1}),
            agreed_digest([{"a": 1}], {"c": 2}),
            agreed_digest([{"c": 1}], {"a": 1}),
            agreed_digest([{"a": 1}, {"a": 1}], {"c": 1}),
        }
        self.assertEqual(5, len(made))


class DeliverTests(SynchronousTestCase):
    """DeliverKeyB."""

    def read(self, values: dict[str, Any]) -> Any:
        box = write_fields(values, DeliverKeyB.arguments, DeliverKeyB, None)
        return read_fields(box, DeliverKeyB.arguments, DeliverKeyB, None)

    def test_round_trip(self) -> None:
        """Keys and what goes with them arrive, and printing them shows no key."""
        self.assertEqual(DELIVERY, self.read(DELIVERY))
        printed = repr(self.read(DELIVERY))
        for key in (DELIVERY["key_b"], DELIVERY["integrity_key"]):
            self.assertNotIn(repr(key.reveal())[2:-1], printed)

    def test_accelerator(self) -> None:
        """An accelerator's delivery comes without an integrity key."""
        values = {name: value for name, value in DELIVERY.items() if name != "integrity_key"}
        self.assertIsNone(self.read({**values, "integrity_key": None})["integrity_key"])

    def test_no_other_key(self) -> None:
        """Key A is not delivered as Key B, nor Key B as integrity key."""
        for name, wrong in (("key_b", KeyA(bytes(32))), ("integrity_key", KeyB(bytes(32)))):
            self.assertRaises(TypeError, self.read, {**DELIVERY, name: wrong})

    def test_short_key(self) -> None:
        """A key of another size is refused, and not repeated."""
        box = write_fields(DELIVERY, DeliverKeyB.arguments, DeliverKeyB, None)
        box[b"key_b"] = b"canary" * 5
        error = self.assertRaises(
            ProtocolViolation, read_fields, box, DeliverKeyB.arguments, DeliverKeyB, None
        )
        self.assertNotIn("canary", str(error))
