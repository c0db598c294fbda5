"""Tests of :mod:`cloudconnect.accelerator.passage`: one session's connections, codec and cache."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectionAborted, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.accelerator.passage import Passage, hop_endpoint
from cloudconnect.commands.control import BETWEEN_WANS
from cloudconnect.dedup.memory import MemoryCache
from cloudconnect.errors import Aborted, NotReachable, Tampered, Truncated
from cloudconnect.keys import KeyB, key_b_context
from cloudconnect.settings import BUNDLE_SECONDS
from cloudconnect.testing import HalfCloseRecorder, MemoryPair
from cloudconnect.transports.memory import MemoryEndpoint
from cloudconnect.transports.stream import RecordStream
from cloudconnect.wire.preamble import ConnectionKind, Preamble
from tests.accelerator.parts import Pool, Turns
from tests.dedup.pairs import noise

STREAMS = 3
ROUTE, SESSION = b"r" * 16, b"s" * 16


class Lease:
    """The use of a cache.

    :ivar released: how often it was given back
    """

    trouble = None

    def __init__(self) -> None:
        self.cache = MemoryCache()
        self.released = 0

    def release(self) -> None:
        self.released += 1


class PassageCase(SynchronousTestCase):
    """Two passages back to back, with the test as both movers."""

    def setUp(self) -> None:
        self.clock, self.pool = Turns(), Pool()
        self.leases = [Lease(), Lease()]
        self.passages = [
            Passage(self.clock, self.pool, lease, STREAMS, False)  # type: ignore[arg-type]
            for lease in self.leases
        ]
        self.ends: list[list[Any]] = [[], []]
        for passage, ends in zip(self.passages, self.ends, strict=True):
            passage.ended.addCallback(ends.append)
        self.movers = [HalfCloseRecorder(), HalfCloseRecorder()]

    def connect_movers(self) -> None:
        """Both movers are there."""
        for mover, passage in zip(self.movers, self.passages, strict=True):
            pair = MemoryPair(self.clock)
            waiting = Protocol()
            pair.connect(mover, waiting)
            passage.take_mover(waiting.transport)
        self.clock.settle()

    def connect_line(self, count: int = STREAMS) -> list[MemoryPair]:
        """Some of the connections between the two, in another order at each end."""
        pairs = [MemoryPair(self.clock) for _ in range(count)]
        ends = []
        for pair in pairs:
            here, there = Protocol(), Protocol()
            pair.connect(here, there)
            ends.append((here.transport, there.transport))
        for here, _ in ends:
            self.passages[0].add(here)
        for _, there in reversed(ends):
            self.passages[1].add(there)
        self.clock.settle()
        return pairs


class PassageTests(PassageCase):
    """From mover to mover."""

    def test_both_ways(self) -> None:
        """What one mover sends the other one gets, whichever connections come first."""
        self.assertFalse(self.passages[0].complete)
        self.connect_movers()
        self.assertFalse(self.passages[0].complete)
        self.connect_line()
        self.assertTrue(all(passage.complete for passage in self.passages))
        data = [noise(300_000, 1), noise(200_000, 2)]
        for mover, octets in zip(self.movers, data, strict=True):
            mover.transport.write(octets)  # type: ignore[union-attr]
        self.clock.settle(0.1)
        for mover in self.movers:
            mover.transport.loseWriteConnection()  # type: ignore[union-attr]
        self.clock.settle(0.1)
        self.assertEqual(data[::-1], [bytes(mover.data) for mover in self.movers])
        self.assertEqual([[(None, "")]] * 2, self.ends)
        self.assertEqual([1, 1], [lease.released for lease in self.leases])
        counts = self.passages[0].counts()
        self.assertEqual(500_000, counts["bytes_before"])
        self.assertEqual(counts["line_sent"] + counts["line_received"], counts["bytes_after"])
        self.assertGreater(counts["cache"], 400_000)

    def test_passed(self) -> None:
        """When all was passed on that is told before the end, with counts that stay; not before
        the other mover has ended too."""
        self.connect_movers()
        self.connect_line()
        told: list[Any] = []
        passage = self.passages[0]
        passage.passed.addCallback(lambda _: told.append((passage.counts(), list(self.ends[0]))))
        for mover in self.movers:
            mover.transport.write(noise(50_000, 3))  # type: ignore[union-attr]
        self.movers[0].transport.loseWriteConnection()  # type: ignore[union-attr]
        self.clock.settle(0.1)
        self.assertEqual([], told)
        self.movers[1].transport.loseWriteConnection()  # type: ignore[union-attr]
        self.clock.settle(0.1)
        ((counts, ends),) = told
        self.assertEqual(([], [(None, "")]), (ends, self.ends[0]))
        self.assertEqual(passage.counts(), counts)

    def test_passed_and_failed(self) -> None:
        """A passage that fails says both, the failure first."""
        order: list[str] = []
        passage = self.passages[0]
        passage.ended.addCallback(lambda _: order.append("ended"))
        passage.passed.addCallback(lambda _: order.append("passed"))
        self.connect_movers()
        self.connect_line()
        passage.abort(Aborted("enough"))
        self.clock.settle(1)
        self.assertEqual(["ended", "passed"], order)

    def test_aborted(self) -> None:
        """Who ends it says why, once; everything is closed, and the cache is given back."""
        self.connect_movers()
        pairs = self.connect_line()
        self.passages[0].abort(Aborted("enough"))
        self.passages[0].fail(Tampered("too late"), "far")
        self.clock.settle(1)
        ((error, where),) = self.ends[0]
        self.assertEqual((Aborted, ""), (type(error), where))
        ((error, where),) = self.ends[1]
        self.assertEqual("far", where)
        self.assertTrue(all(pair.left.disconnected for pair in pairs))
        self.assertEqual([1, 1], [lease.released for lease in self.leases])

    def test_first_reason(self) -> None:
        """What has ended it is not forgotten where somebody aborts it before all of it is closed;
        but a security error that comes then counts more."""
        for later, wanted in ((Aborted("ended"), Truncated), (Tampered("changed"), Tampered)):
            self.setUp()
            self.connect_movers()
            (line, *_) = self.connect_line()
            self.pool.stopped = True
            line.left.abortConnection()
            self.clock.settle()
            self.assertEqual([[], []], self.ends)
            self.passages[1].fail(later, "near")
            self.pool.go_on()
            self.clock.settle()
            ((error, _),) = self.ends[1]
            self.assertIs(wanted, type(error))

    def test_never_complete(self) -> None:
        """A connection that does not come in time ends it."""
        self.connect_movers()
        self.connect_line(STREAMS - 1)
        self.assertFalse(self.passages[0].complete)
        self.clock.settle(BUNDLE_SECONDS + 1)
        for ((error, where),) in self.ends:
            self.assertEqual(("far", True), (where, isinstance(error, NotReachable)))

    def test_mover_not_reachable(self) -> None:
        """Where there is no mover that is a named error, however the endpoint put it."""

        class Nowhere:
            def connect(self, factory: Factory) -> Any:
                raise ConnectionRefusedError

        coroutine = self.passages[1].reach_mover(Nowhere())  # type: ignore[arg-type]
        with self.assertRaises(StopIteration) as returned:
            coroutine.send(None)
        self.assertIs(False, returned.exception.value)
        self.clock.settle()
        ((error, where),) = self.ends[1]
        self.assertEqual((NotReachable, "near"), (type(error), where))

    def test_ended_while_connecting(self) -> None:
        """Where it is ended while it connects to the mover, which ends that too, why it was ended
        stays the reason."""
        self.passages[1].abort(Aborted("enough"))

        class Ended:
            def connect(self, factory: Factory) -> Any:
                raise ConnectionAborted

        coroutine = self.passages[1].reach_mover(Ended())  # type: ignore[arg-type]
        with self.assertRaises(StopIteration) as returned:
            coroutine.send(None)
        self.assertIs(False, returned.exception.value)
        self.clock.settle()
        ((error, _),) = self.ends[1]
        self.assertEqual("enough", str(error))

    def test_ended_before_the_connections(self) -> None:
        """Connections that come after the end are closed."""
        self.passages[0].abort(Aborted("enough"))
        self.clock.settle()
        pair, waiting = MemoryPair(self.clock), Protocol()
        pair.connect(Protocol(), waiting)
        self.passages[0].add(waiting.transport)
        mover, late = MemoryPair(self.clock), Protocol()
        mover.connect(Protocol(), late)
        self.passages[0].take_mover(late.transport)
        self.clock.settle(1)
        self.assertTrue(pair.left.disconnected and mover.left.disconnected)


class HopTests(SynchronousTestCase):
    """How a connection of a hop begins."""

    def test_context(self) -> None:
        """Preamble, then a record stream under Key B for this hop, and the number."""
        clock, key = Turns(), KeyB(bytes(32))
        preamble = Preamble(ConnectionKind.KEY_B_STREAM, ROUTE).encode()
        place, seen = MemoryEndpoint(clock, "place"), []  # type: ignore[var-annotated]

        class Server(Protocol):
            def dataReceived(self, data: bytes) -> None:
                seen.append(data)

        context = key_b_context(preamble, SESSION, "acme", BETWEEN_WANS)
        connected: list[int] = []

        def allow(number: int) -> bool:
            connected.append(number)
            return True

        for number in (0, 2):
            parts: Any = {"route": ROUTE, "session": SESSION, "tenant": "acme"}
            endpoint = hop_endpoint(clock, place, key, hop=BETWEEN_WANS, connection=number, **parts)

            class Behind(Protocol):
                """Takes the preamble off."""

                def connectionMade(self) -> None:
                    recipe = RecordStream(key, context, allow=allow)
                    self.layer = recipe.layer(False, Server(), clock)
                    self.waiting = b""

                def dataReceived(self, data: bytes) -> None:
                    self.waiting += data
                    if len(self.waiting) > len(preamble) and self.layer.transport is None:
                        assert self.waiting.startswith(preamble)
                        data, self.waiting = self.waiting[len(preamble) :], self.waiting
                        self.layer.makeConnection(self.transport)
                    if self.layer.transport is not None:
                        self.layer.dataReceived(data)

            place.listen(Factory.forProtocol(Behind))
            made = connectProtocol(endpoint, Protocol())
            clock.settle()
            self.successResultOf(made).transport.write(b"hello")  # type: ignore[union-attr]
            clock.settle()
            self.assertEqual(number, connected.pop())
            self.assertEqual(b"hello", seen.pop())
