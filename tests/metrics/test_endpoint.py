"""Tests of :mod:`cloudconnect.metrics.endpoint`: three pages over HTTP, in memory."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.metrics.endpoint import READY_SECONDS, MetricsSite
from cloudconnect.metrics.process import process_registry
from cloudconnect.transports.memory import MemoryPair


class Browser(Protocol):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.got = b""

    def dataReceived(self, data: bytes) -> None:
        self.got += data


class EndpointTests(SynchronousTestCase):
    """What is answered."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.checked: Deferred[Mapping[str, str]] = succeed({"mover": ""})

    def get(self, path: str, method: str = "GET") -> Browser:
        """Ask for a page."""
        site = MetricsSite(self.clock, process_registry(["service"]), lambda: self.checked)
        browser = Browser()
        protocol = site.buildProtocol(None)
        pair = MemoryPair(self.clock)
        pair.connect(browser, protocol)
        request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        browser.transport.write(request.encode())  # type: ignore[union-attr]
        self.clock.advance(0)
        self.clock.pump([0] * 9)
        return browser

    def status(self, browser: Browser) -> int:
        return int(browser.got.split(b" ", 2)[1])

    def test_metrics(self) -> None:
        """The metrics in Prometheus's text format."""
        got = self.get("/metrics").got
        self.assertIn(b"text/plain; version=0.0.4", got)
        self.assertIn(b'cloudconnect_role_up{role="service"} 1.0', got)

    def test_healthy(self) -> None:
        """A process that answers is healthy, whatever the checks say."""
        self.checked = succeed({"mover": "there is none"})
        self.assertEqual(200, self.status(self.get("/healthz")))

    def test_ready(self) -> None:
        """Ready where every check holds, with a line for each."""
        browser = self.get("/readyz")
        self.assertEqual(200, self.status(browser))
        self.assertIn(b"mover: ok\n", browser.got)
        self.checked = succeed({"mover": ""})
        head = self.get("/readyz", "HEAD")
        self.assertEqual((200, False), (self.status(head), b"mover" in head.got))

    def test_not_ready(self) -> None:
        """Not ready where one does not, which is named."""
        self.checked = succeed({"mover": "there is none", "disk": ""})
        browser = self.get("/readyz")
        self.assertEqual(503, self.status(browser))
        self.assertIn(b"mover: there is none\n", browser.got)

    def test_late(self) -> None:
        """What does not answer in time is not ready."""
        self.checked = Deferred()
        browser = self.get("/readyz")
        self.assertEqual(b"", browser.got)
        self.clock.advance(READY_SECONDS)
        self.clock.pump([0] * 9)
        self.assertEqual(503, self.status(browser))

    def test_bug(self) -> None:
        """A check that fails is logged; its text is not shown."""
        self.checked = fail(ValueError("inner matters"))
        browser = self.get("/readyz")
        self.assertEqual(500, self.status(browser))
        self.assertNotIn(b"inner", browser.got)
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))

    def test_nothing_else(self) -> None:
        """No other page, and no other method."""
        self.assertEqual(404, self.status(self.get("/")))
        self.assertEqual(405, self.status(self.get("/metrics", "POST")))
