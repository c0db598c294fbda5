"""Layer 4: the ways between the roles of one provider's process, and into it from gateways."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
)

from cloudconnect.interfaces import IRelayTarget
from cloudconnect.provider.data_mover.mover import TargetDataMover
from cloudconnect.provider.gateway.relay import PROXY_LOCAL
from cloudconnect.provider.service.planning import HERE
from cloudconnect.sessions.acceptance import RoleTarget
from cloudconnect.sessions.role import TargetRole
from cloudconnect.settings import CONNECT_SECONDS
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.memory import MemoryEndpoint
from cloudconnect.transports.switch import FirstBytesFactory, SayingEndpoint


def here_to(reactor: Any, mover: TargetDataMover) -> IStreamClientEndpoint:
    """The way from an accelerator to the mover in the same process, in memory."""
    endpoint, target = MemoryEndpoint(reactor, "the target data mover"), RoleTarget(mover)
    endpoint.listen(
        FirstBytesFactory(lambda route: target if mover.by_route(route) else None, None, reactor)
    )
    return endpoint


def backend_factory(
    reactor: Any, roles: Iterable[TargetRole], service: IRelayTarget
) -> FirstBytesFactory:
    """What answers gateways that have relayed a connection to this process: they have bounded and
    shaped it, and the roles know their routes themselves."""
    there = list(roles)
    target = RoleTarget(*there)

    def lookup(route: bytes) -> IRelayTarget | None:
        return target if any(role.by_route(route) is not None for role in there) else None

    return FirstBytesFactory(lookup, service, reactor)


def dial_from(
    reactor: Any, backend_address: str, mover: TargetDataMover | None
) -> Callable[[str], IStreamClientEndpoint]:
    """How an accelerator in this process reaches the movers: that of this process in memory.

    :param backend_address: ``HOST:PORT`` of this process as others connect to it
    :param mover: of this process, or None
    """
    here = None if mover is None else here_to(reactor, mover)

    def dial(backend: str) -> IStreamClientEndpoint:
        if here is not None and backend in (HERE, backend_address):
            return here
        host, port = split_host_port(backend)
        way = HostnameEndpoint(reactor, host, port, CONNECT_SECONDS)
        return SayingEndpoint(way, PROXY_LOCAL)

    return dial
