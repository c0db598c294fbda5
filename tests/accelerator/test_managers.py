"""Tests of :mod:`cloudconnect.accelerator.managers`: several machines at one accelerator."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.protocols.amp import CommandLocator
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.accelerator.caches import TenantCaches
from cloudconnect.accelerator.managers import ManagerFactory
from cloudconnect.accelerator.room import DISK_MIN
from cloudconnect.accelerator.source import SourceAccelerator
from cloudconnect.cache.keys import NodeKey
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import BETWEEN_WANS, TO_SOURCE_WAN
from cloudconnect.commands.lan import EndWAN, HandWAN, OfferKeyA, PassedWAN, ReportEvent
from cloudconnect.errors import Aborted, ContextMismatch, ProtocolViolation
from cloudconnect.keys import KeyA, KeyB
from cloudconnect.transports.memory import MemoryPair
from tests.provider.stage import MemoryReactor


class Nowhere:
    """An endpoint that connects for ever."""

    def connect(self, factory: object) -> Deferred[Any]:
        return Deferred()


class Machine(CommandLocator):
    """A job manager's end.

    :ivar told: names of the events that were reported to it
    """

    def __init__(self, reactor: Any, factory: ManagerFactory) -> None:
        super().__init__()
        self.told: list[str] = []
        self.line = BoundedAMP(reactor, locator=self)
        MemoryPair(reactor).connect(self.line, factory.buildProtocol(None))

    @ReportEvent.responder
    def report(self, event: Any) -> dict[str, Any]:
        self.told.append(event["name"])
        return {}


class ManagerTests(SynchronousTestCase):
    """Two machines, one accelerator."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactor()
        self.folder = Path(self.mktemp())
        node = NodeKey(bytes(32))
        self.accelerator = SourceAccelerator(
            self.reactor,
            lambda pool: TenantCaches(self.reactor, pool, self.folder, node, DISK_MIN),
            lambda host, port: Nowhere(),  # type: ignore[arg-type,return-value]
        )
        self.accelerator.startService()
        self.addCleanup(self.stop)
        factory = ManagerFactory(self.reactor, self.accelerator)
        self.machines = [Machine(self.reactor, factory) for _ in range(2)]

    def stop(self) -> None:
        self.reactor.result_of(maybeDeferred(self.accelerator.stopService))

    def hand(self, machine: Machine, session: bytes = b"s" * 16) -> KeyB:
        """Hand a session over."""
        key = KeyB.generate()
        self.reactor.result_of(
            machine.line.call(
                HandWAN,
                session=session,
                tenant="acme",
                route=os.urandom(16),
                next_route=os.urandom(16),
                gateways=["localhost:6180"],
                hops=[TO_SOURCE_WAN, BETWEEN_WANS],
                streams=2,
                cache=b"c" * 32,
                key_b=key,
            )
        )
        return key

    def end(self, machine: Machine, session: bytes = b"s" * 16) -> Any:
        """What ending a session is answered."""
        answer = self.reactor.result_of(machine.line.call(EndWAN, session=session, aborted=True))
        return answer["counts"]

    def test_whose_session(self) -> None:
        """Only who has handed a session over ends it, and hears what was saved."""
        first, second = self.machines
        self.hand(first)
        self.assertEqual({}, self.end(second))
        self.assertIn("bytes_before", self.end(first))
        self.assertEqual({}, self.end(first))

    def test_passed(self) -> None:
        """Nor does anybody else hear when all of it was passed on."""
        first, second = self.machines
        self.hand(first)
        session = b"s" * 16
        answer = self.reactor.result_of(second.line.call(PassedWAN, session=session))
        self.assertEqual({}, answer["counts"])
        passed = first.line.call(PassedWAN, session=session)
        self.end(first)
        self.failureResultOf(passed, Aborted)

    def test_reports(self) -> None:
        """What there is to say of a session is said to who has handed it over."""
        self.folder.write_text("in the way of the caches")
        first, second = self.machines
        self.hand(second)
        self.reactor.settle()
        self.assertEqual(([], ["wan_cache"]), (first.told, second.told))
        self.end(second)

    def test_line_lost(self) -> None:
        """A session ends with the line of who has handed it over, and its Key B is forgotten."""
        first, second = self.machines
        self.hand(first)
        self.hand(second, b"t" * 16)
        sessions = list(self.accelerator._by_session.values())
        ended: Deferred[None] = Deferred()
        sessions[0].passage.ended.addCallback(lambda outcome: ended.callback(None) or outcome)
        first.line.transport.abortConnection()  # type: ignore[union-attr]
        self.reactor.result_of(ended)
        self.assertEqual([True, False], [one.key_b.forgotten for one in sessions])
        self.end(second, b"t" * 16)

    def test_twice(self) -> None:
        """No session is handed over twice, not even by two machines."""
        self.hand(self.machines[0])
        self.assertRaises(ContextMismatch, self.hand, self.machines[1])
        self.end(self.machines[0])

    def test_nothing_else(self) -> None:
        """A machine can hand over and end sessions, and nothing else."""
        values: dict[str, Any] = {"package": {}, "key_a": KeyA.generate()}
        call = self.machines[0].line.call(OfferKeyA, **values)
        self.assertRaises(ProtocolViolation, self.reactor.result_of, call)
