"""Tests of :mod:`cloudconnect.tenant.verdict`."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import (
    Cancelled,
    KeyBUnconfirmed,
    NotFound,
    NotReachable,
    SecurityError,
    StoredDataDamaged,
    Tampered,
    Truncated,
    WarningKind,
)
from cloudconnect.events import SecurityWarning
from cloudconnect.tenant.verdict import outcome_of, security_error, worse_than


class VerdictTests(SynchronousTestCase):
    """How an error is reported and a warning raised."""

    def test_outcomes(self) -> None:
        """Each end has its word."""
        for error, summary, outcome in (
            (None, {}, "done"),
            (None, {"unreadable": 0}, "done"),
            (None, {"unreadable": 1}, "incomplete"),
            (Cancelled("x"), {}, "interrupted"),
            (Truncated("x"), {}, "interrupted"),
            (NotReachable("x"), {}, "interrupted"),
            (Tampered("x"), {}, "security_warning"),
            (KeyBUnconfirmed("x"), {}, "security_warning"),
            (StoredDataDamaged("x"), {}, "failed"),
            (NotFound("x"), {}, "failed"),
            (ValueError("x"), {}, "failed"),
        ):
            self.assertEqual(outcome, outcome_of(error, summary), error)

    def test_errors(self) -> None:
        """A warning becomes the error of its kind, in the provider's words."""
        for kind in WarningKind:
            error = security_error(
                SecurityWarning(time=1.0, kind=kind, role="target-mover", text="flipped")
            )
            self.assertIsInstance(error, SecurityError)
            self.assertIn("flipped", str(error))
        warning = SecurityWarning(time=1.0, kind=WarningKind.REPLAYED)
        self.assertIs(WarningKind.REPLAYED, security_error(warning).kind)

    def test_worse(self) -> None:
        """Where our line only broke, what the provider saw of tampering is what was the matter."""
        tampered = SecurityWarning(time=1.0, kind=WarningKind.TAMPERED, role="target-mover")
        broken = Truncated("the line broke")
        self.assertIsInstance(worse_than(broken, [tampered]), Tampered)
        for error in (None, Tampered("here"), NotFound("x")):
            self.assertIsNone(worse_than(error, [tampered]), error)
        for kind in (
            WarningKind.TRUNCATED,
            WarningKind.AUTHENTICATION_FAILED,
            WarningKind.STORED_DATA_DAMAGED,
        ):
            self.assertIsNone(worse_than(broken, [attrs.evolve(tampered, kind=kind)]), kind)
