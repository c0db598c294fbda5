"""Connections that no client of ours makes, each in the bytes that it sends before it leaves."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from cloudconnect.transports.proxied import SIGNATURE

#: After so many seconds a client leaves by itself.
LEAVES: Final = 2.0


def client_hello() -> bytes:
    """A good ClientHello."""
    connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    connection.set_connect_state()
    with contextlib.suppress(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(1 << 14)


def _cut_hello(draw: random.Random) -> bytes:
    hello = client_hello()
    return hello[: draw.randrange(1, len(hello))]


def _flipped_hello(draw: random.Random) -> bytes:
    hello = bytearray(client_hello())
    for _ in range(draw.randint(1, 20)):
        hello[draw.randrange(5, len(hello))] ^= 1 << draw.randrange(8)
    return bytes(hello)


KINDS: Final[dict[str, Callable[[random.Random], bytes]]] = {
    "nothing": lambda draw: b"",
    "junk": lambda draw: draw.randbytes(draw.randint(1, 3000)),
    "HTTP": lambda draw: b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % draw.randrange(1000),
    "SSH": lambda draw: b"SSH-2.0-OpenSSH_9.7\r\n",
    "PROXY": lambda draw: SIGNATURE + b"\x21\x11\x00\x0c" + draw.randbytes(12) + b"CCN1",
    "half a preamble": lambda draw: (b"CCN1\x01" + draw.randbytes(16))[: draw.randrange(1, 21)],
    "another kind": lambda draw: b"CCN1" + draw.randbytes(1) + draw.randbytes(200),
    "no such route": lambda draw: b"CCN1\x01" + draw.randbytes(16) + b"\x00\x30" + bytes(48),
    "no such stream": lambda draw: b"CCN1\x02" + draw.randbytes(16) + draw.randbytes(3000),
    "junk in TLS": lambda draw: b"\x16\x03\x01" + draw.randbytes(draw.randint(1, 3000)),
    "half a hello": _cut_hello,
    "a changed hello": _flipped_hello,
    "a hello and junk": lambda draw: client_hello() + draw.randbytes(500),
}


class Malformed(Protocol):
    """Says something, and leaves when it is cut, or by itself."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        from twisted.internet import reactor

        line: Any = self.transport
        line.write(self._octets)
        later: Any = reactor
        self._leaving = later.callLater(LEAVES, line.abortConnection)

    def connectionLost(self, *_: Any) -> None:
        if self._leaving.active():
            self._leaving.cancel()
        self.gone.callback(None)
