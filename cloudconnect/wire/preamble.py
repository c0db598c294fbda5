"""Layer 1: the first bytes of a connection to the one port (``docs/protocol.rst``, section 1).

The first byte tells TLS from a data connection. A data connection begins with a preamble of 21
bytes in clear; the handshake that follows binds it, so a changed preamble is found there.
"""

from __future__ import annotations

import enum
from typing import Final, Literal, Self

import attrs

from cloudconnect.errors import ProtocolViolation
from cloudconnect.shown import Shown

#: How a preamble begins.
MAGIC: Final = b"CCN1"
#: Size of a route id, in bytes: random, of one session and one role.
ROUTE_SIZE: Final = 16
#: Size of a preamble, in bytes: magic, kind, route id.
PREAMBLE_SIZE: Final = len(MAGIC) + 1 + ROUTE_SIZE
#: A TLS handshake record begins with this byte (RFC 8446, section 5.1).
TLS_FIRST_BYTE: Final = 0x16


class ConnectionKind(enum.IntEnum):
    """What a data connection carries."""

    KEY_A_TUNNEL = 1
    KEY_B_STREAM = 2


class FirstBytes(enum.Enum):
    """What the first bytes can be, besides a :class:`Preamble`."""

    TLS = "tls"


def _check_route(instance: object, attribute: object, value: bytes) -> None:
    if len(value) != ROUTE_SIZE:
        raise ValueError(f"a route id has {ROUTE_SIZE} bytes, not {len(value)}")


@attrs.frozen(repr=False)
class Preamble(Shown):
    """What a data connection says of itself, in clear, before anything else.

    :ivar kind: which protocol follows
    :ivar route: 16 random bytes that name one role of one session
    :raises ValueError: a route of another size
    """

    kind: ConnectionKind
    route: bytes = attrs.field(repr=False, validator=_check_route)

    def encode(self) -> bytes:
        """The 21 bytes."""
        return MAGIC + bytes((self.kind,)) + self.route

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read exactly 21 bytes.

        :param data: those bytes
        :raises ProtocolViolation: not a preamble, or of another size
        """
        data = bytes(data)
        if len(data) != PREAMBLE_SIZE:
            raise ProtocolViolation(f"a preamble has {PREAMBLE_SIZE} bytes, not {len(data)}")
        if not data.startswith(MAGIC):
            raise ProtocolViolation("a data connection does not begin with the magic of version 1")
        try:
            kind = ConnectionKind(data[len(MAGIC)])
        except ValueError:
            raise ProtocolViolation("a data connection of an unknown kind") from None
        return cls(kind, data[len(MAGIC) + 1 :])


def decide(
    data: bytes | bytearray | memoryview,
) -> Preamble | Literal[FirstBytes.TLS] | None:
    """Tell from the bytes that came first what a connection is, and as early as they allow.

    :param data: everything received so far; what follows a complete preamble is not looked at
    :return: the preamble, ``FirstBytes.TLS``, or None while more bytes are needed
    :raises ProtocolViolation: neither, whatever else may come
    """
    start = bytes(data[:PREAMBLE_SIZE])
    if start[:1] == bytes((TLS_FIRST_BYTE,)):
        return FirstBytes.TLS
    if start[: len(MAGIC)] != MAGIC[: len(start)]:
        raise ProtocolViolation("the first bytes are neither TLS nor a data connection's")
    if len(start) > len(MAGIC) and start[len(MAGIC)] not in list(ConnectionKind):
        raise ProtocolViolation("a data connection of an unknown kind")
    if len(start) < PREAMBLE_SIZE:
        return None
    return Preamble.decode(start)
