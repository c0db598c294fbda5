"""Tests of :mod:`cloudconnect.sessions.machine`: a target role's state machine."""

from __future__ import annotations

from typing import Any

import attrs
from automat import NoTransition
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import Replayed, WarningKind
from cloudconnect.events import SecurityWarning
from cloudconnect.keys import IntegrityKey, KeyA, KeyB
from cloudconnect.sessions.machine import (
    SessionCore,
    SessionState,
    session_machine,
)
from cloudconnect.sessions.package import KeyAPackage
from cloudconnect.wire import canonical

A, B, FRAMES = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))


def package(**changes: Any) -> KeyAPackage:
    """A package for a session."""
    fields: dict[str, Any] = {
        "version": 1,
        "session": b"s" * 16,
        "tenant": "acme",
        "role": "target-mover",
        "route": b"o" * 16,
        "exporter": b"e" * 32,
        "agreed": b"a" * 32,
        "lifetime_ms": 60_000,
        "kind": "backup",
        "job": b"j" * 16,
        "host": "host",
        "name": "job",
        "repository": b"r" * 16,
        "mode": "tenant",
        "capabilities": ("write", "read"),
        "hops": ("source-mover>target-mover",),
        "quota": None,
        "streams": 1,
        "wan": False,
        "next_backend": "",
        "next_route": b"",
    }
    known = {field.name for field in attrs.fields(KeyAPackage)}
    return KeyAPackage(**{k: v for k, v in {**fields, **changes}.items() if k in known})


class PackageTests(SynchronousTestCase):
    """What the service says of a session."""

    def test_round_trip(self) -> None:
        """A package goes through CBOR and back."""
        made = package()
        self.assertEqual(
            made, KeyAPackage.from_map(canonical.decode(canonical.encode(made.as_map())))
        )

    def test_fields(self) -> None:
        """A package with a field too few or too many is none."""
        whole = package().as_map()
        self.assertRaises(TypeError, KeyAPackage.from_map, {**whole, "more": 1})
        for name in whole:
            less = {key: value for key, value in whole.items() if key != name}
            with self.assertRaises((TypeError, KeyError), msg=name):
                KeyAPackage.from_map(less)


class MachineCase(SynchronousTestCase):
    """A test with a session."""

    def setUp(self) -> None:
        self.keys = KeyA(A), KeyB(B), IntegrityKey(FRAMES)
        self.core = SessionCore(package(), self.keys[0])
        self.inputs = session_machine(self.core)

    def deliver(self) -> None:
        self.inputs.key_b_delivered(self.keys[1], self.keys[2])

    def bring_to(self, state: SessionState) -> None:
        steps: list[Any] = [self.inputs.key_a_proved, self.deliver, self.inputs.stream_up]
        order = [
            SessionState.OFFERED,
            SessionState.PROVED,
            SessionState.KEYED,
            SessionState.STREAMING,
        ]
        for step in steps[: order.index(state)]:
            step()
        self.assertIs(state, self.core.state)

    def forgotten(self) -> tuple[bool, ...]:
        return tuple(key.forgotten for key in self.keys)


