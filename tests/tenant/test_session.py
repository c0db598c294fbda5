"""Tests of :mod:`cloudconnect.tenant.session`: the job manager's state machine."""

from __future__ import annotations

from typing import Any

import attrs
from automat import NoTransition
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import KeyBUnconfirmed, WarningKind
from cloudconnect.events import SecurityWarning
from cloudconnect.keys import KeyA
from cloudconnect.tenant.session import (
    OF_KIND_MAX,
    TenantSession,
    require_keys,
    session_machine,
)

OCTETS = bytes(range(32))
STEPS = ("tunnel_up", "confirmed", "stream_up")


class SessionCase(SynchronousTestCase):
    """A test with a session."""

    def setUp(self) -> None:
        self.told: list[tuple[str, str, dict[str, Any]]] = []
        self.key_a = KeyA(OCTETS)
        self.session = TenantSession(b"s" * 16, [self.key_a], self.tell)
        self.steps = session_machine(self.session)

    def tell(self, name: str, text: str, **fields: Any) -> None:
        self.told.append((name, text, fields))

    def take(self, count: int) -> None:
        for name in STEPS[:count]:
            getattr(self.steps, name)()


class MachineTests(SessionCase):
    """The order of a session, and which keys exist when."""

    def test_started(self) -> None:
        """At first there is Key A, and no Key B to hand over."""
        self.assertRaises(KeyBUnconfirmed, require_keys, self.session)
        self.assertEqual([KeyA(OCTETS)], self.session.keys_a)

    def test_tunnel(self) -> None:
        """Key B and the integrity key are made once the target has proved Key A; fresh ones each
        time."""
        self.take(1)
        key_b, integrity_key = require_keys(self.session)
        self.assertNotEqual(key_b.reveal(), integrity_key.reveal())
        other = TenantSession(b"s" * 16, [KeyA(OCTETS)], self.tell)
        session_machine(other).tunnel_up()
        self.assertNotEqual(key_b, require_keys(other)[0])

    def test_confirmed(self) -> None:
        """Key A is forgotten once Key B is confirmed; Key B is still there for our mover."""
        self.take(2)
        self.assertEqual(([], True), (self.session.keys_a, self.key_a.forgotten))
        require_keys(self.session)

    def test_streaming(self) -> None:
        """The job manager's own Key B goes when the stream is up."""
        self.take(1)
        held = require_keys(self.session)
        self.take(0)
        self.steps.confirmed()
        self.steps.stream_up()
        self.assertTrue(all(key.forgotten for key in held))
        self.assertRaises(KeyBUnconfirmed, require_keys, self.session)

    def test_no_other_order(self) -> None:
        """No step comes before the one it needs, and none twice."""
        for done in range(len(STEPS) + 1):
            for number, name in enumerate(STEPS):
                if number != done:
                    self.setUp()
                    self.take(done)
                    self.assertRaises(NoTransition, getattr(self.steps, name))

    def test_end(self) -> None:
        """From wherever it ends, and again, no key is left, and nothing can follow."""
        for done in range(len(STEPS) + 1):
            self.setUp()
            self.take(done)
            keys = [k for k in (self.session.key_b, self.session.integrity_key) if k is not None]
            self.steps.end()
            self.steps.end()
            self.assertTrue(all(key.forgotten for key in [self.key_a, *keys]))
            self.assertRaises(NoTransition, self.steps.tunnel_up)

    def test_told(self) -> None:
        """Each key's life is told by its identifier, and by nothing else of it."""
        self.take(1)
        key_b = require_keys(self.session)[0].identifier
        octets = require_keys(self.session)[0].reveal()
        self.steps.confirmed()
        self.steps.stream_up()
        self.steps.end()
        names = [name for name, _, _ in self.told]
        self.assertEqual(["key_b_made", "key_a_forgotten", "key_b_forgotten"], names)
        said = repr(self.told)
        self.assertIn(key_b, said)
        self.assertIn(KeyA(OCTETS).identifier, said)
        for secret in (octets, OCTETS):
            self.assertNotIn(secret.hex(), said)
            self.assertNotIn(repr(secret)[2:-1], said)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.sampled_from([*STEPS, "end"]), max_size=8))
    def test_any_order(self, steps: list[str]) -> None:
        """In whatever order things happen, Key B exists only between the tunnel and the stream."""
        session = TenantSession(b"s" * 16, [KeyA(OCTETS)], lambda *_, **__: None)
        machine, done = session_machine(session), []
        for step in steps:
            try:
                getattr(machine, step)()
            except NoTransition:
                continue
            done.append(step)
            wanted = "tunnel_up" in done and not {"stream_up", "end"} & set(done)
            self.assertEqual(wanted, session.key_b is not None)


class DataTests(SessionCase):
    """The data of a session."""

    def test_printed(self) -> None:
        """No key is in what is printed."""
        self.take(1)
        octets = require_keys(self.session)[0].reveal()
        printed = repr(self.session) + repr(self.steps)
        for secret in (octets, OCTETS):
            self.assertNotIn(secret.hex(), printed)
            self.assertNotIn(repr(secret)[2:-1], printed)

    def test_warnings_once(self) -> None:
        """The same warning from both sides is one."""
        warning = SecurityWarning(time=1.0, kind=WarningKind.TAMPERED, session="ab")
        self.assertTrue(self.session.warn(warning))
        self.assertFalse(self.session.warn(attrs.evolve(warning, time=2.0, role="target-mover")))
        self.assertTrue(self.session.warn(attrs.evolve(warning, connection=1)))

    def test_warnings_without_end(self) -> None:
        """Of each kind the first ones are kept, however many a provider sends."""
        warning = SecurityWarning(time=1.0, kind=WarningKind.TRUNCATED, session="ab")
        for number in range(500):
            self.session.warn(attrs.evolve(warning, connection=number))
        self.assertEqual(OF_KIND_MAX, len(self.session.warnings))
        self.assertTrue(self.session.warn(attrs.evolve(warning, kind=WarningKind.TAMPERED)))
