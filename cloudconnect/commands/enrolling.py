"""Layer 3: how a node gets its certificate: a one-time token, a tunnel, one command.

The provider's admin makes a token for one role and name and carries its text to the node's host.
The node opens a Noise tunnel to the service's LAN port in which the token's secret is the
pre-shared key, so that each side knows the other before it has any certificate, and asks for one
for a key that it has made itself (``docs/protocol.rst``, section 10).
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, ClassVar, Final

import attrs
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.protocols import amp

from cloudconnect.commands.box import BoundedAMP, BoundedCommand
from cloudconnect.errors import (
    CertificateUntrusted,
    KeyARejected,
    NotReachable,
    ProtocolViolation,
    Refused,
    UsageError,
)
from cloudconnect.keys import EnrollmentToken, lp
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.nodes import NodeName
from cloudconnect.transports.switch import PreambleEndpoint
from cloudconnect.transports.tunnel import NoiseTunnel
from cloudconnect.wire import canonical
from cloudconnect.wire.preamble import ConnectionKind, Preamble

#: What the text of an invitation begins with.
PREFIX: Final = "cloudconnect-node-1:"
#: Longest text of one, in characters.
TEXT_MAX: Final = 1024
#: Longest request for a certificate, in bytes.
REQUEST_MAX: Final = 4096
_LABEL: Final = b"cloudconnect/1 enroll"


class EnrollNode(BoundedCommand):
    """Inside the tunnel: a node asks for its certificate.

    ``request``: PKCS #10, DER; only the key in it counts. ``certificate``, ``authority``: PEM.
    """

    commandName = b"EnrollNode"
    arguments: ClassVar[list[tuple[bytes, amp.Argument]]] = [(b"request", amp.String())]
    response = [(b"certificate", amp.String()), (b"authority", amp.String())]


@attrs.frozen
class NodeInvitation:
    """What the admin of a provider hands to a new node.

    :ivar role: as its certificate will say it
    :ivar name: likewise
    :ivar service: ``HOST:PORT`` of the service's LAN port
    :ivar identifier: names the token, 16 bytes
    :ivar secret: proves it, once
    """

    role: str
    name: str
    service: str
    identifier: bytes
    secret: EnrollmentToken = attrs.field(repr=False)

    def to_text(self) -> str:
        """As it is carried: one word, of which whoever has it can be this node."""
        octets = canonical.encode(
            [self.role, self.name, self.service, self.identifier, self.secret.reveal()]
        )
        return PREFIX + base64.urlsafe_b64encode(octets).decode("ascii")

    @classmethod
    def from_text(cls, text: str) -> NodeInvitation:
        """The other way round.

        :raises UsageError: it is none
        """
        wrong = UsageError(
            "that is not the text that cloudconnect provider node enroll has printed"
        )
        text = text.strip()
        if not text.startswith(PREFIX) or len(text) > TEXT_MAX:
            raise wrong
        try:
            octets = base64.b64decode(text.removeprefix(PREFIX), b"-_", validate=True)
            role, name, service, identifier, secret = canonical.decode(octets)
            NodeName(role, name)
            split_host_port(service)
            Preamble(ConnectionKind.KEY_A_TUNNEL, identifier)
            return cls(role, name, service, identifier, EnrollmentToken(secret))
        except (binascii.Error, ProtocolViolation, UsageError, ValueError, TypeError):
            raise wrong from None


def enrolling_tunnel(
    role: str, name: str, identifier: bytes, secret: EnrollmentToken, **more: Any
) -> NoiseTunnel:
    """The tunnel of a token: both ends make it, and agree on whom it is for.

    :param identifier: of the token, 16 bytes
    :param more: further parameters of :class:`~cloudconnect.transports.tunnel.NoiseTunnel`
    """
    preamble = Preamble(ConnectionKind.KEY_A_TUNNEL, identifier).encode()
    prologue = b"".join((_LABEL, preamble, lp(role.encode()), lp(name.encode())))
    return NoiseTunnel(psk=secret, prologue=prologue, **more)


async def enroll_node(
    reactor: Any, endpoint: IStreamClientEndpoint, invitation: NodeInvitation, request: bytes
) -> tuple[bytes, bytes]:
    """Ask for a node's certificate; certificate and authority, PEM.

    :param endpoint: the service's LAN port
    :param request: PKCS #10, DER
    :raises Refused: the token was used, or its time is over
    :raises CertificateUntrusted: who answers does not know the token either
    :raises NotReachable: nobody answers
    """
    preamble = Preamble(ConnectionKind.KEY_A_TUNNEL, invitation.identifier)
    recipe = enrolling_tunnel(
        invitation.role, invitation.name, invitation.identifier, invitation.secret
    )
    line = BoundedAMP(reactor)
    wrapped = wrap_client_endpoint(recipe, PreambleEndpoint(endpoint, preamble), reactor)
    try:
        await connectProtocol(wrapped, line)
    except (ConnectError, DNSLookupError) as error:
        raise NotReachable(f"{invitation.service} is not reachable: {error}") from None
    except KeyARejected:
        raise CertificateUntrusted(
            f"{invitation.service} is not the provider that has made this token"
        ) from None
    except NotReachable:
        raise Refused(
            f"{invitation.service} has closed the line: this token was used before, its time is "
            "over, or it is another provider's"
        ) from None
    try:
        answer = await line.call(EnrollNode, request=request)
    finally:
        if line.transport is not None:
            line.transport.loseConnection()
    return answer["certificate"], answer["authority"]
