"""The first bytes of a connection: :mod:`cloudconnect.wire.preamble`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import ProtocolViolation
from cloudconnect.wire.preamble import (
    PREAMBLE_SIZE,
    ConnectionKind,
    FirstBytes,
    Preamble,
    decide,
)

ROUTE = bytes(range(0x80, 0x90))
PREAMBLE = b"CCN1\x02" + ROUTE


class PreambleTests(SynchronousTestCase):
    """Writing and reading the 21 bytes."""

    def test_bytes(self) -> None:
        """A preamble is the magic, the kind and the route id, in this order."""
        self.assertEqual(Preamble(ConnectionKind.KEY_B_STREAM, ROUTE).encode(), PREAMBLE)
        self.assertEqual(len(PREAMBLE), PREAMBLE_SIZE)

    @settings(deadline=None)
    @given(st.sampled_from(ConnectionKind), st.binary(min_size=16, max_size=16))
    def test_there_and_back(self, kind: ConnectionKind, route: bytes) -> None:
        """What was encoded is decoded."""
        preamble = Preamble(kind, route)
        self.assertEqual(Preamble.decode(preamble.encode()), preamble)

    def test_wrong_size(self) -> None:
        """A byte more or less is not a preamble."""
        for data in (PREAMBLE[:-1], PREAMBLE + b"\0", b""):
            with self.assertRaises(ProtocolViolation):
                Preamble.decode(data)

    def test_wrong_magic_or_kind(self) -> None:
        """Another magic and an unknown kind are refused."""
        for data in (b"CCN2" + PREAMBLE[4:], b"CCN1\0" + ROUTE, b"CCN1\3" + ROUTE):
            with self.assertRaises(ProtocolViolation):
                Preamble.decode(data)

    def test_route_size(self) -> None:
        """A route id of another size cannot be put into a preamble."""
        with self.assertRaises(ValueError):
            Preamble(ConnectionKind.KEY_A_TUNNEL, ROUTE[:-1])

    def test_route_is_not_printed(self) -> None:
        """The route id is a capability: no log line shows it by accident."""
        self.assertNotIn("route", repr(Preamble(ConnectionKind.KEY_A_TUNNEL, ROUTE)))


class DecideTests(SynchronousTestCase):
    """Telling TLS from a data connection, as early as possible."""

    def test_nothing_yet(self) -> None:
        """Without a byte there is nothing to decide."""
        self.assertIsNone(decide(b""))

    def test_tls(self) -> None:
        """The first byte of a TLS handshake is enough, whatever follows."""
        self.assertIs(decide(b"\x16"), FirstBytes.TLS)
        self.assertIs(decide(b"\x16" + PREAMBLE), FirstBytes.TLS)

    def test_every_other_first_byte_is_refused_at_once(self) -> None:
        """254 of the 256 first bytes need no second one."""
        for first in set(range(256)) - {0x16, ord("C")}:
            with self.assertRaises(ProtocolViolation):
                decide(bytes((first,)))

    def test_every_prefix_waits(self) -> None:
        """Each beginning of a preamble needs more bytes, and the whole of it is the preamble."""
        for length in range(PREAMBLE_SIZE):
            self.assertIsNone(decide(PREAMBLE[:length]))
        self.assertEqual(decide(PREAMBLE), Preamble(ConnectionKind.KEY_B_STREAM, ROUTE))

    def test_what_follows_is_left_alone(self) -> None:
        """The bytes behind a preamble change nothing, as views and as bytearrays too."""
        whole = PREAMBLE + b"\xff" * 50
        for data in (whole, bytearray(whole), memoryview(whole)):
            self.assertEqual(decide(data), Preamble(ConnectionKind.KEY_B_STREAM, ROUTE))

    def test_magic_is_refused_at_its_first_wrong_byte(self) -> None:
        """A wrong byte of the magic, and an unknown kind, are refused when they come."""
        for data in (b"CX", b"CCX", b"CCN2", b"CCN1\0", b"CCN1\3", b"CCN1\x16"):
            self.assertIsNone(decide(data[:-1]))
            with self.assertRaises(ProtocolViolation):
                decide(data)

    @settings(deadline=None)
    @given(st.binary(max_size=40))
    def test_anything(self, data: bytes) -> None:
        """Whatever comes, the answer is one of four, and a longer input never takes it back."""

        def answer(start: bytes) -> object:
            try:
                return decide(start)
            except ProtocolViolation:
                return ProtocolViolation

        answers = [answer(data[:length]) for length in range(len(data) + 1)]
        settled = [found for found in answers if found is not None]
        self.assertEqual(answers, [None] * (len(answers) - len(settled)) + settled)
        self.assertTrue(all(found == settled[0] for found in settled))
