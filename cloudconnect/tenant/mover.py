"""Layer 4: the source data mover: Key B from the job manager, then the movers' dialogue.

It opens the Key B stream at the address that it is given and runs the dialogue (backup, restore or
reading) in a worker thread. It never sees the tenant's login password.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.amp import CommandLocator
from twisted.python.threadpool import ThreadPool

from cloudconnect.commands.lan import HandKeyB
from cloudconnect.errors import ContextMismatch
from cloudconnect.keys import IntegrityKey, KeyB, frame_key, key_b_context
from cloudconnect.shown import Shown
from cloudconnect.transports.endpoints import connect_protocol, wrap_client_endpoint
from cloudconnect.transports.line import tune
from cloudconnect.transports.switch import PreambleEndpoint
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import FrameReader, FrameWriter
from cloudconnect.wire.preamble import ConnectionKind, Preamble

if TYPE_CHECKING:
    from cloudconnect.backup.pacing import PacedPipe

_T = TypeVar("_T")


@attrs.frozen(repr=False)
class Rates(Shown):
    """How fast a session may use the line.

    :ivar upload: bytes a second, or 0 for no limit
    :ivar download: likewise
    """

    upload: int = 0
    download: int = 0


#: As fast as the line goes.
UNLIMITED = Rates()


@attrs.define(eq=False, repr=False)
class _Handed(Shown):
    """What the job manager handed over for one session."""

    tenant: str
    route: bytes
    hop: str
    key_b: KeyB = attrs.field(repr=False)
    integrity_key: IntegrityKey = attrs.field(repr=False)

    def forget(self) -> None:
        self.key_b.forget()
        self.integrity_key.forget()


class SourceDataMover(CommandLocator):
    """Runs dialogues against the target data mover.

    :param reactor: clock, connections and threads
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self._reactor = reactor
        self._handed: dict[bytes, _Handed] = {}
        self._pool = ThreadPool(0, 2, "source mover")
        self._paced: PacedPipe | None = None

    def start(self) -> None:
        """Start the worker thread."""
        self._pool.start()

    def stop(self) -> None:
        """Stop the worker thread; the dialogue must be over."""
        self._pool.stop()

    @HandKeyB.responder
    def hand_key_b(self, session: bytes, **values: Any) -> dict[str, Any]:
        """Take a session's keys."""
        if session in self._handed:
            raise ContextMismatch("this session's keys were handed over before")
        self._handed[session] = _Handed(**values)
        return {}

    def forget(self, session: bytes) -> None:
        """The session is over: drop what is left of its keys."""
        handed = self._handed.pop(session, None)
        if handed is not None:
            handed.forget()

    async def open(
        self,
        session: bytes,
        endpoint: IStreamClientEndpoint,
        rates: Rates,
        ending: Callable[[], None] = lambda: None,
    ) -> FrameChannel:
        """Open the session's stream; Key B is dropped once it is up.

        :param ending: called when nothing but the stream's ends is due any more
        :raises Tampered, Truncated, NotReachable: the stream did not come up
        """
        # Here, as they are wanted only behind the log-in.
        from cloudconnect.backup.pacing import PacedPipe
        from cloudconnect.transports.blocking import BlockingPipe
        from cloudconnect.transports.stream import RecordStream

        handed = self._handed[session]
        preamble = Preamble(ConnectionKind.KEY_B_STREAM, handed.route)
        recipe = RecordStream(
            secret=handed.key_b,
            context=key_b_context(preamble.encode(), session, handed.tenant, handed.hop),
        )
        layered = wrap_client_endpoint(recipe, PreambleEndpoint(endpoint, preamble), self._reactor)
        pipe = BlockingPipe(self._reactor)
        await connect_protocol(layered, pipe)
        tune(pipe.transport, several=False)  # one lost packet does not halve a long line's rate
        handed.key_b.forget()
        key = handed.integrity_key
        paced = PacedPipe(pipe, rates.upload, rates.download)
        self._paced = paced
        channel = FrameChannel(
            paced,
            FrameWriter(frame_key(key, session, 0, 0), 0),
            FrameReader(frame_key(key, session, 0, 1), 0),
            lambda: self._reactor.callFromThread(ending),
        )
        self.forget(session)
        return channel

    def run(self, dialogue: Callable[[FrameChannel], _T], channel: FrameChannel) -> Deferred[_T]:
        """Run ``dialogue`` in the worker thread; what it raises ends the stream."""
        return deferToThreadPool(self._reactor, self._pool, self._run, dialogue, channel)

    def _run(self, dialogue: Callable[[FrameChannel], _T], channel: FrameChannel) -> _T:
        try:
            return dialogue(channel)
        except Exception as error:
            self.abort(error)
            raise

    def abort(self, reason: Exception) -> None:
        """End the stream at once; the dialogue fails with ``reason``."""
        if self._paced is not None:
            self._paced.abort(reason)
