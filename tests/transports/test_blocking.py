"""Tests of :mod:`cloudconnect.transports.blocking`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from cloudconnect.errors import Aborted, LocalError, Tampered, Truncated
from cloudconnect.interfaces import IBytePipe
from cloudconnect.keys import KeyA, KeyB
from cloudconnect.testing import HalfCloseRecorder, MemoryPair, Recorder, flood_bytes
from cloudconnect.transports.blocking import BlockingPipe, can_half_close
from cloudconnect.transports.endpoints import wrap_client_endpoint, wrap_server_endpoint
from cloudconnect.transports.stream import RecordStream
from cloudconnect.transports.tunnel import NoiseTunnel


class ManualReactor(Clock):
    """A clock whose calls from threads are made when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.from_thread: list[Callable[[], object]] = []

    def callFromThread(self, call: Callable[[], object]) -> None:
        self.from_thread.append(call)

    def run(self) -> None:
        """Everything that is due, until nothing is."""
        while self.from_thread:
            self.from_thread.pop(0)()
            self.advance(0)
        self.advance(0)


class PipeTests(SynchronousTestCase):
    """One pipe, both of its threads played by the test, over a tunnel in memory."""

    def setUp(self) -> None:
        self.reactor = ManualReactor()
        self.pipe = BlockingPipe(self.reactor, high_water=1000, read_high_water=1000)
        self.far: Any = HalfCloseRecorder()

    def connect(self, recipe: Any = None) -> None:
        recipe = recipe or NoiseTunnel(KeyA.generate(), b"prologue")
        self.pair = MemoryPair(self.reactor)
        self.pair.connect(
            recipe.layer(True, self.pipe, self.reactor), recipe.layer(False, self.far, self.reactor)
        )
        self.reactor.run()

    def blocks(self, call: Callable[[], Any]) -> threading.Thread:
        """``call`` in a thread of its own, in which it waits."""
        self.returned = threading.Event()
        entered = threading.Event()
        self.outcome: list[Any] = []

        def work() -> None:
            entered.set()
            try:
                self.outcome.append(call())
            except Exception as error:
                self.outcome.append(error)
            self.returned.set()

        thread = threading.Thread(target=work)
        thread.start()
        entered.wait(30)
        self.addCleanup(thread.join, 30)
        return thread

    def test_interfaces(self) -> None:
        """It is a protocol below and a pipe above."""
        for interface in (IProtocol, IHalfCloseableProtocol, IBytePipe):
            verifyObject(interface, self.pipe)

    def test_write(self) -> None:
        """Parts of any bytes-like type arrive in order, with one call into the reactor's thread."""
        self.connect()
        self.pipe.write(b"one ", bytearray(b"two "), memoryview(b"three "))
        self.pipe.write(b"four")
        self.pipe.write(b"", memoryview(b""))
        self.assertEqual(len(self.reactor.from_thread), 1)
        self.assertEqual(self.far.data, b"")
        self.reactor.run()
        self.assertEqual(self.far.data, b"one two three four")
        self.assertEqual(self.pipe.bytes_written, 18)

    def test_write_before_connection(self) -> None:
        """What is written before there is a connection is sent when there is."""
        self.pipe.write(b"early")
        self.reactor.run()
        self.connect()
        self.assertEqual(self.far.data, b"early")

    def test_read(self) -> None:
        """Received bytes wait for the reader."""
        self.connect()
        self.far.transport.write(b"hello")
        self.reactor.run()
        self.assertEqual(self.pipe.read(), b"hello")
        self.assertEqual(self.pipe.bytes_read, 5)

    def test_slow_reader(self) -> None:
        """The transport is paused above the mark, and resumed when half of it is left."""
        self.connect()
        for _ in range(4):
            self.far.transport.write(b"x" * 400)
            self.reactor.run()
        transport: Any = self.pipe.transport
        self.assertTrue(transport._paused)
        self.pipe.read()
        self.reactor.run()
        self.assertTrue(transport._paused)
        self.pipe.read()
        self.assertEqual(len(self.reactor.from_thread), 1)
        self.reactor.run()
        self.assertFalse(transport._paused)
        while self.pipe.bytes_read < 1600:
            self.pipe.read()
            self.reactor.run()

    def test_reader_waits(self) -> None:
        """A reader waits for the first byte."""
        self.connect()
        self.blocks(self.pipe.read)
        self.assertFalse(self.returned.is_set())
        self.far.transport.write(b"at last")
        self.reactor.run()
        self.assertTrue(self.returned.wait(30))
        self.assertEqual(self.outcome, [b"at last"])

    def test_writer_waits(self) -> None:
        """A writer waits while the mark is reached or the transport pauses, and is told so."""
        self.connect()
        self.far.transport.pauseProducing()
        while not self.pipe._gate.paused:
            self.assertFalse(self.pipe.write(bytes(1000)))
            self.reactor.run()
        self.pipe.write(bytes(1000))
        self.reactor.run()
        waited: list[bool] = []
        self.blocks(lambda: waited.append(self.pipe.write(b"x")))
        self.assertFalse(self.returned.is_set())
        self.far.transport.resumeProducing()
        self.reactor.run()
        self.assertTrue(self.returned.wait(30))
        self.reactor.run()
        self.assertEqual(len(self.far.data), self.pipe.bytes_written)
        self.assertEqual(waited, [True])

    def test_finish(self) -> None:
        """Ends our direction after all that was written; the other one goes on until it ends."""
        self.connect()
        self.pipe.write(b"question")
        self.pipe.finish()
        self.pipe.finish()
        self.assertRaises(LocalError, self.pipe.write, b"more")
        self.reactor.run()
        self.assertEqual((self.far.data, self.far.read_ends, self.far.losses), (b"question", 1, 0))
        self.reactor.advance(1000)
        self.far.transport.write(b"answer")
        self.far.transport.loseWriteConnection()
        lost = self.pipe.when_lost()
        self.reactor.run()
        self.assertEqual([self.pipe.read() for _ in range(3)], [b"answer", b"", b""])
        self.assertIsNone(self.successResultOf(lost))
        self.assertIsNone(self.successResultOf(self.pipe.when_lost()))
        self.assertIsInstance(self.far.reason, ConnectionDone)
        self.pipe.finish()

    def test_peer_ends_first(self) -> None:
        """After the peer's end we may still write."""
        self.connect()
        self.far.transport.loseWriteConnection()
        self.reactor.run()
        self.assertEqual(self.pipe.read(), b"")
        self.pipe.write(b"still")
        self.pipe.finish()
        self.reactor.run()
        self.assertEqual(self.far.data, b"still")
        self.assertIsInstance(self.far.reason, ConnectionDone)

    def test_peer_closes(self) -> None:
        """A peer that closes both directions ends reading; writing to it is an error."""
        self.far = Recorder()
        self.connect()
        self.far.transport.write(b"last")
        self.far.transport.loseConnection()
        self.reactor.run()
        self.assertEqual(self.pipe.read(), b"last")
        self.assertEqual(self.pipe.read(), b"")

    def test_abort(self) -> None:
        """The first reason is what every call raises from then on; the peer is cut off."""
        self.connect()
        self.far.transport.write(b"unread")
        self.reactor.run()
        self.pipe.write(b"unsent")
        self.pipe.abort(Tampered("first"))
        self.pipe.abort(Tampered("second"))
        self.reactor.run()
        for call in (self.pipe.read, self.pipe.finish, lambda: self.pipe.write(b"x")):
            self.assertEqual(str(self.assertRaises(Tampered, call)), "first")
        self.assertIsInstance(self.far.reason, Truncated)
        self.assertEqual(self.far.data, b"")
        self.assertIsInstance(self.successResultOf(self.pipe.when_lost()), Tampered)

    def test_abort_is_said(self) -> None:
        """Where the layer can say that we give up, it does; not after a security error."""
        for reason, expected in ((LocalError("x"), Aborted), (Tampered("x"), Truncated)):
            self.setUp()
            self.connect(RecordStream(KeyB.generate(), b"context"))
            self.pipe.abort(reason)
            self.reactor.run()
            self.assertIsInstance(self.far.reason, expected)
            self.assertRaises(type(reason), self.pipe.read)

    def test_abort_wakes_reader(self) -> None:
        """A reader that waits is woken by an abort."""
        self.connect()
        self.blocks(self.pipe.read)
        self.pipe.abort(Tampered("x"))
        self.assertTrue(self.returned.wait(30))
        self.assertIsInstance(self.outcome[0], Tampered)

    def test_abort_before_connection(self) -> None:
        """A pipe that was aborted before its connection came closes it at once."""
        self.pipe.abort(Tampered("x"))
        self.reactor.run()
        self.connect()
        self.assertEqual(self.far.losses, 1)

    def test_reasons(self) -> None:
        """How a connection is lost decides what the calls raise."""
        for reason, expected in (
            (Tampered("x"), Tampered),
            (Truncated("x"), Truncated),
            (Aborted(code=7), Aborted),
            (ConnectionLost(), Truncated),
            (ConnectionAborted(), Truncated),
        ):
            self.setUp()
            self.connect()
            self.pipe.connectionLost(Failure(reason))
            self.assertRaises(expected, self.pipe.read)
            self.assertRaises(expected, self.pipe.write, b"x")
            self.assertRaises(expected, self.pipe.finish)

    def test_unread_bytes(self) -> None:
        """What had arrived is read before a broken line is reported, not before tampering is."""
        for error, first in ((Truncated("x"), b"rest"), (Tampered("x"), None)):
            self.setUp()
            self.connect()
            self.pipe.dataReceived(b"rest")
            self.pipe.connectionLost(Failure(error))
            if first is not None:
                self.assertEqual(self.pipe.read(), first)
            self.assertRaises(type(error), self.pipe.read)

    def test_lost_after_end(self) -> None:
        """When the line breaks after the peer's end, reading has ended well; writing has not."""
        self.connect()
        self.pipe.readConnectionLost()
        self.pipe.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.pipe.read(), b"")
        self.assertRaises(Truncated, self.pipe.write, b"x")

    def test_write_to_closed(self) -> None:
        """A connection that was closed before everything was written is an error for the writer."""
        self.connect()
        self.pipe.connectionLost(Failure(ConnectionDone()))
        self.assertRaises(Truncated, self.pipe.write, b"x")

    def test_loss_wakes_writer(self) -> None:
        """A writer that waits is woken by the loss of the connection."""
        self.pipe.write(bytes(1000))
        self.blocks(lambda: self.pipe.write(b"x"))
        self.pipe.connectionLost(Failure(ConnectionLost()))
        self.assertTrue(self.returned.wait(30))
        self.assertIsInstance(self.outcome[0], Truncated)

    def test_order_when_full_inside_write(self) -> None:
        """A transport that pauses from inside a write gets what follows, and the end, after it."""

        class Eager:
            """Pauses and resumes its producer from inside each write."""

            def __init__(self) -> None:
                self.log: list[Any] = []

            def registerProducer(self, producer: Any, streaming: bool) -> None:
                self.producer = producer

            def unregisterProducer(self) -> None:
                self.log.append("unregister")

            def writeSequence(self, parts: list[bytes]) -> None:
                for part in parts:
                    self.producer.pauseProducing()
                    self.log.append(part)
                    self.producer.resumeProducing()

            def loseConnection(self) -> None:
                self.log.append("lose")

        transport = Eager()
        self.pipe.makeConnection(transport)
        self.pipe.write(b"a", bytearray(b"b"))
        self.pipe.finish()
        self.reactor.run()
        self.assertEqual(transport.log, [b"a", b"b", "unregister", "lose"])
        self.assertTrue(all(type(part) in (bytes, str) for part in transport.log))

    def test_half_close_of_its_own(self) -> None:
        """A transport that only forwards half-closing, as Twisted's TLS does, is not asked to."""
        self.connect()
        self.assertTrue(can_half_close(self.pipe.transport))
        tls: Any = TLSMemoryBIOProtocol(None, Protocol())
        directlyProvides(tls, ITCPTransport)
        self.assertFalse(can_half_close(tls))


