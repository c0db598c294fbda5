"""Layer 4: the end of a certificate, in words: what tenants and providers say of it alike."""

from __future__ import annotations

import time
from typing import Final

import attrs

from cloudconnect.shown import Shown

#: Days before the end at which it is told; 0: it has ended.
DAYS: Final = (30, 14, 3, 0)
DAY: Final = 86400.0


@attrs.frozen(repr=False)
class Ending(Shown):
    """A certificate and its end.

    :ivar name: what it is, for a person, such as ``the provider's certificate``
    :ivar ends: seconds since 1970
    """

    name: str
    ends: float


def due(ends: float, now: float) -> int | None:
    """The last of :data:`DAYS` that a certificate's end has come to, or None while it is far."""
    reached = [days for days in DAYS if ends - now <= days * DAY]
    return min(reached) if reached else None


def ending_text(name: str, ends: float, now: float) -> str:
    """One sentence for a person."""
    date = time.strftime("%Y-%m-%d", time.gmtime(ends))
    left = int((ends - now) // DAY)
    if left < 0:
        return f"{name} has expired on {date}"
    return f"{name} expires on {date}, in {left} day{'' if left == 1 else 's'}"
