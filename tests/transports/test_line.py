"""Tests of :mod:`cloudconnect.transports.line`, over real sockets."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.keys import Secret
from cloudconnect.settings import PING_SECONDS
from cloudconnect.testing import MemoryPair, Recorder
from cloudconnect.transports.line import (
    NOT_SENT,
    PROBES,
    keep_alive,
    round_trip,
    socket_below,
    tune,
)
from cloudconnect.transports.stream import RecordStream
from tests.transports.sockets import Sockets


class _Over:
    """Something with a transport below it."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport


class LineTests(SynchronousTestCase):
    """Options of the socket below."""

    def accept(self, unix: bool = False) -> Any:
        """A transport whose peer is there."""
        sockets = Sockets("epoll", unix)
        self.addCleanup(sockets.close)
        protocol = Recorder()
        sockets.accept(protocol)
        return protocol.transport

    def option(self, transport: Any, name: int) -> int:
        """The value of an option of TCP."""
        handle: socket.socket = transport.getHandle()
        return handle.getsockopt(socket.IPPROTO_TCP, name)

    def test_found(self) -> None:
        """The socket is found through layers, also where a stream has taken it over."""
        transport = self.accept()
        self.assertIs(socket_below(_Over(_Over(transport))), transport.getHandle())
        stream = RecordStream(Secret(os.urandom(32)), b"line")
        sockets, clock = Sockets("epoll", False), Clock()
        self.addCleanup(sockets.close)
        near, far = (stream.layer(side, Recorder(), clock) for side in (True, False))
        sockets.join(near, far)
        sockets.until(lambda: near.ready and far.ready)
        self.assertTrue(near.owns_socket)
        self.assertIsInstance(socket_below(near), socket.socket)

    def test_not_found(self) -> None:
        """Where there is no socket, or no end of layers, nothing happens."""
        endless = _Over(None)
        endless.transport = endless
        for transport in (MemoryPair().left, None, endless, self.accept(unix=True)):
            self.assertFalse(tune(transport, True))

    def test_one(self) -> None:
        """A connection of its own sends small writes at once and may hold what it likes."""
        transport = self.accept()
        before = self.option(transport, socket.TCP_NOTSENT_LOWAT)
        self.assertTrue(tune(transport, False))
        self.assertTrue(self.option(transport, socket.TCP_NODELAY))
        self.assertEqual(self.option(transport, socket.TCP_NOTSENT_LOWAT), before)

    def test_one_of_several(self) -> None:
        """One of several holds little that was not sent."""
        transport = self.accept()
        self.assertTrue(tune(transport, True))
        self.assertEqual(self.option(transport, socket.TCP_NOTSENT_LOWAT), NOT_SENT)

    def test_kept_alive(self) -> None:
        """An idle connection is probed often, and not for long; without a socket nothing is."""
        transport = self.accept()
        self.assertTrue(keep_alive(_Over(transport)))
        handle: socket.socket = transport.getHandle()
        self.assertTrue(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        self.assertEqual(PING_SECONDS, self.option(transport, socket.TCP_KEEPIDLE))
        self.assertEqual(PING_SECONDS, self.option(transport, socket.TCP_KEEPINTVL))
        self.assertEqual(PROBES, self.option(transport, socket.TCP_KEEPCNT))
        limit = self.option(transport, socket.TCP_USER_TIMEOUT)
        self.assertEqual(PING_SECONDS * (1 + PROBES) * 1000, limit)
        for other in (MemoryPair().left, None, self.accept(unix=True)):
            self.assertFalse(keep_alive(other))

    def test_round_trip(self) -> None:
        """The kernel's measure of a TCP connection; nothing where there is none."""
        measured = round_trip(_Over(self.accept()))
        assert measured is not None
        self.assertGreater(measured, 0)
        self.assertLess(measured, 10)  # it is seconds
        self.assertIs(round_trip(MemoryPair().left), None)

    def test_closed(self) -> None:
        """A socket that is closed already is no error."""
        closed = socket.socket()
        closed.close()
        transport = _Over(None)
        transport.getHandle = lambda: closed  # type: ignore[attr-defined]
        self.assertTrue(tune(transport, True))
        self.assertTrue(keep_alive(transport))
        self.assertIs(round_trip(transport), None)
