"""Tests of :mod:`cloudconnect.provider.alarms.webhook`: a real HTTPS server on loopback."""

from __future__ import annotations

import hmac
import json
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.ssl import PrivateCertificate
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web._newclient import RequestTransmissionFailed, ResponseNeverReceived
from twisted.web.resource import Resource
from twisted.web.server import Site

from cloudconnect.errors import NotReachable, UsageError
from cloudconnect.keys import Password
from cloudconnect.provider.alarms.webhook import Webhook
from tests.certificates import self_signed
from tests.provider.alarms.test_delivery import ALARM


class AddressTests(SynchronousTestCase):
    """Where alarms may go."""

    def test_webhook(self) -> None:
        """Only over TLS, but for this machine itself."""
        for url in ("http://example.com/", "ftp://x/", "example.com", "https://"):
            self.assertRaises(UsageError, Webhook, None, url)
        for url in ("https://example.com/x", "http://127.0.0.1:1/", "http://[::1]:1/"):
            Webhook(None, url)

    def test_secret(self) -> None:
        """What shows a webhook shows no key."""
        webhook = Webhook(None, "https://example.com", key=Password(b"hidden"))
        self.assertNotIn("hidden", repr(webhook))


class Hook(Resource):
    """Takes what is posted."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.posted: Deferred[tuple[bytes, Any]] = Deferred()
        self.code = 204

    def render_POST(self, request: Any) -> bytes:
        request.setResponseCode(self.code)
        if not self.posted.called:
            self.posted.callback((request.content.read(), request.requestHeaders))
        return b""


class WebhookTests(TestCase):
    """A real HTTPS server on loopback."""

    timeout = 60

    @inlineCallbacks
    def setUp(self) -> Any:
        self.issued = self_signed(("localhost",))
        files = self.issued.write(self.mktemp())
        with open(files.certificate_path, "rb") as file:
            self.ca = file.read()
        with open(files.key_path, "rb") as file:
            options = PrivateCertificate.loadPEM(self.ca + file.read()).options()
        self.hook = Hook()
        port = yield reactor.listenSSL(0, Site(self.hook), options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.url = f"https://localhost:{port.getHost().port}/hook"

    @inlineCallbacks
    def test_posted(self) -> Any:
        """The alarms as JSON, signed under the key."""
        yield Webhook(reactor, self.url, self.ca, Password(b"key")).send([ALARM], 2)
        body, headers = yield self.hook.posted
        sent = json.loads(body)
        self.assertEqual(("tampered", 2), (sent["alarms"][0]["name"], sent["dropped"]))
        signature = headers.getRawHeaders("x-cloudconnect-signature")
        self.assertEqual([hmac.digest(b"key", body, "sha256").hex()], signature)

    @inlineCallbacks
    def test_refused(self) -> Any:
        """Another answer than 2xx is a failure."""
        self.hook.code = 503
        yield self.assertFailure(Webhook(reactor, self.url, self.ca).send([ALARM], 0), NotReachable)

    @inlineCallbacks
    def test_untrusted(self) -> Any:
        """A server whose certificate nobody known has signed gets nothing."""
        asked = Webhook(reactor, self.url).send([ALARM], 0)
        yield self.assertFailure(asked, ResponseNeverReceived, RequestTransmissionFailed)
        self.assertFalse(self.hook.posted.called)
