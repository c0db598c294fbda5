"""Layer 2, transports: records between buffers that were allocated once.

:class:`RecordReader` takes in bytes where a socket puts them and opens each record from there;
:class:`RecordWriter` queues what the application writes and seals it into a buffer that a socket
sends from. In steady state a payload byte is touched by the kernel's copy and by the cipher, and by
nothing else, and no page is ever allocated anew. No Twisted here, no clock, no socket.

Source of the records: ``docs/protocol.rst``, section 6.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from cloudconnect.errors import CloudConnectError
from cloudconnect.settings import RECORD_PAYLOAD_MAX
from cloudconnect.wire.records import (
    HEADER_SIZE,
    TAG_SIZE,
    RecordOpener,
    RecordSealer,
    RecordType,
)

Octets = bytes | bytearray | memoryview

#: What a record is longer than its payload, in bytes.
OVERHEAD: Final = HEADER_SIZE + TAG_SIZE
#: A reader asks the socket for at least this many bytes: many small records come by one call, and
#: what is moved to the front of the buffer afterwards still lies in the processor's cache.
READ_AHEAD: Final = 256 << 10
#: A part of at least this many bytes is sealed from where it lies; smaller ones are gathered first,
#: because a record has a price of its own of about as many bytes' ciphering.
DIRECT: Final = 128 << 10
#: A writer's buffer has room for so many bytes of payload: small records leave by one call, too.
SEAL_AHEAD: Final = 256 << 10
#: Room beside the payload in a writer's buffer: headers and tags, and control records.
SLACK: Final = 4 << 10

_NOTHING: Final = memoryview(b"")


def allocate(size: int) -> memoryview:
    """``size`` bytes of private memory; a page costs nothing before it is touched."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class RecordReader:
    """One direction's incoming records.

    :param opener: from a finished handshake
    :ivar count: bytes that have come in all
    """

    def __init__(self, opener: RecordOpener) -> None:
        self._opener = opener
        self.count = 0
        self._buffer = allocate(OVERHEAD + RECORD_PAYLOAD_MAX + HEADER_SIZE)
        self._payload: memoryview | None = None
        self._start = 0  # of what is not opened yet
        self._end = 0
        self._kind: RecordType | None = None  # of the record that begins there, once known
        self._needed = HEADER_SIZE

    @property
    def waiting(self) -> int:
        """Bytes that came and are not opened yet; after :meth:`records`, those of a started one."""
        return self._end - self._start

    @property
    def wanted(self) -> int:
        """How many bytes more it takes to get on: the rest of a header, or of a record."""
        return max(self._needed - self._end + self._start, 1)

    def room(self) -> memoryview:
        """Where the next bytes go; never empty once :meth:`records` has run to its end.

        It ends with the header of the record behind a large one: so the next record begins at the
        front, and only 8 bytes of it are ever moved there.
        """
        waiting = self.waiting
        if self._start:
            self._buffer[:waiting] = self._buffer[self._start : self._end]
            self._start, self._end = 0, waiting
        return self._buffer[self._end : max(self._needed + HEADER_SIZE, READ_AHEAD)]

    def came(self, count: int) -> None:
        """``count`` bytes were put into :meth:`room`."""
        self._end += count
        self.count += count

    def feed(self, data: Octets) -> int:
        """Copy as much of ``data`` as there is room for, and return how much."""
        room = self.room()
        count = min(len(room), len(data))
        room[:count] = memoryview(data)[:count]
        self.came(count)
        return count

    def ready(self) -> bool:
        """Whether :meth:`records` has anything to yield, or to raise; cheap where it has not."""
        try:
            return self._whole()
        except CloudConnectError:
            return True  # the opener raises it again

    def _whole(self) -> bool:
        """Whether a whole record is there; looks at its header as soon as that is.

        :raises CloudConnectError: the header is refused
        """
        if self._kind is None and self._end - self._start >= HEADER_SIZE:
            header = self._buffer[self._start : self._start + HEADER_SIZE]
            self._kind, length = self._opener.header(header)
            self._needed = HEADER_SIZE + length
        return self._end - self._start >= self._needed

    def records(self, in_place: bool) -> Iterator[tuple[RecordType, Octets]]:
        """Open what is complete.

        :param in_place: yield a payload as a view that is valid until the next one is asked for;
            else as bytes of its own
        :return: type and payload of each record, verified
        :raises CloudConnectError: a record does not verify; nothing of it or after it is yielded
        """
        while self._whole():
            kind, begin, end = self._kind, self._start + HEADER_SIZE, self._start + self._needed
            assert kind is not None
            header, sealed = self._buffer[self._start : begin], self._buffer[begin:end]
            self._start, self._needed, self._kind = end, HEADER_SIZE, None
            if in_place and kind is RecordType.DATA:
                if self._payload is None:
                    self._payload = allocate(RECORD_PAYLOAD_MAX)
                size = self._opener.open_into(header, sealed, self._payload)
                yield kind, self._payload[:size]
            else:
                yield kind, self._opener.open(header, sealed)


