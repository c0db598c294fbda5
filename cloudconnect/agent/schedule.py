"""Layer 5: when a job is due: cron's five fields, in the local zone, and a delay of the job's own.

Many machines have the same schedule. So each job is delayed by a part of its jitter that is always
the same for one machine, one job and one moment: the provider meets them one after the other.
"""

from __future__ import annotations

import datetime
import hashlib
import string
from typing import Final

import attrs
from croniter import croniter

from cloudconnect.errors import UsageError

#: Words in the place of five fields.
_WORDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}
#: What may stand in fields.
_ALLOWED: Final = set("*/,- " + string.digits + string.ascii_letters)
#: Longest schedule, in characters.
TEXT_MAX: Final = 200
#: A day, of which no schedule is later than so many, or it never is.
_DAYS_MAX: Final = 5 * 366


def _check(schedule: Schedule, _: object, text: str) -> None:
    fields = _WORDS.get(text, text)
    if len(text) > TEXT_MAX or len(fields.split()) != 5 or not _possible(fields):
        raise UsageError(
            f"{text!r} is not a schedule: five fields of cron, minute, hour, day, month and "
            "weekday, such as '30 2 * * *', or @hourly, @daily, @weekly, @monthly"
        )


def _possible(fields: str) -> bool:
    if not set(fields) <= _ALLOWED:
        return False
    try:
        croniter(fields, datetime.datetime(2000, 1, 1)).get_next(datetime.datetime)
    except (ValueError, KeyError):
        return False
    return True


@attrs.frozen
class Schedule:
    """When a job is due.

    :ivar text: five fields of cron, or one of ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``
    :raises UsageError: it is none, or never comes
    """

    text: str = attrs.field(validator=_check)

    def after(self, moment: float) -> float:
        """The first moment after ``moment``, both in seconds since 1970.

        It goes by the local zone's clock: an hour that a change of summer time leaves out or
        repeats is run through once.
        """
        local = datetime.datetime.fromtimestamp(moment)
        steps = croniter(_WORDS.get(self.text, self.text), local)
        while True:
            found: float = steps.get_next(datetime.datetime).timestamp()
            if found > moment:
                return found

    def last_before(self, moment: float, since: float) -> float:
        """The last moment not after ``moment``; ``since`` where there is none after that."""
        last = since
        # From the newest end: after a year of sleep a job of each minute is not counted through.
        for span in (3600.0, 86400.0, 32 * 86400.0, _DAYS_MAX * 86400.0):
            found = self.after(max(since, moment - span))
            if found <= moment:
                while found <= moment:
                    last, found = found, self.after(found)
                return last
            if moment - span <= since:
                break
        return last


def delay(jitter: float, *names: str) -> float:
    """Seconds from 0 to ``jitter``, always the same for the same names."""
    digest = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).digest()
    return jitter * int.from_bytes(digest[:6], "big") / (1 << 48)
