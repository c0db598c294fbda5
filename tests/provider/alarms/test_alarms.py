"""Tests of :mod:`cloudconnect.provider.alarms.alarms`: what is told to somebody, and how often."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.alarms.alarms import (
    AGAIN_SECONDS,
    LOGIN_ALARMS_MAX,
    LOGINS,
    Alarm,
    Alarms,
    alarm_text,
)


def warning(kind: WarningKind = WarningKind.TAMPERED, **parts: Any) -> SecurityWarning:
    return SecurityWarning(time=1.0, kind=kind, role="target-mover", text="seen", **parts)


def event(name: str, **fields: Any) -> SessionEvent:
    return SessionEvent(time=1.0, name=name, session="", text="it happened", fields=fields)


class AlarmTests(SynchronousTestCase):
    """What is one."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.alarms = Alarms(self.clock.seconds, ["my_event"])
        self.told: list[Alarm] = []
        self.alarms.deliver.append(self.told.append)

    def names(self) -> list[str]:
        return [alarm.name for alarm in self.told]

    def test_warnings(self) -> None:
        """A security warning is; a line that broke is not."""
        self.alarms.warned(warning(tenant="acme", session="ab" * 16))
        self.alarms.warned(warning(WarningKind.TRUNCATED, tenant="acme"))
        (alarm,) = self.told
        self.assertEqual(("tampered", True, "acme"), (alarm.name, alarm.security, alarm.tenant))
        self.assertEqual("target-mover: seen", alarm.text)

    def test_events(self) -> None:
        """Some events are, and those that the admin names; others are not."""
        for name in ("backup_missed", "key_a_made", "my_event"):
            self.alarms.happened(event(name), "acme", "service")
        self.assertEqual(["backup_missed", "my_event"], self.names())

    def test_again(self) -> None:
        """The same one again and again is told once an hour, with how many there were."""
        for _ in range(5):
            self.alarms.warned(warning(tenant="acme"))
        self.alarms.warned(warning(tenant="bcme"))
        self.assertEqual(["acme", "bcme"], [alarm.tenant for alarm in self.told])
        self.clock.advance(AGAIN_SECONDS)
        self.alarms.warned(warning(tenant="acme"))
        self.assertEqual(4, self.told[-1].repeated)

    def test_each(self) -> None:
        """Each host and job that missed its backup is told, and each of a certificate's days."""
        for host in ("x", "y"):
            self.alarms.happened(event("backup_missed", host=host), "acme", "service")
        for days in (30, 14):
            self.alarms.happened(event("certificate_expires", which="it", days=days), "", "service")
        self.assertEqual(4, len(self.told))

    def test_logins(self) -> None:
        """One refused log-in is not, many within an hour are, once."""
        for _ in range(3 * LOGINS):
            self.alarms.warned(warning(WarningKind.AUTHENTICATION_FAILED, tenant="acme"))
        (alarm,) = self.told
        self.assertIn(f"{LOGINS} log-ins were refused", alarm.text)
        self.clock.advance(AGAIN_SECONDS + 1)
        for _ in range(LOGINS - 1):
            self.alarms.warned(warning(WarningKind.AUTHENTICATION_FAILED, tenant="acme"))
        self.assertEqual(1, len(self.told))

    def test_logins_of_many(self) -> None:
        """Whoever thinks of ever new tenants buries no other alarm under theirs."""
        for round_number in range(2):
            for number in range(200):
                for _ in range(LOGINS):
                    name = f"tenant-{round_number}-{number}"
                    self.alarms.warned(warning(WarningKind.AUTHENTICATION_FAILED, tenant=name))
            self.assertEqual((round_number + 1) * (LOGIN_ALARMS_MAX + 1), len(self.told))
            self.assertEqual("", self.told[-1].tenant)
            self.assertIn("as many tenants", self.told[-1].text)
            self.clock.advance(AGAIN_SECONDS + 1)

    def test_text(self) -> None:
        """Lines for a person, in which nothing moves a cursor."""
        alarm = Alarm(time=0, name="tampered", security=True, tenant="acme", text="a\x1b[2Jb\nc")
        text = alarm_text(alarm)
        self.assertIn("1970-01-01 00:00:00 UTC  SECURITY WARNING tampered", text)
        self.assertIn("  a [2Jb c", text)
