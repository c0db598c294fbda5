"""Tests of :mod:`cloudconnect.provider.nodes.lan`: which node is answered what."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.gateways import Register, ReportLoad
from cloudconnect.commands.keeping import AskOwner
from cloudconnect.commands.lan import RegisterAccelerator, RegisterMover, ReportEvent, ReportWarning
from cloudconnect.commands.renewing import RenewNode, ShowNode
from cloudconnect.errors import Refused
from cloudconnect.provider.nodes.lan import NodeFactory
from cloudconnect.transports.tls_layer import TLSFacts


class NodeTests(SynchronousTestCase):
    """The service's end by itself."""

    class Service:
        """A service that nobody asks anything."""

        reactor = Clock()

        async def admit_node(self, link: object, *shown: Any) -> None:
            _, name, _, _ = shown
            if name == "removed":
                raise Refused("not any more")

    def answered(self, role: str, name: str = "name") -> set[bytes]:
        """The commands that a node of this role is answered."""
        service: Any = self.Service()
        node = NodeFactory(service, "").buildProtocol(None)
        self.assertEqual({}, node._locator._commandDispatch)
        node.transport = Line(role, name)  # type: ignore[assignment]
        node.handshakeCompleted()
        return set(node._locator._commandDispatch)

    def test_only_its_own(self) -> None:
        """On its line each node can say what is its own and nothing else, and nothing before its
        certificate is known: a gateway cannot report for a mover."""
        every = {RenewNode.commandName, ShowNode.commandName}
        reports = every | {ReportWarning.commandName, ReportEvent.commandName}
        of_a_gateway = {Register.commandName, ReportLoad.commandName}
        self.assertEqual(of_a_gateway | every, self.answered("gateway"))
        self.assertEqual({RegisterAccelerator.commandName} | reports, self.answered("accelerator"))
        of_a_mover = {RegisterMover.commandName, AskOwner.commandName}
        self.assertEqual(of_a_mover | reports, self.answered("mover"))

    def test_no_such_node(self) -> None:
        """A node whose role has no place here is cut off."""
        self.assertEqual(set(), self.answered("job-manager"))
        self.assertEqual(["job-manager"], Line.cut)

    def test_removed(self) -> None:
        """A node whose certificate was taken back is answered nothing, and cut off."""
        self.assertEqual(set(), self.answered("mover", "removed"))
        self.assertEqual("mover", Line.cut.pop())


class Line:
    """A TLS connection from a node of some role."""

    cut: ClassVar[list[str]] = []

    def __init__(self, role: str, name: str) -> None:
        self.facts = TLSFacts("", "", "", "", "", "ca", role, name)

    def pauseProducing(self) -> None:
        """Nothing comes anyway."""

    resumeProducing = pauseProducing

    def abortConnection(self) -> None:
        self.cut.append(self.facts.peer_role)
