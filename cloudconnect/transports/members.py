"""Layer 2, transports: the connections of a bundle, looked at as one transport below it.

:class:`Members` is what a :class:`~cloudconnect.transports.bundle.Bundle` has below it in the place
of a single transport: full when all of its connections are, paused and closed with all of them.
Each of them is a :class:`~cloudconnect.transports.member.BundleMember`.

Source: Twisted's ``ITransport``, ``IConsumer`` and ``IPushProducer``; ``docs/protocol.rst``,
section 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.python.failure import Failure

from cloudconnect.transports.closing import as_failure
from cloudconnect.transports.layer import Octets
from cloudconnect.transports.member import BundleMember
from cloudconnect.transports.memory import MemoryAddress

#: Where a bundle is whose first connection has not come.
NOWHERE: Final = MemoryAddress("nowhere yet")


class IMembersUser(Protocol):
    """What the members tell the bundle; ``member`` is the one that it is about."""

    def member_up(self, member: BundleMember) -> None:
        """``member`` has come, and its handshake is over."""

    def member_data(self, member: BundleMember, data: Octets) -> None:
        """``data`` came on ``member``; it is valid only now."""

    def member_read_end(self, member: BundleMember) -> None:
        """The peer has ended its direction of ``member``."""

    def member_settled(self, member: BundleMember) -> None:
        """Both ends have gone over ``member``, and all that is left is to close it."""

    def member_lost(self, member: BundleMember, reason: Failure) -> None:
        """``member`` is gone, for ``reason``."""

    def connectionLost(self, reason: Failure) -> None:
        """All are gone; ``reason`` is that of the last one."""


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
        """A member is up.

        :param member: which
        """
        if self._first is None:
            self._first = member
        member.update_reading()
        self.user.member_up(member)
        self.see_to_producer()

    def gone(self, member: BundleMember, reason: Failure) -> None:
        """A member is lost; the last one's loss is that of the bundle.

        :param member: which
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
