"""Layer 5: the metrics that every process of ours has, whatever its roles."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector


def process_registry(roles: Iterable[str]) -> CollectorRegistry:
    """A registry with the process's own numbers (CPU, memory, open files), release and roles.

    :param roles: such as ``gateway`` and ``service``
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Gauge(
        "cloudconnect_build_info", "The release that runs here.", ["version"], registry=registry
    )
    build.labels(version=_release()).set(1)
    up = Gauge("cloudconnect_role_up", "Roles of this process.", ["role"], registry=registry)
    for role in roles:
        up.labels(role=role).set(1)
    return registry


def _release() -> str:
    try:
        return version("cloudconnect")
    except PackageNotFoundError:
        return "unknown"