class MachineTests(MachineCase):
    """The order of a session, and which keys exist when."""

    def test_offered(self) -> None:
        """At first there is Key A and nothing else."""
        self.assertEqual(
            (KeyA(A), None, None), (self.core.key_a, self.core.key_b, self.core.integrity_key)
        )

    def test_proved(self) -> None:
        """The proof uses up Key A: its octets are gone."""
        self.bring_to(SessionState.PROVED)
        self.assertIsNone(self.core.key_a)
        self.assertTrue(self.keys[0].forgotten)

    def test_proved_twice(self) -> None:
        """Key A proves once."""
        self.bring_to(SessionState.PROVED)
        self.assertRaises(NoTransition, self.inputs.key_a_proved)

    def test_keyed(self) -> None:
        """Key B is there, and its identifier stays known."""
        self.bring_to(SessionState.KEYED)
        self.assertEqual(
            (KeyB(B), IntegrityKey(FRAMES)), (self.core.key_b, self.core.integrity_key)
        )
        self.assertEqual(KeyB(B).identifier, self.core.key_b_identifier)

    def test_no_key_b_before_the_proof(self) -> None:
        """Key B is not taken before the peer has proved Key A."""
        self.assertRaises(NoTransition, self.deliver)
        self.assertIsNone(self.core.key_b)

    def test_key_b_once(self) -> None:
        """A second Key B does not take the place of the first."""
        self.bring_to(SessionState.KEYED)
        self.assertRaises(
            NoTransition, self.inputs.key_b_delivered, KeyB(bytes(32)), IntegrityKey(bytes(32))
        )
        self.assertEqual(KeyB(B), self.core.key_b)

    def test_no_stream_before_key_b(self) -> None:
        """No stream comes up without Key B."""
        self.assertRaises(NoTransition, self.inputs.stream_up)
        self.inputs.key_a_proved()
        self.assertRaises(NoTransition, self.inputs.stream_up)

    def test_further_streams(self) -> None:
        """Streams come up one after the other, until Key B is dropped."""
        self.bring_to(SessionState.STREAMING)
        self.inputs.stream_up()
        self.inputs.key_b_expired()
        self.assertIsNone(self.core.key_b)
        self.assertEqual((True, True, False), self.forgotten())
        self.assertRaises(NoTransition, self.inputs.stream_up)

    def test_never_used(self) -> None:
        """Key B that no stream has used in time ends the session."""
        self.bring_to(SessionState.KEYED)
        self.inputs.key_b_expired()
        self.assertIs(SessionState.ENDED, self.core.state)
        self.assertEqual((True, True, True), self.forgotten())

    def test_end(self) -> None:
        """From every state, and again, the end leaves no key behind."""
        for state in (
            SessionState.OFFERED,
            SessionState.PROVED,
            SessionState.KEYED,
            SessionState.STREAMING,
        ):
            self.setUp()
            self.bring_to(state)
            held = [k for k in (self.core.key_a, self.core.key_b, self.core.integrity_key) if k]
            for _ in range(2):
                self.inputs.end()
                self.assertIs(SessionState.ENDED, self.core.state)
                self.assertEqual(
                    (None, None, None),
                    (self.core.key_a, self.core.key_b, self.core.integrity_key),
                )
            self.assertTrue(all(key.forgotten for key in held))
            self.assertRaises(NoTransition, self.inputs.key_a_proved)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.sampled_from(["proved", "delivered", "up", "expired", "end"]), max_size=8))
    def test_any_order(self, steps: list[str]) -> None:
        """In whatever order things happen, Key A and Key B are never there together, and neither
        is there after the end."""
        core = SessionCore(package(), KeyA(A))
        inputs = session_machine(core)
        calls: dict[str, Any] = {
            "proved": inputs.key_a_proved,
            "delivered": lambda: inputs.key_b_delivered(KeyB(B), IntegrityKey(FRAMES)),
            "up": inputs.stream_up,
            "expired": inputs.key_b_expired,
            "end": inputs.end,
        }
        for step in steps:
            try:
                calls[step]()
            except NoTransition:
                continue
            self.assertFalse(core.key_a is not None and core.key_b is not None)
            if core.state is SessionState.ENDED:
                self.assertIsNone(core.key_a or core.key_b or core.integrity_key)


class CoreTests(MachineCase):
    """The data of a session."""

    def test_printed(self) -> None:
        """No key is in what is printed of a session."""
        self.bring_to(SessionState.STREAMING)
        printed = repr(self.core) + repr(self.inputs)
        for octets in (A, B, FRAMES):
            self.assertNotIn(octets.hex(), printed)
            self.assertNotIn(repr(octets)[2:-1], printed)

    def test_connections_once(self) -> None:
        """A connection number is used once."""
        self.core.take_connection(0)
        self.core.take_connection(7)
        self.assertRaises(Replayed, self.core.take_connection, 0)

    def test_warnings_once(self) -> None:
        """The same warning again is not a new one; another kind or connection is."""
        warning = SecurityWarning(time=1.0, kind=WarningKind.TAMPERED, hop="a>b")
        self.assertTrue(self.core.warn(warning))
        self.assertFalse(self.core.warn(attrs.evolve(warning, time=2.0, text="again")))
        self.assertTrue(self.core.warn(attrs.evolve(warning, kind=WarningKind.REPLAYED)))
        self.assertTrue(self.core.warn(attrs.evolve(warning, connection=1)))
        self.assertEqual(3, len(self.core.warnings))
