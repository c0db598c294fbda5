"""Reactors of a test's own, over real sockets, with a peer that the test drives by hand."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import ClientFactory, Factory
from twisted.internet.selectreactor import SelectReactor

#: Most turns that :meth:`Sockets.until` gives a condition; each one waits for at most 5 ms.
TURNS = 6000


def make_asyncio() -> Any:
    """Twisted over asyncio, with a loop of its own."""
    return AsyncioSelectorReactor(asyncio.new_event_loop())


#: The reactors that watch descriptors and run anywhere in one process beside trial's.
REACTORS: dict[str, Callable[[], Any]] = {
    "epoll": EPollReactor,
    "select": SelectReactor,
    "asyncio": make_asyncio,
}


class Sockets:
    """A reactor of its own, turned by the test, and connections of it.

    :param kind: which one of :data:`REACTORS`
    :param unix: UNIX sockets in the place of TCP
    """

    def __init__(self, kind: str = "select", unix: bool = False) -> None:
        self.reactor = REACTORS[kind]()
        self._unix = unix
        self._ports: list[Any] = []
        self._peers: list[socket.socket] = []
        self._directory = tempfile.mkdtemp()

    def close(self) -> None:
        """Close all sockets and the reactor."""
        for peer in self._peers:
            peer.close()
        for port in self._ports:
            port.stopListening()
        reactor = self.reactor
        for _ in range(3):
            self._turn(0)
        for descriptor in reactor.removeAll():
            if hasattr(descriptor, "abortConnection"):
                descriptor.abortConnection()
        for _ in range(3):
            self._turn(0)
        for reader in list(reactor._internalReaders):
            reactor.removeReader(reader)
            reader.connectionLost(None)
        reactor._internalReaders.clear()
        for call in reactor.getDelayedCalls():
            call.cancel()
        if isinstance(reactor, AsyncioSelectorReactor):
            reactor._asyncioEventloop.close()
        elif isinstance(reactor, EPollReactor):
            reactor._poller.close()
        for name in os.listdir(self._directory):
            os.unlink(os.path.join(self._directory, name))
        os.rmdir(self._directory)

    def _turn(self, seconds: float) -> None:
        self.reactor.runUntilCurrent()
        if isinstance(self.reactor, AsyncioSelectorReactor):
            self.reactor.iterate(seconds)
        else:
            self.reactor.doIteration(seconds)

    def turns(self, count: int = 10) -> None:
        """Let the reactor do what it can without waiting."""
        for _ in range(count):
            self._turn(0)

    def until(self, condition: Callable[[], object]) -> None:
        """Turn the reactor until ``condition`` holds.

        :raises AssertionError: it never does
        """
        for _ in range(TURNS):
            if condition():
                return
            self._turn(0.005)
        raise AssertionError("it never happens")

    def _listen(self, factory: Any) -> Any:
        if self._unix:
            path = os.path.join(self._directory, f"socket-{len(self._ports)}")
            port = self.reactor.listenUNIX(path, factory)
        else:
            port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self._ports.append(port)
        return port.socket.getsockname()

    def accept(self, protocol: Any) -> Peer:
        """``protocol`` on a connection that a peer has opened."""
        factory = Factory.forProtocol(lambda: protocol)
        factory.noisy = False
        address = self._listen(factory)
        peer = socket.socket(socket.AF_UNIX if self._unix else socket.AF_INET)
        peer.connect(address)
        self._peers.append(peer)
        self.until(lambda: protocol.transport is not None)
        return Peer(peer, self)

    def open(self, protocol: Any) -> Peer:
        """``protocol`` on a connection to a peer."""
        listener = socket.socket(socket.AF_UNIX if self._unix else socket.AF_INET)
        path = os.path.join(self._directory, "peer")
        listener.bind(path if self._unix else ("127.0.0.1", 0))
        listener.listen()
        self._connect(listener.getsockname(), protocol)
        self.until(lambda: protocol.transport is not None)
        accepted, _ = listener.accept()
        listener.close()
        self._peers.append(accepted)
        return Peer(accepted, self)

    def _connect(self, address: Any, protocol: Any) -> None:
        factory = ClientFactory.forProtocol(lambda: protocol)
        factory.noisy = False
        if self._unix:
            self.reactor.connectUNIX(address, factory)
        else:
            self.reactor.connectTCP(*address, factory)

    def join(self, client: Any, server: Any) -> None:
        """Both protocols, connected to each other."""
        factory = Factory.forProtocol(lambda: server)
        factory.noisy = False
        self._connect(self._listen(factory), client)
        self.until(lambda: client.transport is not None and server.transport is not None)


class Peer:
    """The other end of a connection, as a plain socket.

    :ivar received: what :meth:`read` has read so far
    """

    def __init__(self, plain: socket.socket, sockets: Sockets) -> None:
        plain.setblocking(False)
        if plain.family != socket.AF_UNIX:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = plain
        self._sockets = sockets
        self.received = b""
        self.ended = False
        self.was_reset = False

    def send(self, data: bytes) -> None:
        """Send all of ``data`` while the reactor turns."""
        view = memoryview(data)
        for _ in range(TURNS):
            if not view:
                return
            try:
                view = view[self.socket.send(view) :]
            except BlockingIOError:
                self._sockets.turns(1)
        raise AssertionError("the other side does not read")

    def take(self) -> int:
        """Read what is there now; return how many bytes that was."""
        before = len(self.received)
        parts = [self.received]
        try:
            while part := self.socket.recv(1 << 20):
                parts.append(part)
            self.ended = True
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.was_reset = True
        self.received = b"".join(parts)
        return len(self.received) - before

    def read(self, size: int) -> bytes:
        """Read until ``size`` bytes are here, and take them."""
        self._sockets.until(lambda: self.take() * 0 + len(self.received) >= size)
        data, self.received = self.received[:size], self.received[size:]
        return data

    def read_end(self) -> bytes:
        """Read until the connection is closed or reset."""
        self._sockets.until(lambda: (self.take(), self.ended or self.was_reset)[1])
        return self.received

    def readable(self) -> bool:
        """Whether something, or the end, has come."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def reset(self) -> None:
        """Close with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Close."""
        self.socket.close()
