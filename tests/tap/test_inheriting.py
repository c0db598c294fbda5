"""Tests of :mod:`cloudconnect.tap.inheriting`, with systemd's own program where it is there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
from functools import partial

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, serverFromString
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from cloudconnect.config.provider import initialize
from cloudconnect.tap import inheriting
from cloudconnect.tap.inheriting import inherited_endpoint
from tests.story.processes import LOOPBACK, Process, StoryCase, free_port


class EndpointTests(SynchronousTestCase):
    """What was handed over."""

    def test_families(self) -> None:
        """The endpoint is of the socket's family, and the socket stays open."""
        for family, name in (
            (socket.AF_INET, "INET"),
            (socket.AF_INET6, "INET6"),
            (socket.AF_UNIX, "UNIX"),
        ):
            with socket.socket(family) as made:
                self.patch(inheriting, "FIRST", made.fileno())
                found = inherited_endpoint(lambda text: text)
                self.assertEqual(f"systemd:domain={name}:index=0", found)
                os.fstat(made.fileno())

    def test_nothing(self) -> None:
        """Where none was handed over, or what was is no socket, there is none."""
        self.assertIsNone(inherited_endpoint(partial(serverFromString, reactor)))
        with open(os.devnull) as file:
            self.patch(inheriting, "FIRST", file.fileno())
            self.assertIsNone(inherited_endpoint(lambda text: text))


class ActivationTests(StoryCase):
    """A provider that systemd starts at the first connection."""

    async def test_started(self) -> None:
        """It takes the port that it was started with, and is ready on it."""
        activate = shutil.which("systemd-socket-activate")
        if activate is None:
            raise SkipTest("systemd-socket-activate is not installed")
        settings = initialize(self.folder / "provider", ("localhost",))
        port = free_port()
        environment = self.environment()
        passed = [word for name in ("HOME", "PYTHONPATH", "PATH") for word in ("-E", name)]
        words = [activate, *passed, "--fdname=public", "-l", f"{LOOPBACK}:{port}", sys.executable]
        words += ["-m", "twisted", "--log-format=text", "cloudconnect-provider"]
        words += ["--directory", str(settings.directory)]
        process = Process(words, environment, str(self.folder))
        self.addCleanup(process.stop, signal.SIGKILL)
        await connected(port)
        ready = await process.wrote(re.compile(rb"provider is ready on .*?(\d+)\)"))
        self.assertEqual(port, int(ready[1]))
        self.assertEqual(-signal.SIGTERM, await process.stop())


async def connected(port: int) -> None:
    """Connect as soon as somebody listens, and go again."""
    endpoint = TCP4ClientEndpoint(reactor, LOOPBACK, port)

    async def attempt() -> None:
        try:
            made = await connectProtocol(endpoint, Protocol())
        except Exception:
            return
        made.transport.abortConnection()
        if looking.running:
            looking.stop()

    looking = LoopingCall(lambda: Deferred.fromCoroutine(attempt()))
    await looking.start(0.05)
