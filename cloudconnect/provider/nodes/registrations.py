"""Layer 4: gateways and data movers of a process of their own keep registered with the service."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.protocols.amp import CommandLocator

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.gateways import Register
from cloudconnect.commands.lan import RegisterMover
from cloudconnect.commands.registering import Registration
from cloudconnect.settings import DEFAULT_POOL

if TYPE_CHECKING:
    from cloudconnect.provider.data_mover.mover import TargetDataMover


class MoverRegistration(Registration):
    """Keeps a separate data mover registered with the service.

    :param mover: it answers the service on the line, and reports there
    :param backend: ``HOST:PORT`` that gateways and accelerators reach it at
    :param storage: names the folder of its repositories, 16 bytes
    :param host: tells the host that it runs on from others
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        mover: TargetDataMover,
        backend: str,
        storage: bytes,
        host: str,
    ) -> None:
        super().__init__(reactor, endpoint, mover)
        self._mover = mover
        self._place = {"backend": backend, "storage": storage, "host": host}

    async def register(self, line: BoundedAMP) -> str:
        """Say where it is found, and what it has."""
        self._mover.link = line
        await line.call(RegisterMover, **self._place)  # type: ignore[arg-type]
        return f"as back end {self._place['backend']}"

    def lost(self) -> None:
        """End every session."""
        self._mover.link_lost()


class GatewayRegistration(Registration):
    """Keeps a separate gateway registered with the service.

    :param advertise: ``HOST:PORT`` that tenants can reach the gateway at, or empty
    :param registered: takes the back end of TLS connections, and the line, each time the line comes
        up
    :param pool: the tenants of which pool it is for
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        locator: CommandLocator,
        advertise: str,
        registered: Callable[[str, BoundedAMP], None],
        pool: str = DEFAULT_POOL,
    ) -> None:
        super().__init__(reactor, endpoint, locator)
        self._advertise = advertise
        self._registered = registered
        self._pool = pool
        self._line: BoundedAMP | None = None

    def change(self, advertise: str, pool: str) -> None:
        """From now on tenants reach it there, and it is for those of that pool; the service is told
        on the line that is up, or else when one is."""
        self._advertise, self._pool = advertise, pool
        if self._line is not None:
            telling = Deferred.fromCoroutine(self.register(self._line))
            telling.addErrback(
                lambda failure: self._log.warn(
                    "the service was not told of a change: {why}", why=failure.getErrorMessage()
                )
            )

    def lost(self) -> None:
        """The service is told on the next line."""
        self._line = None

    async def register(self, line: BoundedAMP) -> str:
        """Say where tenants reach it; hear where TLS connections go."""
        self._line = line
        answer = await line.call(Register, advertise=self._advertise, pool=self._pool)
        self._registered(answer["service"], line)
        return f"back end {answer['service']}"
