"""Layer 4: alarms as JSON by HTTPS, to a webhook."""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol as ClientProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, FileBodyProducer
from twisted.web.http_headers import Headers

from cloudconnect.errors import NotReachable, UsageError
from cloudconnect.keys import Password
from cloudconnect.provider.alarms.alarms import Alarm
from cloudconnect.provider.alarms.receivers import authorities, is_loopback

#: Bytes of a webhook's answer that are read; nothing in it matters but its status.
ANSWER_MAX: Final = 64 << 10


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
        if parts.scheme == "http" and is_loopback(parts.hostname or ""):
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
        return BrowserLikePolicyForHTTPS(authorities(self.ca))


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
