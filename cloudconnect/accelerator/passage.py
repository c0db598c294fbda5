"""Layer 4: one session's way through an accelerator: connections, codec and cache together."""

from __future__ import annotations

import os
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectError, ConnectionAborted, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.threadpool import ThreadPool

from cloudconnect.accelerator.acceleration import Acceleration
from cloudconnect.accelerator.caches import CacheLease
from cloudconnect.dedup.exchange import Exchange
from cloudconnect.errors import CloudConnectError, NotReachable, SecurityError, Truncated
from cloudconnect.keys import KeyB, key_b_context
from cloudconnect.transports.bundle import Bundle
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.stream import RecordStream
from cloudconnect.transports.switch import PreambleEndpoint, hand_over
from cloudconnect.wire.preamble import ConnectionKind, Preamble

#: With so many sessions in one process a further one needs less memory.
MANY: Final = 4
#: Threads of codecs in one process, at most: each has memory of its own.
WORKERS_MAX: Final = 8


def workers() -> int:
    """Threads for the codecs of all sessions of a process: one for each processor, at least two."""
    return max(2, min(os.cpu_count() or 2, WORKERS_MAX))


class Passage:
    """One session between a mover and the other accelerator.

    :param pool: where the codec works
    :param lease: the tenant's cache; released at the end
    :param streams: connections to the other accelerator
    :param frugal: it is one of many
    :ivar ended: fires once, in the end, with the error or None, and where it happened: ``near``
        (towards the mover), ``far``, ``codec`` or empty
    :ivar passed: fires once, at the latest behind ``ended``: nothing but ends is due any more, if
        it has not failed
    :ivar began: for its owner
    """

    def __init__(
        self, reactor: Any, pool: ThreadPool, lease: CacheLease, streams: int, frugal: bool
    ) -> None:
        self._lease = lease
        self._acceleration = Acceleration(
            reactor,
            pool,
            Exchange(lease.cache, frugal=frugal),
            self._over,
            passed=lambda: self.passed.callback(None),
        )
        self._bundle = Bundle(self._acceleration.far, streams, reactor)
        self._streams = streams
        self._members = 0
        self._near_up = False
        self._outcome: tuple[BaseException | None, str] | None = None
        self.ended: Deferred[tuple[BaseException | None, str]] = Deferred()
        self.passed: Deferred[None] = Deferred()
        self.began = False

    @property
    def complete(self) -> bool:
        """Whether every connection is up."""
        return self._near_up and self._members >= self._streams

    def add(self, stream: Any) -> None:
        """Take one more connection to the other accelerator, whose handshake is over."""
        index, self._members = self._members, self._members + 1
        self._bundle.adopt(index, stream)

    def take_mover(self, stream: Any) -> None:
        """Take the connection that the mover opened, whose handshake is over."""
        self._near_up = True
        hand_over(stream, self._acceleration.near, b"")

    async def reach_mover(self, endpoint: IStreamClientEndpoint) -> bool:
        """Open the connection to the mover; whether it is up. If not, the session ends."""
        try:
            await connectProtocol(endpoint, self._acceleration.near)
        except (CloudConnectError, ConnectError, DNSLookupError) as error:
            self.fail(error, "near")
            return False
        except ConnectionAborted:  # by us: the session has ended meanwhile
            self.fail(Truncated("the session has ended"), "")
            return False
        self._near_up = True
        return self._outcome is None

    def abort(self, reason: Exception) -> None:
        """End it at once."""
        self.fail(reason, "")

    def fail(self, error: Exception, where: str) -> None:
        """As :meth:`abort`, because something went wrong.

        What went wrong before stays the reason, unless this is a security error: who aborts a
        session often does so because of what has ended it here.

        :param where: ``near``, ``far`` or empty
        """
        known = self._acceleration.over and not isinstance(error, SecurityError)
        if self._outcome is None and not known:
            if not isinstance(error, CloudConnectError):
                error = NotReachable(f"not reachable: {error}")
            self._outcome = (error, where)
            self._acceleration.abort(error)

    def _over(self, error: BaseException | None, where: str) -> None:
        self._outcome = self._outcome or (error, where)
        if self._outcome[0] is not None:  # else it closes by itself
            self._bundle.abortConnection()
        self._lease.release()
        self.ended.callback(self._outcome)
        if not self.passed.called:
            self.passed.callback(None)

    def counts(self) -> dict[str, Any]:
        """What was saved, both ways, in bytes but the misses."""
        sent, received = self._acceleration.sent, self._acceleration.received
        went, came = self._acceleration.coded
        return {
            "bytes_before": sent.plain + received.plain,
            "bytes_after": went + came,
            "line_sent": went,
            "line_received": came,
            "saved_by_reference": sent.by_reference + received.by_reference,
            "saved_by_delta": sent.by_delta + received.by_delta,
            "saved_by_compression": sent.by_compression + received.by_compression,
            "misses": sent.misses + received.misses,
            "resent": sent.resent + received.resent,
            "level": self._acceleration.level,
            "cache": self._lease.cache.size,
        }


def hop_endpoint(
    reactor: Any,
    endpoint: IStreamClientEndpoint,
    key_b: KeyB,
    *,
    route: bytes,
    session: bytes,
    tenant: str,
    hop: str,
    connection: int = 0,
) -> IStreamClientEndpoint:
    """Where a connection of a hop under Key B is opened: preamble, then record stream.

    :param endpoint: what connects below
    :param route: what the connection begins with
    :param connection: its number on this hop
    """
    preamble = Preamble(ConnectionKind.KEY_B_STREAM, route)
    context = key_b_context(preamble.encode(), session, tenant, hop)
    return wrap_client_endpoint(
        RecordStream(secret=key_b, context=context, connection=connection),
        PreambleEndpoint(endpoint, preamble),
        reactor,
    )
