"""Layer 4: the block caches of one host: one for each tenant, opened when needed and shared.

A session that cannot have its tenant's cache on disk works with a small one in memory: that costs
bytes on the line and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from cloudconnect.accelerator.room import Room, cache_folder
from cloudconnect.cache.blocks import BlockCache
from cloudconnect.cache.keys import NodeKey
from cloudconnect.dedup.interfaces import IBlockCache
from cloudconnect.dedup.memory import MemoryCache
from cloudconnect.errors import UsageError

#: Bytes of a cache in memory, in the place of one on disk.
MEMORY_SIZE: Final = 64 << 20
#: Caches on disk that are open at the same time: each is some 20 MiB of memory and 70 descriptors.
OPEN_MAX: Final = 32
#: Seconds that a cache stays open after its last user: a backup is often followed by another one.
KEEP_SECONDS: Final = 60.0


@attrs.define(eq=False)
class _Entry:
    """A tenant's cache while it is open or about to be.

    :ivar lock: held while it is being opened or closed
    :ivar users: leases that were not released, and those who wait for one
    :ivar cache: it, or None while it is not open
    :ivar disk: the same, where it is on disk
    """

    tenant: str
    lock: DeferredLock = attrs.field(factory=DeferredLock)
    users: int = 0
    cache: IBlockCache | None = None
    disk: BlockCache | None = None
    trouble: str | None = None
    timer: IDelayedCall | None = None


class CacheLease:
    """The use of a tenant's cache by one session.

    :ivar cache: the cache; exchanges that use it are closed before :meth:`release`
    """

    def __init__(self, owner: TenantCaches, entry: _Entry) -> None:
        assert entry.cache is not None
        self.cache: IBlockCache = entry.cache
        self._disk, self._trouble = entry.disk, entry.trouble
        self._owner: TenantCaches | None = owner
        self._entry = entry

    @property
    def trouble(self) -> str | None:
        """Why it is not the one on disk, or takes nothing more; may name a folder of this host."""
        return self._trouble or (None if self._disk is None else self._disk.trouble)

    @property
    def limit(self) -> int:
        """Bytes that the cache may take on disk; 0 where it is in memory only."""
        return 0 if self._disk is None else self._disk.limit

    def release(self) -> None:
        """Use it no more; may be called again."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.released(self._entry)


