"""Tests of :mod:`cloudconnect.cli.wan_shared`: where the tenant's own accelerator is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.protocols.amp import CommandLocator
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli.wan_shared import shared_accelerator
from cloudconnect.config.node_certificates import issue_node_certificate
from cloudconnect.config.profile import Profile
from cloudconnect.config.wan import add_client, initialize
from cloudconnect.errors import UsageError
from cloudconnect.tenant.shared import SharedAccelerator
from cloudconnect.transports.nodes import JOB_MANAGER


class Anything:
    """Whatever somebody asks for by a name."""

    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)


class SharedTests(SynchronousTestCase):
    """What the profile and the environment say."""

    def setUp(self) -> None:
        self.said: list[str] = []

    def made(self, **profile: str) -> SharedAccelerator | None:
        line: Any = Anything(
            reactor=Clock(),
            manager=Anything(reports=CommandLocator()),
            settings=Anything(profile=Profile(**profile), console=Anything(note=self.said.append)),
        )
        return shared_accelerator(line, bytes(32), 4)

    def test_none(self) -> None:
        """Where nothing is said each command has its own."""
        self.assertIsNone(self.made())

    def test_shared(self) -> None:
        """With an address and a machine's certificate there is a shared one."""
        settings = initialize(Path(self.mktemp()), "tcp:6183")
        machine = add_client(settings, "laptop", Path(self.mktemp()))
        made = self.made(wan_accelerator="10.0.0.7:6183", wan_node=str(machine))
        self.assertIsInstance(made, SharedAccelerator)
        self.assertRaises(UsageError, self.made, wan_accelerator="x", wan_node=str(machine))
        self.assertEqual([], self.said)

    def test_end(self) -> None:
        """When this machine's certificate will end soon the command says so."""
        settings = initialize(Path(self.mktemp()), "tcp:6183")
        machine = add_client(settings, "laptop", Path(self.mktemp()))
        issue_node_certificate(settings.authority, "laptop", JOB_MANAGER, machine, 20)
        self.made(wan_accelerator="10.0.0.7:6183", wan_node=str(machine))
        (said,) = self.said
        self.assertIn("expires on", said)
        self.assertIn("wan client", said)

    def test_no_certificate(self) -> None:
        """Without a certificate the text says how to get one."""
        for more in ({}, {"wan_node": self.mktemp()}):
            error = self.assertRaises(UsageError, self.made, wan_accelerator="a:1", **more)
            self.assertIn("wan client", str(error).replace("cloudconnect ", ""))
