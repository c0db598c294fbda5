"""Tests for cloudconnect.wire.canonical."""

from __future__ import annotations

import cbor2
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import ProtocolViolation
from cloudconnect.wire import canonical

_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=20)
    | st.text(max_size=20)
    | st.floats(allow_nan=False)
)
_values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


class CanonicalTests(SynchronousTestCase):
    """What is decoded is what was encoded, and nothing else is decoded."""

    @given(_values)
    def test_round_trip(self, value: object) -> None:
        """Every value of the allowed kinds comes back."""
        self.assertEqual(canonical.decode(canonical.encode(value), 64, 10_000), value)

    @given(st.binary(max_size=40))
    def test_junk(self, data: bytes) -> None:
        """Any bytes decode to a value that has exactly those bytes, or are refused."""
        try:
            value = canonical.decode(data)
        except ProtocolViolation:
            return
        self.assertEqual(cbor2.dumps(value, canonical=True), data)

    def refused(self, data: bytes, **bounds: int) -> None:
        self.assertRaises(ProtocolViolation, canonical.decode, data, **bounds)

    def test_not_canonical(self) -> None:
        """Long forms, unsorted or double keys, indefinite lengths and tags are refused."""
        for data in (
            b"\x18\x01",
            b"\xa2\x61b\x01\x61a\x02",
            b"\xa2\x61a\x01\x61a\x02",
            b"\x9f\x01\xff",
            b"\x5f\x41x\xff",
            b"\xc0\x60",
            b"\xf7",
            b"\x61\xff",
        ):
            with self.subTest(data=data):
                self.refused(data)

    def test_lengths(self) -> None:
        """Announced lengths that the bytes do not hold are refused before anything is built."""
        for data in (
            b"",
            b"\x9b" + b"\xff" * 8,
            b"\x5b" + b"\xff" * 8,
            b"\x42x",
            b"\x19\x01",
            b"00",
        ):
            with self.subTest(data=data):
                self.refused(data)

    def test_depth(self) -> None:
        """The bound on nesting is exact."""
        self.assertEqual(canonical.decode(b"\x81\x81\x00", max_depth=2), [[0]])
        self.refused(b"\x81\x81\x00", max_depth=1)
        self.refused(b"\x81" * 100_000 + b"\x00", max_items=1_000_000)

    def test_items(self) -> None:
        """The bound on items is exact, and counts keys and containers."""
        data = canonical.encode({"a": [1, 2]})
        self.assertEqual(canonical.decode(data, max_items=5), {"a": [1, 2]})
        self.refused(data, max_items=4)

    def test_map(self) -> None:
        """A map is only one with text keys."""
        self.assertEqual(canonical.decode_map(canonical.encode({"a": 1})), {"a": 1})
        for value in ({1: 2}, [1], 7):
            with self.subTest(value=value):
                data = canonical.encode(value)
                self.assertRaises(ProtocolViolation, canonical.decode_map, data)
