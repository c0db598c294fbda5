"""Tests of :mod:`cloudconnect.accelerator.acceleration`."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from cloudconnect.accelerator.acceleration import Acceleration
from cloudconnect.accelerator.sides import QUEUE_HIGH
from cloudconnect.dedup import encoder
from cloudconnect.dedup.cutting import ContentCutter
from cloudconnect.dedup.exchange import Exchange
from cloudconnect.dedup.interfaces import IBlockCache
from cloudconnect.dedup.limits import BATCH_MAX, WINDOW_DEFAULT, WINDOW_MIN
from cloudconnect.dedup.memory import MemoryCache
from cloudconnect.dedup.messages import Hello
from cloudconnect.errors import Aborted, CloudConnectError, ProtocolViolation, Truncated
from cloudconnect.keys import KeyB
from cloudconnect.testing import HalfCloseRecorder, MemoryPair
from cloudconnect.transports.bundle import Bundle
from cloudconnect.transports.endpoints import wrap_client_endpoint, wrap_server_endpoint
from cloudconnect.transports.stream import RecordStream
from tests.accelerator.parts import Chain, Pool, Turns
from tests.dedup.pairs import noise, text

#: How many times as many examples as usual are tried.
TIMES = int(os.environ.get("CLOUDCONNECT_EXAMPLES", "1"))
PARTS = [b"x", bytes(70_000), noise(50_000, 2), text(120_000, 4), text(60_000, 4) + text(60_000, 5)]
streams = st.lists(
    st.one_of(st.sampled_from(PARTS), st.binary(min_size=1, max_size=400)), max_size=6
).map(b"".join)


def record_streams() -> Any:
    """Wraps both ends of every connection of a chain in record streams."""
    key = KeyB.generate()

    def wrap(protocol: Any, end: int, clock: Any) -> Any:
        return RecordStream(key, b"hop").layer(end == 0, protocol, clock)

    return wrap


@implementer(IBlockCache)
class CountingCache(MemoryCache):
    """Counts the appenders that were not closed.

    :ivar open: how many
    """

    def __init__(self) -> None:
        super().__init__()
        self.open = 0

    def appender(self) -> Any:
        """One that is counted."""
        self.open += 1
        made = super().appender()
        closed: list[bool] = []

        def close() -> None:
            if not closed:
                closed.append(True)
                self.open -= 1

        made.close = close  # type: ignore[method-assign]
        return made


class ExactTests(SynchronousTestCase):
    """What a mover writes comes out at the other one, and nothing else."""

    def setUp(self) -> None:
        self.patch(encoder, "BATCH_LITERAL", 60_000)
        self.patch(encoder, "BATCH_PLAIN", 150_000)

    @given(
        streams,
        streams,
        st.lists(st.integers(0, 400_000), max_size=4),
        st.sampled_from([7919, 65536, 1]),
        st.booleans(),
        st.booleans(),
    )
    @settings(deadline=None, max_examples=25 * TIMES)
    def test_any_split(self, there, back, places, piece, pause, sealed) -> None:  # type: ignore
        """Both ways at once, cut anywhere, with pauses or without, plain or under keys."""
        if piece == 1:
            there, back = there[:2000], back[:2000]
        wrap = {"wrap": record_streams()} if sealed else {}
        chain = Chain(piece=lambda: piece, **wrap)
        for mover, data in enumerate((there, back)):
            ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
            for start, end in pairwise(ends):
                chain.write(data[start:end], mover)
                if pause:
                    chain.settle(0.005)
        chain.settle(1)
        self.assertEqual((back, there), (chain.got(0), chain.got(1)))
        chain.close()
        self.assertEqual([[(None, "")], [(None, "")]], chain.ends)
        for acceleration, sent, received in zip(
            chain.accelerations, (there, back), (back, there), strict=True
        ):
            self.assertEqual(len(sent), acceleration.sent.plain)
            self.assertEqual(len(received), acceleration.received.plain)

    def test_known(self) -> None:
        """What was sent before through the same caches costs next to nothing, in either way."""
        data = text(900_000)
        first = Chain()
        first.write(data)
        first.close()
        again = Chain(first.caches)
        again.write(data, 1)
        again.close()
        self.assertEqual(data, again.got(0))
        self.assertLess(again.accelerations[1].sent.coded, len(data) // 100)


class DialogueTests(SynchronousTestCase):
    """Movers who wait for each other's answers."""

    def test_small(self) -> None:
        """A few bytes go on their way within milliseconds, each time."""
        chain = Chain()
        for turn in range(10):
            chain.write(b"have %d" % turn)
            chain.settle(0.003)
            chain.settle()
            chain.write(b"want %d" % turn, 1)
            chain.settle(0.003)
            chain.settle()
        self.assertEqual(b"".join(b"have %d" % turn for turn in range(10)), chain.got(1))
        self.assertEqual(b"".join(b"want %d" % turn for turn in range(10)), chain.got(0))

    def test_trickle(self) -> None:
        """Bytes that never stop coming, a few at a time, are on their way within 20 ms."""
        chain = Chain()
        for _ in range(25):
            chain.write(b"x")
            chain.settle(0.001)
        self.assertGreater(len(chain.got(1)), 0)

    def test_stream(self) -> None:
        """A stream that does not pause goes in whole batches, not in one for each piece of it."""
        data = noise(6_000_000)
        chain = Chain()
        for at in range(0, len(data), 60_000):
            chain.write(data[at : at + 60_000])
            chain.settle()
        chain.settle(1)
        self.assertEqual(data, chain.got(1))
        counts = chain.accelerations[0].sent
        self.assertLess(counts.coded - counts.plain, 3000)

    def test_other_direction(self) -> None:
        """A mover that does not read stops what is sent to it, and not what it sends itself."""
        chain = Chain()
        mover = chain.movers[0]
        mover.transport.pauseProducing()
        chain.write(noise(30_000_000, 3), 1)
        chain.settle(1)
        there = noise(30_000_000, 4)
        chain.write(there)
        chain.settle(1)
        self.assertEqual(there, chain.got(1))
        self.assertEqual(b"", chain.got(0))
        mover.transport.resumeProducing()
        chain.settle(1)
        self.assertEqual(noise(30_000_000, 3), chain.got(0))


