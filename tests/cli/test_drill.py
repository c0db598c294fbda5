"""Tests of :mod:`cloudconnect.cli.drill`: at a provider that sees an attack, and at others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cloudconnect.cli.administering import ActsThere
from cloudconnect.cli.drill import (
    PREFIX,
    Drill,
    Finding,
    alarm_places,
    alarm_text,
    where_tenants_connect,
)
from cloudconnect.cli.flipping import Flipper
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.config.provider import ProviderSettings
from cloudconnect.errors import UsageError
from cloudconnect.provider.data_mover.mover import TargetDataMover
from tests.attacks.stage import Stage
from tests.crash.ledger import ROOT


class DrillTests(TestCase):
    """A drill at a provider that runs."""

    timeout = 120

    async def drill(self) -> dict[str, Finding]:
        """What a drill finds, by names."""
        self.stage = Stage(reactor)
        self.addCleanup(self.stage.remove)
        await self.stage.open()
        self.addCleanup(self.stage.close)
        socket = UNIXClientEndpoint(reactor, str(self.stage.settings.admin_socket))
        link = await connectProtocol(socket, BoundedAMP(reactor))  # type: ignore[arg-type]
        found: list[Finding] = []
        place = ("localhost", self.stage.port)
        try:
            acts: Any = ActsThere(link)
            await Drill(reactor, acts, self.stage.settings, place, found).run()
        finally:
            link.transport.loseConnection()
        return {finding.name: finding for finding in found}

    async def test_seen(self) -> None:
        """The attack is seen at both ends, leaves no point, and the tenant can do no more."""
        found = await self.drill()
        self.assertEqual([], [one for one in found.values() if not one.good])
        self.assertEqual(7, len(found))
        self.assertIn("status 20", found["tenant_status"].text)
        warned = self.stage.listed("event", type="warning")
        self.assertIn("tampered", {row["name"] for row in warned})
        self.assertTrue(all(row["tenant"].startswith(PREFIX) for row in warned))

    async def test_not_kept(self) -> None:
        """Where the provider keeps no warning of it, the drill says so."""
        self.patch(TargetDataMover, "warn", lambda *_: None)
        self.patch(TargetDataMover, "failed", lambda *_: None)
        found = await self.drill()
        self.assertFalse(found["provider_warning"].good)

    async def test_nothing_changed(self) -> None:
        """Where no bit was changed there was no drill, whatever else is well."""
        self.patch(Flipper, "strike", lambda flipper: False)
        found = await self.drill()
        self.assertFalse(found["struck"].good)
        self.assertFalse(found["tenant_status"].good)
        self.assertFalse(found["no_point"].good)


class AlarmTests(SynchronousTestCase):
    """What is left to look at."""

    def test_places(self) -> None:
        """The alarm's addressees are named; where there are none, that is said."""
        settings = ProviderSettings(directory=Path("/nowhere"), hosts=("localhost",))
        self.assertEqual([], alarm_places(settings))
        self.assertIn("No alarm is set", alarm_text(settings))
        told = attrs.evolve(
            settings, alarm_webhook="https://a.example/", alarm_mail_to=("ops@example.com",)
        )
        self.assertEqual(["https://a.example/", "ops@example.com"], alarm_places(told))
        self.assertIn("https://a.example/, ops@example.com: see that", alarm_text(told))


class PlaceTests(SynchronousTestCase):
    """Where a drill connects to."""

    def place(self, listen: str, advertise: tuple[str, ...] = ()) -> tuple[str, int]:
        where = Path("/nowhere")
        return where_tenants_connect(
            ProviderSettings(
                directory=where, hosts=("localhost",), listen=listen, advertise=advertise
            )
        )

    def test_places(self) -> None:
        """The first gateway that is told, or else where the provider listens."""
        self.assertEqual(("127.0.0.1", 6180), self.place("tcp:6180"))
        self.assertEqual(("192.0.2.1", 1), self.place("tcp:1:interface=192.0.2.1"))
        self.assertEqual(("::1", 2), self.place(r"tcp6:2:interface=\:\:"))
        self.assertEqual(("gate.example.com", 7), self.place("tcp:0", ("gate.example.com:7",)))

    def test_cannot_be_told(self) -> None:
        """An endpoint without a port wants --connect."""
        for listen in ("tcp:0", "systemd:domain=INET:index=0", "unix:/run/x"):
            with self.assertRaises(UsageError) as caught:
                self.place(listen)
            self.assertIn("--connect", str(caught.exception))


class CommandTests(SynchronousTestCase):
    """The command itself, in processes of its own."""

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "cloudconnect",
                "provider",
                *words,
                "--directory",
                self.provider,
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
        )

    def test_no_provider(self) -> None:
        """Where none runs there is nothing to attack: status 22, and nothing is left."""
        self.provider = os.path.abspath(self.mktemp())
        self.assertEqual(0, self.call("init", "--host", "localhost").returncode)
        done = self.call("drill", "--connect", "localhost:1")
        self.assertEqual(22, done.returncode)
        self.assertIn("no provider runs", done.stderr)
        self.assertEqual("", self.call("tenant", "list").stdout)
