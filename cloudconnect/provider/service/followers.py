"""Layer 4: which tenants know what comes next: the pin of the next certificate's key.

A tenant's machine says so once it has noted the pin in its profile. Who has not said so would be
shut out by a change of keys: ``provider certificate next`` lists them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from cloudconnect.provider.values import Values

_NAME: Final = "pins-known"
#: Machines of one tenant that are remembered; those that said something last stay.
MACHINES_MAX: Final = 64
#: Pins that are remembered of one machine.
PINS_MAX: Final = 8
#: Machines that had no session for so many seconds are not waited for: 90 days.
FORGOTTEN_SECONDS: Final = 90 * 86400.0

#: Tenant -> machine -> pins.
Known = dict[str, dict[str, list[str]]]


def read_known(values: Values) -> Known:
    """Who has said what."""
    known: Known = json.loads(values.value(_NAME) or b"{}")
    return known


def keep_known(values: Values, tenant: str, machine: str, pins: Iterable[str]) -> bool:
    """A machine has noted these pins; whether that is news."""
    known = read_known(values)
    machines = known.setdefault(tenant, {})
    before = machines.pop(machine, [])
    after = list(dict.fromkeys([*before, *pins]))[-PINS_MAX:]
    machines[machine] = after
    for name in list(machines)[:-MACHINES_MAX]:
        del machines[name]
    if before == after:
        return False
    values.keep_value(_NAME, json.dumps(known, separators=(",", ":")).encode())
    return True


def follower_rows(
    known: Mapping[str, Mapping[str, list[str]]],
    tenants: Iterable[Mapping[str, Any]],
    sessions: Iterable[Mapping[str, Any]],
    pins: Iterable[str],
    now: float,
) -> list[dict[str, Any]]:
    """A row for each machine of each tenant that uses the provider: whether it knows all pins.

    A tenant of which no machine is known has one row, with an empty ``machine``.

    :param sessions: those that are kept; who had none for long is not waited for
    :param now: seconds since 1970
    """
    wanted = set(pins)
    seen: dict[str, set[str]] = {}
    for session in sessions:
        if session["started"] > now - FORGOTTEN_SECONDS:
            seen.setdefault(session["tenant"], set()).add(session["host"])
    rows = []
    for tenant in tenants:
        if tenant["disabled"] or not tenant["repository"]:
            continue
        told = known.get(tenant["name"], {})
        for machine in sorted(seen.get(tenant["name"], set()) | set(told)) or [""]:
            knows = wanted <= set(told.get(machine, ()))
            rows.append({"tenant": tenant["name"], "machine": machine, "knows": knows})
    return rows
