"""Layer 1: one ordered stream of bytes, cut into numbered batches, over several connections.

:class:`Splitter` cuts what is sent into batches and numbers them; whoever has it sends each batch
over any one of the connections (the *members*), in the order of the numbers on each of them.
:class:`Joiner` parses what comes on each member and gives the payloads in the order of the numbers.

**Bounds.** A joiner keeps batches that come before their turn: ``BUNDLE_WINDOW`` bytes of them,
each counted with ``BATCH_COST`` more, and one batch a member beside. A member whose next batch has
no room is *ahead*: what was read of it is kept as it is, and whoever reads it stops.

**Nobody waits for ever.** Each batch of a member has a higher number than the one before. So when
all below ``n`` were delivered, ``n`` is the very next one of the member that brings it, since what
came before it there has a lower number; and ``n`` itself always has room, whatever the window
holds. So the member that brings what the others wait for is never ahead, and is read.

Whether the bytes are those that the peer sent is the business of the connections, each of which has
an authenticated end of its own. No Twisted here, no clock.

Source: ``docs/protocol.rst``, section 8.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from cloudconnect.errors import ProtocolViolation
from cloudconnect.settings import BATCH_LEAD_MAX, BATCH_PAYLOAD_MAX, BUNDLE_WINDOW

Octets = bytes | bytearray | memoryview

_HEADER = struct.Struct(">QI")
#: Number and length of a batch, in bytes.
HEADER_SIZE: Final = _HEADER.size
#: Payload of a batch where there are several members, in bytes: 0.5 ms on a line of 1 Gbit/s, so
#: that they fill alike, and a price in headers of one part in 5000.
BATCH_PAYLOAD: Final = 64 << 10
#: The same where so little waits that it is divided among the members, at least: a new TCP
#: connection sends 14 KB in its first round trip, then two, four and eight times as many.
BATCH_SHARE: Final = 8 << 10
#: A batch that waits is counted with so many bytes beside its payload: what Python takes for it.
BATCH_COST: Final = 256

_NOTHING: Final = memoryview(b"")


class Splitter:
    """The sending side.

    :param size: most payload bytes of one batch, 1 to ``BATCH_PAYLOAD_MAX``
    :ivar waiting: bytes that were put and are in no batch yet
    :raises ValueError: ``size`` out of bounds
    """

    def __init__(self, size: int = BATCH_PAYLOAD) -> None:
        if not 0 < size <= BATCH_PAYLOAD_MAX:
            raise ValueError(f"a batch has 1 to {BATCH_PAYLOAD_MAX} bytes of payload")
        self._size = size
        self._parts: deque[Octets] = deque()
        self._number = 0
        self.waiting = 0

    def put(self, parts: Iterable[Octets]) -> None:
        """Take bytes of the stream; a part that is not ``bytes`` must not change any more.

        :param parts: any number of bytes, in order
        """
        for part in parts:
            if part:
                self._parts.append(part)
                self.waiting += len(part)

    def share(self, members: int) -> int:
        """Bytes of payload with which what waits is divided alike among the members.

        :param members: how many, which may be none
        :return: for :meth:`batch`; not so few that the headers would count
        """
        return max(-(-self.waiting // max(members, 1)), BATCH_SHARE)

    def batch(self, most: int | None = None) -> list[Octets]:
        """The next batch: its header and pieces of what was put, which are not copied.

        Empty when nothing waits.

        :param most: bytes of payload, where they are to be fewer than usual
        """
        if not self._parts:
            return []
        size = min(self.waiting, self._size, most or self._size)
        found: list[Octets] = [_HEADER.pack(self._number, size)]
        self._number += 1
        self.waiting -= size
        while size:
            part = self._parts.popleft()
            if len(part) > size:
                view = memoryview(part)
                self._parts.appendleft(view[size:])
                part = view[:size]
            size -= len(part)
            found.append(part)
        return found

    def end(self) -> bytes:
        """What ends the stream, on every member: how many batches there were."""
        return _HEADER.pack(self._number, 0)

    def drop(self) -> None:
        """Forget what waits."""
        self._parts.clear()
        self.waiting = 0


class _Incoming:
    """What has come on one member and is not delivered, and where in its bytes it stands."""

    def __init__(self) -> None:
        self.header = bytearray()
        self.last = -1  # the number of the newest batch
        self.length = 0  # of its payload, while that is still to come
        self.admitted = False
        self.payload = bytearray()
        self.kept = _NOTHING  # not looked at, as there is no room; bytes of our own
        self.ahead = False
        self.ended = False


class Joiner:
    """The receiving side.

    :param members: how many members there are
    :param window: bytes of batches that may wait for their turn
    :ivar waiting: bytes of those that do, and of those that have begun to come, each with
        ``BATCH_COST``; at most ``window`` and one batch for each member
    :ivar ended: whether the end has come on every member, and every batch
    """

    def __init__(self, members: int, window: int = BUNDLE_WINDOW) -> None:
        self._members = [_Incoming() for _ in range(members)]
        self._window = window
        self._batches: dict[int, Octets] = {}
        self._next = 0
        self._highest = -1
        self._count: int | None = None
        self.waiting = 0
        self.ended = False

    def is_ahead(self, member: int) -> bool:
        """Whether ``member`` is not to be read for now: what comes next there has no room."""
        return self._members[member].ahead

    def has_ended(self, member: int) -> bool:
        """Whether the stream's end has come on ``member``."""
        return self._members[member].ended

    def receive(self, member: int, data: Octets) -> Iterator[Octets]:
        """Take ``data`` of ``member``, and yield what is due now, in order.

        To be used up before the next call. A payload that is a ``memoryview`` is one of ``data``,
        and valid as long as that.

        :param data: bytes, cut anywhere
        :return: payloads
        :raises ProtocolViolation: a length that cannot be; a number that came before, that is
            not higher than its predecessor's on this member, or that is too far away; ends that
            contradict each other, or what came; bytes behind an end
        """
        incoming = self._members[member]
        if incoming.kept:
            yield from self._take(incoming, memoryview(bytes(incoming.kept) + data), True)
        else:
            yield from self._take(incoming, memoryview(data), False)
        while (released := self._with_room()) is not None:
            yield from self._take(released, released.kept, True)

    def drop(self) -> None:
        """Forget what is kept."""
        self._batches.clear()
        for incoming in self._members:
            incoming.kept = _NOTHING
            incoming.payload = bytearray()

    def _with_room(self) -> _Incoming | None:
        """A member that was ahead and need not be any more."""
        for incoming in self._members:
            if incoming.ahead and self._has_room(incoming):
                return incoming
        return None

    def _has_room(self, incoming: _Incoming) -> bool:
        size = incoming.length + BATCH_COST
        return incoming.last == self._next or self.waiting + size <= self._window

    def _take(self, incoming: _Incoming, view: memoryview, owned: bool) -> Iterator[Octets]:
        """Parse ``view``, whose bytes are ours (``owned``) or valid only now."""
        incoming.kept = _NOTHING
        while True:
            if not incoming.length:
                view = self._take_header(incoming, view)
                if not incoming.length:
                    return
            if not incoming.admitted:
                incoming.ahead = not self._has_room(incoming)
                if incoming.ahead:
                    incoming.kept = view if owned else memoryview(bytes(view))
                    return
                incoming.admitted = True
                self.waiting += incoming.length + BATCH_COST
            missing = incoming.length - len(incoming.payload)
            if len(view) < missing:
                incoming.payload += view
                return
            payload: Octets = view[:missing]
            view = view[missing:]
            if incoming.payload:
                incoming.payload += payload
                payload, incoming.payload = incoming.payload, bytearray()
            incoming.length = 0
            incoming.admitted = False
            yield from self._place(incoming.last, payload)

    def _take_header(self, incoming: _Incoming, view: memoryview) -> memoryview:
        """Look at the next header, or at what there is of it; return what is behind."""
        header = incoming.header
        while view:
            if incoming.ended:
                raise ProtocolViolation("bytes came behind the end of a bundle")
            missing = HEADER_SIZE - len(header)
            header += view[:missing]
            view = view[missing:]
            if len(header) < HEADER_SIZE:
                break
            number, length = _HEADER.unpack(header)
            header.clear()
            if number - self._next > BATCH_LEAD_MAX:
                raise ProtocolViolation("the number of a batch is too far away")
            if length:
                self._begin(incoming, number, length)
                break
            self._end(incoming, number)
        return view

    def _begin(self, incoming: _Incoming, number: int, length: int) -> None:
        if length > BATCH_PAYLOAD_MAX:
            raise ProtocolViolation(f"a batch of {length} bytes")
        if number <= incoming.last or number < self._next or number in self._batches:
            raise ProtocolViolation("the number of a batch came before")
        if self._count is not None and number >= self._count:
            raise ProtocolViolation("the number of a batch lies behind the end")
        incoming.last = number
        incoming.length = length
        self._highest = max(self._highest, number)

    def _end(self, incoming: _Incoming, count: int) -> None:
        if count <= self._highest or self._count not in (None, count):
            raise ProtocolViolation("the ends of a bundle contradict what came")
        self._count = count
        incoming.ended = True
        if all(each.ended for each in self._members):
            if self._next != count:
                raise ProtocolViolation("a bundle has ended, and batches are missing")
            self.ended = True

    def _place(self, number: int, payload: Octets) -> Iterator[Octets]:
        """Yield ``payload`` and what comes after it, if it is due; else keep it."""
        if number < self._next or number in self._batches:
            raise ProtocolViolation("a batch came twice")
        if number > self._next:
            self._batches[number] = bytes(payload) if isinstance(payload, memoryview) else payload
            return
        due: Octets | None = payload
        while due is not None:
            self._next += 1
            self.waiting -= len(due) + BATCH_COST
            yield due
            due = self._batches.pop(self._next, None)
