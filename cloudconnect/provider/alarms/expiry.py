"""Layer 4: certificates that will end: told 30, 14 and 3 days before, and when they have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.logger import Logger

from cloudconnect.provider.alarms.ending import DAY, DAYS, Ending, due, ending_text
from cloudconnect.provider.looking import Looking

__all__ = ["DAY", "DAYS", "LOOK_SECONDS", "Ending", "ExpiryWatch", "due", "ending_text"]

#: Seconds from one look to the next.
LOOK_SECONDS: Final = 6 * 3600.0


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
