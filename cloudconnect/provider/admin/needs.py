"""Layer 4: what of a provider somebody has to see to, judged by what its status says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from cloudconnect.provider.alarms.expiry import DAY, ending_text

#: Less than this part of a disk free: it needs room.
FREE_LEAST: Final = 0.05
#: All that is stored is read once in ``scrub_days``; in so many times of that, it is late.
LATE: Final = 2.0
#: Sentences at most.
NEEDS_MAX: Final = 100


def needs(status: dict[str, Any], now: float) -> list[str]:
    """One sentence for each thing; empty where all is well.

    :param status: of a provider, as :mod:`cloudconnect.provider.admin.health` gathers it
    :param now: seconds since 1970
    """
    found = [*_roles(status), *_certificates(status, now), *_seen(status), *_disk(status, now)]
    if len(found) > NEEDS_MAX:
        found[NEEDS_MAX - 1 :] = [f"and {len(found) - NEEDS_MAX + 1} more"]
    return found


def _roles(status: dict[str, Any]) -> Iterator[str]:
    if not status["running"]:
        yield "no provider runs on this directory"
    for name, why in status["ready"].items():
        if why:
            yield f"{name}: {why}"
    for row in status["nodes"]:
        away = status["running"] and row["enrolled"] and not row.get("connected")
        if away and not row["leaving"]:
            yield f"{row['role']} {row['name']} is away"


def _certificates(status: dict[str, Any], now: float) -> Iterator[str]:
    for row in status["certificates"]:
        if row["due"] is not None:
            yield ending_text(row["name"], row["ends"], now)


def _seen(status: dict[str, Any]) -> Iterator[str]:
    for row in status["missed"]:
        what = f"{row['host']}/{row['job']}" if row["host"] else "its first one"
        yield f"a backup of tenant {row['tenant']} did not come: {what}"
    if status["missed_count"] > len(status["missed"]):
        yield f"{status['missed_count']} backups in all did not come"
    for row in status["warnings"]:
        yield f"security warning {row['name']}: {row['count']}, of {row['tenants']} tenant(s)"
    for row in status["trouble"]:
        yield f"{row['name']}: {row['count']}, of {row['tenants']} tenant(s)"
    for row in status["alarms"]:
        if row["failing"]:
            yield f"alarms do not get to the {row['way']}; {row['waiting']} wait"


def _disk(status: dict[str, Any], now: float) -> Iterator[str]:
    storage = status["storage"]
    if storage.get("free_bytes", 0) < FREE_LEAST * storage.get("disk_bytes", 0):
        yield "the disk of the repositories is nearly full"
    late = now - LATE * status["scrub_days"] * DAY
    if 0 < storage.get("read_since", 0) < late:
        days = int((now - storage["read_since"]) // DAY)
        yield f"not all that is stored was read and compared for {days} days: provider scrub does"
