"""Events and warnings: :mod:`cloudconnect.events`."""

from __future__ import annotations

import json

import attrs
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent

WARNING = SecurityWarning(
    time=1.5,
    kind=WarningKind.TAMPERED,
    session="ab" * 16,
    tenant="alice",
    role="target-mover",
    hop="source-mover>target-mover",
    connection=2,
    record=17,
    peer="192.0.2.1:4711",
    text="A record was changed.",
)


class SecurityWarningTests(SynchronousTestCase):
    """Warnings as objects and as JSON values."""

    def test_there_and_back(self) -> None:
        """A warning survives JSON, every kind of it."""
        for kind in WarningKind:
            warning = attrs.evolve(WARNING, kind=kind)
            carried = json.loads(json.dumps(warning.as_dict()))
            self.assertEqual(carried["kind"], kind.value)
            self.assertEqual(SecurityWarning.from_dict(carried), warning)

    def test_little_known(self) -> None:
        """Time and kind are enough; the rest says that it is not known."""
        warning = SecurityWarning(time=0.0, kind=WarningKind.TRUNCATED)
        self.assertEqual((warning.session, warning.connection, warning.record), ("", 0, -1))
        self.assertEqual(SecurityWarning.from_dict(warning.as_dict()), warning)

    def test_malformed(self) -> None:
        """An unknown kind, a missing field and an unknown one are refused."""
        fields = WARNING.as_dict()
        with self.assertRaises(ValueError):
            SecurityWarning.from_dict({**fields, "kind": "odd"})
        with self.assertRaises(KeyError):
            SecurityWarning.from_dict({"time": 1.0})
        with self.assertRaises(TypeError):
            SecurityWarning.from_dict({"kind": "tampered"})
        with self.assertRaises(TypeError):
            SecurityWarning.from_dict({**fields, "more": 1})

    def test_add_to(self) -> None:
        """A warning is added once: another one of the same subject is known already."""
        known: list[SecurityWarning] = []
        self.assertTrue(WARNING.add_to(known))
        self.assertFalse(attrs.evolve(WARNING, text="another text").add_to(known))
        self.assertEqual([WARNING], known)
        other = attrs.evolve(WARNING, hop="another")
        self.assertTrue(other.add_to(known))
        self.assertEqual([WARNING, other], known)

    def test_subject(self) -> None:
        """Two warnings are the same one by session, hop, connection and kind, not by the rest."""
        for change in (
            {"time": 9.0},
            {"record": 18},
            {"text": "again"},
            {"peer": ""},
            {"role": "x"},
        ):
            self.assertEqual(attrs.evolve(WARNING, **change).subject, WARNING.subject)  # type: ignore
        for change in (
            {"session": "cd" * 16},
            {"hop": "control"},
            {"connection": 3},
            {"kind": WarningKind.REPLAYED},
        ):
            self.assertNotEqual(attrs.evolve(WARNING, **change).subject, WARNING.subject)

    def test_frozen(self) -> None:
        """A warning that was raised is not changed any more."""
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            WARNING.text = "all is well"  # type: ignore[misc]


class SessionEventTests(SynchronousTestCase):
    """Steps of a session."""

    def test_fields(self) -> None:
        """An event has its facts, and a dictionary of its own for more."""
        one = SessionEvent(time=1.0, name="key_a_made", session="", text="Key A was made.")
        other = SessionEvent(time=1.0, name="key_a_made", session="", text="Key A was made.")
        self.assertEqual(one, other)
        self.assertIsNot(one.fields, other.fields)

    def test_frozen(self) -> None:
        """What happened is not changed any more."""
        event = SessionEvent(time=1.0, name="started", session="", text="Started.")
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            event.name = "ended"  # type: ignore[misc]
