"""Tests of :mod:`cloudconnect.provider.delivery`: the queue on a clock, the ways on loopback."""

from __future__ import annotations

import email
import hmac
import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import Clock
from twisted.mail import smtp
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web._newclient import RequestTransmissionFailed, ResponseNeverReceived
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from cloudconnect.errors import NotReachable, UsageError
from cloudconnect.keys import Password
from cloudconnect.provider.alarms import Alarm
from cloudconnect.provider.delivery import (
    BATCH_MAX,
    COLLECT_SECONDS,
    GIVE_UP_SECONDS,
    QUEUE_MAX,
    RETRY_SECONDS,
    SEND_SECONDS,
    Delivery,
    Mail,
    Webhook,
    alarm_mail,
)
from tests.certificates import self_signed

ALARM = Alarm(time=1.0, name="tampered", security=True, tenant="acme", text="seen")


class Somebody:
    """Takes alarms, or does not."""

    name = "somebody"

    def __init__(self) -> None:
        self.got: list[tuple[int, int]] = []
        self.answer: Deferred[None] | None = None
        self.asked = 0
        self.away = False

    def send(self, alarms: Sequence[Alarm], dropped: int) -> Deferred[None]:
        self.asked += 1
        if self.answer is not None:
            return self.answer
        if self.away:
            return fail(NotReachable("away"))
        self.got.append((len(alarms), dropped))
        return succeed(None)


