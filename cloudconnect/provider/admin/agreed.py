"""Layer 4: what may be agreed with a tenant: checks of what an admin asks for.

Pure: from maps to what the accounts data base takes.
"""

from __future__ import annotations

from typing import Any

from cloudconnect.errors import ProtocolViolation, UsageError
from cloudconnect.repository.rules import Rules

#: Settings that a tenant may be given.
TENANT_SETTINGS = (
    "quota",
    "soft_quota",
    "lease_end",
    "max_tasks",
    "modes",
    "bandwidth",
    "expect_every",
    "pool",
)


def agreed(settings: dict[str, Any]) -> dict[str, Any]:
    """What ``Accounts.add_tenant`` takes.

    :raises UsageError: a setting that cannot be used
    """
    check_settings(settings)
    given = {name: value for name, value in settings.items() if value is not None}
    if "modes" in given:
        given["modes"] = tuple(given["modes"])
    return given


def check_settings(settings: dict[str, Any]) -> None:
    """Whether a tenant may be given these.

    :raises UsageError: a setting that there is not, or modes that cannot be used
    """
    unknown = set(settings) - set(TENANT_SETTINGS)
    if unknown:
        raise UsageError(f"a tenant has no setting {', '.join(sorted(unknown))}")
    modes = settings.get("modes")
    if modes is not None and (not modes or not set(modes) <= {"tenant", "provider", "none"}):
        raise UsageError("encryption modes are tenant, provider and none")


def changed_rules(rules: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A tenant's rules with some of them changed.

    :raises UsageError: a rule that there is not, or that cannot be used
    """
    try:
        return Rules.from_map({**Rules.from_map(rules).as_map(), **changes}).as_map()
    except (ProtocolViolation, TypeError) as error:
        raise UsageError(str(error)) from None
