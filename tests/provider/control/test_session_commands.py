"""Tests of :mod:`cloudconnect.provider.control.session_commands`: warnings that a peer sent."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import (
    ProtocolViolation,
)
from cloudconnect.provider.control.session_commands import WARNINGS_MAX, read_warnings
from tests.provider.control_parts import WARNING


class ReadWarningTests(SynchronousTestCase):
    """Warnings that a peer sent."""

    def test_read(self) -> None:
        """What is a warning comes out as it was."""
        self.assertEqual([WARNING], read_warnings([WARNING.as_dict()]))
        self.assertEqual([], read_warnings([]))

    def test_refused(self) -> None:
        """Too many, too long, or something else: refused."""
        whole = WARNING.as_dict()
        for wrong in (
            None,
            {},
            [None],
            [[]],
            [whole] * (WARNINGS_MAX + 1),
            [{**whole, "kind": "nonsense"}],
            [{**whole, "kind": ["tampered"]}],
            [{**whole, "session": "no hexadecimal"}],
            [{**whole, "text": "x" * 1001}],
            [{**whole, "peer": "x" * 5000}],
            [{**whole, "time": "yesterday"}],
            [{**whole, "time": float("nan")}],
            [{**whole, "text": 5}],
            [{name: value for name, value in whole.items() if name != "kind"}],
        ):
            self.assertRaises(ProtocolViolation, read_warnings, wrong)
