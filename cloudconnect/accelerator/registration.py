"""Layer 4: how a target WAN accelerator of its own process is known to the service."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint

from cloudconnect.accelerator.target import TargetAccelerator
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.lan import RegisterAccelerator
from cloudconnect.commands.registering import Registration


class AcceleratorRegistration(Registration):
    """Keeps a separate accelerator registered with the service.

    :param accelerator: it answers the service on the line, and reports there
    :param backend: ``HOST:PORT`` that gateways relay its connections to
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        accelerator: TargetAccelerator,
        backend: str,
    ) -> None:
        super().__init__(reactor, endpoint, accelerator)
        self._accelerator = accelerator
        self._backend = backend

    async def register(self, line: BoundedAMP) -> str:
        """Say where gateways reach it."""
        self._accelerator.link = line
        await line.call(RegisterAccelerator, backend=self._backend)
        return f"as back end {self._backend}"

    def lost(self) -> None:
        """End every session."""
        self._accelerator.link_lost()
