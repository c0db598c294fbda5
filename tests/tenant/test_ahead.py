"""Tests of :mod:`cloudconnect.tenant.ahead`: connections before they are needed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cloudconnect.errors import NotReachable
from cloudconnect.tenant.ahead import ConnectedAhead
from cloudconnect.testing import Recorder
from cloudconnect.transports.memory import MemoryEndpoint


class AheadTests(SynchronousTestCase):
    """An endpoint that has connected already."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = MemoryEndpoint(self.clock, "server")
        self.accepted: list[Recorder] = []
        self.endpoint.listen(Factory.forProtocol(self.accept))
        self.client = Recorder()

    def accept(self) -> Recorder:
        self.accepted.append(Recorder())
        return self.accepted[-1]

    def wanted(self, ahead: ConnectedAhead) -> Deferred[Any]:
        return ahead.connect(Factory.forProtocol(lambda: self.client))

    def test_interface(self) -> None:
        """It is an endpoint."""
        verifyObject(IStreamClientEndpoint, ConnectedAhead(self.endpoint))

    def test_at_once(self) -> None:
        """The connection is there before anybody asks, and says nothing of itself."""
        ConnectedAhead(self.endpoint)
        self.clock.advance(1)
        self.assertEqual([b""], [bytes(made.data) for made in self.accepted])

    def test_given(self) -> None:
        """Who asks gets it, and it works both ways."""
        self.client.greeting = b"hello"
        ahead = ConnectedAhead(self.endpoint)
        self.clock.advance(1)
        self.assertIs(self.client, self.successResultOf(self.wanted(ahead)))
        self.clock.advance(0)
        self.accepted[0].transport.write(b"welcome")
        self.clock.advance(0)
        self.assertEqual(b"hello", bytes(self.accepted[0].data))
        self.assertEqual((b"welcome", 1), (bytes(self.client.data), len(self.accepted)))

    def test_once(self) -> None:
        """It is given away once."""
        ahead = ConnectedAhead(self.endpoint)
        self.successResultOf(self.wanted(ahead))
        self.failureResultOf(self.wanted(ahead), NotReachable)

    def test_closed_meanwhile(self) -> None:
        """One that the other side has closed meanwhile is opened again."""
        ahead = ConnectedAhead(self.endpoint)
        self.accepted[0].transport.loseConnection()
        self.clock.advance(0)
        self.successResultOf(self.wanted(ahead))
        self.assertEqual(2, len(self.accepted))

    def test_not_there(self) -> None:
        """Who asks hears that the connection could not be made, and nobody else does."""
        self.endpoint.stopListening()
        self.failureResultOf(self.wanted(ConnectedAhead(self.endpoint)), ConnectionRefusedError)
        ConnectedAhead(self.endpoint).close()
        self.assertEqual([], self.flushLoggedErrors())

    def test_not_wanted(self) -> None:
        """A factory that refuses closes it."""

        class Refusing(Factory):
            def buildProtocol(self, addr: Any) -> None:
                return None

        self.failureResultOf(ConnectedAhead(self.endpoint).connect(Refusing()), NotReachable)
        self.clock.advance(0)
        self.assertEqual(1, self.accepted[0].losses)

    def test_close(self) -> None:
        """Unused it is closed; used, it stays."""
        unused, used = ConnectedAhead(self.endpoint), ConnectedAhead(self.endpoint)
        self.successResultOf(self.wanted(used))
        for ahead in (unused, used):
            ahead.close()
            ahead.close()
        self.clock.advance(0)
        self.assertEqual([1, 0], [made.losses for made in self.accepted])

    def test_given_up(self) -> None:
        """Connecting that is under way is given up."""
        cancelled: list[Any] = []

        class Slow:
            def connect(self, factory: Any) -> Deferred[Any]:
                return Deferred(cancelled.append)

        ConnectedAhead(Slow()).close()  # type: ignore[arg-type]
        self.assertEqual(1, len(cancelled))