class BoundTests(SynchronousTestCase):
    """What is kept where somebody does not read."""

    def test_slow_mover(self) -> None:
        """No more than a window, and some queues, is taken of what the far mover does not read."""
        chain = Chain()
        chain.movers[1].transport.pauseProducing()
        data = noise(40_000_000)
        chain.write(data)
        chain.settle(1)
        here, there = chain.accelerations
        taken = len(data) - chain.hops[0].left.held
        self.assertLess(taken, WINDOW_DEFAULT + BATCH_MAX + 3 * QUEUE_HIGH)
        self.assertLessEqual(here.near.queued, QUEUE_HIGH + 65536)
        self.assertLessEqual(there.near.held, WINDOW_DEFAULT)
        self.assertEqual(0, here.far.held)  # the line was read
        chain.movers[1].transport.resumeProducing()
        chain.settle(1)
        self.assertEqual(data, chain.got(1))

    def test_slow_line(self) -> None:
        """No more is coded than the line needs to stay busy."""
        chain = Chain()
        chain.line.right.pauseProducing()
        data = noise(20_000_000)
        chain.write(data)
        chain.settle(1)
        here = chain.accelerations[0]
        self.assertLess(here.far.held, 5 << 20)
        self.assertLess(len(data) - chain.hops[0].left.held, 8 << 20)
        chain.line.right.resumeProducing()
        chain.settle(1)
        self.assertEqual(data, chain.got(1))

    def test_no_line_yet(self) -> None:
        """What the mover sends before there is a line waits, in part where it is."""
        chain = Chain(connect_line=False)
        data = noise(4_000_000)
        chain.write(data)
        chain.settle(1)
        self.assertLessEqual(chain.accelerations[0].near.queued, QUEUE_HIGH + 65536)
        chain.connect_line()
        chain.settle(1)
        self.assertEqual(data, chain.got(1))

    def test_one_job(self) -> None:
        """There is one job at a time, and what comes meanwhile waits, bounded."""
        chain = Chain()
        chain.settle()
        chain.pool.stopped = True
        data = noise(4_000_000)
        chain.write(data)
        chain.settle(1)
        self.assertEqual(1, len(chain.pool.waiting))
        self.assertLessEqual(chain.accelerations[0].near.queued, QUEUE_HIGH + 65536)
        chain.pool.go_on()
        chain.settle(1)
        self.assertEqual(data, chain.got(1))
        self.assertLess(chain.pool.jobs, 60)


