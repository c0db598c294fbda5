"""What the tests of the job manager share."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.provider.stage import StageCase, Tenant

#: A thread that works hands something over within this time, or it waits for the clock.
THREAD_SECONDS = 0.05
#: Something that takes longer than so many moments has hung.
MOMENTS_MAX = 10_000

STORY = [
    "connected",
    "certificate_checked",
    "logged_in",
    "started",
    "key_a_received",
    "tunnel_up",
    "key_b_made",
    "key_b_confirmed",
    "key_a_forgotten",
    "key_b_delivered",
    "key_b_forgotten",
    "stream_up",
]


class ManagerCase(StageCase):
    """A test with a tenant and a provider that can be made to lie."""

    def lying_start(self, change: Callable[[Any, list[Any], list[Any]], Any]) -> None:
        """Have the service answer Start with what ``change`` makes of it."""
        real = self.provider.service.starts.start

        async def start(*arguments: Any) -> Any:
            return change(*await real(*arguments))

        self.provider.service.starts.start = start  # type: ignore[method-assign]

    def handed(self, tenant: Tenant) -> list[bytes]:
        """The sessions whose keys our own mover was ever handed."""
        sessions: list[bytes] = []
        mover = tenant.manager._mover
        real = mover._handed

        class Told(dict):  # type: ignore[type-arg]
            def __setitem__(self, session: bytes, value: Any) -> None:
                sessions.append(session)
                super().__setitem__(session, value)

        mover._handed = Told(real)
        return sessions

    def come_to(self, waited: Deferred[Any]) -> Any:
        """What something comes to that needs threads and time: time goes by where no thread has
        anything to hand over."""
        results: list[Any] = []
        waited.addBoth(results.append)
        for _ in range(MOMENTS_MAX):
            self.reactor.settle()
            if results:
                break
            try:
                call = self.reactor._handed.get(timeout=THREAD_SECONDS)
            except Empty:
                self.reactor.advance(0.5)
            else:
                call()
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def cut(self) -> None:
        """The line breaks: every connection of a tenant's is gone."""
        for pair in self.pairs():
            pair.left.abortConnection()

    def states(self) -> list[str]:
        """How the provider says that sessions ended."""
        return [row["state"] for row in self.provider.accounts.sessions("", 0, 100)]

    def warning_kinds(self, tenant: Tenant) -> list[str]:
        return [warning.kind.value for warning in tenant.warnings]

    def pairs(self) -> list[Any]:
        """The open connections: control, tunnel, stream."""
        return [pair for pair in self.reactor.pairs if not pair.left.disconnected]
