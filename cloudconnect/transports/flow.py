"""Layer 2, transports: what a layer puts between its producers and consumers.

A layer is a consumer for the protocol above it and a producer for the transport below it. The
names of Twisted's two producer interfaces are the same in both directions, so the side that looks
down is an object of its own here: :class:`WriteGate`. What keeps the producer of the protocol above
is a :class:`ProducerSlot`; :class:`PullAdapter` makes a push producer of a pull producer, on the
clock that it is given.

Source: Twisted's ``IPushProducer``, ``IPullProducer`` and ``IConsumer``;
``docs/howto/wrapper.rst``, items 5 and 9.
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


class ProducerSlot:
    """A consumer's one producer, which is paused and resumed only when that changes.

    :param clock: asks pull producers
    :param failed: the consumer's ``unregisterProducer``, for a pull producer that raises
    """

    def __init__(self, clock: IReactorTime, failed: Callable[[], None]) -> None:
        self._clock = clock
        self._failed = failed
        self._producer: Any = None
        self._paused = False

    @property
    def registered(self) -> bool:
        """Whether there is a producer."""
        return self._producer is not None

    def register(self, producer: Any, streaming: bool, gone: bool) -> bool:
        """Take ``producer``, or stop it at once when the consumer is ``gone``.

        :param streaming: True for a push producer, False for a pull producer
        :returns: whether it was taken; :meth:`pause` is then to be called with what holds now
        :raises RuntimeError: there is one already
        """
        if self._producer is not None:
            raise RuntimeError("a producer is registered already")
        if gone:
            producer.stopProducing()
            return False
        self._paused = not streaming
        self._producer = producer if streaming else PullAdapter(producer, self._failed, self._clock)
        return True

    def unregister(self) -> None:
        """Forget the producer."""
        producer, self._producer = self._producer, None
        if isinstance(producer, PullAdapter):
            producer.pauseProducing()

    def pause(self, paused: bool) -> None:
        """Pause the producer, or resume it.

        :param paused: whether it may not write now
        """
        if self._producer is not None and paused != self._paused:
            self._paused = paused
            if paused:
                self._producer.pauseProducing()
            else:
                self._producer.resumeProducing()

    def stop(self) -> None:
        """Stop the producer and forget it."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
