"""Layer 2, transports: connections that a gateway or load balancer announces.

In front of the first bytes stands a PROXY protocol header, version 2, which says who the peer
really is. Only where the listening place can be reached by gateways alone may it be believed.
Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.2. Twisted's reader
(``twisted.protocols.haproxy``) lets what is malformed raise in ``dataReceived``, and refuses a
header whose first bytes come alone; this one does neither.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Any, Final

import attrs
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer

from cloudconnect.errors import ProtocolViolation

#: How a header begins.
SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
#: Signature, version and command u8, family and protocol u8, length of the rest u16.
_HEAD: Final = struct.Struct(">12sBBH")
#: Longest rest, in bytes: two addresses have 36, and what a load balancer adds is a few fields.
REST_MAX: Final = 1024

_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6 = 0x00, 0x11, 0x21
_SIZES: Final = {_TCP4: 4, _TCP6: 16}
_TYPES: Final = {_TCP4: IPv4Address, _TCP6: IPv6Address}


@attrs.frozen
class ProxyHeader:
    """What a header says.

    :ivar size: its bytes
    :ivar peer: who has connected, or None where it does not say
    :ivar host: what that one has connected to, likewise
    """

    size: int
    peer: IAddress | None
    host: IAddress | None


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """The header at the beginning of ``data``; None while more bytes are needed.

    :param data: all that has come so far
    :raises ProtocolViolation: not a header of version 2 of a TCP connection, or too long
    """
    if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
        raise ProtocolViolation("a connection does not begin with a PROXY protocol header")
    if len(data) < _HEAD.size:
        return None
    _, command, family, length = _HEAD.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        raise ProtocolViolation("a PROXY protocol header has another version or command")
    if length > REST_MAX:
        raise ProtocolViolation(f"a PROXY protocol header announces {length} bytes")
    if len(data) < _HEAD.size + length:
        return None
    size = _HEAD.size + length
    if command == _LOCAL or family == _UNSPECIFIED:
        return ProxyHeader(size, None, None)
    octets = _SIZES.get(family)
    if octets is None or length < 2 * octets + 4:
        raise ProtocolViolation("a PROXY protocol header is not of a TCP connection")
    source, target, source_port, target_port = struct.unpack_from(
        f">{octets}s{octets}sHH", data, _HEAD.size
    )
    make = _TYPES[family]
    return ProxyHeader(
        size,
        make("TCP", str(ipaddress.ip_address(source)), source_port),
        make("TCP", str(ipaddress.ip_address(target)), target_port),
    )


class _Proxied(ProtocolWrapper):
    """One connection: the header is taken away, and everything behind it goes on."""

    _log = Logger()
    _held = b""
    _header: ProxyHeader | None = None
    _refused = False

    def dataReceived(self, data: bytes) -> None:
        if self._header is not None:
            self.wrappedProtocol.dataReceived(data)
            return
        if self._refused:
            return
        self._held += data
        try:
            self._header = read_proxy_header(self._held)
        except ProtocolViolation as error:
            self._refused, self._held = True, b""
            self._log.warn(
                "a connection of {peer} was refused: {error}",
                peer=ProtocolWrapper.getPeer(self),
                error=str(error),
            )
            self.abortConnection()
            return
        if self._header is not None:
            behind, self._held = self._held[self._header.size :], b""
            if behind:
                self.wrappedProtocol.dataReceived(behind)

    def getPeer(self) -> Any:
        if self._header is not None and self._header.peer is not None:
            return self._header.peer
        return ProtocolWrapper.getPeer(self)

    def getHost(self) -> Any:
        if self._header is not None and self._header.host is not None:
            return self._header.host
        return ProtocolWrapper.getHost(self)


class ProxiedFactory(WrappingFactory):
    """Builds what ``wrappedFactory`` builds, behind a header.

    Its protocols must bound the time in which the first bytes come: the header's counts there.
    """

    protocol = _Proxied
    noisy = False


@implementer(IStreamServerEndpoint)
@attrs.frozen
class ProxiedEndpoint:
    """Listens on ``endpoint`` for connections that begin with a header.

    :ivar endpoint: any server endpoint that only gateways reach
    """

    endpoint: IStreamServerEndpoint

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Listen.

        :param protocolFactory: builds the protocols; their transports name the real peer
        :return: fires with the listening port
        """
        factory = ProxiedFactory(protocolFactory)  # type: ignore[no-untyped-call]
        listening: Deferred[Any] = self.endpoint.listen(factory)
        return listening
