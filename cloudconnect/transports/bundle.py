"""Layer 2, transports: one ordered stream over several connections.

A long line that is fat is not filled by one connection: each lost packet halts it for a round trip,
and windows are small. A :class:`Bundle` cuts its stream into numbered batches
(:mod:`cloudconnect.wire.striping`), sends each over whichever of its connections, its *members*,
has least to send, and puts them in order again. It is a full transport for the protocol above it.

**Members** are connections over any stream transport, best a record stream each, with a number of
its own. The protocol above is connected when the first member is up, that is when
the handshake below it is over; the others join as they come. All of them must come: the end of the
stream is sent on each, and counts when it has come on each. A member that fails, that ends without
the stream's end, or that does not come in time, fails the bundle, and the others are given up.

**Memory.** Sending, a bundle holds what the protocol above writes before it is paused (above
``HIGH_WATER``), and on each of several members ``MEMBER_QUEUE`` and a batch or two. Receiving, it
holds ``BUNDLE_WINDOW`` of batches that came before their turn and as much that is due while the
protocol above is paused; and for each member one batch that has begun, and one delivery of its
transport (a record, of at most 1 MiB).

**No deadlock.** A member is not read for one of two reasons. The bundle is paused by the protocol
above: then so are all of them, and all go on with it. Or it is ahead: then what is due comes on
another one, which is not ahead (see :mod:`cloudconnect.wire.striping`), and which the sender has
filled in the order of the numbers; so nothing stands before it there but what was sent earlier.

Source: ``docs/protocol.rst``, section 8; ``docs/howto/wrapper.rst``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from cloudconnect.errors import (
    CloudConnectError,
    HandshakeTimeout,
    NotReachable,
    SecurityError,
    Truncated,
)
from cloudconnect.settings import (
    BATCH_PAYLOAD_MAX,
    BUNDLE_MEMBERS_MAX,
    BUNDLE_SECONDS,
    HIGH_WATER,
)
from cloudconnect.transports.closing import CLOSE_RATE, as_failure
from cloudconnect.transports.layer import EndingLayer, Octets
from cloudconnect.transports.member import BundleMember
from cloudconnect.transports.members import Members
from cloudconnect.wire.striping import BATCH_PAYLOAD, Joiner, Splitter


class Bundle(EndingLayer):
    """One stream over ``members`` connections; both sides must mean the same number.

    The reason of its end is ``ConnectionDone`` after the authenticated end of both directions on
    every member. Else it is that of the first member that failed
    (:class:`~cloudconnect.errors.Truncated` where the connection just stopped);
    a :class:`~cloudconnect.errors.SecurityError` of another one goes before it.

    A side that opens its connections gives :meth:`member` to each of them, as their protocol. One
    that accepts them learns in the handshake which is which, and then calls :meth:`adopt`.

    :param protocol: the protocol above
    :param members: how many connections, 1 to ``BUNDLE_MEMBERS_MAX``
    :param clock: the reactor, or a ``Clock``
    :cvar member_seconds: all members must be up so long after the first one
    :raises ValueError: ``members`` out of bounds
    """

    name: ClassVar[str] = "bundle"
    member_seconds: float = BUNDLE_SECONDS

    def __init__(self, protocol: IProtocol, members: int, clock: IReactorTime) -> None:
        if not 0 < members <= BUNDLE_MEMBERS_MAX:
            raise ValueError(f"a bundle has 1 to {BUNDLE_MEMBERS_MAX} members")
        super().__init__(protocol, clock)
        # With nobody to wait for there is nothing to gain by small batches.
        self._splitter = Splitter(BATCH_PAYLOAD if members > 1 else BATCH_PAYLOAD_MAX)
        self._joiner = Joiner(members)
        self._members = self.transport = Members(members, self, clock)
        self._given: set[int] = set()
        self._came: deque[tuple[BundleMember, Octets | None]] = deque()  # not looked at yet
        self._dispatching = False
        self._missing_timer: IDelayedCall | None = None

    # --- the members ----------------------------------------------------------------------------

    def member(self, index: int) -> BundleMember:
        """The protocol for connection ``index``, once.

        It is up when the handshake of the transport that it gets is over; where that transport is
        none of ours, nor TLS, at once. If the connection fails before that, so does the bundle.

        :param index: 0 to the number of members - 1
        :raises ValueError: there is no such member, or it was given away
        """
        self._give(index)
        return self._members[index]

    def adopt(self, index: int, transport: Any) -> BundleMember:
        """Make ``transport`` connection ``index``, in the place of the protocol that it has now.

        To be called once the handshake is over, best from that protocol's ``handshakeCompleted``:
        nothing was received yet. That protocol is told nothing more. A bundle that is over aborts
        ``transport``.

        :param index: 0 to the number of members - 1
        :param transport: what that protocol has as its transport
        :return: what is its protocol from now on
        :raises ValueError: there is no such member, or it was given away; nothing has happened
        """
        self._give(index)
        member = self._members[index]
        member.adopt(transport)
        return member

    def _give(self, index: int) -> None:
        if not 0 <= index < len(self._members) or index in self._given:
            raise ValueError(f"there is no connection {index} to give away in this bundle")
        self._given.add(index)

    def expect(self, seconds: float) -> None:
        """Fail unless all members are up by then; until the first one is, nobody else watches.

        :param seconds: from now on
        """
        self._cancel_missing_timer()
        if self._members.missing and not (self._over or self._told):
            self._missing_timer = self._clock.callLater(seconds, self._members_late)

    def fail(self, error: Exception) -> None:
        """Fail with ``error``, as when a member does: one that could not even connect.

        :param error: the reason, which the protocol above is told; one that is none of ours as
            :class:`~cloudconnect.errors.NotReachable`
        """
        self._fail(error if isinstance(error, CloudConnectError) else NotReachable(str(error)))

    def give_up(self, code: int) -> None:
        """Drop what is queued, tell the peer ABORT where members have a word for it, close.

        :param code: reason, 0 to 65535 (``docs/protocol.rst``, section 6)
        :raises OverflowError: another number
        """
        code.to_bytes(2, "big")
        if not (self._over or self._told):
            self._members.code = code
        self.abortConnection()

    @property
    def waiting(self) -> int:
        """Bytes that were written and were not handed to a socket yet, as far as members tell."""
        below: int = sum(member.waiting for member in self._members)
        return super().waiting + self._splitter.waiting + below

    def unsent(self) -> int:
        """The same, and what peers have not acknowledged of what was, as far as members know."""
        below: int = sum(member.unsent for member in self._members)
        return super().waiting + self._splitter.waiting + below

    def _members_late(self) -> None:
        self._missing_timer = None
        missing = self._members.missing
        self._fail(HandshakeTimeout(f"{missing} of {len(self._members)} connections did not come"))

    def _cancel_missing_timer(self) -> None:
        timer, self._missing_timer = self._missing_timer, None
        if timer is not None:
            timer.cancel()

    # --- what the members tell ------------------------------------------------------------------

    def member_up(self, member: BundleMember) -> None:
        """A member is up.

        :param member: which
        """
        if not self._members.missing:
            self._cancel_missing_timer()
        elif self._missing_timer is None:
            self.expect(self.member_seconds)
        if not (self.connected or self._over or self._told):
            self.makeConnection(self._members)
        if self._end_sent:
            member.send_end(self._splitter.end())

    def member_data(self, member: BundleMember, data: Octets) -> None:
        """Bytes came.

        :param member: where
        :param data: valid until this returns
        """
        if not self._over:
            self._came.append((member, bytes(data) if self._feeding else data))
            self.dataReceived(b"")

    def member_read_end(self, member: BundleMember) -> None:
        """The peer has ended its direction of a connection.

        :param member: which
        """
        if not self._over:
            self._came.append((member, None))
            self.dataReceived(b"")

    def member_settled(self, member: BundleMember) -> None:
        """Both ends have gone over a connection.

        :param member: which
        """
        if self._end_sent and self._end_received:
            self._tell_ends_met()

    def member_lost(self, member: BundleMember, reason: Failure) -> None:
        """A connection is gone; before both ends of the stream were on it that is a failure.

        :param member: which
        :param reason: its transport's
        """
        error = reason.value
        if self._over or self._told:
            self._put_first(error)
        elif isinstance(error, SecurityError):
            self._fail(error)
        elif not (self._closed_below or (member.ended and self._joiner.has_ended(member.index))):
            self._fail(error if isinstance(error, CloudConnectError) else self._cut(member, error))

    def _cut(self, member: BundleMember, error: BaseException | None) -> Truncated:
        why = "it was closed" if error is None or isinstance(error, ConnectionDone) else str(error)
        return Truncated(f"connection {member.index} of a bundle stopped without its end: {why}")

    def _put_first(self, error: BaseException | None) -> None:
        """A security error that another member saw counts more than a broken line."""
        known = self._reason.value if self._reason is not None else None
        ours = isinstance(known, CloudConnectError) and not isinstance(known, SecurityError)
        if isinstance(error, SecurityError) and ours:
            self._reason = as_failure(error)

    # --- reading --------------------------------------------------------------------------------

    def _opened(self) -> None:
        self._ready()

    def _received(self, data: bytes) -> Iterator[Octets]:
        while self._came:
            member, octets = self._came.popleft()
            if octets is not None:
                yield from self._joiner.receive(member.index, octets)
            elif not self._joiner.has_ended(member.index):
                raise self._cut(member, None)
            for each in self._members:
                each.set_ahead(self._joiner.is_ahead(each.index))
        if self._joiner.ended and not self._end_noted:
            self._end_noted = True
            self._end_came()

    _end_noted = False

    # --- writing --------------------------------------------------------------------------------

    def _transmit(self, parts: list[Octets]) -> None:
        self._splitter.put(parts)
        self._dispatch()

    def _dispatch(self) -> None:
        """Give batches to members, as long as there are both."""
        if self._dispatching:
            return
        self._dispatching = True
        # Each connection sends little at once in its first round trips: so no member waits for
        # another one's turn where there is less than a usual batch for each.
        share = self._splitter.share(sum(member.open for member in self._members))
        try:
            while self._splitter.waiting and not self._over:
                member = self._members.next_open()
                if member is None:
                    break
                member.send(self._splitter.batch(share))
        finally:
            self._dispatching = False

    def _gate_changed(self) -> None:
        if self._is_ready:  # what waits goes first
            self._dispatch()
        super()._gate_changed()

    def _update_producer(self) -> None:
        held = self._held_size + self._splitter.waiting
        self._producer.pause(self._gate.paused or held > HIGH_WATER)

    def _send_end(self) -> None:
        self._end_sent = True
        for member in self._members:
            member.send_end(self._splitter.end())

    # --- what closing asks ----------------------------------------------------------------------

    def _unsent(self) -> bool:
        return super()._unsent() or bool(self._splitter.waiting)

    def _tell_ends_met(self) -> None:
        if all(member.settled for member in self._members):  # each has an end behind ours
            super()._tell_ends_met()

    def _close_limit(self) -> float:
        unsent: int = sum(member.unsent for member in self._members)
        late = self._missing_timer.getTime() if self._missing_timer is not None else 0.0
        still_to_come = max(late - self._clock.seconds(), 0.0)
        return super()._close_limit() + unsent / CLOSE_RATE + still_to_come

    def _fail(self, error: Exception, last: bytes = b"") -> None:
        if not (self._over or self._told or isinstance(error, SecurityError)):
            self._members.code = 0
        super()._fail(error, last)

    def _drop_bytes(self) -> None:
        super()._drop_bytes()
        self._came.clear()
        self._splitter.drop()
        self._joiner.drop()

    def _forget_keys(self) -> None:
        self._cancel_missing_timer()

    def _tell(self) -> None:
        if not self.connected and not self._told:
            self.wrappedProtocol = Protocol()  # who was never connected is not told of a loss
        super()._tell()
