"""Layer 5: the settings that say how long a provider knows what happened."""

from __future__ import annotations

from typing import Any, Final

from cloudconnect.errors import UsageError
from cloudconnect.provider.history.keep import Keep

#: The settings, with the least and the most that each may be, where it is not 0.
KEPT: Final = {
    "events_days": (30, 3650),
    # Backups that do not come are noticed by the sessions of half a year.
    "sessions_days": (180, 3650),
    "audit_days": (30, 3650),
    "audit_gb": (1, 10_000),
    "tenant_events": (1000, 100_000_000),
    "tenant_sessions": (1000, 100_000_000),
}
#: Those that may be 0: for ever, and any number.
FOR_EVER: Final = ("events_days", "sessions_days", "audit_days", "audit_gb")
DEFAULT: Final = Keep()


def keep_of(settings: Any) -> Keep:
    """How long what is kept, by the settings named in :data:`KEPT`."""
    return Keep(**{name: getattr(settings, name) for name in KEPT})


def bounds_of_kept() -> dict[str, tuple[int, int]]:
    """The least and the most of each, 0 among them where it means no bound."""
    return {name: (0 if name in FOR_EVER else least, most) for name, (least, most) in KEPT.items()}


def check_kept(values: dict[str, Any]) -> None:
    """Whether what a file of settings says is neither 0 nor too little.

    :raises UsageError: it is
    """
    for name in FOR_EVER:
        least = KEPT[name][0]
        if 0 < values.get(name, 0) < least:
            raise UsageError(f"{name} is 0, which means no bound, or {least} or more")
