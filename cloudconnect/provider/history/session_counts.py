"""Layer 4: what a bill says of sessions, by tenant, also of those that are not kept any more.

Sessions are forgotten after their time (:mod:`cloudconnect.provider.history.forgetting`). In the
same transaction what counts of them is added up here, by the month in which they started, in UTC:
the usage of a month stays what it was.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from cloudconnect.provider.values import Values

#: Bytes that one session can have sent; who says more is not believed at all.
SENT_MAX: Final = 1 << 60


@attrs.frozen
class SessionCounts:
    """What one tenant did in one month.

    :ivar bytes_sent: what the tenant said of its own backups: shown, not billed
    """

    backups: int = 0
    restores: int = 0
    other_sessions: int = 0
    bytes_sent: int = 0

    def __add__(self, other: SessionCounts) -> SessionCounts:
        both = zip(attrs.astuple(self), attrs.astuple(other), strict=True)
        return SessionCounts(*(one + another for one, another in both))


def month_of(moment: float) -> str:
    """The month of a moment in seconds since 1970, as ``YYYY-MM``."""
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m")


def counts_of(session: Mapping[str, Any]) -> SessionCounts:
    """What one session counts.

    :param session: ``kind`` and ``summary``, as the accounts list it
    """
    sent = session["summary"].get("bytes_sent", 0)
    said = sent if type(sent) is int and 0 <= sent <= SENT_MAX else 0
    kind = {"backup": "backups", "restore": "restores"}.get(session["kind"], "other_sessions")
    return attrs.evolve(SessionCounts(bytes_sent=said), **{kind: 1})


def count_sessions(sessions: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, SessionCounts]]:
    """What sessions count, by month and tenant; what is of no month counts nothing."""
    months: dict[str, dict[str, SessionCounts]] = {}
    for session in sessions:
        try:
            month = month_of(session["started"])
        except (ValueError, OverflowError, OSError):  # of a clock that was beyond all calendars
            continue
        tenants = months.setdefault(month, {})
        tenant = session["tenant"]
        tenants[tenant] = tenants.get(tenant, SessionCounts()) + counts_of(session)
    return months


def name_of(month: str) -> str:
    """What the counts of a month are called among the provider's values."""
    return f"usage-sessions-{month}"


def read_counts(value: bytes | None) -> dict[str, SessionCounts]:
    """The counts of one month, by tenant.

    :param value: as :func:`written` has made it; None for none
    """
    return {tenant: SessionCounts(*row) for tenant, row in json.loads(value or b"{}").items()}


def written(counts: Mapping[str, SessionCounts]) -> bytes:
    """The counts of one month, to be kept."""
    rows = {tenant: attrs.astuple(one) for tenant, one in sorted(counts.items())}
    return json.dumps(rows, separators=(",", ":")).encode()


def forgotten_counts(values: Values, month: str) -> dict[str, SessionCounts]:
    """What the sessions of a month count that are not kept any more, by tenant."""
    return read_counts(values.value(name_of(month)))


def added(
    one: Mapping[str, SessionCounts], other: Mapping[str, SessionCounts]
) -> dict[str, SessionCounts]:
    """Both together, by tenant."""
    none = SessionCounts()
    return {name: one.get(name, none) + other.get(name, none) for name in {*one, *other}}
