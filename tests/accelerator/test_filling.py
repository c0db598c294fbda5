"""Tests of :meth:`cloudconnect.accelerator.target.TargetAccelerator.fill`: work on a cache."""

# mypy: allow-untyped-calls
# (trial's methods have no types)

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.trial.unittest import TestCase

from cloudconnect.accelerator.caches import TenantCaches
from cloudconnect.accelerator.room import DISK_MIN, cache_folder
from cloudconnect.accelerator.target import TargetAccelerator
from cloudconnect.cache.keys import NodeKey
from cloudconnect.cache.opening import hold
from cloudconnect.errors import Cancelled, Refused

NODE = NodeKey(bytes(range(32)))


class FillTests(TestCase):
    """An accelerator that lends its caches."""

    timeout = 60

    def setUp(self) -> None:
        self.top = Path(self.mktemp()).resolve()
        self.accelerator = TargetAccelerator(
            reactor,
            lambda pool: TenantCaches(reactor, pool, self.top, NODE, DISK_MIN),
            lambda backend: None,  # type: ignore[arg-type, return-value]
        )
        self.accelerator.startService()

    def tearDown(self) -> Any:
        if self.accelerator.running:
            return maybeDeferred(self.accelerator.stopService)
        return None

    @inlineCallbacks
    def test_fill(self) -> Any:
        """The work gets the tenant's own cache, what it may take, and a thread; what it has put
        there is there afterwards, and only for this tenant."""
        threads: list[bool] = []

        def put(cache: Any, limit: int, stopping: Any) -> int:
            threads.append(threading.current_thread() is threading.main_thread())
            appender = cache.appender()
            appender.append(b"n" * 32, b"d" * 1000)
            appender.close()
            return limit

        limit = yield self.accelerator.fill("acme", put)
        self.assertEqual((DISK_MIN, [False]), (limit, threads))
        for tenant, there in (("acme", True), ("other", False)):
            found = yield self.accelerator.fill(
                tenant, lambda cache, limit, stopping: cache.find(b"n" * 32) is not None
            )
            self.assertEqual(there, found)

    @inlineCallbacks
    def test_fails(self) -> Any:
        """What the work raises is told, and the next one has its turn."""

        def fail(cache: Any, limit: int, stopping: Any) -> None:
            raise Refused("not this one")

        yield self.assertFailure(self.accelerator.fill("acme", fail), Refused)
        done = yield self.accelerator.fill("acme", lambda cache, limit, stopping: "next")
        self.assertEqual("next", done)

    @inlineCallbacks
    def test_no_disk(self) -> Any:
        """A cache that somebody else has is not filled: one in memory would be gone at once."""
        folder = cache_folder(self.top, "acme")
        folder.mkdir(parents=True)
        held = hold(folder / "lock")
        self.addCleanup(os.close, held)
        called: list[object] = []
        filling = self.accelerator.fill("acme", lambda *values: called.append(values))
        error = yield self.assertFailure(filling, Refused)
        self.assertIn("another process", str(error))
        self.assertEqual([], called)

    @inlineCallbacks
    def test_stop(self) -> Any:
        """When the accelerator stops, work is told to; what waits does not begin, and all caches
        are closed."""
        begun: Deferred[None] = Deferred()
        told = threading.Event()

        def work(cache: Any, limit: int, stopping: Any) -> None:
            self.accelerator.reactor.callFromThread(begun.callback, None)
            told.wait(50)
            if stopping():
                raise Cancelled("stopped")

        filling = self.accelerator.fill("acme", work)
        waiting = self.accelerator.fill("other", lambda cache, limit, stopping: "done")
        yield begun
        stopped = maybeDeferred(self.accelerator.stopService)
        told.set()
        yield self.assertFailure(filling, Cancelled)
        yield self.assertFailure(waiting, Refused)
        yield stopped
        os.close(hold(cache_folder(self.top, "acme") / "lock"))