class TenantCaches:
    """The caches below one directory.

    :param reactor: clock and threads
    :param pool: where files are opened and closed; it must not stop before :meth:`close` is done
    :param directory: holds a folder for each tenant; is made, with mode 0700, when it is missing
    :param node: the host's key, kept elsewhere
    :param limit: bytes that one tenant's cache may take
    :param total: bytes that all of them may take, or None (:class:`~.room.Room`)
    :param keep: seconds that a cache stays open after its last user
    :param open_max: caches that may be open on disk at the same time
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        pool: ThreadPool,
        directory: Path,
        node: NodeKey,
        limit: int,
        total: int | None = None,
        keep: float = KEEP_SECONDS,
        open_max: int = OPEN_MAX,
    ) -> None:
        self._reactor = reactor
        self._pool = pool
        self._directory = directory
        self._node = node
        self._room = Room(directory, limit, total)
        self._keep = keep
        self._open_max = open_max
        self._entries: dict[str, _Entry] = {}  # the one that was leased last at the end
        self._closed = False

    @property
    def open(self) -> int:
        """Caches on disk that are open."""
        return sum(entry.disk is not None for entry in self._entries.values())

    def lease(self, tenant: str) -> Deferred[CacheLease]:
        """The cache of ``tenant``; always one, if need be in memory.

        Opening one may take a while, where its index has to be made again.

        :param tenant: the tenant's name
        """
        return Deferred.fromCoroutine(self._lease(tenant))

    def close(self) -> Deferred[None]:
        """Close all; every lease was released before. There are only caches in memory after it."""
        return Deferred.fromCoroutine(self._close_all())

    def released(self, entry: _Entry) -> None:
        """Called by a lease, once."""
        entry.users -= 1
        if entry.users:
            return
        if entry.disk is None or self._keep <= 0 or self._closed:
            self._close_soon(entry)
        else:
            entry.timer = self._reactor.callLater(self._keep, self._close_soon, entry)

    # --- opening ----------------------------------------------------------------------------------

    async def _lease(self, tenant: str) -> CacheLease:
        entry = self._entries.pop(tenant, None) or _Entry(tenant)
        self._entries[tenant] = entry
        entry.users += 1
        self._stop_timer(entry)
        await entry.lock.acquire()
        try:
            if entry.cache is None:
                await self._open(entry)
            return CacheLease(self, entry)
        finally:
            entry.lock.release()

    async def _open(self, entry: _Entry) -> None:
        """Open one, on disk or else in memory; its lock is held."""
        try:
            await self._close_spare(entry)
            entry.cache = entry.disk = await self._in_pool(self._open_on_disk, entry.tenant)
            entry.trouble = None
        except (UsageError, OSError) as error:
            entry.trouble = str(error)
            self._log.warn("a block cache is in memory only: {reason}", reason=entry.trouble)
        except Exception as error:  # a bug costs bytes, and not the session
            entry.trouble = type(error).__name__
            self._log.failure("a block cache cannot be opened")
        if entry.cache is None:
            entry.cache = MemoryCache(MEMORY_SIZE)

    async def _close_spare(self, wanted: _Entry) -> None:
        """Close caches that nobody uses until one more may be open.

        :raises UsageError: all are in use, or all are closed for good
        """
        if self._closed:
            raise UsageError("the block caches are closed")
        while self._taken(wanted) >= self._open_max:
            spare = [one for one in self._entries.values() if not one.users]
            if not spare:
                raise UsageError(f"{self._open_max} block caches are in use")
            await self._close(spare[0])

    def _taken(self, wanted: _Entry) -> int:
        """Caches on disk that are open, are being opened or are being closed, but for one."""
        others = (one for one in self._entries.values() if one is not wanted)
        return sum(one.disk is not None or one.lock.locked for one in others)

    def _open_on_disk(self, tenant: str) -> BlockCache:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = cache_folder(self._directory, tenant)
        limit = self._room.grant(folder)
        try:
            return BlockCache(folder, tenant, self._node, limit)
        except BaseException:
            self._room.give_back(folder)
            raise

    # --- closing ----------------------------------------------------------------------------------

    def _close_soon(self, entry: _Entry) -> None:
        self._stop_timer(entry)
        closing = Deferred.fromCoroutine(self._close(entry))
        closing.addErrback(lambda failure: self._log.failure("a cache cannot be closed", failure))

    async def _close(self, entry: _Entry) -> None:
        """Close one, unless somebody uses it or has come for it."""
        await entry.lock.acquire()
        try:
            if not entry.users:
                self._stop_timer(entry)
                disk, entry.cache = entry.disk, None
                try:
                    if disk is not None:
                        await self._in_pool(self._close_on_disk, entry.tenant, disk)
                finally:
                    entry.disk = None
        finally:
            if not entry.users and self._entries.get(entry.tenant) is entry:
                del self._entries[entry.tenant]
            entry.lock.release()

    def _close_on_disk(self, tenant: str, cache: BlockCache) -> None:
        try:
            cache.close()
        finally:
            self._room.give_back(cache_folder(self._directory, tenant))

    async def _close_all(self) -> None:
        self._closed = True
        for entry in list(self._entries.values()):
            try:
                await self._close(entry)
            except Exception:  # whoever closes all has more to end
                self._log.failure("a cache cannot be closed")

    def _stop_timer(self, entry: _Entry) -> None:
        timer, entry.timer = entry.timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _in_pool(self, call: Any, *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._pool, call, *arguments)
