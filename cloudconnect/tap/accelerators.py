"""Layer 6: the WAN accelerators of both sides, made from their settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from cloudconnect.accelerator.caches import TenantCaches
from cloudconnect.cache.keys import read_node_key
from cloudconnect.errors import UsageError

if TYPE_CHECKING:  # a tenant's command starts without the provider's modules
    from cloudconnect.accelerator.target import TargetAccelerator
    from cloudconnect.config.provider import ProviderSettings
    from cloudconnect.provider.data_mover.seeding import FillCache

GIB: Final = 1 << 30

_log = Logger()


def caches_in(
    reactor: Any, directory: Path, key: Path, limit: int, total: int
) -> Callable[[ThreadPool], TenantCaches]:
    """Makes the caches below ``directory`` once there is a pool for their files.

    :param key: file of the node key; it is made when it is missing
    :param limit: bytes that one cache may take
    :param total: bytes that all of them may take
    :raises UsageError: the node key cannot be used
    """
    node = read_node_key(key, make=True)
    return lambda pool: TenantCaches(reactor, pool, directory, node, limit, total)


def accelerator_of(
    reactor: Any, settings: ProviderSettings
) -> Callable[[Callable[[str], IStreamClientEndpoint]], tuple[TargetAccelerator, FillCache]] | None:
    """Makes the accelerator in a provider's process, and what fills its caches.

    :return: None where its admin wants none, or it cannot be: backups and restores go on without
    """
    from cloudconnect.accelerator.target import TargetAccelerator

    if not settings.wan_cache_gb or settings.read_only:
        return None
    try:
        caches = caches_in(
            reactor,
            settings.directory / settings.wan_caches,
            settings.node_key,
            settings.wan_cache_gb * GIB,
            settings.wan_caches_gb * GIB,
        )
    except UsageError as error:
        _log.warn("no WAN acceleration: {why}", why=str(error))
        return None

    def make(
        dial: Callable[[str], IStreamClientEndpoint],
    ) -> tuple[TargetAccelerator, FillCache]:
        accelerator = TargetAccelerator(reactor, caches, dial)
        return accelerator, accelerator.fill

    return make
