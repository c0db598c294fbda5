"""Tests of :mod:`cloudconnect.transports.listening`: a port as a service."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import CannotListenError, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.transports.listening import Listener
from cloudconnect.transports.memory import MemoryEndpoint


class ListenerTests(SynchronousTestCase):
    """It listens from when it is told to until it is stopped."""

    def setUp(self) -> None:
        self.endpoint = MemoryEndpoint(Clock(), "place")
        self.listener = Listener(self.endpoint, Factory.forProtocol(Protocol), "a place")

    def test_listens(self) -> None:
        """It tells the port, takes connections, and takes none once it is stopped."""
        port = self.successResultOf(self.listener.listen())
        self.assertEqual("place", port.getHost().name)
        self.listener.startService()
        self.successResultOf(connectProtocol(self.endpoint, Protocol()))
        stopped = self.listener.stopService()
        assert stopped is not None
        self.successResultOf(stopped)
        self.failureResultOf(connectProtocol(self.endpoint, Protocol()), ConnectionRefusedError)

    def test_never_listened(self) -> None:
        """It may be stopped without having listened."""
        self.listener.startService()
        self.assertIsNone(self.listener.stopService())

    def test_taken(self) -> None:
        """Who began it hears that the place is taken."""
        error = CannotListenError("", 1, OSError("taken"))
        self.endpoint.listen = lambda factory: fail(error)  # type: ignore[method-assign]
        listening: Deferred[object] = self.listener.listen()
        self.assertIs(error, self.failureResultOf(listening, CannotListenError).value)