class EndTests(SynchronousTestCase):
    """How it ends."""

    def test_half(self) -> None:
        """Either mover may end first; the other one goes on."""
        for first in (0, 1):
            chain = Chain(wrap=record_streams())
            chain.write(b"last words", first)
            chain.end(first)
            chain.settle(1)
            other = chain.movers[1 - first]
            self.assertEqual((b"last words", 1), (bytes(other.data), other.read_ends))
            chain.write(b"not yet", 1 - first)
            chain.settle(1)
            self.assertEqual(b"not yet", chain.got(first))
            self.assertEqual([[], []], chain.ends)
            chain.end(1 - first)
            chain.settle(1)
            self.assertEqual([[(None, "")], [(None, "")]], chain.ends)
            for mover in chain.movers:
                mover.transport.loseConnection()
            chain.settle(1)
            self.assertEqual([1, 1], [mover.losses for mover in chain.movers])

    def test_nothing(self) -> None:
        """Movers that say nothing end well."""
        chain = Chain()
        chain.settle()
        chain.close()
        self.assertEqual([[(None, "")], [(None, "")]], chain.ends)

    def lost(self, chain: Chain, end: int, where: str) -> BaseException:
        """The one error that an acceleration ended with."""
        chain.settle(20)
        self.assertEqual(1, len(chain.ends[end]))
        error, place = chain.ends[end][0]
        self.assertEqual(where, place)
        assert error is not None
        return error

    def test_mover_lost(self) -> None:
        """A mover's cut line ends everything, once, with where it was; caches are let go."""
        for sealed in (False, True):
            for killed in (0, 1):
                caches = CountingCache(), CountingCache()
                chain = Chain(caches, **({"wrap": record_streams()} if sealed else {}))
                chain.write(noise(3_000_000))
                chain.settle(1)
                self.assertEqual([4, 4], [cache.open for cache in caches])
                (chain.hops[killed].left).abortConnection()
                self.assertIsInstance(self.lost(chain, killed, "near"), CloudConnectError)
                error = self.lost(chain, 1 - killed, "far")
                self.assertIsInstance(error, Aborted if sealed else Truncated)
                self.assertEqual(1, chain.movers[1 - killed].losses)
                self.assertEqual([0, 0], [cache.open for cache in caches])

    def test_line_lost(self) -> None:
        """A cut line between the accelerators ends both, and both movers hear of it."""
        chain = Chain(wrap=record_streams())
        chain.write(noise(3_000_000))
        chain.settle(1)
        chain.write(noise(200_000))  # and something is under way
        chain.line.left.abortConnection()
        for end in (0, 1):
            self.assertIsInstance(self.lost(chain, end, "far"), Truncated)
            self.assertIsInstance(chain.movers[end].reason, Aborted)

    def test_mover_closes_early(self) -> None:
        """A mover that closes before it was given everything ends the session as a lost one."""
        chain = Chain()
        chain.settle()
        chain.movers[1].transport.loseConnection()
        self.assertIsInstance(self.lost(chain, 1, "near"), Truncated)
        self.lost(chain, 0, "far")

    def test_far_closes_early(self) -> None:
        """An end of the line, however authentic, is none of the streams."""
        chain = Chain(wrap=record_streams())
        chain.write(b"some")
        chain.settle(1)
        chain.accelerations[0].far.finish(close=True)
        self.assertIsInstance(self.lost(chain, 1, "far"), Truncated)
        self.lost(chain, 0, "far")

    def test_abort(self) -> None:
        """Whoever owns it can end it, before and after there are connections, and once."""
        chain = Chain(wrap=record_streams())
        chain.settle()
        reason = Aborted("no more")
        chain.accelerations[0].abort(reason)
        chain.accelerations[0].abort(Aborted("again"))
        self.assertIs(reason, self.lost(chain, 0, ""))
        self.assertIsInstance(self.lost(chain, 1, "far"), Aborted)
        self.assertIsInstance(chain.movers[0].reason, Aborted)
        unconnected = Chain(connect_line=False)
        unconnected.accelerations[0].abort(reason)
        unconnected.connect_line()
        self.assertIs(reason, self.lost(unconnected, 0, ""))
        self.lost(unconnected, 1, "far")

    def test_abort_in_a_job(self) -> None:
        """The exchange is closed, and the end told, once the job that runs is done."""
        caches = CountingCache(), CountingCache()
        chain = Chain(caches)
        chain.settle()
        chain.pool.stopped = True
        chain.write(b"some")
        chain.settle()
        chain.accelerations[0].abort(Aborted("no more"))
        chain.settle()
        self.assertEqual([], chain.ends[0])
        self.assertEqual(2, caches[0].open - 2)
        chain.pool.go_on()
        chain.settle()
        self.lost(chain, 0, "")
        self.assertEqual(0, caches[0].open)


