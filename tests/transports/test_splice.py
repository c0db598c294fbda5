"""Tests of :mod:`cloudconnect.transports.splice`: sockets on every reactor, driven by hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.settings import RELAY_IDLE_SECONDS
from cloudconnect.testing import Recorder, flood_bytes
from cloudconnect.transports.memory import MemoryPair
from cloudconnect.transports.pipes import PipePool
from cloudconnect.transports.splice import SplicedPair, Traffic, can_splice
from tests.transports.sockets import REACTORS, Peer, Sockets

LARGE = 3_000_000


class Allowance:
    """Grants what the test says."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.asked: list[Callable[[], None]] = []
        self.spent = 0
        self.closed = False

    def spend(self, count: int) -> None:
        self.left -= count
        self.spent += count

    def ask(self, granted: Callable[[], None]) -> None:
        self.asked.append(granted)

    def close(self) -> None:
        self.closed = True

    def grant(self, count: int) -> None:
        self.left += count
        self.asked.pop()()


class Joined:
    """A relay between two peers.

    :param tiers: of the pool; empty: there is no pipe, and bytes are copied
    """

    def __init__(self, kind: str, unix: bool, tiers: Any, up: Any = None, down: Any = None) -> None:
        self.sockets = Sockets(kind, unix)
        self.clock = Clock()
        self.pool = PipePool(tiers)
        self.traffic = Traffic()
        self.overs = 0
        self.unix = unix
        near, far = Protocol(), Protocol()
        self.near: Peer = self.sockets.accept(near)
        self.far: Peer = self.sockets.open(far)
        assert near.transport is not None and far.transport is not None
        self.transports: list[Any] = [near.transport, far.transport]
        near.transport.pauseProducing()  # type: ignore[attr-defined]
        far.transport.write(b"header ")
        self.pair = SplicedPair(
            self.clock,
            near.transport,
            far.transport,
            self.pool,
            self.traffic,
            up,
            down,
            self.over,
        )
        self.pair.begin()

    def over(self) -> None:
        self.overs += 1

    def close(self) -> None:
        self.pool.close()
        self.sockets.close()


