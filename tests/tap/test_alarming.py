"""Tests of :mod:`cloudconnect.tap.alarming`: ways that come, fail and change while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config.provider import ProviderSettings
from cloudconnect.errors import NotReachable, UsageError, WarningKind
from cloudconnect.events import SecurityWarning
from cloudconnect.provider.alarms.delivery import COLLECT_SECONDS, RETRY_SECONDS
from cloudconnect.provider.watching import Watchers
from cloudconnect.tap import alarming
from cloudconnect.tap.alarming import DELIVERED, SETTINGS, UNDELIVERED, Alarming

WARNING = SecurityWarning(time=1.0, kind=WarningKind.TAMPERED, tenant="acme", text="seen")


class Way:
    """A webhook that can be away."""

    name = "webhook"

    def __init__(self) -> None:
        self.away = False
        self.got = 0

    def send(self, alarms: Any, dropped: int) -> Deferred[None]:
        if self.away:
            return fail(NotReachable("nobody answers"))
        self.got += len(alarms)
        return succeed(None)


class Service:
    """What is watched."""

    def __init__(self) -> None:
        self.watchers = Watchers()
        self.noted: list[tuple[str, str]] = []
        self.reports = self

    def note(self, name: str, session: str, text: str, **fields: Any) -> None:
        self.noted.append((name, fields["way"]))


class AlarmingTests(SynchronousTestCase):
    """Where alarms go."""

    def setUp(self) -> None:
        self.clock, self.service = Clock(), Service()
        self.ways: list[Way] = []
        self.patch(alarming, "ways", lambda reactor, settings: self.made())
        self.settings = ProviderSettings(directory=Path("/nowhere"), hosts=("localhost",))
        self.alarming = Alarming(self.clock, self.service)  # type: ignore[arg-type]
        self.alarming.startService()
        self.addCleanup(self.alarming.stopService)

    def made(self) -> list[Way]:
        self.ways.append(Way())
        return [self.ways[-1]]

    def apply(self, webhook: str) -> None:
        self.alarming.apply(attrs.evolve(self.settings, alarm_webhook=webhook))

    def warn(self, kind: WarningKind = WarningKind.TAMPERED) -> None:
        warning = attrs.evolve(WARNING, kind=kind)
        self.service.watchers.tell(lambda watcher: watcher.warned(warning))

    def test_settings(self) -> None:
        """Every setting about alarms is one that is used without a new start."""
        self.assertIn("alarm_mail_ca", SETTINGS)
        self.assertTrue(all(name.startswith("alarm_") for name in SETTINGS))

    def test_failure_told(self) -> None:
        """That alarms do not get through is an event, once, and so is that they do again."""
        self.apply("a")
        self.ways[0].away = True
        self.warn()
        self.clock.advance(COLLECT_SECONDS)
        self.clock.advance(RETRY_SECONDS[0])
        self.assertEqual([(UNDELIVERED, "webhook")], self.service.noted)
        self.ways[0].away = False
        self.clock.advance(RETRY_SECONDS[1])
        self.assertEqual((DELIVERED, "webhook"), self.service.noted[-1])
        self.assertEqual(1, self.ways[0].got)

    def test_changed(self) -> None:
        """What waited for a way that was wrong goes the new one; other settings change nothing."""
        self.apply("a")
        self.ways[0].away = True
        self.warn()
        self.clock.advance(COLLECT_SECONDS)
        self.apply("a")
        self.assertEqual(1, len(self.ways))
        self.apply("b")
        self.warn(WarningKind.REPLAYED)
        self.clock.advance(COLLECT_SECONDS)
        self.assertEqual((0, 2), (self.ways[0].got, self.ways[1].got))

    def test_unusable(self) -> None:
        """Settings that cannot be used leave the ways as they were."""
        self.apply("a")

        def unusable(reactor: Any, settings: Any) -> Any:
            raise UsageError("no")

        self.patch(alarming, "ways", unusable)
        self.apply("b")
        self.warn()
        self.clock.advance(COLLECT_SECONDS)
        self.assertEqual(1, self.ways[0].got)
