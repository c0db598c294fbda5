"""Testing support: the contract of a transport wrapper over real sockets.

Source: the list in ``docs/howto/wrapper.rst``.
"""

# mypy: allow-untyped-calls
# (trial's and Twisted's methods have no types)

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)

from cloudconnect.testing.contract import Pieces, TransportContract
from cloudconnect.transports.memory import PIECE


class SocketContract(TransportContract):
    """Over sockets of the real reactor; what kind, a test case says by two endpoints."""

    bulk = 6_000_000

    def setUp(self) -> None:
        """The real reactor."""
        from twisted.internet import reactor

        self.reactor = reactor
        self._lowest: list[Any] = []

    def server_endpoint(self) -> Any:
        """Where the server listens: an ``IStreamServerEndpoint``."""
        raise NotImplementedError

    def client_endpoint(self, port: Any) -> Any:
        """Where the client connects: an ``IStreamClientEndpoint``.

        :param port: the port (``IListeningPort``) that listens at :meth:`server_endpoint`
        """
        raise NotImplementedError

    def until(self, condition: Callable[[], object]) -> Deferred[None]:
        """Look every millisecond; trial's time limit is the limit.

        :param condition: asked each time
        """
        done: Deferred[None] = Deferred()

        def look() -> None:
            if condition():
                done.callback(None)
            else:
                self.reactor.callLater(0.001, look)

        look()
        return done

    def join(self, client: Any, server: Any, piece: Pieces = lambda: PIECE) -> Deferred[None]:
        """Connect two protocols over the stack and see both handshakes through.

        :param piece: not used: the kernel cuts as it likes
        """
        return Deferred.fromCoroutine(self._join(client, server))

    async def _join(self, client: Any, server: Any) -> None:
        client_factory, server_factory = self.factories(client, server)
        sides: list[list[Any]] = [[], []]
        for factory, side in zip((client_factory, server_factory), sides, strict=True):
            _keep_transport(factory, side)
        port: Any = await self.server_endpoint().listen(server_factory)
        self.addCleanup(port.stopListening)
        await self.client_endpoint(port).connect(client_factory)
        await self.until(lambda: all(sides))
        self._lowest = [side[0] for side in sides]
        self.addCleanup(self._clean, [client, server], [*map(_undermost, self._lowest)])
        await self.until(lambda: self.settled(client, server))

    def lowest(self) -> tuple[Any, Any]:
        """The reactor's own transports."""
        return self._lowest[0], self._lowest[1]

    def _clean(self, protocols: list[Any], sockets: list[Any]) -> Deferred[None]:
        """Leave no connection behind, whoever is its protocol now."""
        for protocol in protocols:
            if protocol.transport is not None and not protocol.losses:
                protocol.transport.abortConnection()
        for transport in sockets:
            if transport.connected:
                transport.abortConnection()
        return self.until(lambda: not any(transport.connected for transport in sockets))


def _keep_transport(factory: Any, kept: list[Any]) -> None:
    """Have ``kept`` the transport of each protocol of ``factory``, before anybody exchanges it."""
    build = factory.buildProtocol

    def build_protocol(address: Any) -> Any:
        protocol = build(address)
        connect = protocol.makeConnection

        def connected(transport: Any) -> None:
            kept.append(transport)
            connect(transport)

        protocol.makeConnection = connected
        return protocol

    factory.buildProtocol = build_protocol


def _undermost(transport: Any) -> Any:
    """The reactor's own transport, which has a socket and no transport below."""
    while hasattr(transport, "transport"):
        transport = transport.transport
    return transport


class TCPContract(SocketContract):
    """Over loopback TCP."""

    def server_endpoint(self) -> Any:
        """A free port."""
        return TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")

    def client_endpoint(self, port: Any) -> Any:
        """That port."""
        return TCP4ClientEndpoint(self.reactor, "127.0.0.1", port.getHost().port)


class UNIXContract(SocketContract):
    """Over a UNIX socket, whose kernel says nothing of an abort but that there is no more."""

    resets = False

    def server_endpoint(self) -> Any:
        """A socket in a directory of its own, with a short name: there are about 100 bytes."""
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory, True)
        return UNIXServerEndpoint(self.reactor, f"{directory}/socket")

    def client_endpoint(self, port: Any) -> Any:
        """That socket."""
        return UNIXClientEndpoint(self.reactor, port.getHost().name)
