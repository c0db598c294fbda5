"""Layer 2, transports: a port as a service.

Source: Twisted's ``IStreamServerEndpoint`` and ``IService``.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger


class Listener(Service):
    """Listens while the provider runs, and says so when it cannot.

    :param endpoint: where
    :param factory: what answers
    :param name: what the log calls it
    """

    _log = Logger()

    def __init__(self, endpoint: IStreamServerEndpoint, factory: Factory, name: str) -> None:
        self._endpoint = endpoint
        self._factory = factory
        #: What the log calls it.
        self.label = name
        self._port: IListeningPort | None = None

    def listen(self) -> Deferred[IListeningPort]:
        """Begin; fires with the port."""

        def listening(port: IListeningPort) -> IListeningPort:
            self._port = port
            self._log.info("{name} listens on {where}", name=self.label, where=port.getHost())
            return port

        return self._endpoint.listen(self._factory).addCallback(listening)

    def stopService(self) -> Deferred[Any] | None:
        """Accept no more."""
        super().stopService()  # type: ignore[no-untyped-call]
        port, self._port = self._port, None
        if port is None:
            return None
        stopped: Deferred[Any] | None = port.stopListening()
        return stopped