class HostileTests(SynchronousTestCase):
    """Another accelerator that does what it may not."""

    def alone(self) -> tuple[list[tuple[BaseException | None, str]], Any, Any, Turns]:
        """An acceleration whose other accelerator is played by the test."""
        clock = Turns()
        ends: list[tuple[BaseException | None, str]] = []
        one = Acceleration(
            clock,
            Pool(),  # type: ignore[arg-type]
            Exchange(MemoryCache(), ContentCutter()),
            lambda error, where: ends.append((error, where)),
        )
        mover, other = HalfCloseRecorder(), HalfCloseRecorder()
        MemoryPair(clock).connect(mover, one.near)
        MemoryPair(clock).connect(other, one.far)
        clock.settle()
        return ends, mover, other, clock

    def test_damaged(self) -> None:
        """What is no message ends the session on both sides of it, and is reported once."""
        hello = b"".join(Hello(WINDOW_MIN, True).encode())
        for rubbish in (b"\xff" * 100, hello * 2, hello + b"\x02\xff\xff\xff\xff"):
            ends, mover, other, clock = self.alone()
            other.transport.write(rubbish)
            clock.settle(1)
            self.assertEqual(1, len(ends))
            self.assertIsInstance(ends[0][0], ProtocolViolation)
            self.assertEqual("codec", ends[0][1])
            self.assertEqual((1, 1), (mover.losses, other.losses))

    def test_any_changed_byte(self) -> None:
        """A byte that is changed on the line never comes out at the mover."""
        data = text(3000)
        for at in (5, 20, 40, 80, 300, 900):
            chain = Chain()
            seen = [0]
            write = chain.line.left.write

            def change(octets: bytes, at: int = at, seen: Any = seen, write: Any = write) -> None:
                place = at - seen[0]
                seen[0] += len(octets)
                if 0 <= place < len(octets):
                    octets = octets[:place] + bytes([octets[place] ^ 64]) + octets[place + 1 :]
                write(octets)

            chain.line.left.write = change  # type: ignore[method-assign]
            chain.write(data)
            chain.settle(1)
            self.assertIn(chain.got(1), (b"", data))
            if chain.got(1) == b"" and chain.ends[1]:
                self.assertEqual("codec", chain.ends[1][0][1])
                self.assertEqual(1, chain.movers[1].losses)

    def test_bug(self) -> None:
        """An error of ours in the codec ends the session too, and is logged."""
        chain = Chain()
        chain.settle()

        def broken(data: bytes) -> None:
            raise ZeroDivisionError

        chain.accelerations[0]._exchange.send = broken  # type: ignore
        chain.write(b"some")
        chain.settle(1)
        [(error, where)] = chain.ends[0]
        self.assertIsInstance(error, ZeroDivisionError)
        self.assertEqual("codec", where)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))


class ThreadTests(TestCase):
    """With threads and sockets."""

    timeout = 60

    def setUp(self) -> None:
        self.pool = ThreadPool(0, 4, "accelerations")
        self.pool.start()
        self.addCleanup(self.pool.stop)

    async def _connect(self, here: Any, there: Any) -> None:
        """A record stream over TCP."""
        recipe = RecordStream(KeyB.generate(), b"hop")
        factory = Factory.forProtocol(lambda: there)  # type: ignore[arg-type]
        listening = wrap_server_endpoint(
            recipe, TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), reactor
        )
        port = await listening.listen(factory)
        self.addCleanup(port.stopListening)
        address = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        await connectProtocol(wrap_client_endpoint(recipe, address, reactor), here)

    def test_both_ways(self) -> Deferred[None]:
        """Some megabytes each way at once, and a proper end."""
        return Deferred.fromCoroutine(self._both_ways(1))

    def test_bundle(self) -> Deferred[None]:
        """The same, where the line is four connections."""
        return Deferred.fromCoroutine(self._both_ways(4))

    async def _both_ways(self, members: int) -> None:
        ended: list[Deferred[Any]] = [Deferred(), Deferred()]
        one, two = (
            Acceleration(
                reactor,
                self.pool,
                Exchange(MemoryCache()),
                lambda error, where, end=end: end.callback((error, where)),  # type: ignore
            )
            for end in ended
        )
        movers: list[Any] = [HalfCloseRecorder(), HalfCloseRecorder()]
        await self._connect(movers[0], one.near)
        if members == 1:
            await self._connect(one.far, two.far)
        else:
            bundles = [Bundle(side.far, members, reactor) for side in (one, two)]  # type: ignore
            for index in range(members):
                await self._connect(*(bundle.member(index) for bundle in bundles))
        await self._connect(movers[1], two.near)
        data = [text(3_000_000) + noise(3_000_000), noise(5_000_000, 2)]
        for mover, octets in zip(movers, data, strict=True):
            mover.transport.write(octets)
            mover.transport.loseWriteConnection()
        results: Any = await DeferredList(ended)
        self.assertEqual([(True, (None, "")), (True, (None, ""))], results)
        self.assertEqual([data[1], data[0]], [bytes(mover.data) for mover in movers])
        self.assertLess(one.sent.coded, 5_500_000)
