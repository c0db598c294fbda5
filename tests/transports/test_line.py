"""Tests of :mod:`cloudconnect.transports.line`: over real sockets, and where there are none."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.transports.line import DEPTH_MAX, NOT_SENT, round_trip, socket_below, tune


class _Transport:
    """A transport over a socket."""

    def __init__(self, handle: object) -> None:
        self._handle = handle

    def getHandle(self) -> object:
        return self._handle


class _Layer:
    """Something over a transport."""

    def __init__(self, transport: object) -> None:
        self.transport = transport


def under(layers: int, transport: object) -> Any:
    """A transport with so many layers over it."""
    for _ in range(layers):
        transport = _Layer(transport)
    return transport


class LineCase(SynchronousTestCase):
    """A test with two ends of a TCP connection on loopback."""

    def setUp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.near = socket.create_connection(listening.getsockname())
            self.far, _ = listening.accept()
        for end in (self.near, self.far):
            self.addCleanup(end.close)


class SocketTests(LineCase):
    """Which socket is below."""

    def test_layers(self) -> None:
        """It is found through layers, but not through any number of them."""
        transport = _Transport(self.near)
        for layers in (0, 1, DEPTH_MAX - 1):
            self.assertIs(self.near, socket_below(under(layers, transport)))
        self.assertIsNone(socket_below(under(DEPTH_MAX, transport)))

    def test_none(self) -> None:
        """What has no socket has none: another handle, or nothing at all."""
        for transport in (None, object(), _Transport(5), under(3, object()), under(3, None)):
            self.assertIsNone(socket_below(transport))


class RoundTripTests(LineCase):
    """How long a way there and back takes."""

    def test_measured(self) -> None:
        """The kernel has measured it, on loopback as less than a second."""
        self.near.sendall(b"there")
        self.far.recv(5)
        self.far.sendall(b"and back")
        self.near.recv(8)
        seconds = round_trip(under(2, _Transport(self.near)))
        assert seconds is not None
        self.assertGreater(seconds, 0.0)
        self.assertLess(seconds, 1.0)

    def test_unknown(self) -> None:
        """Without a TCP socket nobody knows."""
        left, right = socket.socketpair()
        for end in (left, right):
            self.addCleanup(end.close)
        for transport in (_Transport(left), object(), None):
            self.assertIsNone(round_trip(transport))

    def test_closed(self) -> None:
        """Nor of one that is closed."""
        self.near.close()
        self.assertIsNone(round_trip(_Transport(self.near)))

    def test_another_system(self) -> None:
        """Nor on a system that does not say."""
        self.patch(socket, "TCP_INFO", None)
        del socket.TCP_INFO
        self.assertIsNone(round_trip(_Transport(self.near)))


class TuneTests(LineCase):
    """What is set."""

    def option(self, name: int) -> int:
        return self.near.getsockopt(socket.IPPROTO_TCP, name)

    def test_one(self) -> None:
        """One connection sends small writes at once, and the kernel may hold what it likes."""
        before = self.option(socket.TCP_NOTSENT_LOWAT)
        self.assertTrue(tune(under(2, _Transport(self.near)), several=False))
        self.assertEqual(1, self.option(socket.TCP_NODELAY))
        self.assertEqual(before, self.option(socket.TCP_NOTSENT_LOWAT))

    def test_several(self) -> None:
        """Of several that carry one stream the kernel holds little."""
        self.assertTrue(tune(_Transport(self.near), several=True))
        self.assertEqual(NOT_SENT, self.option(socket.TCP_NOTSENT_LOWAT))

    def test_same_machine(self) -> None:
        """A connection within a machine keeps its congestion control."""
        before = self.near.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        tune(_Transport(self.near), several=True)
        after = self.near.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        self.assertEqual(before, after)

    def test_not_tcp(self) -> None:
        """Nothing is set where there is no TCP socket, and nothing fails."""
        left, right = socket.socketpair()
        with contextlib.closing(left), contextlib.closing(right):
            for transport in (_Transport(left), object()):
                self.assertFalse(tune(transport, several=True))

    def test_closed(self) -> None:
        """An option that cannot be set is left out."""
        self.near.shutdown(socket.SHUT_RDWR)
        self.assertTrue(tune(_Transport(self.near), several=True))
