"""Tests of :mod:`cloudconnect.tap.renewing`: when a node's process looks, and what it says."""

from __future__ import annotations

from pathlib import Path

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config.certificates import load_certificate
from cloudconnect.config.node_certificates import issue_node_certificate, make_node_ca
from cloudconnect.errors import NotReachable
from cloudconnect.provider.alarms.expiry import LOOK_SECONDS
from cloudconnect.tap.reloading import SettingsFile
from cloudconnect.tap.renewing import CertificateKeeper, own_keeper, watch_files
from cloudconnect.transports.nodes import NodeName

NODE = NodeName("mover", "one")


class KeeperCase(SynchronousTestCase):
    """A test with a clock and a log."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log: list[str] = []
        observer = lambda event: self.log.append(eventAsText(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def said(self, text: str) -> int:
        return sum(text in line for line in self.log)


class KeeperTests(KeeperCase):
    """A certificate that is looked at."""

    def test_again(self) -> None:
        """It looks at the start and every few hours; where a renewal fails the next look tries
        again, and both are in the log."""
        answers: list[float | Exception | None] = [None, NotReachable("away"), 86400.0]

        async def look() -> float | None:
            found = answers.pop(0)
            if isinstance(found, Exception):
                raise found
            return found

        keeper = CertificateKeeper(self.clock, look)
        keeper.startService()
        self.addCleanup(keeper.stopService)
        self.assertEqual((2, 0), (len(answers), self.said("not renewed")))
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual((1, 1), (len(answers), self.said("not renewed: away")))
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(1, self.said("another certificate, until 1970-01-02"))

    def test_stopped(self) -> None:
        """A process that stops does not wait for an answer."""
        waiting: Deferred[None] = Deferred()

        async def look() -> float | None:
            await waiting
            return None

        keeper = CertificateKeeper(self.clock, look)
        keeper.startService()
        keeper.stopService()
        self.assertTrue(waiting.called)
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual(0, self.said("could not be renewed"))


class OwnTests(KeeperCase):
    """A node that has the authority itself."""

    def setUp(self) -> None:
        super().setUp()
        self.authority, self.node = Path(self.mktemp()), Path(self.mktemp())
        self.authority.mkdir()
        self.node.mkdir()
        make_node_ca(self.authority)

    def issue(self, days: int) -> None:
        issue_node_certificate(self.authority, NODE.name, NODE.role, self.node, days)

    def test_renewed(self) -> None:
        """What ended would be mended: a pair that is none is issued again, and read again."""
        self.issue(10)
        (self.node / "key.pem").write_bytes(b"nothing")
        read: list[bool] = []
        keeper = own_keeper(self.clock, self.authority, self.node, NODE, lambda: read.append(True))
        keeper.startService()
        self.addCleanup(keeper.stopService)
        self.assertEqual([True], read)
        left = load_certificate(self.node / "certificate.pem")
        self.assertEqual(1, self.said(f"until {left.not_valid_after_utc.date()}"))

    def test_told(self) -> None:
        """The log of a node's process says when its certificate will end soon."""
        self.issue(10)
        process = MultiService()
        settings = SettingsFile(NODE, lambda: NODE, (), lambda _: None)
        watch_files(self.clock, process, self.node, lambda: None, "node.toml", settings)
        process.startService()
        self.addCleanup(process.stopService)
        self.assertEqual(1, self.said("this node's certificate in the LAN expires on "))