class ThreadTests(TestCase):
    """Two pipes, each with a worker thread, over loopback TCP."""

    timeout = 60

    async def connect(self, recipe: Any) -> tuple[BlockingPipe, BlockingPipe]:
        from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint

        client, server = BlockingPipe(reactor), BlockingPipe(reactor)
        factories = []
        for pipe in (client, server):
            factory: Any = Factory()
            factory.noisy = False
            factory.buildProtocol = lambda _, pipe=pipe: pipe
            factories.append(factory)
        listening = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port: Any = await wrap_server_endpoint(recipe, listening, reactor).listen(factories[1])
        self.addCleanup(port.stopListening)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        await wrap_client_endpoint(recipe, endpoint, reactor).connect(factories[0])
        return client, server

    async def exchange(self, recipe: Any, size: int) -> None:
        client, server = await self.connect(recipe)

        def upload() -> bytes:
            for offset in range(0, size, 100_000):
                client.write(flood_bytes(offset, 60_000), flood_bytes(offset + 60_000, 40_000))
            client.finish()
            return read_all(client)

        def receive() -> bytes:
            data = read_all(server)
            server.write(b"got it")
            server.finish()
            return data

        def read_all(pipe: BlockingPipe) -> bytes:
            parts = []
            while part := pipe.read():
                parts.append(part)
            return b"".join(parts)

        receiving = deferToThread(receive)
        answer = await deferToThread(upload)
        data = await receiving
        self.assertEqual(answer, b"got it")
        self.assertEqual(data, flood_bytes(0, size))
        self.assertIsNone(await client.when_lost())
        self.assertIsNone(await server.when_lost())

    async def test_tunnel(self) -> None:
        """Bulk one way, a short answer back, both ends proper."""
        await self.exchange(NoiseTunnel(KeyA.generate(), b"prologue"), 12_000_000)

    async def test_stream(self) -> None:
        """The same over a record stream that owns its socket."""
        await self.exchange(RecordStream(KeyB.generate(), b"context"), 40_000_000)

    async def test_abort(self) -> None:
        """An abort in one thread is a truncation in the other, wherever it waits."""
        client, server = await self.connect(NoiseTunnel(KeyA.generate(), b"prologue"))
        reading = deferToThread(server.read)
        await deferToThread(client.abort, Tampered("stop"))
        await self.assertFailure(reading, Truncated)
        self.assertIsInstance(await client.when_lost(), Tampered)
        self.assertIsInstance(await server.when_lost(), Truncated)
