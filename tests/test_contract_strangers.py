"""The contract judges wrappers that owe nothing to this project's base class."""

# mypy: allow-untyped-calls
# (trial's and Twisted's methods have no types)

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IConsumer,
    ILoggingContext,
    IProtocol,
    IPushProducer,
    ITransport,
)
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from cloudconnect.testing import MemoryContract, TCPContract, UNIXContract
from tests.test_contract_finds import failing, item_of

CHANGED = bytes(octet ^ 0x55 for octet in range(256))


@implementer(ITransport, IConsumer, IPushProducer, IProtocol, ILoggingContext)
class Scrambler:
    """Changes every byte in the same way: no handshake, no cipher worth the name, and no end."""

    log = Logger()

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.transport: Any = None
        self.producer: Any = None
        self.own_reason: Failure | None = None
        self.disconnecting = False

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        self.guarded(self.protocol.makeConnection, self)

    def dataReceived(self, data: bytes) -> None:
        if self.own_reason is None:
            self.guarded(self.protocol.dataReceived, data.translate(CHANGED))

    def connectionLost(self, reason: Failure) -> None:
        self.protocol.connectionLost(self.own_reason or reason)

    def guarded(self, call: Any, argument: Any) -> None:
        try:
            call(argument)
        except Exception:
            self.log.failure("the protocol above raised")
            self.give_up(Failure())

    def write(self, data: bytes) -> None:
        self.writeSequence((data,))

    def writeSequence(self, data: Iterable[bytes]) -> None:
        parts = list(data)
        if not all(isinstance(part, bytes) for part in parts):
            raise TypeError("only bytes are written")
        octets = b"".join(parts).translate(CHANGED)
        if octets and self.own_reason is None and not (self.disconnecting and not self.producer):
            self.transport.write(octets)

    def loseConnection(self) -> None:
        self.disconnecting = True
        if self.producer is None:  # TCP itself waits for none that is not paused
            self.transport.loseConnection()

    def abortConnection(self) -> None:
        self.give_up(Failure(ConnectionAborted()))

    def give_up(self, reason: Failure) -> None:
        if self.own_reason is None:
            self.own_reason = reason
            producer = self.producer
            self.unregisterProducer()
            if producer is not None:
                producer.stopProducing()
            self.transport.abortConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.transport.registerProducer(producer, streaming)
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None
        self.transport.unregisterProducer()
        if self.disconnecting:
            self.transport.loseConnection()

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> Any:
        return self.transport.getPeer()

    def getHost(self) -> Any:
        return self.transport.getHost()

    def logPrefix(self) -> str:
        return f"{type(self.protocol).__name__} (scrambled)"


class ScramblerFactory(ClientFactory):
    """Of both sides."""

    noisy = False

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    def doStart(self) -> None:
        self.wrapped.doStart()
        super().doStart()

    def doStop(self) -> None:
        self.wrapped.doStop()
        super().doStop()

    def logPrefix(self) -> str:
        return f"{self.wrapped.logPrefix()} (scrambled)"

    def buildProtocol(self, addr: Any) -> Any:
        protocol = self.wrapped.buildProtocol(addr)
        return None if protocol is None else Scrambler(protocol)


class Scrambled:
    """How a stranger tells the contract of a wrapper: by its factories."""

    authenticated_end = False
    handshake = False
    cipher = False

    def client_factory(self, factory: Any) -> Any:
        return ScramblerFactory(factory)

    def server_factory(self, factory: Any) -> Any:
        return ScramblerFactory(factory)


class ScramblerOverMemoryTests(Scrambled, MemoryContract, TestCase):
    """In memory."""


class ScramblerOverTCPTests(Scrambled, TCPContract, TestCase):
    """Over loopback."""


class ScramblerOverUNIXTests(Scrambled, UNIXContract, TestCase):
    """Over a UNIX socket."""


class PoliciesTests(SynchronousTestCase):
    """Twisted's own pass-through wrapper, :class:`twisted.protocols.policies.ProtocolWrapper`."""

    def test_items(self) -> None:
        """It shows what is below it, and has neither flow control nor reasons of its own."""

        class Case(Scrambled, MemoryContract, TestCase):
            bulk = 500_000

            def client_factory(self, factory: Any) -> Any:
                return WrappingFactory(factory)

            server_factory = client_factory

        found = failing(Case)
        self.flushLoggedErrors()
        self.assertIn("test_01_interfaces", found)
        self.assertLess({1, 12}, {item_of(test) for test in found})
        self.assertNotIn("test_02_write", found)
