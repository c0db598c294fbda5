"""Layer 1: one connection between two accelerators, as each end sees it: both directions at once.

Bytes of the stream go in and messages come out, and the other way round; nothing here knows of a
transport. The messages of both directions and their answers share the connection, which must be
ordered and protected (``docs/protocol.rst``, section 6).
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from cloudconnect.dedup.cutting import FrameCutter, ICutter
from cloudconnect.dedup.decoder import Decoded, Decoder
from cloudconnect.dedup.encoder import Encoder
from cloudconnect.dedup.interfaces import IBlockCache
from cloudconnect.dedup.limits import (
    FRUGAL_WINDOW,
    FRUGAL_WINDOW_LOG,
    WINDOW_DEFAULT,
    WINDOW_LOG,
    WINDOW_MAX,
    WINDOW_MIN,
)
from cloudconnect.dedup.messages import Ack, Batch, End, Hello, Message, MessageReader, Miss, Resend
from cloudconnect.dedup.statistics import Statistics
from cloudconnect.errors import CloudConnectError, ProtocolViolation, Truncated


@attrs.define
class Received:
    """What came of bytes from the far end.

    :ivar plain: parts of the far end's stream, in order, verified
    :ivar wire: parts to be sent to the far end, in order
    :ivar ended: the far end's stream has ended, and all of it was passed on
    """

    plain: list[bytes | memoryview] = attrs.field(factory=list)
    wire: list[bytes | memoryview] = attrs.field(factory=list)
    ended: bool = False


class Exchange:
    """One end of a connection; used by one thread at a time.

    :param cache: the own cache, which other exchanges may share
    :param cutter: cuts the stream that is sent; by default one for the movers' frames
    :param level: compression level at first, 1 to 19
    :param window: bytes of the stream that may be under way in each direction; by default
        WINDOW_DEFAULT
    :param frugal: needs some 6 MiB less of memory, and finds again only what is not far back; its
        window is FRUGAL_WINDOW by default
    :raises ValueError: a window that is too small or too large
    :ivar sent: counts of the direction that is sent
    :ivar received: counts of the direction that is received
    """

    def __init__(
        self,
        cache: IBlockCache,
        cutter: ICutter | None = None,
        level: int = 3,
        window: int | None = None,
        frugal: bool = False,
    ) -> None:
        if window is None:
            window = FRUGAL_WINDOW if frugal else WINDOW_DEFAULT
        if not WINDOW_MIN <= window <= WINDOW_MAX:
            raise ValueError(f"a window is from {WINDOW_MIN} to {WINDOW_MAX} bytes")
        window_log = FRUGAL_WINDOW_LOG if frugal else WINDOW_LOG
        self._encoder = Encoder(cache, cutter or FrameCutter(), level, window, window_log)
        self._decoder = Decoder(cache, window)
        self._reader = MessageReader()
        self._hello = Hello(window, cache.empty())
        self._greeted = False
        self._finished = False
        self._error: CloudConnectError | None = None

    @property
    def sent(self) -> Statistics:
        """Counts of the direction that is sent."""
        return self._encoder.statistics

    @property
    def received(self) -> Statistics:
        """Counts of the direction that is received."""
        return self._decoder.statistics

    @property
    def ready(self) -> bool:
        """Whether :meth:`send` may be called: not while the window is full."""
        return self._encoder.ready

    @property
    def settled(self) -> bool:
        """Whether the far end has acknowledged everything that was sent."""
        return self._encoder.settled

    @property
    def level(self) -> int:
        """The compression level to use from now on; may be set at any time, to 1 to 19."""
        return self._encoder.level

    @level.setter
    def level(self, level: int) -> None:
        if not 1 <= level <= 19:
            raise ValueError("a compression level is from 1 to 19")
        self._encoder.level = level

    def start(self) -> list[bytes | memoryview]:
        """The greeting; called once, before anything else."""
        return self._counted([self._hello.encode()])

    def send(self, data: bytes) -> list[bytes | memoryview]:
        """Take bytes of the stream; gives the parts to be sent now, in order.

        :param data: not changed by anybody afterwards
        """
        return self._counted(self._encoder.feed(data)) if len(data) else []

    def flush(self) -> list[bytes | memoryview]:
        """What waits for more and the far end could use; for when nothing comes for a moment."""
        return self._counted(self._encoder.flush())

    def finish(self) -> list[bytes | memoryview]:
        """The stream has ended; :meth:`receive` goes on giving parts until all is settled."""
        if self._finished:
            return []
        self._finished = True
        return self._counted(self._encoder.finish())

    def receive(self, data: bytes | memoryview) -> Received:
        """Take bytes from the far end.

        :param data: any number of bytes, cut anywhere
        :raises ProtocolViolation: it sent what the grammar does not allow
        :raises DigestMismatch: bytes do not have the digest that was announced for them
        """
        if self._error is not None:
            raise self._error
        received = Received()
        try:
            for message in self._reader.receive(data):
                self._dispatch(message, received)
        except CloudConnectError as error:
            self._error = error
            raise
        received.ended = self._decoder.ended
        return received

    def hold(self) -> None:
        """Acknowledge from now on only what :meth:`taken` names; called before anything else.

        Then the far end sends no more than a window ahead of whoever takes the stream here, and
        what it sends beyond that is refused.
        """
        self._decoder.hold()

    def taken(self, total: int) -> list[bytes | memoryview]:
        """Acknowledge what was passed on, as far as it was taken; costs next to nothing.

        :param total: bytes of the far end's stream that were taken since the beginning
        """
        ack = self._decoder.taken(total)
        parts = [] if ack is None else ack.encode()
        self.received.coded += sum(map(len, parts))
        return parts

    def eof(self) -> None:
        """The connection has ended.

        :raises Truncated: before the far end's stream had, or before it acknowledged ours
        """
        if self._reader.inside or not self._decoder.ended or not self._finished or not self.settled:
            raise Truncated("the connection between the accelerators ended too early")

    def close(self) -> None:
        """Let go of the cache; called once the connection is over, as it may be."""
        self._encoder.close()
        self._decoder.close()

    def _dispatch(self, message: Message, received: Received) -> None:
        if isinstance(message, Hello):
            if self._greeted:
                raise ProtocolViolation("an accelerator greets twice")
            self._greeted = True
            received.wire += self._counted(self._encoder.greeted(message))
        elif not self._greeted:
            raise ProtocolViolation("an accelerator does not greet")
        elif isinstance(message, Ack):
            received.wire += self._counted(self._encoder.acknowledged(message))
        elif isinstance(message, Miss):
            received.wire += self._counted(self._encoder.missed(message))
        else:
            self._decode(message, received)

    def _decode(self, message: Batch | Resend | End, received: Received) -> None:
        decoded: Decoded
        if isinstance(message, Batch):
            decoded = self._decoder.batch(message)
        elif isinstance(message, Resend):
            decoded = self._decoder.resent(message)
        else:
            decoded = self._decoder.end(message)
        received.plain += decoded.plain
        parts = [part for answer in decoded.answers for part in answer.encode()]
        self.received.coded += sum(map(len, parts))
        received.wire += parts

    def _counted(self, messages: Iterable[list[bytes | memoryview]]) -> list[bytes | memoryview]:
        parts = [part for message in messages for part in message]
        self.sent.coded += sum(map(len, parts))
        return parts
