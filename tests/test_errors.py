"""Errors by name: :mod:`cloudconnect.errors`."""

from __future__ import annotations

import inspect

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect import errors
from cloudconnect.errors import (
    Aborted,
    CloudConnectError,
    ExitCode,
    FingerprintMismatch,
    LocalError,
    NotReachable,
    PeerError,
    ProviderNotTrusted,
    SecurityError,
    Truncated,
    WarningKind,
    error_classes,
)

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, CloudConnectError)
]
#: Classes that only stand for what is below them.
GROUPS = {LocalError, PeerError}


class HierarchyTests(SynchronousTestCase):
    """One base, and below it ours against the peer's."""

    def test_ours_or_theirs(self) -> None:
        """Every error is either ours or the peer's, and says so by its class."""
        for cls in CLASSES:
            if cls is not CloudConnectError:
                self.assertNotEqual(issubclass(cls, LocalError), issubclass(cls, PeerError), cls)

    def test_reasons(self) -> None:
        """Every error has a reason of its own, one word for machines."""
        named = [cls for cls in CLASSES if cls not in GROUPS]
        for cls in named:
            self.assertIn("reason", vars(cls), cls)
            self.assertTrue(cls.reason.isascii() and cls.reason.replace("_", "").islower())
        self.assertEqual(len({cls.reason for cls in named}), len(named))

    def test_docstrings(self) -> None:
        """Every error's docstring is a sentence for an operator."""
        for cls in CLASSES:
            self.assertTrue(inspect.cleandoc(cls.__doc__ or "").split("\n")[0].endswith((".", ":")))

    def test_by_reason(self) -> None:
        """Every error class can be found by its reason, for errors that come over a wire."""
        found = error_classes()
        self.assertEqual(set(found.values()), set(CLASSES) - GROUPS)
        for reason, cls in found.items():
            self.assertEqual(cls.reason, reason)
            self.assertIsInstance(cls("text"), CloudConnectError)
            self.assertEqual(str(cls("text")), "text")

    def test_a_later_class_does_not_take_a_name_away(self) -> None:
        """A subclass without a reason of its own is not what its parent's name stands for."""

        class Special(Truncated):
            """Somebody's own."""

        self.assertIs(error_classes()["truncated"], Truncated)
        self.assertEqual(Special.reason, "truncated")


class ExitCodeTests(SynchronousTestCase):
    """What a command ends with."""

    def test_numbers(self) -> None:
        """The numbers are those that people's scripts know."""
        self.assertEqual(
            {code.name: int(code) for code in ExitCode},
            {
                "DONE": 0,
                "FAILED": 1,
                "USAGE": 2,
                "SOURCES_UNREADABLE": 3,
                "NOT_FOUND": 10,
                "NO_SPACE": 11,
                "LOGIN_REFUSED": 12,
                "WRONG_KEY": 13,
                "LEASE_ENDED": 14,
                "BUSY": 15,
                "SECURITY_WARNING": 20,
                "PROVIDER_NOT_TRUSTED": 21,
                "NOT_REACHABLE": 22,
                "INTERRUPTED": 130,
            },
        )

    def test_no_error_is_a_success(self) -> None:
        """No error class ends a command with 0."""
        self.assertNotIn(ExitCode.DONE, [cls.exit_code for cls in CLASSES])

    def test_security(self) -> None:
        """Every security error ends with 20, and nothing else does."""
        for cls in CLASSES:
            self.assertEqual(
                cls.exit_code is ExitCode.SECURITY_WARNING, issubclass(cls, SecurityError), cls
            )

    def test_groups(self) -> None:
        """A cut line is 22, an untrusted provider 21."""
        for cls in CLASSES:
            if issubclass(cls, NotReachable):
                self.assertIs(cls.exit_code, ExitCode.NOT_REACHABLE)
            if issubclass(cls, ProviderNotTrusted):
                self.assertIs(cls.exit_code, ExitCode.PROVIDER_NOT_TRUSTED)


class KindTests(SynchronousTestCase):
    """Which warning an error raises."""

    def test_every_kind_has_its_error(self) -> None:
        """Every kind of warning is raised by exactly one error class."""
        kinds = [vars(cls)["kind"] for cls in CLASSES if "kind" in vars(cls)]
        self.assertCountEqual(kinds, list(WarningKind))

    def test_every_security_error_has_a_kind(self) -> None:
        """Every security error raises a warning of the kind that its reason names."""
        for cls in CLASSES:
            if issubclass(cls, SecurityError) and cls is not SecurityError:
                self.assertEqual(cls.kind.value, cls.reason)

    def test_names(self) -> None:
        """A kind's value is its name in small letters."""
        for kind in WarningKind:
            self.assertEqual(kind.value, kind.name.lower())


class FieldTests(SynchronousTestCase):
    """Errors that carry more than a text."""

    def test_aborted(self) -> None:
        """An abort carries the peer's code, and has a text without being given one."""
        error = Aborted(code=7)
        self.assertEqual((error.code, str(error)), (7, "the peer gave up (code 7)"))
        self.assertNotIn("code", str(Aborted()))
        self.assertEqual((Aborted("why").code, str(Aborted("why"))), (0, "why"))

    def test_presented(self) -> None:
        """A refused certificate's fingerprint is a field, not part of the text."""
        error = FingerprintMismatch("no", presented="SPKI-SHA256:00")
        self.assertEqual((error.presented, str(error)), ("SPKI-SHA256:00", "no"))
        self.assertIsNone(ProviderNotTrusted("no").presented)
