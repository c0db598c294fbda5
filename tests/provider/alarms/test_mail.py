"""Tests of :mod:`cloudconnect.provider.alarms.mail`: a real SMTP server on loopback."""

from __future__ import annotations

import email
from io import BytesIO
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.mail import smtp
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from cloudconnect.errors import CertificateUntrusted, NotReachable, UsageError
from cloudconnect.keys import Password
from cloudconnect.provider.alarms.alarms import Alarm
from cloudconnect.provider.alarms.mail import Mail, alarm_mail
from tests.certificates import Issued, self_signed
from tests.provider.alarms.test_delivery import ALARM


class AddressTests(SynchronousTestCase):
    """What a mail may be."""

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
        """What shows a mail server shows no password."""
        mail = Mail(None, ("h", 25), "a@b.c", ("a@b.c",), "user", Password(b"hidden"))
        self.assertNotIn("hidden", repr(mail))


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

    :param issued: the certificate with which it offers STARTTLS, or None: it does not
    :ivar box: what came
    :ivar secure: of each connection that is over, whether TLS was begun on it
    """

    def __init__(self, issued: Issued | None = None) -> None:
        self._issued = issued
        self.secure: list[bool] = []
        self.box = Mailbox()
        self.gone: Deferred[None] = Deferred()

    @inlineCallbacks
    def listen(self, test: TestCase) -> Any:
        server = self

        class Receiver(smtp.ESMTP):
            def connectionLost(self, reason: Any) -> None:
                server.secure.append(bool(self.startedTLS))
                super().connectionLost(reason)
                reactor.callLater(0.05, server.gone.callback, None)  # type: ignore[attr-defined]

        def build() -> smtp.ESMTP:
            made = Receiver(contextFactory=context)
            made.delivery = self.box
            return made

        context = None
        if self._issued is not None:
            files = self._issued.write(test.mktemp())
            pem = Path(files.certificate_path).read_bytes() + Path(files.key_path).read_bytes()
            context = PrivateCertificate.loadPEM(pem).options()
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


class SecureTests(TestCase):
    """A mail server that is not this machine, or whose authority is named: here one on loopback."""

    timeout = 60

    def setUp(self) -> None:
        self.issued = self_signed(("localhost",))

    def pem(self, issued: Issued) -> bytes:
        return Path(issued.write(self.mktemp()).certificate_path).read_bytes()

    @inlineCallbacks
    def sent(self, server: MailServer, ca: bytes) -> Any:
        port = yield server.listen(self)
        mail = Mail(reactor, ("localhost", port), "a@example.com", ("b@example.com",), ca=ca)
        yield mail.send([ALARM], 0)

    @inlineCallbacks
    def test_trusted(self) -> Any:
        """What its authority vouches for gets the mail, over TLS."""
        server = MailServer(self.issued)
        yield self.sent(server, self.pem(self.issued))
        yield server.box.came
        yield server.gone
        self.assertEqual([True], server.secure)

    @inlineCallbacks
    def test_untrusted(self) -> Any:
        """Another authority's, or one for another name, gets nothing, and the error says so."""
        other = self_signed(("mail.example.com",))
        for shown, ca in ((self.issued, self.pem(other)), (other, self.pem(other))):
            server = MailServer(shown)
            error = yield self.assertFailure(self.sent(server, ca), CertificateUntrusted)
            self.assertIn("alarm_mail_ca", str(error))
            self.assertFalse(server.box.came.called)
            yield server.gone

    @inlineCallbacks
    def test_in_clear(self) -> Any:
        """A server that offers no TLS gets nothing either: somebody on the way may hide that."""
        server = MailServer()
        sending = self.sent(server, self.pem(self.issued))
        yield self.assertFailure(sending, NotReachable)
        self.assertFalse(server.box.came.called)
        yield server.gone

    @inlineCallbacks
    def test_this_machine(self) -> Any:
        """One on this machine, whose certificate is whatever its package has made, is sent to
        without."""
        server = MailServer(self.issued)
        yield self.sent(server, b"")
        yield server.box.came
        yield server.gone
        self.assertEqual([False], server.secure)

    @inlineCallbacks
    def test_silent(self) -> Any:
        """Who gives up does not leave a line open; nobody there is an error of ours."""
        connected: Deferred[None] = Deferred()
        gone: Deferred[None] = Deferred()

        class Silent(Protocol):
            def connectionMade(self) -> None:
                connected.callback(None)

            def connectionLost(self, reason: Any = None) -> None:
                gone.callback(None)

        factory = Factory.forProtocol(Silent)
        factory.noisy = False
        listening = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        place = ("127.0.0.1", listening.getHost().port)
        mail = Mail(reactor, place, "a@example.com", ("b@example.com",))
        sending = mail.send([ALARM], 0)
        yield connected
        sending.cancel()
        yield self.assertFailure(sending, CancelledError)
        yield gone
        yield listening.stopListening()
        yield self.assertFailure(mail.send([ALARM], 0), NotReachable)
