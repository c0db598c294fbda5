"""Layer 4: which of what happens is told to somebody at once: alarms.

Every security warning is one, but for a line that merely broke and single refused log-ins, and so
are the events that :data:`EVENTS` names, with those that the admin adds. They go to deliveries
(:mod:`cloudconnect.provider.alarms.delivery`); an alarm that comes again and again is told once an
hour, with the number of those between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs
from twisted.logger import Logger

from cloudconnect.errors import WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.watching import Watcher

#: Events that somebody wants to know of at once.
EVENTS: Final = frozenset(
    {
        "audit_log_cut",
        "backup_missed",
        "backup_recovered",
        "certificate_expires",
        "maintenance_failed",
        "new_bytes_jumped",
        "soft_quota_passed",
    }
)
#: Kinds of warnings that are no alarm each: lines break, and people mistype.
QUIET: Final = frozenset({WarningKind.TRUNCATED, WarningKind.AUTHENTICATION_FAILED})
#: So many refused log-ins of one tenant within :data:`AGAIN_SECONDS` are an alarm.
LOGINS: Final = 10
#: Alarms of refused log-ins within :data:`AGAIN_SECONDS`, each of one tenant: with more than these
#: it is one of all. A stranger can think of names without end, and must not bury all else.
LOGIN_ALARMS_MAX: Final = 20
#: The same alarm is told again after so many seconds at the earliest.
AGAIN_SECONDS: Final = 3600.0
#: Alarms that are remembered for that.
REMEMBERED_MAX: Final = 10_000
_TEXT_MAX: Final = 500


@attrs.frozen(kw_only=True)
class Alarm:
    """What somebody is told.

    :ivar time: seconds since 1970
    :ivar name: the event's, or the warning's kind
    :ivar security: whether it is a security warning
    :ivar tenant: whose, or ""
    :ivar session: as hexadecimal digits, or ""
    :ivar text: one sentence
    :ivar repeated: how many of the same kind came since it was told last, and were not told
    """

    time: float
    name: str
    security: bool = False
    tenant: str = ""
    session: str = ""
    text: str = ""
    repeated: int = 0

    def as_map(self) -> dict[str, Any]:
        """As JSON values."""
        return attrs.asdict(self)


class Alarms(Watcher):
    """Finds what is an alarm.

    :param seconds: a clock that only goes forward
    :param events: names of events that are alarms too
    :ivar deliver: who takes them
    """

    _log = Logger()

    def __init__(self, seconds: Callable[[], float], events: Iterable[str] = ()) -> None:
        self._seconds = seconds
        self.events = EVENTS | set(events)
        self.deliver: list[Callable[[Alarm], None]] = []
        self._told: dict[tuple[str, ...], tuple[float, int]] = {}
        self._refused: dict[str, tuple[float, int]] = {}
        self._login_alarms = (-AGAIN_SECONDS, 0)

    def happened(self, event: SessionEvent, tenant: str, reported_by: str) -> None:
        """An event may be one."""
        if event.name not in self.events:
            return
        fields = event.fields
        subject = (event.name, tenant, *(str(fields.get(f, "")) for f in ("host", "job", "which")))
        if event.name == "certificate_expires":
            subject += (str(fields.get("days")),)
        self._raise(
            subject,
            Alarm(
                time=event.time,
                name=event.name,
                tenant=tenant,
                session=event.session,
                text=event.text[:_TEXT_MAX],
            ),
        )

    def warned(self, warning: SecurityWarning) -> None:
        """A security warning mostly is one."""
        if warning.kind is WarningKind.AUTHENTICATION_FAILED:
            self._login_refused(warning)
        elif warning.kind not in QUIET:
            name = warning.kind.value
            self._raise((name, warning.tenant, warning.session, warning.hop), _of(warning))

    def _login_refused(self, warning: SecurityWarning) -> None:
        now = self._seconds()
        began, count = self._refused.get(warning.tenant, (now, 0))
        if now - began > AGAIN_SECONDS:
            began, count = now, 0
        if len(self._refused) >= REMEMBERED_MAX:
            self._refused.clear()
        self._refused[warning.tenant] = (began, count + 1)
        if count + 1 == LOGINS:
            text = f"{LOGINS} log-ins were refused within an hour, the last from {warning.peer}"
            alarm = attrs.evolve(_of(warning), text=text)
            began, alarms = self._login_alarms
            if now - began > AGAIN_SECONDS:
                began, alarms = now, 0
            self._login_alarms = (began, alarms + 1)
            if alarms >= LOGIN_ALARMS_MAX:
                text = f"log-ins as many tenants are refused, the last from {warning.peer}"
                alarm = attrs.evolve(alarm, tenant="", text=text)
            self._raise((warning.kind.value, alarm.tenant), alarm)

    def _raise(self, subject: tuple[str, ...], alarm: Alarm) -> None:
        now = self._seconds()
        told, repeated = self._told.get(subject, (-AGAIN_SECONDS, 0))
        if now - told < AGAIN_SECONDS:
            self._told[subject] = (told, repeated + 1)
            return
        if len(self._told) >= REMEMBERED_MAX:
            self._told.clear()
        self._told[subject] = (now, 0)
        alarm = attrs.evolve(alarm, repeated=repeated)
        for deliver in self.deliver:
            deliver(alarm)


def _of(warning: SecurityWarning) -> Alarm:
    return Alarm(
        time=warning.time,
        name=warning.kind.value,
        security=True,
        tenant=warning.tenant,
        session=warning.session,
        text=f"{warning.role or 'service'}: {warning.text}"[:_TEXT_MAX],
    )


def alarm_text(alarm: Alarm) -> str:
    """An alarm as lines for a person."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(alarm.time))
    word = "SECURITY WARNING " if alarm.security else ""
    lines = [f"{moment}  {word}{alarm.name}", f"  {alarm.text}"]
    if alarm.tenant:
        lines.append(f"  tenant {alarm.tenant}")
    if alarm.session:
        lines.append(f"  session {alarm.session}")
    if alarm.repeated:
        lines.append(f"  {alarm.repeated} more of these came since it was told last")
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines)