class SpliceTests(SynchronousTestCase):
    """On every reactor, over TCP and UNIX sockets, through pipes and with copies."""

    def cases(self) -> Iterator[Joined]:
        for kind in REACTORS:
            for unix in (False, True):
                for tiers in (((64 << 10, 4),), ()):
                    yield self.joined(kind, unix, tiers)

    def joined(
        self, kind: str = "epoll", unix: bool = False, tiers: Any = ((64 << 10, 4),), **grants: Any
    ) -> Joined:
        made = Joined(kind, unix, tiers, **grants)
        self.addCleanup(made.close)
        return made

    def test_both_ways(self) -> None:
        """What was queued comes first, then every byte of both sides, in order."""
        for case in self.cases():
            case.near.send(flood_bytes(0, 100_000))
            case.far.send(flood_bytes(1, 50_000))
            self.assertEqual(b"header " + flood_bytes(0, 100_000), case.far.read(100_007))
            self.assertEqual(flood_bytes(1, 50_000), case.near.read(50_000))
            self.assertEqual((100_000, 50_000), (case.traffic.up, case.traffic.down))
            case.near.close()
            case.far.close()
            case.sockets.until(lambda case=case: case.overs)  # type: ignore[misc]
            self.assertEqual(0, case.traffic.pairs)

    def test_slow_reader(self) -> None:
        """Who does not read stops who writes; later every byte arrives. The other direction goes
        on meanwhile."""
        for case in self.cases():
            sent = refused = 0
            case.far.read(7)
            while refused < 20 and sent < 60_000_000:  # far more than all buffers
                try:
                    sent += case.near.socket.send(flood_bytes(sent, 100_000))
                    refused = 0
                except BlockingIOError:
                    refused += 1
                    case.sockets.turns(1)
            self.assertLess(sent, 60_000_000)
            case.far.send(b"on and on")
            self.assertEqual(b"on and on", case.near.read(9))
            self.assertEqual(flood_bytes(0, sent), case.far.read(sent))
            case.near.send(b"more")
            self.assertEqual(b"more", case.far.read(4))

    def test_half_close(self) -> None:
        """The end of one direction arrives behind its last byte, and the other goes on."""
        for case in self.cases():
            case.near.send(b"all that I know")
            case.near.socket.shutdown(1)
            self.assertEqual(b"header all that I know", case.far.read_end())
            case.far.send(flood_bytes(0, 200_000))
            self.assertEqual(flood_bytes(0, 200_000), case.near.read(200_000))
            self.assertEqual(0, case.overs)
            case.far.close()
            self.assertEqual(b"", case.near.read_end())
            case.sockets.until(lambda case=case: case.overs)  # type: ignore[misc]

    def test_reset(self) -> None:
        """A connection that breaks takes the other one with it, which still gets what was sent."""
        for case in self.cases():
            case.near.send(b"last words")
            self.assertEqual(b"header last words", case.far.read(17))
            case.near.reset()
            self.assertEqual(b"", case.far.read_end())
            if case.unix:  # there it is an end like any other
                case.far.close()
            case.sockets.until(lambda case=case: case.overs)  # type: ignore[misc]

    def test_reset_of_a_slow_reader(self) -> None:
        """A reader that breaks while bytes wait for it leaves nothing behind: its pipe is not lent
        to anybody."""
        for tiers in (((64 << 10, 4),), ()):
            case = self.joined(tiers=tiers)
            for _ in range(300):
                try:
                    case.near.socket.send(bytes(1 << 20))
                except BlockingIOError:
                    case.sockets.turns(1)
            case.far.reset()
            case.near.read_end()
            case.sockets.until(lambda case=case: case.overs)  # type: ignore[misc]
            free = [case.pool.take() for _ in range(case.pool.opened)]
            for pipe in free:
                assert pipe is not None
                self.assertRaises(BlockingIOError, os.read, pipe.reader, 1)
                case.pool.give(pipe)

    def test_gone_at_once(self) -> None:
        """A peer that has left before the relay began leaves nothing behind."""
        for case in self.cases():
            case.near.reset()
            case.far.read_end()
            if case.unix:
                case.far.close()
            case.sockets.until(lambda case=case: case.overs)  # type: ignore[misc]
            self.assertEqual((1, 0), (case.overs, case.traffic.pairs))

    def test_idle(self) -> None:
        """A relay on which nothing moves is cut, one on which anything does is not."""
        case = self.joined()
        case.far.read(7)
        for _ in range(3):
            case.far.send(b"ping")
            case.near.read(4)
            case.clock.advance(RELAY_IDLE_SECONDS)
        case.sockets.turns()
        self.assertEqual(0, case.overs)
        case.clock.advance(RELAY_IDLE_SECONDS)
        case.sockets.until(lambda: case.overs)
        for peer in (case.near, case.far):
            peer.read_end()
        self.assertEqual([], [call for call in case.clock.getDelayedCalls() if call.active()])

    def test_pipes_go_round(self) -> None:
        """A pipe is held only while bytes are in it: idle relays hold none."""
        case = self.joined()
        case.near.send(b"x" * 1000)
        case.far.read(1007)
        case.far.send(b"y" * 1000)
        case.near.read(1000)
        self.assertEqual(1, case.pool.opened)

    def test_allowance(self) -> None:
        """No more is moved than is granted, in either direction of its own."""
        up, down = Allowance(1000), Allowance(0)
        case = self.joined(up=up, down=down)
        case.near.send(flood_bytes(0, 200_000))
        case.far.send(b"answer")
        case.sockets.until(lambda: up.asked and down.asked)
        case.sockets.turns()
        self.assertEqual((1000, 0), (up.spent, down.spent))
        self.assertEqual(b"header " + flood_bytes(0, 1000), case.far.read(1007))
        up.grant(150_000)
        self.assertEqual(flood_bytes(1000, 150_000), case.far.read(150_000))
        case.sockets.until(lambda: up.asked)
        self.assertEqual(151_000, up.spent)
        down.grant(100)
        self.assertEqual(b"answer", case.near.read(6))
        up.grant(1_000_000)
        self.assertEqual(flood_bytes(151_000, 49_000), case.far.read(49_000))
        case.near.reset()
        case.far.read_end()
        self.assertEqual((True, True), (up.closed, down.closed))

    def test_abort(self) -> None:
        """Both connections are closed at once."""
        case = self.joined()
        case.far.read(7)
        case.pair.abort()
        for peer in (case.near, case.far):
            peer.read_end()
        case.sockets.until(lambda: case.overs)


class CanSpliceTests(SynchronousTestCase):
    """Where it works."""

    def test_sockets(self) -> None:
        """Two sockets of a reactor; not a memory transport, and not what has TLS on it."""
        sockets = Sockets()
        self.addCleanup(sockets.close)
        one, two = Recorder(), Recorder()
        sockets.join(one, two)
        self.assertTrue(can_splice(one.transport, two.transport))
        self.assertFalse(can_splice(one.transport, MemoryPair().left))
        one.transport.TLS = True
        self.assertFalse(can_splice(one.transport, two.transport))
        one.transport.TLS = False
