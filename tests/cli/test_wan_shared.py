"""Tests of :mod:`cloudconnect.cli.wan_shared`: where the tenant's own accelerator is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.protocols.amp import CommandLocator
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli.wan_shared import shared_accelerator
from cloudconnect.config.node_certificates import issue_node_certificate
from cloudconnect.config.profile import Profile
from cloudconnect.config.wan import add_client, initialize
from cloudconnect.errors import NotReachable, UsageError
from cloudconnect.tap import renewing
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

    def test_renewed(self) -> None:
        """A certificate of which two thirds are over is renewed before the first line; where that
        does not succeed the command says when it ends, and goes on."""
        settings = initialize(Path(self.mktemp()), "tcp:6183")
        machine = add_client(settings, "laptop", Path(self.mktemp()))
        issue_node_certificate(settings.authority, "laptop", JOB_MANAGER, machine, 20)
        later = time.time() + 15 * 86400
        self.patch(time, "time", lambda: later)
        asked: list[tuple[Path, Any]] = []
        answers: list[Exception | None] = [None, NotReachable("away")]

        async def renew_over_lan(reactor: Any, folder: Path, *where: Any) -> None:
            asked.append((folder, where))
            answer = answers.pop(0)
            if answer is not None:
                raise answer

        self.patch(renewing, "renew_over_lan", renew_over_lan)
        for notes in (0, 1):
            made = self.made(wan_accelerator="10.0.0.7:6183", wan_node=str(machine))
            assert made is not None and made._renew is not None
            self.successResultOf(Deferred.fromCoroutine(made._renew()))
            self.assertEqual(notes, len(self.said))
        self.assertEqual([(machine, (("10.0.0.7", 6183), "accelerator"))] * 2, asked)
        with self.locked(machine):
            made = self.made(wan_accelerator="10.0.0.7:6183", wan_node=str(machine))
            assert made is not None and made._renew is not None
            self.successResultOf(Deferred.fromCoroutine(made._renew()))
        self.assertEqual(2, len(asked))

    @contextlib.contextmanager
    def locked(self, folder: Path) -> Iterator[None]:
        """Another command renews what lies there."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

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
