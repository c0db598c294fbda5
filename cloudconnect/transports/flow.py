"""Layer 2, transports: the two producers that a layer puts between those of others.

A layer is a consumer for the protocol above it and a producer for the transport below it. The
names of Twisted's two producer interfaces are the same in both directions, so the side that looks
down is an object of its own here: :class:`WriteGate`. :class:`PullAdapter` makes a push producer of
a pull producer, on the clock that it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer


@implementer(IPushProducer)
class WriteGate:
    """What a layer registers as the producer of the transport below.

    :param changed: called when :attr:`paused` has changed
    :param stopped: called when the transport below wants no more bytes, ever
    :ivar paused: whether the transport below holds too many bytes
    """

    def __init__(self, changed: Callable[[], None], stopped: Callable[[], None]) -> None:
        self._changed = changed
        self._stopped = stopped
        self.paused = False

    def pauseProducing(self) -> None:
        """The transport below holds too many bytes."""
        if not self.paused:
            self.paused = True
            self._changed()

    def resumeProducing(self) -> None:
        """The transport below has sent what it held."""
        if self.paused:
            self.paused = False
            self._changed()

    def stopProducing(self) -> None:
        """The transport below has gone."""
        self._stopped()


@implementer(IPushProducer)
class PullAdapter:
    """Asks a pull producer for more, once a turn of the clock, until it is paused or stopped.

    :param producer: an ``IPullProducer``
    :param failed: called when the producer raised; the consumer unregisters it there
    :param clock: an ``IReactorTime``
    """

    _log = Logger()

    def __init__(self, producer: Any, failed: Callable[[], None], clock: IReactorTime) -> None:
        self._producer = producer
        self._failed = failed
        self._clock = clock
        self._turn: IDelayedCall | None = None

    def resumeProducing(self) -> None:
        """Ask for more from the next turn on."""
        if self._turn is None:
            self._turn = self._clock.callLater(0, self._pull)

    def pauseProducing(self) -> None:
        """Do not ask for more."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def stopProducing(self) -> None:
        """Do not ask for more, and tell the producer."""
        self.pauseProducing()
        self._producer.stopProducing()

    def _pull(self) -> None:
        # The next turn comes first: a producer may pause, or unregister, while it writes.
        self._turn = self._clock.callLater(0, self._pull)
        try:
            self._producer.resumeProducing()
        except Exception:
            self._log.failure("{producer!r} raised in resumeProducing", producer=self._producer)
            self.pauseProducing()
            self._failed()
