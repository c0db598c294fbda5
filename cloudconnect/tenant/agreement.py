"""Layer 4: what is agreed between a tenant and its provider, as the tenant was told it."""

from __future__ import annotations

import datetime
from typing import Any, Self

import attrs

from cloudconnect.errors import ProtocolViolation
from cloudconnect.shown import Shown


@attrs.frozen(kw_only=True, repr=False)
class Agreement(Shown):
    """What the provider says of its own side; it is its word.

    :ivar quota: bytes that may be stored, or None: no bound
    :ivar soft_quota: bytes over which the provider warns, or None
    :ivar lease_end: the last day on which backups are taken, or None
    :ivar max_tasks: how many sessions may run at the same time
    :ivar bytes_counted: what counts against the quota, or None where that could not be told
    """

    quota: int | None
    soft_quota: int | None
    lease_end: datetime.date | None
    max_tasks: int
    bytes_counted: int | None

    @classmethod
    def from_map(cls, values: Any) -> Self:
        """From the map of ShowAgreement; further fields are left alone.

        :raises ProtocolViolation: it is no such map
        """
        if not isinstance(values, dict):
            raise ProtocolViolation("an agreement is a map")
        lease_end = values.get("lease_end")
        try:
            ends = None if lease_end is None else datetime.date.fromisoformat(lease_end)
        except (TypeError, ValueError):
            raise ProtocolViolation("the end of a lease is a date") from None
        tasks = _count(values.get("max_tasks"))
        if tasks is None:
            raise ProtocolViolation("an agreement says how many tasks there may be")
        return cls(
            quota=_count(values.get("quota")),
            soft_quota=_count(values.get("soft_quota")),
            lease_end=ends,
            max_tasks=tasks,
            bytes_counted=_count(values.get("bytes_counted")),
        )


def _count(value: Any) -> int | None:
    if value is not None and (type(value) is not int or not 0 <= value < 1 << 63):
        raise ProtocolViolation("a number of an agreement is out of bounds")
    return value
