"""Layer 4: a WAN accelerator of the tenant's that several of its machines share.

It is a process of its own. For each session the job manager opens a LAN line to it, and drops the
one before: what an accelerator that was started anew has forgotten is not asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.protocols.amp import CommandLocator

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.errors import HandshakeTimeout, NoAccelerator, NotReachable
from cloudconnect.tenant.accelerated import OwnAccelerator
from cloudconnect.transports.endpoints import connect_protocol, wrap_client_endpoint
from cloudconnect.transports.tls import MutualTLS


class SharedAccelerator:
    """An accelerator of its own process, as a job manager knows it.

    :param reactor: clock and connections
    :param endpoint: where it takes both lines and streams
    :param tls: how the two know each other
    :param reports: what it reports to
    :param address: what an error calls it
    :param cache: as :class:`OwnAccelerator` has it
    :param streams: likewise
    :param renew: renews what is due of ``tls`` before the first line; it raises nothing
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        tls: MutualTLS,
        reports: CommandLocator,
        address: str,
        cache: bytes,
        streams: int,
        renew: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._tls = tls
        self._reports = reports
        self._address = address
        self._cache = cache
        self._streams = streams
        self._renew = renew
        self._link: BoundedAMP | None = None

    async def ready(self) -> OwnAccelerator:
        """A new line to it, for one session.

        :raises NoAccelerator: it is not there
        :raises ProviderNotTrusted: something else is
        """
        self.close()
        renew, self._renew = self._renew, None
        if renew is not None:
            await renew()
        link = BoundedAMP(self._reactor, locator=self._reports)
        lines = wrap_client_endpoint(self._tls, self._endpoint, self._reactor)
        try:
            await connect_protocol(lines, link)
        except (ConnectError, DNSLookupError, NotReachable, HandshakeTimeout) as error:
            why = str(error).rstrip(".")
            raise NoAccelerator(
                f"your own WAN accelerator at {self._address} is not reachable: {why}"
            ) from None
        self._link = link
        return OwnAccelerator(link, self._endpoint, self._cache, self._streams, here=False)

    def close(self) -> None:
        """Close the line, where there is one."""
        link, self._link = self._link, None
        if link is not None and link.transport is not None:
            link.transport.loseConnection()
