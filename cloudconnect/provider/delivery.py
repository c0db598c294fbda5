"""Layer 4: brings alarms to somebody: to a webhook, by mail.

Each way has a queue of its own, bounded, and tries again for a day. What it cannot take any more is
counted, and the count is told with the next alarm that gets through.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import time
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid, parseaddr
from io import BytesIO
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol as ClientProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, FileBodyProducer
from twisted.web.http_headers import Headers

from cloudconnect.errors import NotReachable, UsageError
from cloudconnect.keys import Password
from cloudconnect.provider.alarms import Alarm, alarm_text

#: Alarms that may wait for one way.
QUEUE_MAX: Final = 1000
#: Alarms of one message.
BATCH_MAX: Final = 50
#: Seconds for which alarms are collected into one message, after the first.
COLLECT_SECONDS: Final = 5.0
#: Seconds to wait after each failure in turn; the last one again and again.
RETRY_SECONDS: Final = (5.0, 30.0, 120.0, 600.0, 1800.0)
#: Alarms that could not be delivered for so many seconds are given up.
GIVE_UP_SECONDS: Final = 86400.0
#: One attempt may take so many seconds.
SEND_SECONDS: Final = 30.0
#: Bytes of a webhook's answer that are read; nothing in it matters but its status.
ANSWER_MAX: Final = 64 << 10


class Way(Protocol):
    """How alarms get to somebody."""

    @property
    def name(self) -> str:
        """What it is, for the log."""

    def send(self, alarms: Sequence[Alarm], dropped: int) -> Deferred[Any]:
        """Send them; fires when they are there.

        :param dropped: how many others were given up since something got through last
        """


class Delivery(Service):
    """A queue of alarms before one way.

    :param reactor: clock
    :param way: how they are sent
    :ivar dropped: alarms that were given up since something got through
    """

    _log = Logger()

    def __init__(self, reactor: Any, way: Way) -> None:
        self._reactor = reactor
        self._way = way
        self._waiting: list[tuple[float, Alarm]] = []
        self._next: IDelayedCall | None = None
        self._sending: Deferred[Any] | None = None
        self._failures = 0
        self.dropped = 0

    def add(self, alarm: Alarm) -> None:
        """Send an alarm soon."""
        if len(self._waiting) >= QUEUE_MAX:
            self.dropped += 1
            return
        self._waiting.append((self._reactor.seconds(), alarm))
        if self._next is None and self._sending is None:
            self._later(COLLECT_SECONDS)

    def stopService(self) -> Any:
        """Send no more; what is on its way is given up."""
        stopped = maybeDeferred(super().stopService)
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._sending is not None:
            self._sending.cancel()
        return stopped

    def _later(self, seconds: float) -> None:
        self._next = self._reactor.callLater(seconds, self._send)

    def _send(self) -> None:
        self._next = None
        oldest = self._reactor.seconds() - GIVE_UP_SECONDS
        before = len(self._waiting)
        self._waiting = [kept for kept in self._waiting if kept[0] > oldest]
        self.dropped += before - len(self._waiting)
        batch = self._waiting[:BATCH_MAX]
        if not batch:
            return
        alarms = [alarm for _, alarm in batch]
        sending = maybeDeferred(self._way.send, alarms, self.dropped)
        self._sending = sending.addTimeout(SEND_SECONDS, self._reactor)
        sending.addCallbacks(self._sent, self._failed, callbackArgs=(len(batch),))

    def _sent(self, _: Any, count: int) -> None:
        self._sending = None
        del self._waiting[:count]
        self._failures = self.dropped = 0
        if self._waiting and self.running:
            self._later(0)

    def _failed(self, failure: Failure) -> None:
        self._sending = None
        if not self.running:
            return
        seconds = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
        self._failures += 1
        self._log.warn(
            "{count} alarm(s) did not get to the {way}: {why}; again in {seconds} s",
            count=len(self._waiting),
            way=self._way.name,
            why=failure.getErrorMessage(),
            seconds=seconds,
        )
        self._later(seconds)


# --- webhook -------------------------------------------------------------------------------------


@attrs.frozen
class Webhook:
    """Posts alarms as JSON.

    :ivar url: ``https://``; ``http://`` only to this machine's loopback
    :ivar ca: PEM of the authorities to trust in the place of the system's, or empty
    :ivar key: under it each request is signed: HMAC-SHA256 of the body, in hexadecimal, stands in
        the header ``X-Cloudconnect-Signature``
    """

    reactor: Any
    url: str = attrs.field()
    ca: bytes = b""
    key: Password | None = attrs.field(default=None, repr=False)
    name: str = "webhook"

    @url.validator
    def _check_url(self, _: Any, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme == "http" and _is_loopback(parts.hostname or ""):
            return
        if parts.scheme != "https" or not parts.hostname:
            raise UsageError("the webhook's address begins with https://")

    def send(self, alarms: Sequence[Alarm], dropped: int) -> Deferred[Any]:
        """Post them; anything but a status of 2xx is a failure."""
        body = json.dumps(
            {"alarms": [alarm.as_map() for alarm in alarms], "dropped": dropped}
        ).encode()
        headers = {b"content-type": [b"application/json"], b"user-agent": [b"cloudconnect"]}
        if self.key is not None:
            signature = hmac.digest(self.key.reveal(), body, "sha256").hex()
            headers[b"x-cloudconnect-signature"] = [signature.encode()]
        agent = Agent(self.reactor, self._policy(), connectTimeout=10)
        asked: Deferred[Any] = agent.request(
            b"POST", self.url.encode("ascii"), Headers(headers), FileBodyProducer(BytesIO(body))
        )
        return asked.addCallback(_check_response)

    def _policy(self) -> BrowserLikePolicyForHTTPS:
        if not self.ca:
            return BrowserLikePolicyForHTTPS()
        roots = [Certificate.loadPEM(block) for block in _pem_blocks(self.ca)]
        return BrowserLikePolicyForHTTPS(trustRootFromCertificates(roots))


class _Ignored(ClientProtocol):
    """Reads an answer's body to its end, or as far as anybody would.

    :ivar ended: fires then
    """

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()
        self._left = ANSWER_MAX

    def dataReceived(self, data: bytes) -> None:
        """Nobody needs it."""
        self._left -= len(data)
        if self._left < 0 and self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The answer is over."""
        self.ended.callback(None)


