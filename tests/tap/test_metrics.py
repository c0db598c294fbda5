"""Tests of :mod:`cloudconnect.tap.metrics`: the port of a real process, on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks, maybeDeferred
from twisted.logger import eventAsText, globalLogPublisher
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody

from cloudconnect.config.node_certificates import make_node_ca
from cloudconnect.errors import UsageError
from cloudconnect.tap.metrics import MetricsPort, add_metrics


class PortTests(TestCase):
    """The port."""

    timeout = 60

    @inlineCallbacks
    def test_life(self) -> Any:
        """It listens while the process runs, and shows when a node's certificates end."""
        process = MultiService()
        node = Path(self.mktemp())
        node.mkdir()
        make_node_ca(node)
        add_metrics(reactor, process, "tcp:0:interface=127.0.0.1", "gateway", node)
        self.addCleanup(lambda: maybeDeferred(process.stopService))
        process.startService()
        (child,) = process
        assert isinstance(child, MetricsPort)
        port: Any = child._port
        url = f"http://127.0.0.1:{port.getHost().port}/metrics".encode()
        response = yield Agent(reactor).request(b"GET", url)
        body = yield readBody(response)
        self.assertIn(b'cloudconnect_role_up{role="gateway"} 1.0', body)
        self.assertIn(b"cloudconnect_certificate_end_timestamp_seconds{", body)

    def test_none(self) -> None:
        """Without an endpoint there is no port, and what is none is refused."""
        process = MultiService()
        add_metrics(reactor, process, None, "gateway")
        self.assertEqual([], list(process))
        self.assertRaises(UsageError, add_metrics, reactor, process, "nonsense:1", "gateway")

    def test_taken(self) -> None:
        """Where the port is taken the process goes on, and says so."""
        logged: list[str] = []

        def keep(event: Any) -> None:
            logged.append(eventAsText(event))

        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)
        process = MultiService()
        where = "tcp:0:interface=192.0.2.1"  # an address that is none of ours
        add_metrics(reactor, process, where, "gateway")
        self.addCleanup(lambda: maybeDeferred(process.stopService))
        process.startService()
        self.assertTrue(any("no metrics" in text for text in logged))