class QueueTests(SynchronousTestCase):
    """The queue before one way."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.way = Somebody()
        self.delivery = Delivery(self.clock, self.way)
        self.delivery.startService()
        self.addCleanup(self.delivery.stopService)

    def test_together(self) -> None:
        """What comes within some seconds is one message."""
        for _ in range(3):
            self.delivery.add(ALARM)
        self.assertEqual([], self.way.got)
        self.clock.advance(COLLECT_SECONDS)
        self.assertEqual([(3, 0)], self.way.got)

    def test_many(self) -> None:
        """A message has at most so many; the rest follows at once."""
        for _ in range(BATCH_MAX + 1):
            self.delivery.add(ALARM)
        self.clock.advance(COLLECT_SECONDS)
        self.clock.advance(0)
        self.assertEqual([(BATCH_MAX, 0), (1, 0)], self.way.got)

    def test_again(self) -> None:
        """What did not get through is tried again, later and later, and nothing is lost."""
        self.way.away = True
        self.delivery.add(ALARM)
        self.clock.advance(COLLECT_SECONDS)
        for seconds in RETRY_SECONDS[:3]:
            self.clock.advance(seconds)
        self.assertEqual(4, self.way.asked)
        self.way.away = False
        self.delivery.add(ALARM)
        self.clock.advance(RETRY_SECONDS[3])
        self.assertEqual([(2, 0)], self.way.got)

    def test_silent(self) -> None:
        """Somebody who does not answer is asked again."""
        self.way.answer = Deferred()
        self.delivery.add(ALARM)
        self.clock.advance(COLLECT_SECONDS)
        self.clock.advance(SEND_SECONDS)
        self.way.answer = None
        self.clock.advance(RETRY_SECONDS[0])
        self.assertEqual([(1, 0)], self.way.got)

    def test_bounds(self) -> None:
        """The queue is bounded, and after a day what waits is given up; both are counted."""
        self.way.away = True
        for _ in range(QUEUE_MAX + 7):
            self.delivery.add(ALARM)
        self.assertEqual(7, self.delivery.dropped)
        self.clock.pump([600.0] * int(GIVE_UP_SECONDS / 600 + 10))
        self.assertEqual(QUEUE_MAX + 7, self.delivery.dropped)
        self.way.away = False
        self.delivery.add(ALARM)
        self.clock.pump([600.0] * 10)
        self.assertEqual([(1, QUEUE_MAX + 7)], self.way.got)
        self.assertEqual(0, self.delivery.dropped)

    def test_stop(self) -> None:
        """After a stop nothing is sent any more."""
        self.delivery.add(ALARM)
        self.delivery.stopService()
        self.assertEqual([], self.clock.getDelayedCalls())


class AddressTests(SynchronousTestCase):
    """Where alarms may go."""

    def test_webhook(self) -> None:
        """Only over TLS, but for this machine itself."""
        for url in ("http://example.com/", "ftp://x/", "example.com", "https://"):
            self.assertRaises(UsageError, Webhook, None, url)
        for url in ("https://example.com/x", "http://127.0.0.1:1/", "http://[::1]:1/"):
            Webhook(None, url)

    def test_mail(self) -> None:
        """Only to mail addresses, in which nothing stands that would be another header."""
        for address in ("nobody", "a@example.com\nBcc: b@example.com", "A <a@example.com>", ""):
            self.assertRaises(UsageError, Mail, None, ("h", 25), address, ("a@example.com",))
            self.assertRaises(UsageError, Mail, None, ("h", 25), "a@example.com", (address,))

    def test_text(self) -> None:
        """A mail has what there is to know in its subject and its text."""
        odd = Alarm(time=1.0, name="tampered", security=True, tenant="a\r\nBcc: x", text="b\r\nc")
        message = alarm_mail("a@example.com", ["b@example.com"], [ALARM], 3)
        self.assertEqual(
            "[cloudconnect] SECURITY WARNING: tampered, tenant acme", message["Subject"]
        )
        self.assertIn("3 further alarms were given up", message.get_content())
        self.assertRaises(ValueError, alarm_mail, "a@example.com", ["b@example.com"], [odd])

    def test_secret(self) -> None:
        """What shows a webhook or a mail server shows no key and no password."""
        webhook = Webhook(None, "https://example.com", key=Password(b"hidden"))
        mail = Mail(None, ("h", 25), "a@b.c", ("a@b.c",), "user", Password(b"hidden"))
        self.assertNotIn("hidden", f"{webhook!r}{mail!r}")


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


@implementer(smtp.IMessageDelivery)
class Mailbox:
    """Takes every mail."""

    def __init__(self) -> None:
        self.came: Deferred[bytes] = Deferred()
        self.to: list[str] = []

    def receivedHeader(self, *_: Any) -> bytes:
        return b"Received: here"

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        return origin

    def validateTo(self, user: Any) -> Any:
        self.to.append(str(user.dest))
        return lambda: Letter(self.came)


@implementer(smtp.IMessage)
class Letter:
    """One mail."""

    def __init__(self, came: Deferred[bytes]) -> None:
        self._came = came
        self._lines = BytesIO()

    def lineReceived(self, line: bytes) -> None:
        self._lines.write(line + b"\n")

    def eomReceived(self) -> Deferred[None]:
        if not self._came.called:
            self._came.callback(self._lines.getvalue())
        return succeed(None)

    def connectionLost(self) -> None:
        """Nothing is kept of half a mail."""


class MailServer:
    """A real SMTP server on loopback.

    :ivar box: what came
    """

    def __init__(self) -> None:
        self.box = Mailbox()
        self.gone: Deferred[None] = Deferred()

    @inlineCallbacks
    def listen(self, test: TestCase) -> Any:
        server = self

        class Receiver(smtp.ESMTP):
            def connectionLost(self, reason: Any) -> None:
                super().connectionLost(reason)
                reactor.callLater(0.05, server.gone.callback, None)  # type: ignore[attr-defined]

        def build() -> smtp.ESMTP:
            made = Receiver()
            made.delivery = self.box
            return made

        factory = smtp.SMTPFactory()
        factory.buildProtocol = lambda _: build()  # type: ignore[method-assign]
        factory.noisy = False
        listening = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        test.addCleanup(listening.stopListening)
        return listening.getHost().port


class MailTests(TestCase):
    """Mail that arrives."""

    timeout = 60

    @inlineCallbacks
    def test_sent(self) -> Any:
        """One mail about all of them, to everybody."""
        server = MailServer()
        port = yield server.listen(self)
        to = ("a@example.com", "b@example.com")
        mail = Mail(reactor, ("127.0.0.1", port), "provider@example.com", to)
        yield mail.send([ALARM, ALARM], 0)
        message = email.message_from_bytes((yield server.box.came))
        self.assertEqual("[cloudconnect] SECURITY WARNING: tampered", message["Subject"])
        self.assertEqual("auto-generated", message["Auto-Submitted"])
        self.assertEqual(list(to), server.box.to)
        yield server.gone
