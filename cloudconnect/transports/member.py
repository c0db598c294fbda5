"""Layer 2, transports: one connection of a bundle.

A :class:`BundleMember` is the protocol of a connection: it says when it is up, passes on what
comes, and is not read while the bundle is paused, or while it is ahead of the others.

Source: Twisted's ``IProtocol``, ``IPushProducer`` and ``IHandshakeListener``;
``docs/protocol.rst``, section 8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IProtocol,
    ISSLTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.interfaces import IBufferReceiver, IEndsListener
from cloudconnect.transports.flow import WriteGate
from cloudconnect.transports.layer import EndingLayer, Layer, Octets, log_prefix
from cloudconnect.transports.line import tune

if TYPE_CHECKING:
    from cloudconnect.transports.members import Members

#: Bytes that wait in the queue of one of several members before the next one gets the batches.
MEMBER_QUEUE: Final = 128 << 10


@implementer(
    IProtocol,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IBufferReceiver,
    IEndsListener,
    ILoggingContext,
)
class BundleMember:
    """The protocol of one connection of a bundle, over any stream transport.

    Over a layer of ours, or over Twisted's TLS, it is up once the handshake there is over; else at
    once.

    :param members: all of them
    :param index: its number, from 0
    :ivar transport: its transport, None before
    :ivar up: whether it carries bytes
    :ivar lost: whether it was there and is gone
    :ivar ended: whether the end of our direction was sent on it
    :ivar settled: whether both directions have ended, where its transport has an end of its own
    """

    factory: Any = None  # set by the factory of a layer
    transport: Any = None

    def __init__(self, members: Members, index: int) -> None:
        self.index = index
        self.up = False
        self.lost = False
        self.ended = False
        self.settled = False
        self._members = members
        self._gate = WriteGate(self._gate_changed, lambda: None)
        self._registered = False
        self._half_close_due = False
        self._ahead = False
        self._paused = False

    # --- IProtocol and its companions, for the transport --------------------------------------

    def makeConnection(self, transport: Any) -> None:
        """The connection is there.

        :param transport: any stream transport; aborted at once when the bundle is closed already
        :raises RuntimeError: there is one already
        """
        if self._take(transport):
            self.connectionMade()

    def connectionMade(self) -> None:
        """Up at once, or once the handshake is over."""
        if not _has_handshake_before_it(self.transport):
            self._come_up()

    def adopt(self, transport: Any) -> None:
        """Take ``transport``, whose handshake is over, from the protocol that it has.

        :param transport: a layer of ours, or any with an attribute ``protocol``
        :raises RuntimeError: there is one already
        """
        if self._take(transport):
            transport.unregisterProducer()
            if isinstance(transport, Layer):
                transport.wrappedProtocol = self
            else:
                transport.protocol = self
            self._come_up()

    def _take(self, transport: Any) -> bool:
        """Whether ``transport`` is this connection from now on: not where the bundle is closed.

        :raises RuntimeError: there is one already
        """
        if self.transport is not None:
            raise RuntimeError(f"connection {self.index} of this bundle is there already")
        if self._members.closed:
            _abort(transport)
            return False
        self.transport = transport
        return True

    def handshakeCompleted(self) -> None:
        """Now the peer has proved who it is."""
        if not (self.up or self.lost):
            self._come_up()

    def _come_up(self) -> None:
        self.up = True
        members = self._members
        several = len(members) > 1
        tune(self.transport, several)
        if several and hasattr(self.transport, "limit_queue"):
            self.transport.limit_queue(MEMBER_QUEUE)
        self._registered = True
        self.transport.registerProducer(self._gate, True)
        members.came(self)

    def dataReceived(self, data: bytes) -> None:
        """Bytes came."""
        self.bufferReceived(data)

    def bufferReceived(self, buffer: Octets) -> None:
        """The same, without a copy."""
        if self.up:
            self._members.user.member_data(self, buffer)

    def readConnectionLost(self) -> None:
        """The peer has ended its direction of this connection."""
        self._members.user.member_read_end(self)

    def writeConnectionLost(self) -> None:
        """Ours has ended; nothing to do."""

    def endsMet(self) -> None:
        """Both have, and the connection is about to be closed."""
        self.settled = True
        self._members.user.member_settled(self)

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone.

        :param reason: judged by the bundle
        """
        if not self.lost and self.transport is not None:
            self.lost = True
            self.up = False
            self._members.gone(self, reason)

    def logPrefix(self) -> str:
        """The bundle's prefix and the connection's number."""
        return log_prefix(self._members.user, f"connection {self.index}")

    # --- writing --------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether it takes bytes now."""
        return self.up and not (self.ended or self._gate.paused)

    @property
    def full(self) -> bool:
        """Whether its transport holds as many bytes as it wants."""
        return self.up and self._gate.paused

    @property
    def waiting(self) -> int:
        """Bytes that wait in its transport, as far as that says."""
        waiting: int = getattr(self.transport, "waiting", 0) if self.up else 0
        return waiting

    @property
    def unsent(self) -> int:
        """The same, with those that the peer has not acknowledged where the transport knows."""
        say: Callable[[], int] | None = getattr(self.transport, "unsent", None)
        return say() if self.up and say is not None else self.waiting

    def send(self, parts: list[Octets]) -> None:
        """Write ``parts``, in order."""
        if isinstance(self.transport, Layer):
            self.transport.writeSequence(parts)
        else:
            self.transport.write(b"".join(parts))

    def send_end(self, octets: bytes) -> None:
        """Write the end of our direction, then end it in a layer that has an end of its own.

        :param octets: the end, as a batch
        """
        if self.ended or not self.up:
            return
        self.ended = True
        self._half_close_due = True
        self.transport.write(octets)
        self._gate_changed()

    def _gate_changed(self) -> None:
        # The producer stays until the transport has room: so the bundle knows what holds it up.
        if self._half_close_due and self.up and not self._gate.paused:
            self._half_close_due = False
            self._unregister()
            if isinstance(self.transport, EndingLayer):  # others: once both ends have met
                self.transport.loseWriteConnection()
        self._members.see_to_producer()

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            self.transport.unregisterProducer()

    # --- reading --------------------------------------------------------------------------------

    def set_ahead(self, ahead: bool) -> None:
        """Do not read it for now, or read it again.

        :param ahead: whether what comes next has no room
        """
        if ahead != self._ahead:
            self._ahead = ahead
            self.update_reading()

    def update_reading(self) -> None:
        """Pause the transport, or resume it, where that has changed."""
        paused = self._ahead or self._members.paused
        if self.up and paused != self._paused:
            self._paused = paused
            if paused:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    # --- closing --------------------------------------------------------------------------------

    def close(self) -> None:
        """Close it once everything was sent."""
        if self.transport is not None and not self.lost:
            self._half_close_due = False
            self._unregister()
            self.transport.loseConnection()

    def abort(self, code: int | None) -> None:
        """Close it at once.

        :param code: what the peer is told, where the transport has words for it; None for nothing
        """
        if self.transport is not None and not self.lost:
            self._half_close_due = False
            if code is not None and hasattr(self.transport, "give_up"):
                self.transport.give_up(code)
            else:
                _abort(self.transport)


def _has_handshake_before_it(transport: Any) -> bool:
    """Whether ``transport`` will call ``handshakeCompleted``."""
    if isinstance(transport, Layer):
        return not transport.ready
    return ISSLTransport.providedBy(transport)


def _abort(transport: Any) -> None:
    if hasattr(transport, "abortConnection"):
        transport.abortConnection()
    else:
        transport.loseConnection()
