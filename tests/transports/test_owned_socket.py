"""Tests of :mod:`cloudconnect.transports.owned_socket`, over real sockets, on several reactors."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cloudconnect.settings import HIGH_WATER
from cloudconnect.testing import Recorder, flood_bytes
from cloudconnect.transports.descriptor import can_own
from cloudconnect.transports.owned_socket import TURN_BYTES, OwnedSocket
from tests.transports.sockets import Peer, Sockets


class User:
    """Buffers for an owned socket: what is received, and what is to be sent."""

    def __init__(self, room: int = 100_000, wanted: int = 1) -> None:
        self.buffer = bytearray(room)
        self.wanted = wanted
        self.received = bytearray()
        self.queue = bytearray()
        self.reads: list[int] = []
        self.on_came: Callable[[], None] = lambda: None

    @property
    def held(self) -> int:
        return len(self.queue)

    def room(self) -> memoryview:
        return memoryview(self.buffer)

    def came(self, count: int) -> None:
        self.received += self.buffer[:count]
        self.reads.append(count)
        self.on_came()

    def outgoing(self) -> memoryview:
        return memoryview(bytes(self.queue[:300_000]))

    def sent(self, count: int) -> None:
        del self.queue[:count]

    def put_sealed(self, record: bytes) -> None:
        self.queue += record


class Producer:
    """A push producer that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class OwnedSocketTests(SynchronousTestCase):
    """What an owned socket does, on the epoll reactor over TCP; subclasses: elsewhere."""

    kind = "epoll"
    unix = False

    def setUp(self) -> None:
        self.sockets = Sockets(self.kind, self.unix)
        self.addCleanup(self.sockets.close)
        self.protocol = Recorder()
        self.user = User()
        self.done: list[bool] = []

    def own(self, connect: str = "accept") -> tuple[OwnedSocket, Peer]:
        """A socket that was taken over, and its peer."""
        peer: Peer = getattr(self.sockets, connect)(self.protocol)
        owned = OwnedSocket(self.protocol.transport, self.user)
        owned.take_over(lambda: self.done.append(True))
        self.sockets.until(lambda: self.done)
        return owned, peer

    def reading(self, connect: str = "accept") -> tuple[OwnedSocket, Peer]:
        """The same, reading."""
        owned, peer = self.own(connect)
        owned.resumeProducing()
        return owned, peer

    def lost(self) -> BaseException:
        """Why the protocol lost its connection."""
        self.sockets.until(lambda: self.protocol.losses)
        assert self.protocol.reason is not None
        return self.protocol.reason

    # --- the change of hands --------------------------------------------------------------------

    def test_takes_over_when_drained(self) -> None:
        """What the transport queued leaves first, however slowly the peer reads; then ours."""
        peer = self.sockets.accept(self.protocol)
        before = flood_bytes(0, 6_000_000)
        transport: Any = self.protocol.transport
        transport.write(before)
        owned = OwnedSocket(transport, self.user)
        owned.take_over(lambda: self.done.append(True))
        self.user.queue += b"after"
        self.sockets.turns(50)
        self.assertEqual(self.done, [])
        self.assertEqual(peer.read(len(before)), before)
        self.sockets.until(lambda: self.done)
        owned.wake()
        self.assertEqual(peer.read(5), b"after")
        self.assertEqual(self.done, [True])

    def test_reads_nothing_before(self) -> None:
        """What comes during the change of hands is read by us, not by the transport."""
        peer = self.sockets.accept(self.protocol)
        owned = OwnedSocket(self.protocol.transport, self.user)
        owned.take_over(lambda: self.done.append(True))
        peer.send(b"early")
        self.sockets.until(lambda: self.done)
        self.sockets.turns()
        self.assertEqual((self.protocol.data, self.user.received), (b"", b""))
        owned.resumeProducing()
        self.sockets.until(lambda: self.user.received == b"early")
        self.assertEqual(self.protocol.data, b"")

    def test_client(self) -> None:
        """A transport that we have opened is taken over like one that was accepted."""
        owned, peer = self.reading("open")
        peer.send(b"to us")
        self.sockets.until(lambda: self.user.received == b"to us")
        owned.write(b"from us")
        self.assertEqual(peer.read(7), b"from us")

    def test_lost_while_draining(self) -> None:
        """A connection that ends before the change of hands just ends."""
        peer = self.sockets.accept(self.protocol)
        transport: Any = self.protocol.transport
        transport.write(bytes(6_000_000))
        owned = OwnedSocket(transport, self.user)
        owned.take_over(lambda: self.done.append(True))
        self.sockets.turns(5)
        peer.reset()
        self.assertIsInstance(self.lost(), ConnectionLost)
        self.sockets.turns()
        self.assertEqual(self.done, [])

    def test_lets_go(self) -> None:
        """After the end, nothing of ours hangs on the transport."""
        owned, peer = self.reading()
        transport: Any = self.protocol.transport
        self.assertFalse(can_own(transport))
        peer.close()
        self.lost()
        owned.gone()
        self.assertFalse(vars(transport).keys() & {"doRead", "doWrite"})
        owned.wake()
        owned.resumeProducing()
        owned.write(b"for nobody")
        self.sockets.turns()

    def test_interfaces(self) -> None:
        """It is the consumer and the producer that a layer expects below it."""
        owned, _ = self.own()
        verifyObject(IConsumer, owned)
        verifyObject(IPushProducer, owned)
        transport: Any = self.protocol.transport
        self.assertEqual(owned.getPeer(), transport.getPeer())
        self.assertEqual(owned.getHost(), transport.getHost())

    # --- reading --------------------------------------------------------------------------------

    def test_bulk(self) -> None:
        """Everything that is sent arrives in the user's buffer, in order."""
        _, peer = self.reading()
        data = flood_bytes(0, 8_000_000)
        peer.send(data)
        self.sockets.until(lambda: len(self.user.received) == len(data))
        self.assertEqual(self.user.received, data)

    def test_one_turn(self) -> None:
        """However much there is to read or to send, the reactor has its turn in between."""
        owned, _ = self.reading()
        endless = _Endless()
        owned._socket, real = endless, owned._socket  # type: ignore[assignment]
        self.assertIsNone(owned._do_read())
        self.assertLess(len(self.user.received), TURN_BYTES + len(self.user.buffer))
        self.user.queue += bytes(3 * TURN_BYTES)
        self.assertIsNone(owned._do_write())
        self.assertLess(endless.sent, TURN_BYTES + 300_000)
        owned._socket = real

    def test_paused(self) -> None:
        """Nothing is read while paused, not even within the turn in which it was paused."""
        owned, peer = self.reading()
        self.user.buffer = bytearray(10)
        self.user.on_came = owned.pauseProducing
        peer.send(bytes(25))
        self.sockets.until(lambda: self.user.reads)
        self.sockets.turns()
        owned.look()
        self.assertEqual(self.user.reads, [10])
        owned.resumeProducing()
        self.sockets.turns()
        self.assertEqual(self.user.reads, [10, 10])
        owned.resumeProducing()
        self.sockets.turns()
        self.assertEqual(self.user.reads, [10, 10, 5])

    def test_look(self) -> None:
        """What is there is taken in at once, and there may be nothing."""
        owned, peer = self.reading()
        owned.look()
        self.assertEqual(self.user.reads, [])
        peer.socket.send(b"there")
        while not self.user.reads:
            owned.look()
        self.assertEqual(self.user.received, b"there")

    def test_end(self) -> None:
        """The peer's end is what it always is for the transport's protocol."""
        _, peer = self.reading()
        peer.send(b"last")
        peer.close()
        self.assertIsInstance(self.lost(), ConnectionDone)
        self.assertEqual(self.user.received, b"last")

    def test_reset(self) -> None:
        """So is a reset."""
        _, peer = self.reading()
        peer.reset()
        self.assertIsInstance(self.lost(), ConnectionLost if not self.unix else ConnectionDone)

    # --- writing --------------------------------------------------------------------------------

    def test_send(self) -> None:
        """What the user holds is sent, also where the socket takes a part at a time."""
        owned, peer = self.own()
        data = flood_bytes(0, 8_000_000)
        self.user.queue += data
        owned.wake()
        self.assertEqual(peer.read(len(data)), data)
        self.assertEqual(self.user.held, 0)

    def test_send_to_nobody(self) -> None:
        """A peer that has gone is noticed by sending."""
        owned, peer = self.own()
        peer.reset()
        self.user.queue += bytes(1_000_000)
        owned.wake()
        self.assertIsInstance(self.lost(), ConnectionLost)

    def test_back_pressure(self) -> None:
        """The producer is paused above HIGH_WATER, and resumed when a quarter of it is held."""
        owned, peer = self.own()
        producer = Producer()
        owned.registerProducer(producer, True)
        self.user.queue += bytes(HIGH_WATER)
        owned.wake()
        self.assertEqual(producer.calls, [])
        self.user.queue += bytes(8_000_000)
        owned.wake()
        owned.wake()
        self.assertEqual(producer.calls, ["pause"])
        self.sockets.turns(20)
        self.assertGreater(self.user.held, HIGH_WATER)
        self.assertEqual(producer.calls, ["pause"])
        peer.read(HIGH_WATER + 8_000_000)
        self.sockets.until(lambda: self.user.held == 0)
        self.assertEqual(producer.calls, ["pause", "resume"])

    def test_lower_mark(self) -> None:
        """Who wants little held sets the mark lower."""
        owned, peer = self.own()
        owned.high_water = 40_000
        producer = Producer()
        owned.registerProducer(producer, True)
        self.user.queue += bytes(40_000)
        owned._see_to_producer()
        self.assertEqual(producer.calls, [])
        self.user.queue += b"x"
        owned.wake()
        self.assertEqual(producer.calls, ["pause"])
        peer.read(40_001)
        self.assertEqual(producer.calls, ["pause", "resume"])

    def test_handle(self) -> None:
        """The socket is there for its options."""
        owned, _ = self.own()
        transport: Any = self.protocol.transport
        self.assertIs(owned.getHandle(), transport.getHandle())

    def test_producer_registered_late(self) -> None:
        """A producer that registers while too much is held is paused at once."""
        owned, _ = self.own()
        self.user.queue += bytes(9_000_000)
        owned.wake()
        producer = Producer()
        owned.registerProducer(producer, True)
        self.assertEqual(producer.calls, ["pause"])
        owned.unregisterProducer()
        self.user.queue.clear()
        self.sockets.turns()
        self.assertEqual(producer.calls, ["pause"])

    def test_unsent(self) -> None:
        """What the other side has not taken yet is counted, here and in the kernel."""
        owned, peer = self.own()
        self.assertEqual(owned.unsent(), 0)
        self.user.queue += bytes(9_000_000)
        owned.wake()
        self.sockets.turns(20)
        self.assertGreaterEqual(owned.unsent(), self.user.held)
        self.assertGreater(self.user.held, 0)
        peer.read(9_000_000)
        self.sockets.until(lambda: owned.unsent() == 0)
        owned.abortConnection()
        self.assertEqual(owned.unsent(), 0)

    # --- closing --------------------------------------------------------------------------------

    def test_close(self) -> None:
        """loseConnection sends what is held, whatever still comes; nothing more is delivered."""
        owned, peer = self.reading()
        self.user.queue += flood_bytes(0, 7_000_000)
        owned.wake()
        owned.stopProducing()
        owned.loseConnection()
        owned.resumeProducing()
        owned.pauseProducing()
        peer.send(b"too late")
        received = bytearray()
        while len(received) < 7_000_000:
            received += peer.read(100_000)
            peer.send(bytes(1000))
        self.assertEqual(received, flood_bytes(0, 7_000_000))
        self.sockets.until(lambda: (peer.take(), peer.ended)[1])
        self.assertEqual(self.protocol.losses, 0)
        peer.send(b"later still")
        peer.close()
        self.assertIsInstance(self.lost(), ConnectionDone)
        self.assertEqual(self.user.received, b"")

    def test_close_after_the_peer(self) -> None:
        """A peer that ended its direction first still gets everything; then it is over at once."""
        owned, peer = self.reading()
        self.user.queue += flood_bytes(0, 7_000_000)
        owned.loseConnection()
        peer.socket.shutdown(socket.SHUT_WR)
        self.sockets.turns(20)
        self.assertEqual(self.protocol.losses, 0)
        self.assertEqual(peer.read(7_000_000), flood_bytes(0, 7_000_000))
        self.assertIsInstance(self.lost(), ConnectionDone)

    def test_close_and_a_reset(self) -> None:
        """A reset ends the closing, too."""
        owned, peer = self.reading()
        owned.loseConnection()
        self.sockets.until(lambda: (peer.take(), peer.ended)[1])
        peer.reset()
        self.assertIsInstance(self.lost(), ConnectionLost if not self.unix else ConnectionDone)

    def test_close_and_a_peer_that_does_not(self) -> None:
        """Aborting ends the closing."""
        owned, peer = self.reading()
        owned.loseConnection()
        self.sockets.until(lambda: (peer.take(), peer.ended)[1])
        owned.abortConnection()
        self.assertIsInstance(self.lost(), ConnectionAborted)

    def test_close_of_the_transport(self) -> None:
        """Closing the transport itself sends what is held, too."""
        owned, peer = self.own()
        self.user.queue += flood_bytes(0, 7_000_000)
        owned.wake()
        transport: Any = self.protocol.transport
        transport.loseConnection()
        self.assertEqual(peer.read_end(), flood_bytes(0, 7_000_000))
        self.assertIsInstance(self.lost(), ConnectionDone)

    def test_abort(self) -> None:
        """abortConnection drops what is held, from within a delivery too."""
        owned, peer = self.reading()
        self.user.buffer = bytearray(10)
        self.user.on_came = owned.abortConnection
        self.user.queue += bytes(9_000_000)
        owned.wake()
        self.sockets.turns(20)
        peer.send(bytes(100))
        self.assertIsInstance(self.lost(), ConnectionAborted)
        self.assertEqual(self.user.reads, [10])
        self.assertLess(len(peer.read_end()), 9_000_000)
        self.assertGreater(self.user.held, 0)

    def test_abort_while_sending(self) -> None:
        """A producer may abort when it is resumed; nothing more is sent then."""
        owned, peer = self.own()
        producer = Producer()
        producer.resumeProducing = owned.abortConnection  # type: ignore[method-assign]
        owned.registerProducer(producer, True)
        self.user.queue += bytes(2 * HIGH_WATER + 100_000)  # the last piece stays
        owned.wake()
        self.sockets.until(lambda: (peer.take(), self.protocol.losses)[1])
        self.assertIsInstance(self.protocol.reason, ConnectionAborted)
        self.assertGreater(self.user.held, 0)


