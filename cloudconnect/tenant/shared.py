"""Layer 4: a WAN accelerator of the tenant's that several of its machines share.

It is a process of its own. For each session the job manager opens a LAN line to it, and drops the
one before: what an accelerator that was started anew has forgotten is not asked for.

Several commands of one machine share its certificate, and one of them may renew it at any moment:
then what lies in the folder is of two minds for an instant, and a line that has shown the old one
is refused. So the files are read for each line, and where they cannot be used, or the line is not
let in, they are read again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.protocols.amp import CommandLocator

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.errors import (
    HandshakeTimeout,
    NoAccelerator,
    NotReachable,
    ProtocolViolation,
    Refused,
    UsageError,
)
from cloudconnect.tenant.accelerated import OwnAccelerator
from cloudconnect.transports.endpoints import connect_protocol, wrap_client_endpoint
from cloudconnect.transports.tls import MutualTLS

#: So often, and so many seconds apart, a line is tried with what lies in the folder then: another
#: command that renews the certificate there needs some milliseconds.
TRIES: Final = 3
PAUSE_SECONDS: Final = 0.3


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
        """A new line to it, for one session, on which this machine is let in.

        :raises NoAccelerator: it is not there
        :raises ProviderNotTrusted: something else is
        :raises NotReachable: it does not let this machine in
        :raises Refused: likewise
        :raises UsageError: this machine's certificate cannot be used
        """
        self.close()
        renew, self._renew = self._renew, None
        if renew is not None:
            await renew()
        tries = 1
        while True:
            try:
                link = await self._line()
                break
            except NoAccelerator:
                raise
            except (NotReachable, Refused, UsageError):
                if tries == TRIES:
                    raise
                tries += 1
            await deferLater(self._reactor, PAUSE_SECONDS)
        self._link = link
        return OwnAccelerator(
            link, self._endpoint, self._cache, self._streams, here=False, again=self.ready
        )

    async def _line(self) -> BoundedAMP:
        from cloudconnect.commands.renewing import ShowNode  # with what few need

        link = BoundedAMP(self._reactor, locator=self._reports)
        lines = wrap_client_endpoint(self._tls, self._endpoint, self._reactor)
        try:
            await connect_protocol(lines, link)
        except (ConnectError, DNSLookupError, NotReachable, HandshakeTimeout) as error:
            why = str(error).rstrip(".")
            raise NoAccelerator(
                f"your own WAN accelerator at {self._address} is not reachable: {why}"
            ) from None
        try:
            with contextlib.suppress(ProtocolViolation):  # of an older release, which knows no such
                await link.call(ShowNode)
        except BaseException:
            if link.transport is not None:
                link.transport.loseConnection()
            raise
        return link

    def close(self) -> None:
        """Close the line, where there is one."""
        link, self._link = self._link, None
        if link is not None and link.transport is not None:
            link.transport.loseConnection()
