"""Layer 4: seeding a WAN accelerator's cache from a repository, both in this process.

The mover has the repository and the accelerator has the cache; neither knows the other. The
accelerator lends its cache to work that it knows nothing of (:data:`FillCache`), and this is the
work: :func:`cloudconnect.repository.seeding.seed_from_repository`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from cloudconnect.dedup.interfaces import IBlockCache
from cloudconnect.dedup.seeding import SHARE
from cloudconnect.errors import UsageError
from cloudconnect.provider.data_mover.acts import RepositoryActs
from cloudconnect.provider.data_mover.key_folder import KeyFolder
from cloudconnect.repository.seeding import seed_from_repository

#: Work on a cache, in a thread: takes it, the bytes that it may take, and what says when to stop.
CacheWork = Callable[[IBlockCache, int, Callable[[], bool]], dict[str, Any]]
#: Has the accelerator of this process do such work on a tenant's cache.
FillCache = Callable[[str, CacheWork], Deferred[dict[str, Any]]]


def seed_cache(
    fill: FillCache,
    acts: RepositoryActs,
    keys: KeyFolder,
    repository: bytes,
    tenant: str,
    host: str = "",
    job: str = "",
    limit: int = 0,
) -> Deferred[dict[str, Any]]:
    """Seed a tenant's cache from its repository; fires with the counts, and the ``limit``.

    :param host: only points of this host, where it is not empty
    :param job: only points of this job, likewise
    :param limit: bytes after which nothing more is added; 0 for
        :data:`~cloudconnect.dedup.seeding.SHARE` of the cache
    :raises UsageError: (from the deferred) the limit is more than the cache may take
    :raises Refused: (from the deferred) the chunks cannot be read here
    """

    def work(cache: IBlockCache, size: int, stopping: Callable[[], bool]) -> dict[str, Any]:
        if limit > size:
            raise UsageError(
                f"a limit of {limit} bytes is more than the cache may take ({size}): seed less, or "
                "make it larger (wan_cache_gb in provider.toml)"
            )
        most = limit or int(size * SHARE)
        with acts.open(repository) as opened:
            result = seed_from_repository(
                cache,
                opened,
                keys.keys(opened),
                host or None,
                job or None,
                most,
                cancelled=stopping,
            )
        return {**attrs.asdict(result), "limit": most, "cache": cache.size}

    return fill(tenant, work)
