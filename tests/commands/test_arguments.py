"""Tests of :mod:`cloudconnect.commands.arguments`."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.arguments import SECRET_MAX, CBORArgument, FixedBytes, SecretArgument
from cloudconnect.errors import KeyForgotten, ProtocolViolation
from cloudconnect.keys import KeyA, KeyB, Password

OCTETS = bytes(range(32))


class SecretTests(SynchronousTestCase):
    """Keys on their way."""

    def test_round_trip(self) -> None:
        """A key comes back as the object that it was."""
        argument = SecretArgument(KeyA)
        self.assertEqual(OCTETS, argument.toString(KeyA(OCTETS)))
        found = argument.fromString(OCTETS)
        self.assertIs(KeyA, type(found))
        self.assertEqual(KeyA(OCTETS), found)

    def test_other_class(self) -> None:
        """Another key, or bare octets, cannot be sent in its place; nor is the value repeated."""
        for value in (KeyB(OCTETS), OCTETS, None, "text"):
            error = self.assertRaises(TypeError, SecretArgument(KeyA).toString, value)
            self.assertEqual("this is not a KeyA", str(error))

    def test_forgotten(self) -> None:
        """A key that was forgotten cannot be sent."""
        key = KeyA(OCTETS)
        key.forget()
        self.assertRaises(KeyForgotten, SecretArgument(KeyA).toString, key)

    def test_size(self) -> None:
        """A key of another size is refused; a password may have any, up to a limit."""
        for size in (0, 31, 33):
            error = self.assertRaises(
                ProtocolViolation, SecretArgument(KeyA).fromString, b"s" * size
            )
            self.assertNotIn("ss", str(error))
        argument = SecretArgument(Password)
        self.assertEqual(b"s" * SECRET_MAX, argument.fromString(b"s" * SECRET_MAX).reveal())
        self.assertRaises(ProtocolViolation, argument.fromString, b"s" * (SECRET_MAX + 1))

    def test_optional(self) -> None:
        """An optional one may be left out, others may not."""
        box: Any = amp.AmpBox()
        SecretArgument(KeyA, optional=True).toBox(b"key", box, {"key": None}, None)
        self.assertEqual({}, box)
        found: dict[str, Any] = {}
        SecretArgument(KeyA, optional=True).fromBox(b"key", box, found, None)
        self.assertEqual({"key": None}, found)
        self.assertRaises(KeyError, SecretArgument(KeyA).fromBox, b"key", box, found, None)

    def test_list(self) -> None:
        """Several may stand in one list."""
        keys = [KeyA.generate() for _ in range(3)]
        argument = amp.ListOf(SecretArgument(KeyA))
        self.assertEqual(keys, argument.fromString(argument.toString(keys)))


class FixedBytesTests(SynchronousTestCase):
    """Ids and digests."""

    def test_round_trip(self) -> None:
        """Octets of the right size pass."""
        argument = FixedBytes(16)
        self.assertEqual(OCTETS[:16], argument.toString(OCTETS[:16]))
        self.assertEqual(OCTETS[:16], argument.fromString(OCTETS[:16]))

    def test_size(self) -> None:
        """Others do not, in either direction."""
        for size in (0, 15, 17):
            self.assertRaises(ProtocolViolation, FixedBytes(16).fromString, bytes(size))
            self.assertRaises(ValueError, FixedBytes(16).toString, bytes(size))
        for value in ("0123456789abcdef", None, bytearray(16)):
            self.assertRaises(TypeError, FixedBytes(16).toString, value)

    def test_optional(self) -> None:
        """An optional one may be left out."""
        found: dict[str, Any] = {}
        FixedBytes(16, optional=True).fromBox(b"id", {}, found, None)
        self.assertEqual({"id": None}, found)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def nested(depth: int) -> list[Any]:
    """Lists in one another."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


class CBORTests(SynchronousTestCase):
    """Values with a structure."""

    @settings(max_examples=50, deadline=None)
    @given(VALUES)
    def test_round_trip(self, value: Any) -> None:
        """Any value comes back as it was."""
        argument = CBORArgument(max_depth=20)
        self.assertEqual(value, argument.fromString(argument.toString(value)))

    def test_bounds(self) -> None:
        """Depth and number of items are bounded."""
        argument = CBORArgument(max_depth=3, max_items=5)
        for good in (nested(3), [1, 2, 3, 4]):
            self.assertEqual(good, argument.fromString(argument.toString(good)))
        for bad in (nested(4), [1, 2, 3, 4, 5]):
            self.assertRaises(ProtocolViolation, argument.fromString, argument.toString(bad))

    def test_canonical(self) -> None:
        """What could be written in another way, or is no CBOR, is refused."""
        for data in (
            b"",
            b"\xff",
            b"\x18\x01",
            b"\x9f\xff",
            b"\xc0\x60",
            b"\x01\x01",
            b"\xa2\x01\x01",
        ):
            self.assertRaises(ProtocolViolation, CBORArgument().fromString, data)

    def test_optional(self) -> None:
        """An optional one may be left out."""
        found: dict[str, Any] = {}
        CBORArgument(optional=True).fromBox(b"map", {}, found, None)
        self.assertEqual({"map": None}, found)
