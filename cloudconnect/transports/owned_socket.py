"""Layer 2, transports: a socket read into, and written from, its user's own buffers.

An :class:`OwnedSocket` is what a layer has below it in the place of the reactor's transport, once
:mod:`cloudconnect.transports.descriptor` has taken that over.

**Fewer wake-ups.** A receiver that waits for the rest of a large record is not told of every
segment: ``SO_RCVLOWAT`` is set to the bytes that are missing. The kernel wakes it earlier when its
receive buffer is full, and for the connection's end. (UNIX sockets do not have this.)

**Closing.** A kernel whose socket is closed resets the connection when something comes that nobody
reads any more, and then drops what it had not sent yet. So an owned socket ends its own direction
once everything was sent, and reads on, for nothing, until the peer has ended its own.

Source: tcp(7), unix(7) and socket(7) of Linux.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import termios
from array import array
from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet import main
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from cloudconnect.settings import HIGH_WATER
from cloudconnect.transports.descriptor import let_go, take_over

#: Bytes that one connection sends, or receives, before the reactor turns to others.
TURN_BYTES: Final = 2 << 20
#: When more than this many bytes are wanted, the kernel is asked to tell when they are there;
#: to read what there is of them already costs more than to turn to the reactor.
WAIT_BYTES: Final = 64 << 10
#: A producer that was paused is resumed when no more than this part of the high-water mark is held:
#: seldom, and long before the kernel has sent what it holds.
LOW_PART: Final = 4
#: Bytes that are read at once to be dropped.
DROP_BYTES: Final = 64 << 10


class ISocketUser(Protocol):
    """Whose buffers a socket is read into and written from. Its methods do not raise."""

    @property
    def held(self) -> int:
        """Bytes that wait to be sent."""

    @property
    def wanted(self) -> int:
        """How many bytes must come, at least, for it to get on."""

    def room(self) -> memoryview:
        """Where the next bytes go; not empty."""

    def came(self, count: int) -> None:
        """``count`` bytes were put there; it may now pause, close or abort."""

    def outgoing(self) -> memoryview:
        """What to send next; empty when there is nothing."""

    def sent(self, count: int) -> None:
        """The first ``count`` bytes of it were sent."""

    def put_sealed(self, record: bytes) -> None:
        """Send ``record`` next, before what is not in :meth:`outgoing` yet."""


@implementer(IConsumer, IPushProducer)
class OwnedSocket:
    """The transport that a layer has in the place of the reactor's, after the change of hands.

    :param transport: for which :func:`~cloudconnect.transports.descriptor.can_own` holds, without
        a producer registered on it
    :param user: whose buffers are used
    :ivar high_water: the producer is paused when more than this many bytes are held
    """

    high_water = HIGH_WATER

    def __init__(self, transport: Any, user: ISocketUser) -> None:
        self._transport = transport
        self._user = user
        self._socket: socket.socket = transport.getHandle()
        self._has_low_water = self._socket.family != socket.AF_UNIX
        self._low_water = 1
        self._producer: Any = None
        self._producer_paused = False
        self._reading = False
        self._closing = False
        self._shut = False  # our direction, after everything was sent
        self._peer_shut = False
        self._gone = False

    @property
    def connected(self) -> bool:
        """Whether the connection is there."""
        return not self._gone

    # --- the change of hands --------------------------------------------------------------------

    def take_over(self, done: Callable[[], None]) -> None:
        """Own the socket once the transport has sent what it queues, then call ``done``."""
        take_over(self._transport, self._do_read, self._do_write, done)

    def gone(self) -> None:
        """The connection is lost: let go of the transport's methods and of the socket."""
        self._gone = True
        self._reading = False
        self._producer = None
        let_go(self._transport)

    # --- what the reactor calls -----------------------------------------------------------------

    def _do_read(self) -> Exception | None:
        if self._closing:
            return self._drop_input()
        left = TURN_BYTES
        while left > 0 and self._reading:
            room = self._user.room()
            try:
                count = self._socket.recv_into(room)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                return main.CONNECTION_LOST
            if not count:
                return main.CONNECTION_DONE
            left -= count
            short = count < len(room)
            self._user.came(count)
            if short or (self._has_low_water and self._user.wanted > WAIT_BYTES):
                break
        if self._reading:
            self._wait_for(self._user.wanted)
        return None

    def _drop_input(self) -> Exception | None:
        """Read for nothing, until the peer ends its direction."""
        dropped = bytearray(DROP_BYTES)
        try:
            for _ in range(TURN_BYTES // DROP_BYTES):
                if not self._socket.recv_into(dropped):
                    self._peer_shut = True
                    break
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return main.CONNECTION_LOST
        if self._peer_shut:
            if self._shut:
                return main.CONNECTION_DONE
            self._transport.stopReading()
        return None

    def look(self) -> None:
        """Take in what came too little to wake us."""
        if self._reading:
            with contextlib.suppress(OSError):
                count = self._socket.recv_into(self._user.room())
                if count:
                    self._user.came(count)

    def _wait_for(self, wanted: int) -> None:
        if self._has_low_water and wanted != self._low_water:
            self._low_water = wanted
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
            except OSError:
                self._has_low_water = False

    def _do_write(self) -> Exception | None:
        left = TURN_BYTES
        while left > 0 and not self._gone:
            out = self._user.outgoing()
            if not out:
                return self._all_sent()
            try:
                count = self._socket.send(out)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as error:
                return None if error.errno == errno.ENOBUFS else main.CONNECTION_LOST
            left -= count
            self._user.sent(count)
            self._see_to_producer()
            if count < len(out):
                return None
        return None

    def _all_sent(self) -> Exception | None:
        self._transport.stopWriting()
        if self._transport.disconnecting or self._peer_shut:
            return main.CONNECTION_DONE
        if not self._closing:
            self._see_to_producer()
        elif not self._shut:
            self._shut = True
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                return main.CONNECTION_LOST
        return None

    # --- what the layer calls -------------------------------------------------------------------

    def wake(self) -> None:
        """The user has something to send."""
        if not self._gone:
            self._transport.startWriting()
            self._see_to_producer()

    def write(self, data: bytes) -> None:
        """Send ``data``, which needs no sealing any more."""
        self._user.put_sealed(data)
        self.wake()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause the push producer ``producer`` while too many bytes wait to be sent.

        :param streaming: must be True: a layer above registers no pull producer
        """
        self._producer = producer
        self._producer_paused = False
        self._see_to_producer()

    def unregisterProducer(self) -> None:
        """Nobody is paused any more."""
        self._producer = None

    def _see_to_producer(self) -> None:
        if self._producer is None:
            return
        held = self._user.held
        if self._producer_paused and held <= self.high_water // LOW_PART:
            self._producer_paused = False
            self._producer.resumeProducing()
        elif not self._producer_paused and held > self.high_water:
            self._producer_paused = True
            self._producer.pauseProducing()

    def pauseProducing(self) -> None:
        """Read nothing."""
        self._reading = False
        if not (self._gone or self._closing):
            self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read."""
        if not (self._gone or self._closing):
            self._reading = True
            self._wait_for(self._user.wanted)
            self._transport.resumeProducing()

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()

    def getHandle(self) -> socket.socket:
        """The socket, for its options."""
        return self._socket

    def unsent(self) -> int:
        """Bytes that wait, here or in the kernel, and that the other side has not acknowledged."""
        in_kernel = array("i", (0,))
        if not self._gone:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, in_kernel)
        return self._user.held + in_kernel[0]

    def loseConnection(self) -> None:
        """Close once everything was sent and the peer closes too; deliver nothing more.

        Who calls this limits the time that it may take, by :meth:`abortConnection`.
        """
        if not (self._gone or self._closing):
            self._closing = True
            self._reading = False
            self._wait_for(1)
            self._transport.startReading()
            self._transport.startWriting()

    def abortConnection(self) -> None:
        """Close at once."""
        self._gone = True
        self._reading = False
        self._transport.abortConnection()

    def getPeer(self) -> Any:
        """The address of the other side."""
        return self._transport.getPeer()

    def getHost(self) -> Any:
        """The address of this side."""
        return self._transport.getHost()
