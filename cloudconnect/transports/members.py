"""Layer 2, transports: the connections of a bundle, looked at as one transport below it.

:class:`Members` is what a :class:`~cloudconnect.transports.bundle.Bundle` has below it in the place
of a single transport: full when all of its connections are, paused and closed with all of them.
Each :class:`BundleMember` is the protocol of one connection: it says when it is up, passes on what
comes, and is not read while the bundle is paused, or while it is ahead of the others.

Source: Twisted's ``ITransport``, ``IConsumer``, ``IPushProducer`` and ``IHandshakeListener``;
``docs/protocol.rst``, section 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IProtocol,
    IReactorTime,
    ISSLTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.interfaces import IBufferReceiver
from cloudconnect.transports.closing import as_failure
from cloudconnect.transports.flow import WriteGate
from cloudconnect.transports.layer import EndingLayer, Layer, Octets, log_prefix
from cloudconnect.transports.line import tune
from cloudconnect.transports.memory import MemoryAddress

#: Bytes that wait in the queue of one of several members before the next one gets the batches.
MEMBER_QUEUE: Final = 128 << 10

#: Where a bundle is whose first connection has not come.
NOWHERE: Final = MemoryAddress("nowhere yet")


class IMembersUser(Protocol):
    """What the members tell the bundle."""

    def member_up(self, member: BundleMember) -> None:
        """A connection has come, and its handshake is over."""

    def member_data(self, member: BundleMember, data: Octets) -> None:
        """Bytes came on it, which are valid only now."""

    def member_read_end(self, member: BundleMember) -> None:
        """Its peer has ended its direction."""

    def member_lost(self, member: BundleMember, reason: Failure) -> None:
        """It is gone."""

    def connectionLost(self, reason: Failure) -> None:
        """All are gone."""


@implementer(
    IProtocol, IHalfCloseableProtocol, IHandshakeListener, IBufferReceiver, ILoggingContext
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
    """

    factory: Any = None  # set by the factory of a layer
    transport: Any = None

    def __init__(self, members: Members, index: int) -> None:
        self.index = index
        self.up = False
        self.lost = False
        self.ended = False
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
        if self.transport is not None:
            raise RuntimeError(f"connection {self.index} of this bundle is there already")
        if self._members.closed:
            _abort(transport)
            return
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        """Up at once, or once the handshake is over."""
        if not _has_handshake_before_it(self.transport):
            self._come_up()

    def adopt(self, transport: Any) -> None:
        """Take ``transport``, whose handshake is over, from the protocol that it has.

        :raises RuntimeError: there is one already
        """
        if self.transport is not None:
            raise RuntimeError(f"connection {self.index} of this bundle is there already")
        if self._members.closed:
            _abort(transport)
            return
        self.transport = transport
        transport.unregisterProducer()
        if isinstance(transport, Layer):
            transport.wrappedProtocol = self
        else:
            transport.protocol = self
        self._come_up()

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
        return f"{log_prefix(self._members.user, 'connection')} {self.index}"

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


class Members:
    """All connections of a bundle, as the transport below it.

    :param count: how many there are to be
    :param user: the bundle
    :param clock: tells of the loss of what was never there
    :ivar user: the bundle
    :ivar paused: whether the bundle is not read
    :ivar closed: whether the bundle has closed or aborted: none may come any more
    :ivar code: what the peer is told by an abort, see ``give_up``; None for nothing
    """

    def __init__(self, count: int, user: IMembersUser, clock: IReactorTime) -> None:
        self.user = user
        self.paused = False
        self.closed = False
        self.code: int | None = None
        self._clock = clock
        self._all = [BundleMember(self, index) for index in range(count)]
        self._first: BundleMember | None = None
        self._producer: Any = None
        self._producer_paused = False
        self._turn = 0
        self._told = False

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[BundleMember]:
        return iter(self._all)

    def __getitem__(self, index: int) -> BundleMember:
        return self._all[index]

    @property
    def missing(self) -> int:
        """How many have not come up yet."""
        return sum(not (member.up or member.lost) for member in self._all)

    def came(self, member: BundleMember) -> None:
        """A member is up."""
        if self._first is None:
            self._first = member
        member.update_reading()
        self.user.member_up(member)
        self.see_to_producer()

    def gone(self, member: BundleMember, reason: Failure) -> None:
        """A member is lost; the last one's loss is that of the bundle.

        :param reason: why
        """
        self.user.member_lost(member, reason)
        self._tell_if_all_gone(reason)

    def _tell_if_all_gone(self, reason: Failure) -> None:
        all_came = all(member.transport is not None for member in self._all)
        if not (self._some_left() or self._told) and (self.closed or all_came):
            self._told = True
            self._producer = None
            self.user.connectionLost(reason)

    def _some_left(self) -> bool:
        return any(member.transport is not None and not member.lost for member in self._all)

    def next_open(self) -> BundleMember | None:
        """The member that gets the next batch: of those that take bytes the one with least waiting.

        Of equals it is the next in turn.
        """
        found, least = None, 0
        for step in range(len(self._all)):
            member = self._all[(self._turn + step) % len(self._all)]
            if member.open and (found is None or member.waiting < least):
                found, least = member, member.waiting
        if found is not None:
            self._turn = found.index + 1
        return found

    # --- as a transport -------------------------------------------------------------------------

    def see_to_producer(self) -> None:
        """Full is who has no open member; at the end, who has one that holds the end up."""
        ending = any(member.ended for member in self._all)
        if ending:
            full = any(member.full for member in self._all)
        else:
            full = not any(member.open for member in self._all)
        if self._producer is not None and full != self._producer_paused:
            self._producer_paused = full
            if full:
                self._producer.pauseProducing()
            else:
                self._producer.resumeProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """The bundle's own.

        :param producer: a push producer
        :param streaming: True
        """
        self._producer = producer
        self._producer_paused = False
        self.see_to_producer()

    def unregisterProducer(self) -> None:
        """The bundle writes no more."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Read none of them."""
        self._set_paused(True)

    def resumeProducing(self) -> None:
        """Read them again, but those that are ahead."""
        self._set_paused(False)

    def _set_paused(self, paused: bool) -> None:
        self.paused = paused
        for member in self._all:
            member.update_reading()

    def loseConnection(self) -> None:
        """Close all."""
        self._close(BundleMember.close)

    def abortConnection(self) -> None:
        """Close all at once, and tell the peer why where :attr:`code` says."""
        self._close(lambda member: member.abort(self.code))

    def _close(self, close: Callable[[BundleMember], None]) -> None:
        self.closed = True
        for member in self._all:
            close(member)
        if not self._some_left():  # nobody else tells
            self._clock.callLater(0, self._tell_if_all_gone, as_failure(ConnectionDone()))

    def getPeer(self) -> IAddress:
        """The peer of the first one that came."""
        return NOWHERE if self._first is None else self._first.transport.getPeer()

    def getHost(self) -> IAddress:
        """This side's address of that."""
        return NOWHERE if self._first is None else self._first.transport.getHost()


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
