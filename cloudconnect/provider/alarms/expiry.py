"""Layer 4: certificates that will end: told 30, 14 and 3 days before, and when they have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs
from twisted.logger import Logger

from cloudconnect.provider.looking import Looking

#: Days before the end at which it is told; 0: it has ended.
DAYS: Final = (30, 14, 3, 0)
DAY: Final = 86400.0
#: Seconds from one look to the next.
LOOK_SECONDS: Final = 6 * 3600.0


@attrs.frozen
class Ending:
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


class ExpiryWatch(Looking):
    """Tells once for each of :data:`DAYS` that a certificate will end.

    :param reactor: clock
    :param endings: the certificates as they are now
    :param tell: takes the name, the days that were reached, and a sentence
    :param now: seconds since 1970
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        endings: Callable[[], Iterable[Ending]],
        tell: Callable[[str, int, str], Any],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._endings = endings
        self._tell = tell
        self._now = now
        self._told: dict[Ending, int] = {}
        super().__init__(reactor, LOOK_SECONDS, self.look)

    def look(self) -> None:
        """Tell what is due and was not told since the start; also called where files changed."""
        try:
            endings = list(self._endings())
        except Exception:
            self._log.failure("certificates cannot be looked at")
            return
        self._told = {ending: days for ending, days in self._told.items() if ending in endings}
        for ending in endings:
            now = self._now()
            days = due(ending.ends, now)
            if days is not None and self._told.get(ending) != days:
                self._told[ending] = days
                self._tell(ending.name, days, ending_text(ending.name, ending.ends, now))
