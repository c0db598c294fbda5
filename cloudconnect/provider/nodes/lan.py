"""Layer 4: the service's ends of the provider's LAN lines, on which nodes of other processes come.

A gateway, a data mover or a WAN accelerator of its own process dials the service's LAN port over
mutual TLS 1.3, with a node certificate, says that it is there, and answers the service's commands
on the same line (``docs/protocol.rst``, section 10). Inside one process the roles are linked over
the in-memory transport.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHandshakeListener
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.amp import CommandLocator
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.errors import CloudConnectError
from cloudconnect.provider.nodes.answers import AcceleratorNode, GatewayNode, MoverNode, Node
from cloudconnect.provider.nodes.renewal import NodeRenewals
from cloudconnect.provider.service.service import CloudConnectService
from cloudconnect.transports.line import keep_alive
from cloudconnect.transports.nodes import ACCELERATOR, GATEWAY, MOVER, NodeName

#: What is answered to nodes of each role, by the role in their certificate.
_NODES: dict[str, type[Node]] = {
    GATEWAY: GatewayNode,
    ACCELERATOR: AcceleratorNode,
    MOVER: MoverNode,
}


@implementer(IHandshakeListener)
class NodeLink(BoundedAMP):
    """The service's end of a LAN line: answers nothing before it knows whose certificate it is.

    :param backend: what nodes on other hosts connect to for everything of this process
    :param renewals: issues their next certificates, or None
    """

    log = Logger()

    def __init__(
        self, service: CloudConnectService, backend: str, renewals: NodeRenewals | None = None
    ) -> None:
        super().__init__(service.reactor, locator=CommandLocator())
        self._service = service
        self._backend = backend
        self._renewals = renewals

    def handshakeCompleted(self) -> None:
        """The node has proved which one it is."""
        line: Any = self.transport
        node = _NODES.get(line.facts.peer_role)
        if node is None:  # the line's own trust lets no other in
            self.log.warn("no node of role {role} has a place here", role=line.facts.peer_role)
            line.abortConnection()
            return
        keep_alive(line)
        facts = line.facts
        line.pauseProducing()
        admitted = Deferred.fromCoroutine(
            self._service.admit_node(
                self, facts.peer_role, facts.peer_name, facts.peer_spki, facts.peer_ends
            )
        )
        admitted.addCallbacks(self._admitted, self._refused, (node, line), {}, (line,))

    def _admitted(self, _: None, node: type[Node], line: Any) -> None:
        if self.transport is None:  # it has gone meanwhile
            self._service.nodes.left(self)
            return
        facts = line.facts
        named = NodeName(facts.peer_role, facts.peer_name)
        self._locator = node(
            self._service, self, self._backend, named, facts.peer_spki, self._renewals
        )
        line.resumeProducing()

    def _refused(self, failure: Failure, line: Any) -> None:
        if failure.check(CloudConnectError):
            self.log.warn("a node is not let in: {why}", why=failure.getErrorMessage())
        else:
            self.log.failure("a node could not be judged", failure)
        line.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is not there any more."""
        self._service.nodes.left(self)
        self._service.endings.role_lost(self)
        super().connectionLost(reason)


class NodeFactory(Factory):
    """Makes the service's ends of LAN lines."""

    noisy = False

    def __init__(
        self, service: CloudConnectService, backend: str, renewals: NodeRenewals | None = None
    ) -> None:
        self._service = service
        self._backend = backend
        self._renewals = renewals

    def buildProtocol(self, addr: IAddress | None) -> NodeLink:
        """One for this node."""
        return NodeLink(self._service, self._backend, self._renewals)
