"""Layer 4: a thread that is the only one to use something, as a service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool


class OneThread(Service):
    """What is run in it is done one after the other.

    :param reactor: takes the results
    :param name: of the thread
    :param close: is called behind the last of it
    """

    def __init__(self, reactor: Any, name: str, close: Callable[[], object] = lambda: None) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, 1, name)
        self._close = close

    def startService(self) -> None:
        """Begin."""
        super().startService()  # type: ignore[no-untyped-call]
        self._pool.start()

    def stopService(self) -> None:
        """Finish what waits."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._pool.stop()
        self._close()

    def run(self, call: Callable[..., Any], *arguments: Any, **values: Any) -> Deferred[Any]:
        """Run ``call`` in the thread; fires with what it returns."""
        return deferToThreadPool(self._reactor, self._pool, call, *arguments, **values)