class RecordWriter:
    """One direction's outgoing records.

    Order: what was sealed, then :meth:`put_sealed`, then one record after another of what was
    :meth:`put`, then END once :meth:`put_end` was called.

    :param sealer: from a finished handshake
    :param payload: most payload bytes of one DATA record
    """

    def __init__(self, sealer: RecordSealer, payload: int) -> None:
        self._sealer = sealer
        self._most = payload
        self._direct = min(DIRECT, payload)
        self._buffer = allocate(max(payload, SEAL_AHEAD) + SLACK)
        self._gathered: memoryview | None = None
        self._parts: deque[Octets] = deque()
        self._plain = 0  # bytes in parts
        self._sealed = bytearray()
        self._start = 0  # of what is sealed and not sent
        self._end = 0
        self._end_wanted = False

    @property
    def held(self) -> int:
        """Bytes that wait here, sealed or not."""
        return self._plain + len(self._sealed) + self._end - self._start

    def put(self, parts: Iterable[Octets]) -> None:
        """Queue payload; a part that is not ``bytes`` must not change until it was sent.

        :param parts: any number of bytes, in order
        """
        for part in parts:
            self._parts.append(part)
            self._plain += len(part)

    def put_sealed(self, record: bytes) -> None:
        """Queue a record that was sealed a moment ago, by the same sealer.

        :param record: a whole record: header, ciphertext and tag
        """
        self._sealed += record

    def put_end(self) -> None:
        """END is due after the payload that is queued."""
        self._end_wanted = True

    def drop(self) -> None:
        """Forget payload that was not sealed; what was sealed may still be sent."""
        self._parts.clear()
        self._plain = 0
        self._end_wanted = False

    def outgoing(self) -> memoryview:
        """What was sealed and not sent yet."""
        return self._buffer[self._start : self._end]

    def sent(self, count: int) -> None:
        """The first ``count`` bytes of :meth:`outgoing` were sent."""
        self._start += count

    def seal(self, now: float) -> None:
        """Seal what waits, as far as there is room, once all that was sealed before is sent.

        :param now: monotonic clock, in seconds
        :raises NonceExhausted: the last epoch is used up
        """
        if self._start < self._end:
            return
        self._start = self._end = 0
        if self._sealed:
            self._take_sealed()
        while self._parts and self._fits():
            if self._sealer.rekey_due(now):
                self._append(self._sealer.rekey())
            payload = self._next_payload()
            out = self._buffer[self._end :]
            self._end += self._sealer.seal_into(RecordType.DATA, payload, out)
        if self._end_wanted and not self._parts and not self._sealed and self._fits():
            self._end_wanted = False
            self._append(self._sealer.end())

    def _fits(self) -> bool:
        """Whether the next record, with a change of key and an END, goes into the buffer."""
        size = min(len(self._parts[0]), self._most) if self._parts else 0
        if size < self._direct:
            size = min(self._plain, self._most)
        return not self._sealed and len(self._buffer) - self._end >= size + 4 * OVERHEAD

    def _next_payload(self) -> Octets:
        first = self._parts.popleft()
        if len(first) >= self._direct or not self._parts:
            if len(first) > self._most:
                view = memoryview(first)
                self._parts.appendleft(view[self._most :])
                first = view[: self._most]
            self._plain -= len(first)
            return first
        self._parts.appendleft(first)
        return self._gather()

    def _gather(self) -> memoryview:
        """Small parts, one behind the other, up to a record's worth or to a large part."""
        if self._gathered is None:
            self._gathered = allocate(self._most)
        into, size = self._gathered, 0
        while self._parts and size < self._most:
            part = self._parts[0]
            if size and len(part) >= self._direct:
                break
            self._parts.popleft()
            if size + len(part) > self._most:
                view = memoryview(part)
                self._parts.appendleft(view[self._most - size :])
                part = view[: self._most - size]
            into[size : size + len(part)] = part
            size += len(part)
        self._plain -= size
        return into[:size]

    def _take_sealed(self) -> None:
        count = min(len(self._sealed), len(self._buffer))
        self._append(self._sealed[:count])
        del self._sealed[:count]

    def _append(self, record: Octets) -> None:
        self._buffer[self._end : self._end + len(record)] = record
        self._end += len(record)