def _check_response(response: Any) -> Deferred[None]:
    ignored = _Ignored()
    response.deliverBody(ignored)

    def check(_: None) -> None:
        if not 200 <= response.code < 300:
            raise NotReachable(f"it answered with status {response.code}")

    return ignored.ended.addCallback(check)


def _pem_blocks(octets: bytes) -> list[bytes]:
    end = b"-----END CERTIFICATE-----"
    return [part + end for part in octets.split(end)[:-1]]


# --- mail ----------------------------------------------------------------------------------------


@attrs.frozen
class Mail:
    """Sends alarms by mail (SMTP, with STARTTLS wherever the server is not this machine).

    :ivar server: host and port
    :ivar sender: the address that it comes from
    :ivar to: the addresses that it goes to
    :ivar user: to log in with, or empty
    """

    reactor: Any
    server: tuple[str, int]
    sender: str = attrs.field()
    to: tuple[str, ...] = attrs.field()
    user: str = ""
    password: Password | None = attrs.field(default=None, repr=False)
    name: str = "mail server"

    @sender.validator
    @to.validator
    def _check_addresses(self, field: Any, value: str | tuple[str, ...]) -> None:
        for address in (value,) if isinstance(value, str) else value:
            plain = parseaddr(address)[1]
            if plain != address or "@" not in address or not address.isascii():
                raise UsageError(f"{address!r} is not a mail address")

    def send(self, alarms: Sequence[Alarm], dropped: int) -> Deferred[Any]:
        """Send one mail with all of them."""
        # Not above: it imports the reactor, and who only imports this may choose or fork later.
        from twisted.mail.smtp import sendmail

        host, port = self.server

        sent: Deferred[Any] = sendmail(
            host.encode("idna") if not host.isascii() else host.encode(),
            self.sender.encode(),
            [address.encode() for address in self.to],
            bytes(alarm_mail(self.sender, self.to, alarms, dropped)),
            port=port,
            reactor=self.reactor,
            username=self.user.encode() or None,
            password=None if self.password is None else self.password.reveal(),
            requireAuthentication=bool(self.user),
            requireTransportSecurity=not _is_loopback(host),
        )
        return sent


def alarm_mail(
    sender: str, to: Sequence[str], alarms: Sequence[Alarm], dropped: int = 0
) -> EmailMessage:
    """The mail about some alarms."""
    message = EmailMessage()
    first = alarms[0]
    names = sorted({alarm.name for alarm in alarms})
    word = "SECURITY WARNING: " if any(alarm.security for alarm in alarms) else ""
    whose = f", tenant {first.tenant}" if first.tenant and len(alarms) == 1 else ""
    message["Subject"] = f"[cloudconnect] {word}{', '.join(names)}{whose}"[:200]
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Date"] = formatdate(time.time())
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    text = "\n\n".join(map(alarm_text, alarms)) + "\n"
    if dropped:
        text += f"\n{dropped} further alarms were given up: see cloudconnect provider events.\n"
    message.set_content(text)
    return message


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
