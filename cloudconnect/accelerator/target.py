"""Layer 4: the target WAN accelerator, at the provider: serves many tenants' sources at once.

It is offered sessions with a Key A of its own and takes Key B through a tunnel of its own
(:mod:`cloudconnect.sessions`); it never gets the integrity key. A session's connections from the
source accelerator come in through a gateway; one goes on to the target data mover.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from cloudconnect.accelerator.caches import TenantCaches
from cloudconnect.accelerator.passage import MANY, Passage, hop_endpoint, workers
from cloudconnect.commands.control import Role
from cloudconnect.dedup.interfaces import IBlockCache
from cloudconnect.errors import Aborted, CloudConnectError, Refused, SecurityError, Truncated
from cloudconnect.sessions.role import RoleSession, TargetRole

_T = TypeVar("_T")


class TargetAccelerator(TargetRole):
    """Serves sessions between source accelerators and the target data mover.

    :param reactor: clock, connections and threads
    :param caches: makes the caches of the tenants, with the pool in which everything works
    :param dial: makes the endpoint of what the service calls a mover's place; raises a
        :class:`~cloudconnect.errors.CloudConnectError` where there is no way to it
    """

    _log = Logger()
    role = Role.TARGET_WAN.value
    holds_integrity_key = False

    def __init__(
        self,
        reactor: Any,
        caches: Callable[[ThreadPool], TenantCaches],
        dial: Callable[[str], IStreamClientEndpoint],
    ) -> None:
        super().__init__(reactor)
        self._pool = ThreadPool(0, workers(), "accelerator")
        self._caches = caches(self._pool)
        self._dial = dial
        self._passages: dict[bytes, Passage] = {}
        self._filling = DeferredLock()
        self._filler = ThreadPool(0, 1, "filling a block cache")
        self._stopping = threading.Event()

    def startService(self) -> None:
        """Start the worker threads."""
        Service.startService(self)
        self._pool.start()
        self._filler.start()

    def stopService(self) -> Deferred[Any]:
        """End every session and what fills a cache, then the threads."""
        Service.stopService(self)
        self._stopping.set()
        ending = self.end_all(Aborted("the provider is stopping"))
        ended = DeferredList([*ending, self._filling.acquire()])
        return ended.addCallback(lambda _: self._caches.close()).addCallback(self._stopped)

    def _stopped(self, _: object) -> None:
        self.drop_all()
        for pool in (self._pool, self._filler):
            pool.stop()
        self._filling.release()

    def fill(
        self, tenant: str, work: Callable[[IBlockCache, int, Callable[[], bool]], _T]
    ) -> Deferred[_T]:
        """Have ``work`` put blocks into a tenant's cache, in a thread of its own, one after the
        other; fires with what it returns. Sessions use the cache meanwhile.

        :param work: takes the cache, the bytes that it may take, and what says whether to stop
        :raises Refused: (from the deferred) it has no cache on disk
        """
        return self._filling.run(lambda: Deferred.fromCoroutine(self._fill(tenant, work)))

    async def _fill(
        self, tenant: str, work: Callable[[IBlockCache, int, Callable[[], bool]], _T]
    ) -> _T:
        if self._stopping.is_set():
            raise Refused("the WAN accelerator is stopping")
        lease = await self._caches.lease(tenant)
        try:
            if lease.trouble is not None:
                raise Refused(f"tenant {tenant} has no block cache on disk: {lease.trouble}")
            return await deferToThreadPool(
                self.reactor, self._filler, work, lease.cache, lease.limit, self._stopping.is_set
            )
        finally:
            lease.release()

    def link_lost(self) -> None:
        """The service is not there any more: what this role saw could not be told. All ends."""
        self.link = None
        self.end_all(Truncated("the accelerator has lost its line to the service"))

    async def prepare(self, session: RoleSession) -> None:
        """Open the tenant's cache, so that streams find everything ready."""
        package = session.package
        lease = await self._caches.lease(package.tenant)
        if session.core.key_b is None:  # it has ended meanwhile
            lease.release()
            raise Truncated("the session has ended")
        many = len(self._passages) >= MANY
        passage = Passage(self.reactor, self._pool, lease, package.streams, many)
        self._passages[package.session] = passage
        session.running.append(passage)
        session.workers.append(passage.ended.addCallback(partial(self._ended, session, passage)))
        if lease.trouble is not None:
            self.report(session, "wan_cache", f"no block cache on disk: {lease.trouble}")

    def stream_up(self, session: RoleSession, stream: Any) -> None:
        """A connection of the source accelerator; with the first one, go on to the mover."""
        passage = self._passages.get(session.package.session)
        if passage is None:  # Key B was not confirmed yet, or all of it is over
            stream.abortConnection()
            return
        if not passage.began:
            passage.began = True
            dialled = Deferred.fromCoroutine(self._reach_mover(session, passage))
            dialled.addErrback(lambda f: self._log.failure("bug in reaching the mover", f))
        passage.add(stream)
        self._forget_if_up(session, passage)

    async def _reach_mover(self, session: RoleSession, passage: Passage) -> None:
        package, key_b = session.package, session.core.key_b
        assert key_b is not None, "a session that streams has Key B until all of it is up"
        try:
            below = self._dial(package.next_backend)
        except CloudConnectError as error:
            passage.fail(error, "near")
            return
        endpoint = hop_endpoint(
            self.reactor,
            below,
            key_b,
            route=package.next_route,
            session=package.session,
            tenant=package.tenant,
            hop=package.hops[1],
        )
        if await passage.reach_mover(endpoint):
            self._forget_if_up(session, passage)

    def _forget_if_up(self, session: RoleSession, passage: Passage) -> None:
        if passage.complete and session.core.key_b is not None:
            self.forget_key_b(session)

    def _ended(self, session: RoleSession, passage: Passage, outcome: Any) -> None:
        """The passage is over, and its cache is free."""
        error, where = outcome
        self._passages.pop(session.package.session, None)
        if error is None:
            counts = passage.counts()
            self.report(
                session,
                "wan_done",
                f"accelerated: {counts['bytes_before']} bytes as {counts['bytes_after']} between "
                "the accelerators",
                **counts,
            )
            return
        hop = session.package.hops[1 if where == "near" else 0]
        if isinstance(error, SecurityError):
            self.failed(session, error, hop, 0)
        elif isinstance(error, Truncated) and where:
            self.warn(session, error, hop, 0)
        elif isinstance(error, CloudConnectError):
            self.report(session, "stream_failed", str(error), reason=error.reason)
        else:
            self.report(session, "stream_failed", "an internal error; see the accelerator's log")
        self.give_up(session)