class OwnedSocketOnSelectTests(OwnedSocketTests):
    """The same on the select reactor."""

    kind = "select"


class OwnedSocketOnAsyncioTests(OwnedSocketTests):
    """The same on asyncio."""

    kind = "asyncio"


class OwnedUNIXSocketTests(OwnedSocketTests):
    """The same over UNIX sockets."""

    unix = True


class TCPOptionTests(SynchronousTestCase):
    """What is set on a TCP socket, and what the kernel makes of it."""

    def setUp(self) -> None:
        self.sockets = Sockets("epoll")
        self.addCleanup(self.sockets.close)
        self.protocol, self.user = Recorder(), User()
        self.peer = self.sockets.accept(self.protocol)
        self.owned = OwnedSocket(self.protocol.transport, self.user)
        done: list[bool] = []
        self.owned.take_over(lambda: done.append(True))
        self.sockets.until(lambda: done)
        transport: Any = self.protocol.transport
        self.socket = transport.getHandle()

    def low_water(self) -> int:
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)

    def test_low_water(self) -> None:
        """The reactor is not woken before the bytes that are wanted are there."""
        self.user.wanted = 50_000
        self.owned.resumeProducing()
        self.assertEqual(self.low_water(), 50_000)
        self.peer.send(bytes(49_999))
        self.sockets.turns(20)
        self.assertEqual(self.user.reads, [])
        self.user.on_came = lambda: setattr(self.user, "wanted", 8)
        self.peer.send(b"x")
        self.sockets.until(lambda: self.user.reads)
        self.assertEqual(self.user.reads, [50_000])
        self.assertEqual(self.low_water(), 8)

    def test_low_water_and_the_end(self) -> None:
        """The end of the connection is told however little came before it."""
        self.user.wanted = 50_000
        self.owned.resumeProducing()
        self.peer.send(b"little")
        self.peer.close()
        self.sockets.until(lambda: self.protocol.losses)
        self.assertEqual(self.user.received, b"little")
        self.assertIsInstance(self.protocol.reason, ConnectionDone)

    def test_low_water_beyond_the_buffer(self) -> None:
        """A full receive buffer is told however much is wanted."""
        self.user.buffer = bytearray(1 << 20)
        self.user.wanted = 1 << 30
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.owned.resumeProducing()
        self.peer.send(bytes(1_000_000))
        self.sockets.until(lambda: len(self.user.received) == 1_000_000)

    def test_no_low_water(self) -> None:
        """Where the kernel does not have it, everything works without."""
        real, self.owned._socket = self.owned._socket, _Refusing(self.owned._socket)  # type: ignore
        self.addCleanup(setattr, self.owned, "_socket", real)
        self.user.wanted = 50_000
        self.owned.resumeProducing()
        self.peer.send(b"little")
        self.sockets.until(lambda: self.user.received == b"little")

    def test_no_delay(self) -> None:
        """Small writes are not held back."""
        self.assertTrue(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def test_congestion_control(self) -> None:
        """Within one machine nothing is paced."""
        name = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        self.assertEqual(name.rstrip(b"\0"), b"reno")


class _Endless:
    """A socket that always has more to read, and takes whatever is sent."""

    def __init__(self) -> None:
        self.sent = 0

    def recv_into(self, room: memoryview) -> int:
        return len(room)

    def send(self, data: memoryview) -> int:
        self.sent += len(data)
        return len(data)

    def setsockopt(self, *_: Any) -> None:
        pass


class _Refusing:
    """A socket that refuses every option."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real

    def setsockopt(self, *_: Any) -> None:
        raise OSError("not here")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
