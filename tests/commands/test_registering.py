"""Tests of :mod:`cloudconnect.commands.registering`: how a node keeps its LAN line."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.amp import CommandLocator
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands import registering
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.gateways import Register, RetireRoute
from cloudconnect.commands.registering import Registration
from cloudconnect.errors import Refused
from cloudconnect.transports.memory import MemoryEndpoint


class Service(BoundedAMP):
    """The service's end."""

    def __init__(self, case: RegistrationTests) -> None:
        super().__init__(case.clock)
        self._case = case

    @Register.responder
    def register(self, advertise: str, pool: str | None) -> dict[str, Any]:
        if self._case.refuses:
            raise Refused("no node today")
        self._case.there.append(self)
        return {"service": ""}


class Node(CommandLocator):
    """What answers on the node's end."""

    def __init__(self) -> None:
        super().__init__()
        self.retired: list[bytes] = []

    @RetireRoute.responder
    def retire(self, route: bytes) -> dict[str, Any]:
        self.retired.append(route)
        return {}


class Registering(Registration):
    """One that counts."""

    ends = 0
    tried = 0

    async def register(self, line: BoundedAMP) -> str:
        self.tried += 1
        await line.call(Register, advertise="")
        return "somewhere"

    def lost(self) -> None:
        self.ends += 1


class RegistrationTests(SynchronousTestCase):
    """A node and its line."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.there: list[Service] = []
        self.refuses = False
        self.lan = MemoryEndpoint(self.clock, "LAN")
        self.lan.listen(Factory.forProtocol(lambda: Service(self)))
        self.node = Node()
        self.registration = Registering(self.clock, self.lan, self.node)
        self.addCleanup(self.registration.stopService)

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.clock.advance(1)
            self.clock.advance(0)
            self.clock.advance(0)

    def test_registers_and_answers(self) -> None:
        """The node says that it is there, and answers on the same line."""
        self.registration.startService()
        self.pass_time(1)
        answer = self.there[0].call(RetireRoute, route=b"r" * 16)
        self.pass_time(1)
        self.successResultOf(answer)
        self.assertEqual([b"r" * 16], self.node.retired)

    def test_probed(self) -> None:
        """The kernel is asked to notice on each line when the service's host has vanished."""
        probed: list[Any] = []
        self.patch(registering, "keep_alive", probed.append)
        self.registration.startService()
        self.pass_time(1)
        (line,) = probed
        self.assertIsNotNone(line)

    def test_lost(self) -> None:
        """A lost line is told once, and another one is opened."""
        self.registration.startService()
        self.pass_time(1)
        line: Any = self.there[0].transport
        line.abortConnection()
        self.pass_time(60)
        self.assertEqual((2, 1), (len(self.there), self.registration.ends))

    def test_refused(self) -> None:
        """A node that is refused is told that each of its lines is gone, so that it keeps none; it
        tries again."""
        self.refuses = True
        self.registration.startService()
        self.pass_time(60)
        self.assertEqual([], self.there)
        self.assertEqual(self.registration.tried, self.registration.ends)
        self.assertGreater(self.registration.ends, 2)
        self.refuses = False
        self.pass_time(300)
        self.assertEqual(1, len(self.there))

    def test_stopped(self) -> None:
        """One that is stopped has lost its line, and opens no other."""
        self.registration.startService()
        self.pass_time(1)
        self.registration.stopService()
        self.pass_time(300)
        self.assertEqual((1, 1), (len(self.there), self.registration.ends))
        self.assertIsNone(self.there[0].transport)
