"""Layer 4: a service that looks at something at its start, and again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall


class Looking(Service):
    """Looks every so often; one look begins when the one before is over.

    :param reactor: clock
    :param seconds: from one look to the next
    :param look: looks; it raises nothing
    """

    def __init__(self, reactor: Any, seconds: float, look: Callable[[], Any]) -> None:
        self._seconds = seconds
        self._look_once = look
        self._loop = LoopingCall(self._begin)
        self._loop.clock = reactor
        self._looking: Deferred[Any] | None = None

    def startService(self) -> None:
        """Look now, and again and again."""
        super().startService()  # type: ignore[no-untyped-call]
        self._loop.start(self._seconds)

    def stopService(self) -> Any:
        """Look no more; what a look waits for is given up."""
        if self._loop.running:
            self._loop.stop()
        if self._looking is not None:
            self._looking.cancel()
        return maybeDeferred(super().stopService)

    def _begin(self) -> Deferred[Any]:
        self._looking = maybeDeferred(self._look_once)
        return self._looking
