"""Layer 4: what a session came to, in view of what both sides have seen of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloudconnect.commands.control import TENANT_ROLES
from cloudconnect.errors import (
    Cancelled,
    ControlTampered,
    NotReachable,
    SecurityError,
    StoredDataDamaged,
    WarningKind,
)
from cloudconnect.events import SecurityWarning

#: Warnings that mean that something was changed, not merely that bytes stopped.
TAMPERING = frozenset(WarningKind) - {
    WarningKind.TRUNCATED,
    WarningKind.AUTHENTICATION_FAILED,
    WarningKind.STORED_DATA_DAMAGED,
}


def worse_than(
    error: Exception | None, warnings: Iterable[SecurityWarning]
) -> SecurityError | None:
    """What was really the matter where this side only saw its line break; None for ``error``.

    A stranger may have sent junk to the session's routes: what the provider saw counts only where
    the session failed too.
    """
    if not isinstance(error, NotReachable):
        return None
    seen = next((warning for warning in warnings if warning.kind in TAMPERING), None)
    return None if seen is None else security_error(seen)


def security_error(warning: SecurityWarning) -> SecurityError:
    """The error of this warning's kind, with the words of who saw it."""
    whose = "our own" if warning.role in TENANT_ROLES else "the provider's"
    text = f"seen by {whose} {warning.role}: {warning.text}"
    for cls in SecurityError.__subclasses__():
        if cls.kind is warning.kind:
            return cls(text)
    return ControlTampered(text)


def outcome_of(error: Exception | None, summary: dict[str, Any]) -> str:
    """What Finish says of a session that ended with ``error``."""
    if error is None:
        return "incomplete" if summary.get("unreadable") else "done"
    if isinstance(error, Cancelled):
        return "interrupted"
    if isinstance(error, StoredDataDamaged):
        return "failed"
    if isinstance(error, SecurityError):
        return "security_warning"
    return "interrupted" if isinstance(error, NotReachable) else "failed"
