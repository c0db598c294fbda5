"""A gateway's process that runs out of file descriptors, and has some again."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.story.processes import ROOT

#: A gateway before an echo, with so few descriptors that strangers use them up. The limit falls
#: behind its back: of itself it lets in no more than it has descriptors for.
SCRIPT = """
import os, resource, sys
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.protocols.wire import Echo
from cloudconnect.provider.gateway.gateway import Gateway
from cloudconnect.transports.switch import FactoryTarget

globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)])
target = FactoryTarget(Factory.forProtocol(Echo), "an echo")
gateway = Gateway(
    reactor, TCP4ServerEndpoint(reactor, 0, 100, "127.0.0.1"), lambda name: target, "echo"
)
gateway.startService()

def listening(port):
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20,) * 2)
    os.write(1, b"%d\\n" % port.getHost().port)

gateway.listen().addCallback(listening)
reactor.run()
"""
HELLO = b"\x16\x03\x01 TLS"
#: Seconds that an answer may take: far more than it does.
PATIENCE = 60


class DescriptorTests(SynchronousTestCase):
    """A process of its own, because the limit is one of a process."""

    def setUp(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(self.end)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def end(self) -> bytes:
        self.process.kill()
        _, said = self.process.communicate()
        return said

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        self.addCleanup(made.close)
        return made

    def answer(self, stranger: Any) -> bytes:
        """What the echo says, or nothing where the connection was closed."""
        try:
            stranger.sendall(HELLO)
            return bytes(stranger.recv(100))
        except ConnectionError:
            return b""

    def test_out_of_descriptors(self) -> None:
        """Those who come when none is left are closed, those who are there go on, and once some
        have gone others are served: it neither dies nor goes deaf."""
        strangers = [self.connect() for _ in range(60)]
        answers = [self.answer(stranger) for stranger in strangers]
        served = [s for s, answer in zip(strangers, answers, strict=True) if answer == HELLO]
        self.assertTrue(10 <= len(served) < 40, len(served))
        self.assertEqual(HELLO, self.answer(served[0]))
        for stranger in strangers:
            stranger.close()
        for _ in range(1000):  # each is closed, or served, as soon as the gateway gets to it
            if self.answer(self.connect()) == HELLO:
                break
        else:
            self.fail("nobody is served any more")
        self.assertIsNone(self.process.poll())
        self.assertNotIn(b"Traceback", self.end())
