"""Layer 4: the service lets new nodes in: a token spent, a certificate issued.

The service's end of what :mod:`cloudconnect.commands.enrolling` describes. Connections come in at
the LAN port and begin with a preamble that names a token; nobody gets farther than the handshake
without its secret, and nothing is issued twice for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.enrolling import REQUEST_MAX, EnrollNode, enrolling_tunnel
from cloudconnect.errors import KeyARejected, ProtocolViolation, Refused
from cloudconnect.interfaces import IRelayTarget
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.accounts.nodes import NodeToken
from cloudconnect.settings import AUTHENTICATION_SECONDS, BOX_MAX_UNAUTHENTICATED
from cloudconnect.transports.switch import hand_over
from cloudconnect.wire.preamble import PREAMBLE_SIZE, ConnectionKind, Preamble


class Signer(Protocol):
    """Issues a node's certificate for the key in its request."""

    def __call__(self, role: str, name: str, request: bytes) -> tuple[bytes, bytes, str]:
        """Certificate and authority, PEM, and the fingerprint of the key.

        :raises Refused: it is no request
        """
        ...


@implementer(IRelayTarget)
class EnrolmentTarget:
    """Where the LAN port hands connections of nodes that have no certificate yet.

    :param accounts: knows the tokens; used only in the accounts thread
    :param in_accounts_thread: runs a blocking call there
    :param sign: issues certificates; blocks, and runs there too
    :param enrolled: is told of a new node: its role and name
    """

    description = "the enrolment of nodes"
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        accounts: Accounts,
        in_accounts_thread: Callable[..., Deferred[Any]],
        sign: Signer,
        enrolled: Callable[[str, str], Any],
    ) -> None:
        self._reactor = reactor
        self._accounts = accounts
        self._run = in_accounts_thread
        self._sign = sign
        self._enrolled = enrolled
        self._taken: set[bytes] = set()

    def connect(self, transport: object, data: bytes) -> None:
        """Look for the token that the preamble at the head of ``data`` names."""
        line: Any = transport
        preamble = Preamble.decode(data[:PREAMBLE_SIZE])
        if preamble.kind is not ConnectionKind.KEY_A_TUNNEL:
            line.abortConnection()
            return
        line.pauseProducing()
        found = self._run(self._accounts.node_token, preamble.route)
        found.addCallback(self._found, line, data[PREAMBLE_SIZE:])
        found.addErrback(self._failed, line)

    def _failed(self, failure: Failure, line: Any) -> None:
        self._log.failure("a token could not be looked for", failure)
        line.abortConnection()

    def _found(self, token: NodeToken | None, line: Any, rest: bytes) -> None:
        if token is None:
            self._log.warn("no such token, from {peer}", peer=line.getPeer())
            line.abortConnection()
            return
        end = _EnrolmentEnd(self._reactor, self, token)
        recipe = enrolling_tunnel(
            token.role,
            token.name,
            token.identifier,
            token.secret,
            psk_taken=end.take,
        )
        hand_over(line, recipe.layer(False, end, self._reactor), rest)
        line.resumeProducing()

    def take(self, token: NodeToken) -> None:
        """One connection at a time has a token.

        :raises KeyARejected: another one has it
        """
        if token.identifier in self._taken:
            raise KeyARejected("this token is in use")
        self._taken.add(token.identifier)

    def release(self, token: NodeToken) -> None:
        """The connection that had it is gone."""
        self._taken.discard(token.identifier)

    def enroll(self, token: NodeToken, request: bytes) -> Deferred[dict[str, Any]]:
        """Issue the certificate, and spend the token."""
        return self._run(self._enroll, token, request).addCallback(self._say, token)

    def _enroll(self, token: NodeToken, request: bytes) -> dict[str, Any]:
        certificate, authority, spki = self._sign(token.role, token.name, request)
        self._accounts.enroll_node(token.identifier, spki)
        return {"certificate": certificate, "authority": authority}

    def _say(self, answer: dict[str, Any], token: NodeToken) -> dict[str, Any]:
        self._log.info("node {role} {name} is enrolled", role=token.role, name=token.name)
        self._enrolled(token.role, token.name)
        return answer


class _EnrolmentEnd(BoundedAMP):
    """The service's end of one tunnel: answers one request."""

    def __init__(self, reactor: Any, target: EnrolmentTarget, token: NodeToken) -> None:
        super().__init__(reactor, box_max=2 * BOX_MAX_UNAUTHENTICATED, requests_max=1)
        self._target = target
        self._token = token
        self._holds = False
        self._was_asked = False
        self._deadline = reactor.callLater(AUTHENTICATION_SECONDS, self._too_late)

    def take(self) -> None:
        """The peer has proved the token.

        :raises KeyARejected: another connection has it
        """
        self._target.take(self._token)
        self._holds = True

    @EnrollNode.responder
    def enroll(self, request: bytes) -> Deferred[dict[str, Any]]:
        """A node asks for its certificate."""
        if self._was_asked:
            raise Refused("one certificate is issued for a token")
        if len(request) > REQUEST_MAX:
            raise ProtocolViolation(f"a request has at most {REQUEST_MAX} bytes")
        self._was_asked = True
        return self._target.enroll(self._token, request)

    def _too_late(self) -> None:
        line: Any = self.transport
        if line is not None:
            line.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let go of the token."""
        super().connectionLost(reason)
        if self._deadline.active():
            self._deadline.cancel()
        if self._holds:
            self._target.release(self._token)
        self._token.secret.forget()
