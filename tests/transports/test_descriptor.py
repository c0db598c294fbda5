"""Tests of :mod:`cloudconnect.transports.descriptor`; what is taken over: ``test_owned_socket``."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.testing import Recorder, flood_bytes
from cloudconnect.transports.descriptor import can_own, let_go, take_over
from cloudconnect.transports.memory import MemoryPair
from tests.transports.sockets import REACTORS, Sockets


class TakeOverTests(SynchronousTestCase):
    """Reading and writing of one's own, on every reactor, over TCP and UNIX sockets."""

    def test_take_over(self) -> None:
        """The transport's queue leaves first; then only our methods are called."""
        for kind in REACTORS:
            for unix in (False, True):
                self.take_over(Sockets(kind, unix))

    def take_over(self, sockets: Sockets) -> None:
        self.addCleanup(sockets.close)
        protocol, read, done = Recorder(), bytearray(), []
        peer = sockets.accept(protocol)
        transport: Any = protocol.transport
        plain = transport.getHandle()

        def do_read() -> None:
            read.extend(plain.recv(100))

        def do_write() -> None:
            plain.send(b"ours")
            transport.stopWriting()

        before = flood_bytes(0, 3_000_000)
        transport.write(before)
        take_over(transport, do_read, do_write, lambda: done.append(True))
        transport.write(b"!")  # before the change of hands this is still possible
        sockets.turns(20)
        self.assertEqual(done, [])
        self.assertEqual(peer.read(3_000_001), before + b"!")
        sockets.until(lambda: done)
        transport.resumeProducing()
        transport.startWriting()
        peer.send(b"theirs")
        self.assertEqual(peer.read(4), b"ours")
        sockets.until(lambda: len(read) == 6)
        self.assertEqual((read, protocol.data), (b"theirs", b""))
        self.assertFalse(can_own(transport))
        let_go(transport)
        let_go(transport)
        peer.send(b"as before")
        sockets.until(lambda: protocol.data == b"as before")

    def test_producer(self) -> None:
        """A transport with a producer of somebody else's is not taken over behind its back."""
        sockets = Sockets()
        self.addCleanup(sockets.close)
        protocol = Recorder()
        sockets.accept(protocol)
        transport: Any = protocol.transport
        transport.registerProducer(object(), True)
        self.assertRaises(
            RuntimeError, take_over, transport, lambda: None, lambda: None, lambda: None
        )
        transport.unregisterProducer()


class CanOwnTests(SynchronousTestCase):
    """Only a reactor's own transport, as it was made, is taken over."""

    def test_reactors_transports(self) -> None:
        """TCP and UNIX, opened and accepted."""
        for unix in (False, True):
            sockets = Sockets("select", unix)
            self.addCleanup(sockets.close)
            client, server = Protocol(), Protocol()
            sockets.join(client, server)
            self.assertTrue(can_own(client.transport))
            self.assertTrue(can_own(server.transport))

    def test_others(self) -> None:
        """Nothing else, even where it looks like one."""
        self.assertFalse(can_own(StringTransport()))
        self.assertFalse(can_own(MemoryPair().left))
        self.assertFalse(can_own(None))
        sockets = Sockets("select")
        self.addCleanup(sockets.close)
        protocol = Protocol()
        sockets.accept(protocol)
        transport: Any = protocol.transport
        transport.TLS = True
        self.assertFalse(can_own(transport))
        transport.TLS = False
        self.assertTrue(can_own(transport))
        transport.doRead = transport.doRead
        self.assertFalse(can_own(transport))

    def test_subclass(self) -> None:
        """A transport whose class reads or writes in a way of its own is left alone."""
        sockets = Sockets("select")
        self.addCleanup(sockets.close)
        protocol = Protocol()
        sockets.accept(protocol)
        transport: Any = protocol.transport
        cls = type(transport)
        for method in ("doRead", "doWrite"):
            transport.__class__ = type("Other", (cls,), {method: lambda self: None})
            self.assertFalse(can_own(transport))
        transport.__class__ = cls
