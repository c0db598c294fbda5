"""Layer 3: how a node gets its next certificate: over the LAN link, with the one that it has.

The node makes a new key, asks for a certificate for it on a line that shows the old one, and then
opens a line that shows the new one. With that line the old certificate is worth nothing any more;
until then both are (``docs/protocol.rst``, section 10).
"""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.protocols import amp

from cloudconnect.commands.box import BoundedAMP, BoundedCommand
from cloudconnect.errors import NotReachable


class RenewNode(BoundedCommand):
    """A node asks for another certificate of its role and name.

    ``request``: PKCS #10, DER; only the key in it counts. ``certificate``, ``authority``: PEM.
    """

    commandName = b"RenewNode"
    arguments: ClassVar[list[tuple[bytes, amp.Argument]]] = [(b"request", amp.String())]
    response = [(b"certificate", amp.String()), (b"authority", amp.String())]


class ShowNode(BoundedCommand):
    """Answered as soon as the node is let in with the certificate that this line shows.

    ``role``, ``name``: as that says them.
    """

    commandName = b"ShowNode"
    arguments: ClassVar[list[tuple[bytes, amp.Argument]]] = []
    response = [(b"role", amp.Unicode()), (b"name", amp.Unicode())]


async def renew_node(
    reactor: Any, endpoint: IStreamClientEndpoint, request: bytes
) -> tuple[bytes, bytes]:
    """Ask for a node's next certificate; certificate and authority, PEM.

    :param endpoint: the service's LAN port, with mutual TLS that shows the certificate that it has
    :param request: PKCS #10, DER
    :raises CloudConnectError: it is not given, or nobody answers
    """
    answer = await _asked(reactor, endpoint, RenewNode, request=request)
    return answer["certificate"], answer["authority"]


async def show_node(reactor: Any, endpoint: IStreamClientEndpoint) -> None:
    """See whether the service lets a node in with a certificate.

    :param endpoint: the service's LAN port, with mutual TLS that shows it
    :raises CloudConnectError: it does not, or nobody answers
    """
    await _asked(reactor, endpoint, ShowNode)


async def _asked(
    reactor: Any, endpoint: IStreamClientEndpoint, command: type[BoundedCommand], **values: Any
) -> dict[str, Any]:
    """Call one command on a line of its own."""
    line = BoundedAMP(reactor)
    try:
        await connectProtocol(endpoint, line)
    except (ConnectError, DNSLookupError) as error:
        raise NotReachable(f"the provider's LAN port is not reachable: {error}") from None
    try:
        return await line.call(command, **values)
    finally:
        if line.transport is not None:
            line.transport.loseConnection()
